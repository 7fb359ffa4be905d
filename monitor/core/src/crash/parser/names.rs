//! Names that users choose, in the kernel's lines: a file's may hold newlines, and what
//! stands behind one becomes a line of its own, of the same moment.

use super::{headline::of_a_user_program, line::Line};

/// `NAME_MAX` is 255, the shortest line that starts a report has 9 bytes.
const MAX_NAME_LINES: u32 = 28;

/// A line about a user program.
#[derive(Debug)]
struct UserLine {
    uptime: Option<f64>,
    /// How many lines its names may still take.
    lines: u32,
}

#[derive(Debug, Default)]
pub(super) struct Names {
    /// The last line was about a user program, or part of one.
    user_line: Option<UserLine>,
    /// A line that is not part of a name had a time.
    timed: bool,
}

impl Names {
    /// Whether a line is part of a name in a line about a user program. Where there are
    /// no times, such a line ends where the kernel's own text ends it.
    pub(super) fn holds(&mut self, line: &Line) -> bool {
        let text = line.text.as_str();
        let ends = is_kernels_end(text);
        if of_a_user_program(text) {
            let open =
                text.contains(" in ") || text.ends_with(" in") || text.starts_with("process '");
            let ends = ends || !open;
            self.user_line = Some(UserLine {
                uptime: line.uptime,
                lines: if ends { 0 } else { MAX_NAME_LINES },
            });
            return false;
        }
        let Some(user) = &mut self.user_line else {
            self.timed |= line.uptime.is_some();
            return false;
        };
        let part = match user.uptime {
            Some(_) => user.uptime == line.uptime,
            // Where no line has a time, one that seems to have is part of the name.
            None => (line.uptime.is_none() || !self.timed) && user.lines > 0,
        };
        user.lines = if ends {
            0
        } else {
            user.lines.saturating_sub(1)
        };
        if !part {
            self.user_line = None;
            self.timed |= line.uptime.is_some();
        }
        part
    }
}

/// How the kernel ends a line about a user program: ` in FILE[401000+1000]` (also with
/// an offset before), ` likely on CPU 1 (core 1, socket 0)`.
fn is_kernels_end(text: &str) -> bool {
    let hexadecimal =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let range = text
        .strip_suffix(']')
        .and_then(|text| text.rsplit_once('['))
        .and_then(|(_, range)| range.rsplit_once('+'));
    range.is_some_and(|(start, length)| start.split(',').all(hexadecimal) && hexadecimal(length))
        || text.ends_with(')') && text.contains("likely on CPU ")
        || text.ends_with("executable stack")
}
