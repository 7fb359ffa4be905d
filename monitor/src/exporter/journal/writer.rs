//! The boot's history, and the thread that writes each entry of it to the disk: a disk
//! that hangs must not delay the kernel's events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use crate::{exporter::journal::file::JournalFile, kernel::clock};
use livepatch_core::{
    journal::entry::{Entry, TimedEntry},
    journal::history::History,
    transition::BootTime,
};

/// Number of entries that may wait for the disk.
const WAITING: usize = 4096;
/// How long after a failure the disk is tried again. The pause doubles up to [`LONGEST_PAUSE`].
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long the process waits for the disk when it ends.
pub(in crate::exporter) const CLOSE: Duration = Duration::from_secs(3);

/// The entries of this boot, in memory and on disk.
#[derive(Debug)]
pub(in crate::exporter) struct Journal {
    /// The state that the entries add up to; a shared value that later entries do not change.
    pub(in crate::exporter) history: Arc<History>,
    soak: Duration,
    /// Handed to the thread when it starts.
    idle: Option<(JournalFile, Receiver<TimedEntry>)>,
    writer: Option<Writer>,
    /// The monitor stops: nothing more is recorded.
    closed: bool,
    errors: Arc<AtomicU64>,
}

/// A journal whose last entries are on their way to the disk.
#[derive(Debug)]
#[must_use = "the last entries are not yet on the disk"]
pub(in crate::exporter) struct Closing(Option<thread::JoinHandle<()>>);

impl Closing {
    /// Waits until all is on the disk, for a moment at most.
    pub(in crate::exporter) fn wait(self) {
        let begin = Instant::now();
        let writes = || self.0.as_ref().is_some_and(|thread| !thread.is_finished());
        while writes() && begin.elapsed() < CLOSE {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[derive(Debug)]
struct Writer {
    entries: SyncSender<TimedEntry>,
    /// The writer thread; `None` until [`Journal::start`].
    thread: Option<thread::JoinHandle<()>>,
}

impl Journal {
    /// Without a journal, every entry counts as one that did not reach the disk.
    pub(in crate::exporter) fn new(
        journal_file: Option<JournalFile>,
        before: &[TimedEntry],
        soak: Duration,
    ) -> Self {
        let mut history = History::default();
        for recorded in before {
            history.take(recorded, soak);
        }
        let (idle, writer) = journal_file
            .map(|journal_file| {
                let (entries, waiting) = sync_channel(WAITING);
                let thread = None;
                ((journal_file, waiting), Writer { entries, thread })
            })
            .unzip();
        Self {
            history: Arc::new(history),
            soak,
            idle,
            writer,
            closed: false,
            errors: Arc::default(),
        }
    }

    /// Starts the thread, which first writes the entries that have waited so far.
    pub(in crate::exporter) fn start(&mut self) {
        let Some((journal_file, waiting)) = self.idle.take() else {
            return;
        };
        let errors = self.errors.clone();
        let spawned = thread::Builder::new()
            .name("recorder".into())
            .spawn(move || write(journal_file, &waiting, &errors));
        match (spawned, &mut self.writer) {
            (Ok(thread), Some(writer)) => writer.thread = Some(thread),
            (Ok(_), None) => {}
            (Err(error), writer) => {
                warn!("cannot start the thread of the journal: {error}");
                *writer = None;
            }
        }
    }

    /// Adds an entry and sends it to the writer thread.
    pub(in crate::exporter) fn record(&mut self, time: BootTime, entry: Entry) {
        self.take(timed(time, entry));
    }

    fn take(&mut self, recorded: TimedEntry) {
        Arc::make_mut(&mut self.history).take(&recorded, self.soak);
        let sent = self
            .writer
            .as_ref()
            .is_some_and(|writer| writer.entries.try_send(recorded).is_ok());
        if !sent && !self.closed {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds an entry unless it says what is known already.
    pub(in crate::exporter) fn record_news(&mut self, time: BootTime, entry: Entry) {
        let entry = timed(time, entry);
        if !self.history.knows(&entry) {
            self.take(entry);
        }
    }

    /// Number of entries that did not reach the disk when they were made.
    pub(in crate::exporter) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Whether entries are written to disk at all.
    pub(in crate::exporter) fn records(&self) -> bool {
        self.writer.is_some() || self.closed
    }

    /// Takes no more entries.
    pub(in crate::exporter) fn close(&mut self) -> Closing {
        let writer = self.writer.take();
        self.closed = writer.is_some();
        // The thread ends with what it has been sent.
        Closing(writer.and_then(|writer| writer.thread))
    }
}

fn timed(time: BootTime, entry: Entry) -> TimedEntry {
    TimedEntry {
        time,
        unix_seconds: clock::unix_seconds(time),
        entry,
    }
}

fn write(mut journal_file: JournalFile, waiting: &Receiver<TimedEntry>, errors: &AtomicU64) {
    let mut pause = AGAIN;
    loop {
        let was_behind = journal_file.is_behind();
        let next = match was_behind {
            true => waiting.recv_timeout(pause),
            false => waiting.recv().map_err(RecvTimeoutError::from),
        };
        let written = match next {
            Ok(recorded) => journal_file.append(&recorded).inspect_err(|_| {
                errors.fetch_add(1, Ordering::Relaxed);
            }),
            Err(RecvTimeoutError::Timeout) => {
                pause = LONGEST_PAUSE.min(pause * 2);
                journal_file.catch_up()
            }
            Err(RecvTimeoutError::Disconnected) => {
                // The last moment for what the disk did not take; its failure is logged.
                let _ = journal_file.catch_up();
                return;
            }
        };
        if let Err(error) = written
            && !was_behind
        {
            warn!("{error}");
        }
        if was_behind && !journal_file.is_behind() {
            pause = AGAIN;
            info!("the journal writes again");
        }
    }
}
