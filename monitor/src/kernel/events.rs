//! Decodes the records of the ring buffer.

use livepatch_monitor_ebpf::{CrashEvent, Event, EventKind};

use livepatch_core::transition::{BootTime, Direction, KlpEvent};

/// Why a record is not an event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The record has another size.
    #[error(
        "a record of the ring buffer has {found} bytes instead of {expected}: the BPF programs are from another build"
    )]
    Size {
        /// Bytes of the record that was found.
        found: usize,
        /// Bytes of an [`Event`].
        expected: usize,
    },
    /// The kind is unknown.
    #[error(
        "a record of the ring buffer has the unknown kind {0}: the BPF programs are from another build"
    )]
    Kind(u32),
}

/// The content of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// A step of a patch's life.
    Livepatch(KlpEvent),
    /// A crash signal of the kernel.
    Crash(CrashHook),
}

/// A crash signal: the kernel starts to report a problem, which its log describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashHook {
    /// When the hook fired, on the boot's clock.
    pub time: BootTime,
    /// Which of the kernel's functions was hooked.
    pub kind: EventKind,
    /// The flag of [`EventKind::AddTaint`].
    pub flag: u32,
    /// The kernel's line, for [`EventKind::Printk`].
    pub text: Option<String>,
}

/// Reads one record.
///
/// # Errors
/// The record is cut short or of an unknown kind.
pub fn decode(record: &[u8]) -> Result<KernelEvent, EventError> {
    // Both kinds of record start with the time and the kind.
    let number = record
        .get(8..12)
        .and_then(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?)))
        .ok_or(EventError::Size {
            found: record.len(),
            expected: size_of::<Event>(),
        })?;
    let kind = EventKind::from_number(number).ok_or(EventError::Kind(number))?;
    if kind.is_crash() {
        let event: CrashEvent = whole(record)?;
        return Ok(KernelEvent::Crash(CrashHook {
            time: BootTime::from_nanos(event.time_ns),
            kind,
            flag: event.flag,
            text: line(&event.text),
        }));
    }
    let event: Event = whole(record)?;
    Ok(KernelEvent::Livepatch(KlpEvent {
        time: BootTime::from_nanos(event.time_ns),
        kind,
        patch: text(&event.patch),
        target: Direction::from_target_state(event.target_state),
        attempt: (event.attempt != u32::MAX).then_some(event.attempt),
        replace: match event.replace {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
        object: text(&event.object),
    }))
}

fn whole<T: bytemuck::AnyBitPattern>(record: &[u8]) -> Result<T, EventError> {
    bytemuck::try_pod_read_unaligned(record).map_err(|_| EventError::Size {
        found: record.len(),
        expected: size_of::<T>(),
    })
}

/// The first line: before 6.0 others may follow it, and its end is included.
fn line(bytes: &[u8]) -> Option<String> {
    text(
        bytes
            .split(|&byte| byte == b'\n')
            .next()
            .unwrap_or_default(),
    )
}

/// The bytes before the first NUL; `None` if there are none.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u32) -> Vec<u8> {
        let mut event: Event = bytemuck::Zeroable::zeroed();
        event.kind = kind;
        event.time_ns = 5_000_000_000;
        event.target_state = 1;
        event.attempt = u32::MAX;
        event.replace = 1;
        event.patch[..3].copy_from_slice(b"fix");
        bytemuck::bytes_of(&event).to_vec()
    }

    #[test]
    fn reads_an_event() {
        let decoded = decode(&record(EventKind::InitTransition as u32)).unwrap();
        let KernelEvent::Livepatch(event) = decoded else {
            panic!("{decoded:?}");
        };
        assert_eq!(event.kind, EventKind::InitTransition);
        assert_eq!(event.time, BootTime::from_nanos(5_000_000_000));
        assert_eq!(event.patch.as_deref(), Some("fix"));
        assert_eq!(event.target, Some(Direction::Patch));
        assert_eq!(
            (event.attempt, event.replace, event.object),
            (None, Some(true), None)
        );
    }

    #[test]
    fn reads_a_crash() {
        let mut event: CrashEvent = bytemuck::Zeroable::zeroed();
        event.kind = EventKind::Printk as u32;
        event.text[..10].copy_from_slice(b"BUG:\n[1] x");
        let crash = CrashHook {
            time: BootTime::from_nanos(0),
            kind: EventKind::Printk,
            flag: 0,
            text: Some("BUG:".into()),
        };
        assert_eq!(
            decode(bytemuck::bytes_of(&event)),
            Ok(KernelEvent::Crash(crash))
        );
        // A crash hook's kind in a record of the other shape.
        assert!(decode(&record(EventKind::Printk as u32)).is_err());
    }

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(decode(&record(99)), Err(EventError::Kind(99)));
        let cut = &record(1)[..20];
        assert_eq!(
            decode(cut),
            Err(EventError::Size {
                found: 20,
                expected: size_of::<Event>()
            })
        );
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
