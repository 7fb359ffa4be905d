//! What livepatch says in the kernel's log (/dev/kmsg).
//!
//! It is read for what happened before this program ran: when the transition that
//! is found running began. The texts are those of kernel/livepatch/{core,transition,
//! patch}.c, the same from 6.1 to 7.2. The log is a ring: old records go.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::livepatch::Direction;

#[cfg(test)]
mod tests;

/// A record with its dictionary is at most 8192 bytes (`CONSOLE_EXT_LOG_MAX`,
/// `PRINTK_MESSAGE_MAX` since 6.4); the kernel refuses buffers that are too small.
const MAX_RECORD: usize = 16 << 10;

/// Reads of one pass: more than the largest ring (32 MiB) holds records, so that a
/// log that grows as fast as it is read still ends.
const MAX_READS: usize = 1 << 20;

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KmsgError {
    /// The device could not be opened.
    #[error(
        "cannot open the kernel's log {}: {source}; with kernel.dmesg_restrict=1 this needs CAP_SYSLOG",
        path.display()
    )]
    Open {
        /// The device.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The device could not be read.
    #[error("cannot read the kernel's log {}: {source}", path.display())]
    Read {
        /// The device.
        path: PathBuf,
        /// The system's reason.
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
    /// Number of the record since boot.
    pub sequence: u64,
    /// When it was written, by the kernel's `local_clock`: since boot like
    /// `CLOCK_BOOTTIME`, but it stands still in suspend, is not disciplined by NTP
    /// and so may drift from it by seconds over weeks. Good for "about when", not
    /// for a difference to a time of another clock.
    pub time: Duration,
    /// The text, without escapes; bytes that are not UTF-8 replaced.
    pub text: String,
}

impl Record {
    /// Takes a record apart as one `read` of the device yields it; none when it is
    /// malformed. The dictionary (lines ` KEY=value`) is left out.
    #[must_use]
    pub fn parse(record: &[u8]) -> Option<Self> {
        let prefix_len = record.iter().position(|byte| *byte == b';')?;
        let prefix = std::str::from_utf8(record.get(..prefix_len)?).ok()?;
        let text = record
            .get(prefix_len + 1..)?
            .split(|byte| *byte == b'\n')
            .next()?;
        // Later kernels may add fields behind the flags (`caller=T1` is one).
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

    /// The message of livepatch that this record is, if it is one of the kernel's.
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

/// The kernel writes what is not printable ASCII, and backslashes, as `\xHH`.
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

/// Something that livepatch says. Names are the kernel's, of modules, objects and
/// functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LivepatchMessage {
    /// A patch is about to be enabled.
    Enabling {
        /// The patch.
        patch: String,
    },
    /// A transition starts; also after a reversal, in the new direction.
    Starting {
        /// The patch.
        patch: String,
        /// Where to.
        direction: Direction,
    },
    /// Remaining tasks are sent a fake signal; printed at the 15th attempt only.
    Signaling,
    /// An operator forces the rest; printed in both directions.
    Forcing,
    /// A transition is complete; `Unpatch` also ends a cancelled start.
    Complete {
        /// The patch.
        patch: String,
        /// Where to.
        direction: Direction,
    },
    /// Debug: a transition turns round. `direction` is the old one.
    Reversing {
        /// The patch.
        patch: String,
        /// The direction given up.
        direction: Direction,
    },
    /// Debug: enabling failed before any task was asked.
    Canceling {
        /// The patch.
        patch: String,
    },
    /// A patch could not be enabled.
    FailedToEnable {
        /// The patch.
        patch: String,
    },
    /// A target module is being loaded and gets patched.
    ApplyingToModule {
        /// The patch.
        patch: String,
        /// The target.
        module: String,
    },
    /// A target module is being unloaded.
    RevertingOnModule {
        /// The patch.
        patch: String,
        /// The target.
        module: String,
    },
    /// A target module could not be patched, so it is not loaded.
    RefusingModule {
        /// The patch.
        patch: String,
        /// The target.
        module: String,
    },
    /// A patch's own callback refused.
    PreCallbackFailed {
        /// The object it was called for.
        object: String,
    },
    /// An object could not be patched.
    FailedToPatchObject {
        /// The object.
        object: String,
    },
    /// Not cumulative over what is loaded.
    NotCompatible {
        /// The patch.
        patch: String,
    },
    /// ftrace refused a function, for instance because another tracer has it.
    FtraceRefused {
        /// The function.
        function: String,
        /// The negative error number.
        error: i32,
    },
    /// The module loader meets a livepatch.
    Tainting {
        /// The module.
        module: String,
    },
}

impl LivepatchMessage {
    /// Recognises the text of a record. Names are taken as they stand between the
    /// fixed parts, with quotes if they have any.
    #[must_use]
    pub fn recognise(text: &str) -> Option<Self> {
        if let Some(module) = text.strip_suffix(": tainting kernel with TAINT_LIVEPATCH") {
            return Some(Self::Tainting {
                module: module.to_owned(),
            });
        }
        let text = text.strip_prefix("livepatch: ")?;
        match text {
            "signaling remaining tasks" => return Some(Self::Signaling),
            "forcing remaining tasks to the patched state" => return Some(Self::Forcing),
            _ => {}
        }
        about_transition(text)
            .or_else(|| about_module(text))
            .or_else(|| about_failure(text))
    }
}

fn between(text: &str, start: &str, end: &str) -> Option<String> {
    Some(text.strip_prefix(start)?.strip_suffix(end)?.to_owned())
}

/// `'PATCH': …`, and the announcement before it.
fn about_transition(text: &str) -> Option<LivepatchMessage> {
    use Direction::{Patch, Unpatch};
    use LivepatchMessage as Message;
    let patch = |end: &str| between(text, "'", end);
    for (direction, name) in [(Unpatch, "unpatching"), (Patch, "patching")] {
        if let Some(patch) = patch(&format!("': starting {name} transition")) {
            return Some(Message::Starting { patch, direction });
        }
        if let Some(patch) = patch(&format!("': {name} complete")) {
            return Some(Message::Complete { patch, direction });
        }
    }
    if let Some(patch) = patch("': reversing transition from patching to unpatching") {
        return Some(Message::Reversing {
            patch,
            direction: Patch,
        });
    }
    if let Some(patch) = patch("': reversing transition from unpatching to patching") {
        return Some(Message::Reversing {
            patch,
            direction: Unpatch,
        });
    }
    if let Some(patch) = patch("': canceling patching transition, going to unpatch") {
        return Some(Message::Canceling { patch });
    }
    between(text, "enabling patch '", "'").map(|patch| Message::Enabling { patch })
}

/// Messages that name a patch and a target module.
fn about_module(text: &str) -> Option<LivepatchMessage> {
    use LivepatchMessage as Message;
    let names = |start, middle: &str, end| {
        let names = between(text, start, end)?;
        names
            .split_once(middle)
            .map(|(patch, module)| (patch.to_owned(), module.to_owned()))
    };
    if let Some((patch, module)) = names("applying patch '", "' to loading module '", "'") {
        return Some(Message::ApplyingToModule { patch, module });
    }
    if let Some((patch, module)) = names("reverting patch '", "' on unloading module '", "'") {
        return Some(Message::RevertingOnModule { patch, module });
    }
    let refusing = between(text, "patch '", "'")?;
    let (patch, rest) = refusing.split_once("' failed for module '")?;
    let (module, again) = rest.split_once("', refusing to load module '")?;
    (module == again).then(|| Message::RefusingModule {
        patch: patch.to_owned(),
        module: module.to_owned(),
    })
}

fn about_failure(text: &str) -> Option<LivepatchMessage> {
    use LivepatchMessage as Message;
    const NOT_COMPATIBLE: &str = ") is not compatible with the already installed livepatches.";
    if let Some(patch) = between(text, "failed to enable patch '", "'") {
        return Some(Message::FailedToEnable { patch });
    }
    if let Some(object) = between(text, "pre-patch callback failed for object '", "'") {
        return Some(Message::PreCallbackFailed { object });
    }
    if let Some(object) = between(text, "failed to patch object '", "'") {
        return Some(Message::FailedToPatchObject { object });
    }
    if let Some(patch) = between(text, "Livepatch patch (", NOT_COMPATIBLE) {
        return Some(Message::NotCompatible { patch });
    }
    let refused = between(
        text,
        "failed to register ftrace handler for function '",
        ")",
    )?;
    let (function, error) = refused.rsplit_once("' (")?;
    Some(Message::FtraceRefused {
        function: function.to_owned(),
        error: error.parse().ok()?,
    })
}

/// When the transition of this patch in this direction that has not ended yet
/// began, by the log: the time of the last matching "starting" message behind
/// which neither an end nor another start of the same patch follows. None where
/// the log does not tell (any more). For the clock see [`Record::time`].
///
/// # Errors
/// [`KmsgError`]
pub fn transition_start(
    device: &Path,
    patch: &str,
    direction: Direction,
) -> Result<Option<Duration>, KmsgError> {
    let mut options = OpenOptions::new();
    let flags = OFlags::NONBLOCK.union(OFlags::CLOEXEC).bits();
    options.read(true).custom_flags(flags.cast_signed());
    let open = |source| KmsgError::Open {
        path: device.to_owned(),
        source,
    };
    let mut log = options.open(device).map_err(open)?;
    start_in(|buffer| log.read(buffer), patch, direction).map_err(|source| KmsgError::Read {
        path: device.to_owned(),
        source,
    })
}

/// [`transition_start`] of what `read` yields.
fn start_in(
    read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    patch: &str,
    direction: Direction,
) -> io::Result<Option<Duration>> {
    use LivepatchMessage as Message;
    let mut start = None;
    for_each_record(read, |record| match record.livepatch() {
        Some(Message::Starting {
            patch: of,
            direction: to,
        }) if of == patch => {
            start = (to == direction).then_some(record.time);
        }
        Some(
            Message::Complete { patch: of, .. }
            | Message::Enabling { patch: of }
            | Message::FailedToEnable { patch: of },
        ) if of == patch => start = None,
        _ => {}
    })?;
    Ok(start)
}

/// Reads records until there are no more now. Each read of the device yields one.
fn for_each_record(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    mut visit: impl FnMut(Record),
) -> io::Result<()> {
    let mut buffer = vec![0; MAX_RECORD];
    for _ in 0..MAX_READS {
        match read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                if let Some(record) = buffer.get(..len).and_then(Record::parse) {
                    visit(record);
                }
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => return Ok(()),
                // The next record was overwritten; the device goes on at the oldest.
                Some(Errno::PIPE | Errno::INTR) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(())
}
