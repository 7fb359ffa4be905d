//! The progress of a transition, on standard error: a bar on a terminal, otherwise a line for each
//! change. A bar library would draw from a separate thread, which would be one more task for the
//! transition to wait for.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use livepatch_core::{
    crash::display::shown,
    transition::{Direction, age, doing},
};

/// Cells of the bar.
const WIDTH: usize = 24;
/// How often a line is printed without a change.
const SILENCE: Duration = Duration::from_secs(15);

pub(super) struct Progress {
    is_terminal: bool,
    is_drawn: bool,
    /// The last line and its time.
    said: Option<(Option<usize>, Duration)>,
}

impl Progress {
    pub(super) fn start() -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
            is_drawn: false,
            said: None,
        }
    }

    /// Shows how many tasks are pending, of how many.
    pub(super) fn show(
        &mut self,
        patch: &str,
        direction: Direction,
        waited: Duration,
        timeout: Duration,
        (pending, all): (Option<usize>, Option<usize>),
    ) {
        let text = line(patch, direction, waited, timeout, pending, all);
        if self.is_terminal {
            let bar = bar(pending, all);
            let _ = write!(io::stderr().lock(), "\r\x1b[K{bar}{text}");
            self.is_drawn = true;
            return;
        }
        let is_news = self.said.is_none_or(|(before, when)| {
            before != pending || waited.saturating_sub(when) >= SILENCE
        });
        if is_news {
            let _ = writeln!(io::stderr().lock(), "{text}");
            self.said = Some((pending, waited));
        }
    }

    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line(
    patch: &str,
    direction: Direction,
    waited: Duration,
    timeout: Duration,
    pending: Option<usize>,
    all: Option<usize>,
) -> String {
    let mut text = format!("{}: {}, ", shown(patch), doing(direction));
    let _ = match (pending, all) {
        (Some(pending), Some(all)) => {
            let done = all.saturating_sub(pending);
            write!(text, "{done} of {all} tasks done, {pending} pending")
        }
        (Some(1), None) => write!(text, "1 task pending"),
        (Some(pending), None) => write!(text, "{pending} tasks pending"),
        (None, _) => write!(text, "an unknown number of tasks pending"),
    };
    let _ = write!(
        text,
        ", {} of {}",
        age(waited.min(timeout)),
        humantime::format_duration(timeout)
    );
    text
}

fn bar(pending: Option<usize>, all: Option<usize>) -> String {
    let Some((pending, all)) = pending.zip(all).filter(|(_, all)| *all > 0) else {
        return String::new();
    };
    let done = all.saturating_sub(pending);
    // A bar is full only when nothing is pending.
    let cells = match pending {
        0 => WIDTH,
        _ => (done * WIDTH / all).min(WIDTH - 1),
    };
    format!("[{}{}] ", "#".repeat(cells), "-".repeat(WIDTH - cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        assert_eq!(bar(Some(0), Some(200)), format!("[{}] ", "#".repeat(24)));
        assert_eq!(
            bar(Some(1), Some(10_000)),
            format!("[{}-] ", "#".repeat(23))
        );
        assert_eq!(bar(Some(200), Some(200)), format!("[{}] ", "-".repeat(24)));
        // More are pending than the load average counts, because tasks start and exit.
        assert_eq!(bar(Some(300), Some(200)), format!("[{}] ", "-".repeat(24)));
        assert_eq!(bar(None, Some(200)), "");
        assert_eq!(bar(Some(0), Some(0)), "");
    }

    #[test]
    fn what_is_unknown_is_said() {
        let line = |pending, all| {
            let (waited, timeout) = (Duration::from_millis(3900), Duration::from_secs(60));
            line("fix", Direction::Patch, waited, timeout, pending, all)
        };
        assert_eq!(
            line(Some(2), Some(95)),
            "fix: patching, 93 of 95 tasks done, 2 pending, 3s of 1m"
        );
        assert_eq!(
            line(Some(2), None),
            "fix: patching, 2 tasks pending, 3s of 1m"
        );
        assert_eq!(
            line(None, Some(95)),
            "fix: patching, an unknown number of tasks pending, 3s of 1m"
        );
    }
}
