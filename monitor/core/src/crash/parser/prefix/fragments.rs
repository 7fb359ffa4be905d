//! Reassembles texts that an extended netconsole sent in fragments (`ncfrag=OFFSET/LENGTH`,
//! Documentation/networking/netconsole.rst).

use std::collections::VecDeque;

use super::super::line::Line;

/// Most incomplete texts that are kept. The fragments of one text arrive in order, interleaved only
/// with other hosts' fragments.
const MAX_OPEN: usize = 64;
/// Most bytes of a text; a record of the kernel has at most about 1024.
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
    /// Adds a fragment; returns the line once it is complete.
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
            // Spaces at the end of a fragment are part of the text.
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

    /// Incomplete texts.
    pub(super) fn rest(&mut self) -> Vec<Line> {
        self.open.drain(..).map(|open| open.line).collect()
    }
}
