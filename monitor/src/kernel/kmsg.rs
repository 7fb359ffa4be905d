//! Reads the kernel log (/dev/kmsg), and livepatch's messages in it.
//!
//! Livepatch's messages show when a transition started that was already running at startup. The
//! texts are those of kernel/livepatch/{core,transition,patch}.c, the same from 5.10 to 7.2. The
//! log is a ring buffer: old records are overwritten.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::bounded_read;
use livepatch_core::{message::LivepatchMessage, transition::Direction};

#[cfg(test)]
mod tests;

/// Size of the buffer. A record with its dictionary has at most 8192 bytes (`CONSOLE_EXT_LOG_MAX`,
/// `PRINTK_MESSAGE_MAX` since 6.4); the kernel refuses buffers that are too small.
const MAX_RECORD: usize = 16 << 10;

/// Most reads in one pass: more than the largest ring buffer (32 MiB) has records, so that the pass
/// ends even if the log grows as fast as it is read.
const MAX_READS: usize = 1 << 20;

/// How many records are read between two looks at whether there are new ones.
const LOOK_EVERY: usize = 256;

/// Most bytes in one pass: several times the largest ring buffer, for files that are not a log.
const MAX_BYTES: usize = 256 << 20;

/// Whether the console shows lines of level error (3) and more severe ones: it shows levels below
/// the first number in /proc/sys/kernel/printk (Documentation/admin-guide/sysctl/kernel.rst). False
/// if that cannot be read.
#[must_use]
pub fn console_shows_errors(procfs: &Path) -> bool {
    const ERROR: u32 = 3;
    let path = procfs.join("sys/kernel/printk");
    let text = bounded_read::read_text(&path, bounded_read::VALUE).unwrap_or_default();
    let level = text.split_whitespace().next();
    level
        .and_then(|level| level.parse::<u32>().ok())
        .is_some_and(|level| level > ERROR)
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KmsgError {
    /// The device could not be opened.
    #[error(
        "cannot open the kernel log {}: {source}; with kernel.dmesg_restrict=1 this needs CAP_SYSLOG (see --path.kmsg)",
        path.display()
    )]
    Open {
        /// The device of the kernel log.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// The device could not be read.
    #[error(
        "cannot read the kernel log {}: {source}; check that it is the log device (see --path.kmsg)",
        path.display()
    )]
    Read {
        /// The device of the kernel log.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
}

/// A record of the log (`LEVEL|FACILITY<<3,SEQUENCE,MICROSECONDS,FLAGS[,…];TEXT`,
/// Documentation/ABI/testing/dev-kmsg).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Severity, 0 (emergency) to 7 (debug).
    pub level: u8,
    /// 0 for the kernel's own records; user space cannot write that one.
    pub facility: u32,
    /// Number of the record, counted from boot.
    pub sequence: u64,
    /// When it was written, by the kernel's `local_clock`: time since boot, but unlike
    /// `CLOCK_BOOTTIME` it stops during suspend and is not adjusted by NTP, so it may drift by
    /// seconds over weeks. Do not subtract it from a time of another clock.
    pub time: Duration,
    /// The text, with escapes decoded and invalid UTF-8 replaced.
    pub text: String,
}

impl Record {
    /// Parses a record as one `read` of the device returns it; `None` if it is malformed. The
    /// dictionary (lines ` KEY=value`) is left out.
    #[must_use]
    pub fn parse(record: &[u8]) -> Option<Self> {
        let prefix_len = record.iter().position(|byte| *byte == b';')?;
        let prefix = std::str::from_utf8(record.get(..prefix_len)?).ok()?;
        let text = record
            .get(prefix_len + 1..)?
            .split(|byte| *byte == b'\n')
            .next()?;
        // Later kernels may add fields behind the flags, such as `caller=T1`.
        let mut fields = prefix.split(',');
        let priority: u32 = decimal(fields.next()?)?;
        let sequence = decimal(fields.next()?)?;
        let time = Duration::from_micros(decimal(fields.next()?)?);
        fields.next()?;
        let level = u8::try_from(priority & 7).ok()?;
        let text = String::from_utf8_lossy(&unescape(text)).into_owned();
        Some(Self {
            level,
            facility: priority >> 3,
            sequence,
            time,
            text,
        })
    }

    /// The record in the form in which the device has it, in one line: a newline in a name stays
    /// inside its record.
    #[must_use]
    pub fn to_line(&self) -> String {
        let priority = self.facility << 3 | u32::from(self.level);
        let (sequence, micros) = (self.sequence, self.time.as_micros());
        let mut line = format!("{priority},{sequence},{micros},-;");
        for byte in self.text.bytes() {
            match byte {
                b'\\' | 0..=31 | 127.. => {
                    // Writing to a string cannot fail.
                    let _ = write!(line, "\\x{byte:02x}");
                }
                _ => line.push(char::from(byte)),
            }
        }
        line.push('\n');
        line
    }

    /// The livepatch message in this record, if the kernel wrote it.
    #[must_use]
    pub fn livepatch(&self) -> Option<LivepatchMessage> {
        if self.facility == 0 {
            LivepatchMessage::recognise(&self.text)
        } else {
            None
        }
    }
}

fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// Decodes `\xHH`, which the kernel writes for backslashes and everything that is not printable
/// ASCII.
fn unescape(text: &[u8]) -> Vec<u8> {
    let hex = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        let escaped = match rest {
            [b'\\', b'x', high, low, behind @ ..] => hex(*high)
                .zip(hex(*low))
                .map(|(high, low)| (high << 4 | low, behind)),
            _ => None,
        };
        let (byte, behind) = escaped.unwrap_or((*first, behind));
        plain.push(byte);
        rest = behind;
    }
    plain
}

/// When the running transition of this patch in this direction started, according to the log: the
/// time of the last matching "starting" message that is followed by neither an end nor another
/// start of the same patch. `None` if the log does not show it (any more). For the clock see
/// [`Record::time`].
///
/// # Errors
/// [`KmsgError`]
pub fn transition_start(
    log: &mut KmsgReader,
    patch: &str,
    direction: Direction,
) -> Result<Option<Duration>, KmsgError> {
    let mut course = Course::new(patch, direction);
    log.read_all(|record| course.take(record))?;
    Ok(course.start)
}

/// What the log says about the transitions of one patch.
struct Course<'a> {
    patch: &'a str,
    direction: Direction,
    start: Option<Duration>,
}

impl<'a> Course<'a> {
    const fn new(patch: &'a str, direction: Direction) -> Self {
        Self {
            patch,
            direction,
            start: None,
        }
    }

    fn take(&mut self, record: &Record) {
        use LivepatchMessage as Message;
        match record.livepatch() {
            Some(Message::Starting { patch, direction }) if patch == self.patch => {
                self.start = (direction == self.direction).then_some(record.time);
            }
            Some(
                Message::Complete { patch, .. }
                | Message::Enabling { patch }
                | Message::FailedToEnable { patch },
            ) if patch == self.patch => self.start = None,
            _ => {}
        }
    }
}

/// Reads the log, starting at its oldest record.
#[derive(Debug)]
pub struct KmsgReader {
    device: PathBuf,
    log: File,
    /// A second position in the log: what is behind it was written during a pass.
    end: File,
}

impl KmsgReader {
    /// Opens the device without blocking reads.
    ///
    /// # Errors
    /// [`KmsgError::Open`]
    pub fn open(device: &Path) -> Result<Self, KmsgError> {
        let open = |source| KmsgError::Open {
            path: device.to_owned(),
            source,
        };
        Ok(Self {
            device: device.to_owned(),
            log: bounded_read::open_unwaiting(device).map_err(open)?,
            end: bounded_read::open_unwaiting(device).map_err(open)?,
        })
    }

    /// Calls `visit` for all records that the log has when this is called, except those that are
    /// overwritten before they are read. Of the records that are written meanwhile, fewer than
    /// 256 are visited: in a storm of messages the pass would not end otherwise. The kernel checks
    /// permissions only when the device is opened, so this works even if opening it again would not.
    ///
    /// # Errors
    /// [`KmsgError::Read`]
    pub fn read_all(&mut self, visit: impl FnMut(&Record)) -> Result<(), KmsgError> {
        let Self { device, log, end } = self;
        let rewound = log.rewind().and_then(|()| end.seek(SeekFrom::End(0)));
        let read = rewound.and_then(|_| {
            for_each_record_before(
                |buffer| log.read(buffer),
                || first_sequence(|buffer| end.read(buffer)),
                visit,
            )
        });
        read.map_err(|source| KmsgError::Read {
            path: device.clone(),
            source,
        })
    }

    /// Skips what the log has now: [`Self::read_new`] continues behind it. That takes one read,
    /// which shows whether the log can be read at all, whatever its length.
    ///
    /// # Errors
    /// [`KmsgError::Read`]
    pub fn skip(&mut self) -> Result<(), KmsgError> {
        let read = for_each_record(|buffer| self.log.read(buffer), |_| ControlFlow::Break(()));
        let skipped = read.and_then(|()| self.log.seek(SeekFrom::End(0)));
        skipped.map(drop).map_err(|source| KmsgError::Read {
            path: self.device.clone(),
            source,
        })
    }

    /// Calls `visit` for the records since the last call.
    ///
    /// # Errors
    /// [`KmsgError::Read`]
    pub fn read_new(&mut self, visit: impl FnMut(&Record)) -> Result<(), KmsgError> {
        let mut visit = visit;
        let visit = |record: &Record| {
            visit(record);
            ControlFlow::Continue(())
        };
        for_each_record(|buffer| self.log.read(buffer), visit).map_err(|source| KmsgError::Read {
            path: self.device.clone(),
            source,
        })
    }
}

impl AsRawFd for KmsgReader {
    fn as_raw_fd(&self) -> RawFd {
        self.log.as_raw_fd()
    }
}

/// Reads records until one is reached that `first_new` names, the first that was written during the
/// pass.
fn for_each_record_before(
    read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    mut first_new: impl FnMut() -> Option<u64>,
    mut visit: impl FnMut(&Record),
) -> io::Result<()> {
    let mut end = None;
    let mut until_look = 0_usize;
    for_each_record(read, |record| {
        if end.is_none() && until_look == 0 {
            end = first_new();
            until_look = LOOK_EVERY;
        }
        until_look = until_look.saturating_sub(1);
        if end.is_some_and(|end| record.sequence >= end) {
            return ControlFlow::Break(());
        }
        visit(record);
        ControlFlow::Continue(())
    })
}

/// The number of the next record, if there is one.
fn first_sequence(read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> Option<u64> {
    let mut sequence = None;
    let read = for_each_record(read, |record| {
        sequence = Some(record.sequence);
        ControlFlow::Break(())
    });
    read.ok().and(sequence)
}

/// Reads records until there are no more, or until `visit` has enough. Each read of the device
/// returns one.
fn for_each_record(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    mut visit: impl FnMut(&Record) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; MAX_RECORD];
    let mut bytes = 0;
    for _ in 0..MAX_READS {
        match read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) if bytes > MAX_BYTES => return Ok(()),
            Ok(len) => {
                bytes += len;
                if let Some(record) = buffer.get(..len).and_then(Record::parse)
                    && visit(&record).is_break()
                {
                    return Ok(());
                }
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => return Ok(()),
                // The next record was overwritten; the device continues with the oldest one.
                Some(Errno::PIPE | Errno::INTR) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(())
}
