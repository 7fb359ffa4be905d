//! Lines that hold the kernel's words, but not at their start, though a time or a level
//! before shows that they are its own. Where different words stand behind the same form of
//! beginning, that is not a message of the kernel but something unknown.

use std::collections::HashMap;

use super::{
    super::headline::{of_a_user_program, recognise},
    marks::{MARKS, mark},
    profile::Shape,
    stamp::{bracket, stamp},
};

/// Forms that are remembered.
const MAX_FORMS: usize = 64;

/// Whether several lines were made one, as mail programs and forwarding log daemons do:
/// a time stands inside, and the kernel's words behind it.
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
    /// The words that were seen, by bit, and the first line.
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
        // Behind a program's name stands what it says.
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

    /// A line of a form behind which different words stand.
    pub(super) fn sample(&self) -> Option<String> {
        let (_, line) = self
            .forms
            .values()
            .filter(|(words, _)| words.count_ones() > 1)
            .max_by_key(|(words, _)| words.count_ones())?;
        Some(line.clone())
    }
}
