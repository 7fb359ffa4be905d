//! Finds lines with kernel text after an unknown prefix, although a time or a level before it shows
//! that they are the kernel's. If different kernel texts follow one prefix pattern, that prefix is
//! not part of a kernel message but unknown.

use std::collections::HashMap;

use super::{
    super::headline::{of_a_user_program, recognise},
    marks::{MARKS, mark},
    profile::Shape,
    stamp::{bracket, stamp},
};

/// Most prefix patterns that are remembered.
const MAX_FORMS: usize = 64;

/// Whether several lines were joined into one, as mail programs and forwarding log daemons do: it
/// contains a timestamp followed by kernel text.
pub(super) fn holds_another(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = stamp(rest) {
        let Some((_, behind)) = rest.get(at..).and_then(bracket) else {
            return false;
        };
        let words = behind.trim_start();
        if mark(words) == Some(0) || recognise(words).is_some() {
            return !of_a_user_program(text);
        }
        rest = behind;
    }
    false
}

#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// For each pattern the kernel texts that were seen, one bit each, and the first line.
    forms: HashMap<Shape, (u32, String)>,
}

impl Hidden {
    pub(super) fn add(&mut self, text: &str) {
        let text = text.trim_start();
        let Some(at) = mark(text).filter(|at| *at > 0) else {
            return;
        };
        let Some((before, behind)) = text.split_at_checked(at) else {
            return;
        };
        // A program's name is followed by that program's text.
        if before.contains("]: ") || of_a_user_program(text) {
            return;
        }
        let Some(form) = Shape::of(before) else {
            return;
        };
        if self.forms.len() == MAX_FORMS && !self.forms.contains_key(&form) {
            return;
        }
        let word = MARKS.iter().position(|mark| behind.starts_with(mark));
        let entry = self
            .forms
            .entry(form)
            .or_insert_with(|| (0, text.chars().take(160).collect()));
        entry.0 |= 1 << word.unwrap_or(0);
    }

    /// A line whose prefix pattern is followed by different kernel texts.
    pub(super) fn sample(&self) -> Option<String> {
        let (_, line) = self
            .forms
            .values()
            .filter(|(words, _)| words.count_ones() > 1)
            .max_by_key(|(words, _)| words.count_ones())?;
        Some(line.clone())
    }
}
