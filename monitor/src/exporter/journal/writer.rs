//! The boot's history, and the thread that writes each entry of it to the disk: a disk
//! that hangs must not delay the kernel's events.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{essence::Essence, file::JournalFile};
use crate::{exporter::lock, kernel::clock};
use livepatch_core::{
    journal::entry::{Entry, TimedEntry},
    journal::history::History,
    transition::BootTime,
};

/// Number of entries that may wait for the disk. Of those that come while so many wait, what still
/// matters is kept.
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
    idle: Option<(JournalFile, Waiting)>,
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
    /// Entries that did not fit, all later than those that did. Nobody holds it while the disk is
    /// waited for.
    surplus: Arc<Mutex<Essence>>,
    /// The writer thread; `None` until [`Journal::start`].
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// Sends an entry without waiting; false if it did not fit. Then it is written when the disk
    /// has taken those before it.
    fn send(&self, recorded: TimedEntry) -> bool {
        // Held while the entry is sent: the thread looks there once it has received everything.
        let mut surplus = lock(&self.surplus);
        if !surplus.is_empty() {
            surplus.take(&recorded);
            return false;
        }
        match self.entries.try_send(recorded) {
            Ok(()) => return true,
            Err(TrySendError::Full(recorded)) => surplus.take(&recorded),
            // The thread has died, and nobody writes any more.
            Err(TrySendError::Disconnected(_)) => {}
        }
        false
    }
}

/// The entries that wait for the disk, as the writer thread takes them.
#[derive(Debug)]
struct Waiting {
    entries: Receiver<TimedEntry>,
    surplus: Arc<Mutex<Essence>>,
    /// What was in the surplus.
    late: VecDeque<TimedEntry>,
}

/// An entry to write.
struct Next {
    recorded: TimedEntry,
    /// It is counted among the errors already.
    is_counted: bool,
}

impl Waiting {
    /// The next entry in the order in which they were made, which is waited for, for `pause` at
    /// most.
    fn next(&mut self, pause: Option<Duration>) -> Result<Next, RecvTimeoutError> {
        let new = |recorded| Next {
            recorded,
            is_counted: false,
        };
        if self.late.is_empty() {
            if let Ok(recorded) = self.entries.try_recv() {
                return Ok(new(recorded));
            }
            self.late = lock(&self.surplus).drain();
        }
        if let Some(recorded) = self.late.pop_front() {
            let is_counted = true;
            return Ok(Next {
                recorded,
                is_counted,
            });
        }
        let next = match pause {
            Some(pause) => self.entries.recv_timeout(pause),
            None => self.entries.recv().map_err(RecvTimeoutError::from),
        };
        next.map(new)
    }
}

impl Journal {
    /// Without a journal, every entry counts as one that did not reach the disk.
    pub(in crate::exporter) fn new(
        journal_file: Option<JournalFile>,
        before: &[TimedEntry],
        soak: Duration,
    ) -> Self {
        Self::with_room(journal_file, before, soak, WAITING)
    }

    /// As [`Self::new`], with room for so many entries that wait.
    fn with_room(
        journal_file: Option<JournalFile>,
        before: &[TimedEntry],
        soak: Duration,
        room: usize,
    ) -> Self {
        let mut history = History::default();
        for recorded in before {
            history.take(recorded, soak);
        }
        let (idle, writer) = journal_file
            .map(|journal_file| {
                let (sender, receiver) = sync_channel(room);
                let surplus = Arc::<Mutex<Essence>>::default();
                let waiting = Waiting {
                    entries: receiver,
                    surplus: surplus.clone(),
                    late: VecDeque::new(),
                };
                let writer = Writer {
                    entries: sender,
                    surplus,
                    thread: None,
                };
                ((journal_file, waiting), writer)
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
            .spawn(move || write(journal_file, waiting, &errors));
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
            .is_some_and(|writer| writer.send(recorded));
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

    /// Number of entries that the disk did not take when they were made, or for which too many
    /// others waited.
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

fn write(mut journal_file: JournalFile, mut waiting: Waiting, errors: &AtomicU64) {
    let mut pause = AGAIN;
    loop {
        let was_behind = journal_file.is_behind();
        let written = match waiting.next(was_behind.then_some(pause)) {
            Ok(next) => journal_file.append(&next.recorded).inspect_err(|_| {
                errors.fetch_add(u64::from(!next.is_counted), Ordering::Relaxed);
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
            info!("the journal can be written again");
        }
    }
}

#[cfg(test)]
mod tests {
    use livepatch_core::journal::testing::recorded;

    use super::*;
    use crate::exporter::journal::file::read_only;

    /// As while the disk hangs: nothing is taken from the queue.
    #[test]
    fn entries_for_which_there_is_no_room_are_written_later_and_in_order() {
        const BOOT: &str = "11111111-2222-3333-4444-555555555555";
        const ROOM: usize = 4;
        let directory = tempfile::tempdir().unwrap();
        let file = JournalFile::open(directory.path(), BOOT).unwrap();
        let file = file.journal_file;
        let mut journal = Journal::with_room(Some(file), &[], Duration::from_secs(600), ROOM);
        let all: Vec<TimedEntry> = (1..=10)
            .map(|second| {
                let patch = format!("fix_{second}");
                recorded(second, Entry::Load { patch })
            })
            .collect();
        for entry in &all {
            journal.take(entry.clone());
        }
        let refused = u64::try_from(all.len() - ROOM).unwrap();
        assert_eq!(journal.errors(), refused);
        journal.start();
        let thread = journal.close().0.unwrap();
        thread.join().unwrap();
        assert_eq!(read_only(directory.path(), BOOT).unwrap().entries, all);
        assert_eq!(journal.errors(), refused);
    }
}
