//! The kernel log as collectors read it: each collector has its own reader.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use livepatch_core::{
    crash::{Signal, parser},
    transition::BootTime,
};
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::{lock, readable};
use crate::kernel::{
    clock,
    kmsg::{KmsgError, KmsgReader},
};

/// Bytes of the log that are kept, counted from its end.
const MAX_LOG: usize = 16 << 20;

/// A reader. It is opened while that is still allowed; if that failed, it is tried again later.
#[derive(Debug)]
pub(super) struct KernelLog {
    device: PathBuf,
    open: Mutex<Option<KmsgReader>>,
}

impl KernelLog {
    pub(super) fn open(device: &Path) -> Self {
        Self {
            device: device.to_owned(),
            // A failure is reported when the log is read, which tries again.
            open: Mutex::new(KmsgReader::open(device).ok()),
        }
    }

    pub(super) fn device(&self) -> &Path {
        &self.device
    }

    pub(super) fn is_open(&self) -> bool {
        lock(&self.open).is_some()
    }

    /// Calls `read` with the reader.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&mut KmsgReader) -> Result<T, KmsgError>,
    ) -> Result<T, KmsgError> {
        let mut open = lock(&self.open);
        let log = match open.take() {
            Some(log) => open.insert(log),
            None => open.insert(KmsgReader::open(&self.device)?),
        };
        read(log)
    }

    /// The kernel's own records, one a line.
    pub(super) fn records(&self) -> Result<Vec<u8>, KmsgError> {
        self.read(records)
    }
}

fn records(log: &mut KmsgReader) -> Result<Vec<u8>, KmsgError> {
    let mut text = String::new();
    log.read_all(|record| {
        if record.facility == 0 {
            text.push_str(&record.to_line());
        }
        if text.len() > 2 * MAX_LOG {
            let cut = text.len() - MAX_LOG;
            let cut = (cut..text.len()).find(|at| text.is_char_boundary(*at));
            text.drain(..cut.unwrap_or(0));
        }
    })?;
    Ok(text.into_bytes())
}

/// Warns at startup, not only at the first crash, if the log cannot be read.
pub(super) fn check(device: &Path) {
    if let Err(error) = KmsgReader::open(device).and_then(|mut log| log.skip()) {
        warn!("{error}; crash signals are not attributed");
    }
}

/// The log for the event loop to wait for; the lines so far are skipped.
pub(super) fn to_wait_for(device: &Path) -> Option<AsyncFd<KmsgReader>> {
    let result = KmsgReader::open(device).and_then(|mut log| {
        log.skip()?;
        Ok(log)
    });
    match result.map(readable) {
        Ok(Ok(log)) => Some(log),
        Ok(Err(error)) => {
            warn!(
                "cannot wait for lines of the kernel log {}: {error}; is it the device (see \
                 --path.kmsg)?",
                device.display()
            );
            None
        }
        Err(error) => {
            warn!("{error}; crash signals are not seen");
            None
        }
    }
}

/// A line of the kernel log that starts a report.
#[derive(Clone, Debug)]
pub(super) struct SignalLine {
    pub(super) time: BootTime,
    pub(super) signal: Signal,
    pub(super) text: String,
}

/// The lines since the last call that start a report, and the error that ended the reading, if any.
pub(super) fn new_signals(log: &mut KmsgReader) -> (Vec<SignalLine>, Option<KmsgError>) {
    let mut signals = Vec::new();
    let result = log.read_new(|record| {
        let signal = (record.facility == 0).then(|| parser::signal(&record.text));
        if let Some(signal) = signal.flatten() {
            signals.push(SignalLine {
                time: since_boot(record.time),
                signal,
                text: record.text.clone(),
            });
        }
    });
    (signals, result.err())
}

/// Converts a time of the log's clock, which stops during suspend.
pub(super) fn since_boot(uptime: std::time::Duration) -> BootTime {
    BootTime::from_duration(uptime + clock::suspended())
}
