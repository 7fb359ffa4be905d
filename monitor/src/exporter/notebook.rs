//! The boot's history, and the thread that brings each note of it to the disk: a disk
//! that hangs must not hold up the kernel's events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use crate::{
    kernel::clock,
    livepatch::transition::BootTime,
    recorder::{
        file::Recorder,
        history::History,
        note::{Note, Noted},
    },
};

/// Notes that may wait for the disk.
const WAITING: usize = 4096;
/// How long the end of the process waits for the disk.
const CLOSE: Duration = Duration::from_secs(3);

/// What was noted, in memory and on disk.
#[derive(Debug)]
pub(super) struct Notebook {
    /// What the notes come to.
    pub(super) history: History,
    soak: Duration,
    /// What the thread will take over: none once it runs.
    idle: Option<(Recorder, Receiver<Noted>)>,
    writer: Option<Writer>,
    errors: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Writer {
    notes: SyncSender<Noted>,
    /// None until [`Notebook::start`].
    thread: Option<thread::JoinHandle<()>>,
}

impl Notebook {
    /// Without a recorder every note counts as one that did not reach the disk.
    pub(super) fn new(recorder: Option<Recorder>, before: &[Noted], soak: Duration) -> Self {
        let mut history = History::default();
        for noted in before {
            history.take(noted, soak);
        }
        let (idle, writer) = recorder
            .map(|recorder| {
                let (notes, waiting) = sync_channel(WAITING);
                let thread = None;
                ((recorder, waiting), Writer { notes, thread })
            })
            .unzip();
        Self {
            history,
            soak,
            idle,
            writer,
            errors: Arc::default(),
        }
    }

    /// Begins to write; what was noted so far has waited.
    pub(super) fn start(&mut self) {
        let Some((recorder, waiting)) = self.idle.take() else {
            return;
        };
        let errors = self.errors.clone();
        let spawned = thread::Builder::new()
            .name("recorder".into())
            .spawn(move || write(recorder, &waiting, &errors));
        match (spawned, &mut self.writer) {
            (Ok(thread), Some(writer)) => writer.thread = Some(thread),
            (Ok(_), None) => {}
            (Err(error), writer) => {
                warn!("the flight recorder has no thread: {error}");
                *writer = None;
            }
        }
    }

    /// Takes a note and sends it to the disk.
    pub(super) fn note(&mut self, time: BootTime, note: Note) {
        let noted = Noted {
            time,
            unix_seconds: clock::unix_seconds(time),
            note,
        };
        self.history.take(&noted, self.soak);
        let sent = self
            .writer
            .as_ref()
            .is_some_and(|writer| writer.notes.try_send(noted).is_ok());
        if !sent {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that did not reach the disk.
    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Whether notes go to a disk at all.
    pub(super) fn records(&self) -> bool {
        self.writer.is_some()
    }

    /// Waits until all is on the disk, for a moment at most.
    pub(super) fn close(&mut self) {
        let Some(Writer {
            notes,
            thread: Some(thread),
        }) = self.writer.take()
        else {
            return;
        };
        drop(notes);
        let begin = Instant::now();
        while !thread.is_finished() && begin.elapsed() < CLOSE {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn write(mut recorder: Recorder, waiting: &Receiver<Noted>, errors: &AtomicU64) {
    let mut failing = false;
    for noted in waiting {
        match recorder.append(&noted) {
            Ok(()) if failing => {
                failing = false;
                info!("the flight recorder writes again");
            }
            Ok(()) => {}
            Err(error) => {
                errors.fetch_add(1, Ordering::Relaxed);
                if !failing {
                    warn!("{error}");
                }
                failing = true;
            }
        }
    }
}
