//! Writes log lines to standard error without blocking on a slow reader for long.

use std::{
    io::{self, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, retry_on_intr, write},
};

/// A pipe that polls as writable accepts this much without blocking (pipe(7), PIPE_BUF).
const PIECE: usize = 4096;

/// How long a line waits for a slow reader. After that no line waits until the reader has read
/// again.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

static LOST: AtomicU64 = AtomicU64::new(0);
static OUTPUT: Mutex<Output> = Mutex::new(Output::new());

/// How many log lines could not be written since the start.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// The lines that could not be written and were not yet reported; taken once a line has
/// been written after them.
pub(super) fn take_losses() -> Option<Losses> {
    let mut output = OUTPUT.lock().unwrap_or_else(PoisonError::into_inner);
    match output.failing {
        None => output.losses.take(),
        Some(_) => None,
    }
}

/// Lines that could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Losses {
    pub(super) lines: u64,
    /// Why the last of them could not be written.
    pub(super) reason: String,
}

/// Takes one line from the subscriber. It never fails, because the subscriber could not handle an
/// error.
#[derive(Debug)]
pub(super) struct Lines;

impl Lines {
    pub(super) const fn new() -> Self {
        Self
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut output = OUTPUT.lock().unwrap_or_else(PoisonError::into_inner);
        output.line(line, put);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Output {
    /// The last line could not be written, and why.
    failing: Option<Errno>,
    /// Whether part of a line was written, so that the next one must begin with a line break.
    torn: bool,
    losses: Option<Losses>,
}

impl Output {
    const fn new() -> Self {
        Self {
            failing: None,
            torn: false,
            losses: None,
        }
    }

    /// Writes a line with `put`, which writes a piece, or counts it as lost.
    fn line(&mut self, line: &[u8], put: impl Fn(&[u8], Timespec) -> Result<usize, Errno>) {
        let patience = match self.failing {
            None => PATIENCE,
            Some(_) => Timespec::default(),
        };
        let line_break: &[u8] = if self.torn { b"\n" } else { b"" };
        let mut rest = [line_break, line].concat();
        let mut written = 0;
        while !rest.is_empty() {
            let piece = rest.get(..PIECE).unwrap_or(&rest);
            match put(piece, patience) {
                Ok(count @ 1..) => {
                    written += count;
                    rest.drain(..count.min(rest.len()));
                }
                Ok(0) => return self.lose(written, Errno::IO),
                Err(error) => return self.lose(written, error),
            }
        }
        self.torn = false;
        self.failing = None;
    }

    fn lose(&mut self, written: usize, error: Errno) {
        self.torn |= written > 0;
        self.failing = Some(error);
        LOST.fetch_add(1, Ordering::Relaxed);
        let reason = match error {
            Errno::AGAIN => "the program that reads it does not keep up".to_owned(),
            error => io::Error::from(error).to_string(),
        };
        let lines = self.losses.take().map_or(0, |losses| losses.lines) + 1;
        self.losses = Some(Losses { lines, reason });
    }
}

/// Writes a piece to standard error, if it can be written within `patience`.
fn put(piece: &[u8], patience: Timespec) -> Result<usize, Errno> {
    let stderr = io::stderr();
    let mut descriptors = [PollFd::new(&stderr, PollFlags::OUT)];
    match retry_on_intr(|| poll(&mut descriptors, Some(&patience)))? {
        0 => Err(Errno::AGAIN),
        _ => retry_on_intr(|| write(&stderr, piece)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn lost_lines_are_counted_until_one_is_written() {
        let mut output = Output::new();
        let before = lost();
        for _ in 0..3 {
            output.line(b"gone\n", |_, _| Err(Errno::NOSPC));
        }
        assert!(lost() >= before + 3);
        output.line(b"here\n", |piece, _| Ok(piece.len()));
        let losses = output.losses.take().unwrap();
        assert_eq!(losses.lines, 3);
        assert!(losses.reason.contains("No space"), "{losses:?}");
        assert_eq!(output.failing, None);
    }

    #[test]
    fn a_torn_line_ends_before_the_next_begins() {
        let written = RefCell::new(Vec::new());
        let mut output = Output::new();
        let most = |limit: usize| {
            let written = &written;
            move |piece: &[u8], _| {
                let mut written = written.borrow_mut();
                let room = limit.saturating_sub(written.len()).min(piece.len());
                written.extend_from_slice(&piece[..room]);
                if room == 0 {
                    Err(Errno::FBIG)
                } else {
                    Ok(room)
                }
            }
        };
        output.line(b"whole\n", most(8));
        output.line(b"torn\n", most(8));
        output.line(b"next\n", most(100));
        assert_eq!(*written.borrow(), b"whole\nto\nnext\n");
    }

    #[test]
    fn a_reader_that_does_not_read_is_waited_for_once() {
        let waits = RefCell::new(Vec::new());
        let mut output = Output::new();
        for _ in 0..3 {
            output.line(b"x\n", |_, patience| {
                waits.borrow_mut().push(patience);
                Err(Errno::AGAIN)
            });
        }
        let none = Timespec::default();
        assert_eq!(*waits.borrow(), [PATIENCE, none, none]);
    }
}
