//! A text that an extended netconsole sent in pieces (`ncfrag=OFFSET/LENGTH`,
//! Documentation/networking/netconsole.rst), put together.

use std::collections::VecDeque;

use super::super::line::Line;

/// Texts whose pieces are waited for; those of one come one after the other, but for
/// other hosts' in between.
const MAX_OPEN: usize = 64;
/// Bytes of a text; a record of the kernel has at most about 1024.
const MAX_TEXT: usize = 8192;

#[derive(Debug, Default)]
pub(super) struct Fragments {
    open: VecDeque<Open>,
}

#[derive(Debug)]
struct Open {
    sequence: u64,
    length: usize,
    line: Line,
}

impl Fragments {
    /// Takes in a piece; gives out the line that it makes complete.
    pub(super) fn add(
        &mut self,
        line: Line,
        sequence: u64,
        offset: usize,
        length: usize,
    ) -> Option<Line> {
        let same = |open: &Open| open.sequence == sequence && open.line.host == line.host;
        if offset > 0
            && let Some(at) = self.open.iter().position(same)
        {
            let open = self.open.get_mut(at)?;
            // Blanks at the end of a piece are part of the text.
            while open.line.text.len() < offset.min(MAX_TEXT) {
                open.line.text.push(' ');
            }
            if open.line.text.len() < MAX_TEXT {
                open.line.text.push_str(&line.text);
            }
            if open.line.text.len() >= open.length {
                return self.open.remove(at).map(|open| open.line);
            }
            return None;
        }
        if line.text.len() >= length {
            return Some(line);
        }
        self.open.push_back(Open {
            sequence,
            length,
            line,
        });
        if self.open.len() > MAX_OPEN {
            return self.open.pop_front().map(|open| open.line);
        }
        None
    }

    /// What was never complete.
    pub(super) fn rest(&mut self) -> Vec<Line> {
        self.open.drain(..).map(|open| open.line).collect()
    }
}
