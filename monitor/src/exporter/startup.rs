//! How the exporter begins: probes, what an earlier process of this boot knew,
//! what sysfs and the kernel log say now.

use std::{
    sync::{Mutex, atomic::AtomicBool},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use livepatch_monitor_ebpf::EventKind;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::{
    Exporter, Options, crashes::Crashes, host::Host, journal::writer::Journal, lock, log_lines,
    readable,
};
use crate::{
    crash::{
        gather::{ThisBoot, after_boot, last_boot_unclean},
        store::Store,
    },
    exporter::journal::file::{EarlierBoot, Recorder, RecorderError},
    kernel::{
        clock, counts,
        kmsg::{self, KmsgReader},
        probes::{Method, ProbeStatus, Probes, TASK_SCAN, Wanted},
        procfs, sysfs,
        tasks::TaskScanner,
    },
    metrics::Durations,
    sandbox::Sandbox,
    state,
};
use livepatch_core::transition_state::TransitionState;
use livepatch_core::{
    crash::boots::Boot,
    degradation::Degradation,
    journal::entry::Entry,
    lifecycle::History,
    transition::{BootTime, Transitions, Watching},
};

impl Exporter {
    pub(super) fn new(options: Options) -> anyhow::Result<(Self, Option<RingBuf<MapData>>)> {
        let mut degradations = Vec::new();
        let mut probes = match Probes::attach(
            Wanted::Everything,
            &options.procfs,
            &options.sysfs,
            options.kernel_log,
        ) {
            Ok(probes) => Some(probes),
            Err(error) => {
                degradations.push(error.degradation());
                None
            }
        };
        let ring = match probes.as_mut().map(Probes::take_events) {
            Some(Ok(ring)) => Some(ring),
            Some(Err(error)) => {
                degradations.push(error.degradation());
                None
            }
            None => None,
        };
        if options.kernel_log
            && let Some(probes) = &mut probes
        {
            follow_kernel_log(probes);
        }

        let sees = ring.is_some() && probes.as_ref().is_some_and(Probes::see_transitions);
        let watching = if sees {
            Watching::Probes
        } else {
            Watching::Snapshots
        };
        let mut status = probes
            .as_ref()
            .map_or_else(no_probes, |probes| probes.status.clone());
        if !sees {
            status.push(ProbeStatus {
                probe: "transition",
                method: Method::Sysfs,
                problem: None,
            });
        }
        degradations.extend(probes.iter().flat_map(|probes| probes.degradations.clone()));
        for probe in &status {
            match (&probe.problem, probe.method) {
                (Some(problem), method) => {
                    warn!(probe = probe.probe, method = method.name(), "{problem}");
                }
                (None, method) => debug!(probe = probe.probe, method = method.name(), "attached"),
            }
        }
        let scanner = TaskScanner::new(probes, &options.procfs);
        // After the hooks: a signal in between is counted by both.
        let base = counts::read(&options.procfs, &options.sysfs);
        let log = KmsgReader::open(&options.kmsg).ok();
        let boot_id = procfs::boot_id(&options.procfs).ok();
        let system = rustix::system::uname();
        let release = system.release().to_string_lossy().into_owned();
        let records = Records::open(&options, boot_id.as_deref(), &release);
        degradations.extend(records.problems.into_iter().map(|what| Degradation {
            what,
            remedy: "see the message".into(),
        }));
        let crashes = Crashes::new(records.store, records.boot_unclean, base, log.is_some());
        give_back_memory();
        let mut exporter = Self {
            boot_id,
            journal: Mutex::new(records.journal),
            crashes: Mutex::new(crashes),
            host: Mutex::new(Host::new(&options, &release)),
            log: Mutex::new(log),
            sandbox: Sandbox::default(),
            release,
            changed: Notify::new(),
            patches_due: AtomicBool::new(false),
            scanner: Mutex::new(scanner),
            transition_state: Mutex::new(TransitionState::new(watching)),
            start: Mutex::new(None),
            durations: Durations::new()?,
            status,
            degradations,
            keep_state: true,
            complaints: Mutex::default(),
            lost: Mutex::default(),
            options,
        };
        exporter.take_up();
        exporter.agree();
        log_lines::log_degradations(&exporter.degradations);
        exporter.log_evidence();
        Ok((exporter, ring))
    }

    /// What an earlier process of this boot knew, then what sysfs says now.
    fn take_up(&mut self) {
        if let Some(boot_id) = &self.boot_id {
            match state::load(&self.options.state_dir, boot_id) {
                Ok(Some(saved)) => {
                    let transitions = Transitions::restore(saved.transitions);
                    let start = transitions.active().and_then(|active| active.start);
                    *lock(&self.start) = start.map(|start| (start, saved.start_unix_seconds));
                    lock(&self.transition_state).transitions = transitions;
                }
                Ok(None) => {}
                Err(error) => {
                    self.keep_state = !matches!(error, state::StateError::Content { .. });
                    self.degradations.push(Degradation {
                        what: error.to_string(),
                        remedy: "see the message".into(),
                    });
                }
            }
        }
        let now = clock::boot_time();
        match sysfs::read_patches(&self.options.sysfs) {
            Ok((patches, _)) => {
                let effects = lock(&self.transition_state).snapshot(now, &patches);
                if self.carry_out(now, &effects) {
                    self.save();
                }
                self.note_patches(now, &patches);
            }
            Err(error) => self.degradations.push(Degradation {
                what: format!("livepatches cannot be read: {error}"),
                remedy: "mount sysfs, or name its place with --path.sysfs".into(),
            }),
        }
    }

    /// What the notes of a monitor before this one say goes on, and has ended since.
    fn agree(&self) {
        let now = clock::boot_time();
        let runs = lock(&self.transition_state).transitions.active().is_some();
        let noted = lock(&self.journal).history.transition.clone();
        if let Some(noted) = noted.filter(|_| !runs) {
            let ended = Entry::Ended {
                patch: noted.patch,
                direction: Some(noted.direction),
                outcome: None,
                took_seconds: None,
            };
            self.note(now, ended);
        }
    }

    /// Joined in mid-transition: the kernel log has its start, if it reaches back.
    pub(super) fn start_from_kernel_log(&self) {
        let Some((Some(patch), direction)) = lock(&self.transition_state)
            .transitions
            .active()
            .map(|active| (active.patch.clone(), active.direction))
        else {
            return;
        };
        match self.with_log(|log| kmsg::transition_start(log, &patch, direction)) {
            Ok(Some(since_boot)) => {
                // The log's clock stands still in suspend.
                let time = BootTime::from_duration(since_boot + clock::suspended());
                if lock(&self.transition_state)
                    .transitions
                    .started_at(&patch, time)
                {
                    info!(
                        patch,
                        "start of the running transition taken from the kernel log"
                    );
                }
            }
            Ok(None) => info!(
                patch,
                "the kernel log does not reach back to the transition's start"
            ),
            Err(error) => warn!("start of the running transition: {error}"),
        }
    }

    pub(super) fn save(&self) {
        let Some(boot_id) = self.boot_id.clone().filter(|_| self.keep_state) else {
            return;
        };
        let transitions = lock(&self.transition_state).transitions.save();
        let saved = state::Saved::new(boot_id, self.start_unix_seconds(), transitions);
        if let Err(error) = state::store(&self.options.state_dir, &saved) {
            warn!("{error}");
        }
    }
}

/// The flight recorder and the crashes of the boots before this one.
struct Records {
    journal: Journal,
    store: Option<Store>,
    boot_unclean: Option<bool>,
    problems: Vec<String>,
}

impl Records {
    fn open(options: &Options, boot_id: Option<&str>, release: &str) -> Self {
        let mut problems = Vec::new();
        let mut boots = Vec::new();
        let mut notes = Vec::new();
        let now = clock::boot_time();
        let began = clock::unix_seconds(BootTime::from_nanos(0));
        let mut another_monitor = false;
        let recorder = match boot_id.map(|boot_id| Recorder::open(&options.state_dir, boot_id)) {
            Some(Ok(opened)) => {
                notes = opened.notes;
                problems.extend(opened.problem);
                let earlier = opened
                    .recorder
                    .earlier_boots()
                    .and_then(|(earlier, errors)| {
                        boots = boots_of(&earlier, began, options.soak);
                        problems.extend(errors.iter().map(ToString::to_string));
                        // Files that are not understood are nobody's to remove.
                        match errors.is_empty() {
                            true => opened.recorder.prune(),
                            false => Ok(()),
                        }
                    });
                if let Err(error) = earlier {
                    problems.push(error.to_string());
                }
                Some(opened.recorder)
            }
            Some(Err(error)) => {
                another_monitor = matches!(error, RecorderError::Locked { .. });
                problems.push(error.to_string());
                None
            }
            None => {
                problems.push(format!(
                    "{} does not tell the boot's id (see --path.procfs): nothing is recorded",
                    options.procfs.display()
                ));
                None
            }
        };
        let mut journal = Journal::new(recorder, &notes, options.soak);
        if let Some(boot_id) = boot_id.filter(|_| notes.is_empty()) {
            let boot = Entry::Boot {
                boot_id: boot_id.to_owned(),
                release: release.to_owned(),
            };
            journal.note(now, boot);
        }
        journal.note(now, Entry::Watching);

        let mut boot_unclean = None;
        let store = match Store::open(&options.state_dir) {
            Ok(opened) => {
                problems.extend(opened.problems.iter().map(ToString::to_string));
                let mut store = opened.store;
                let known: Vec<String> = ids(&store).map(str::to_owned).collect();
                let this = ThisBoot {
                    id: boot_id.map(str::to_owned),
                    began,
                };
                // Another monitor's notes tell which boot a dump is of.
                if !another_monitor {
                    problems.extend(after_boot(
                        &mut store,
                        &boots,
                        &this,
                        &options.sources,
                        options.soak,
                    ));
                }
                let new = store.crashes().iter();
                for crash in new.filter(|crash| !known.contains(&crash.id)) {
                    log_lines::log_crash(crash);
                }
                boot_unclean = last_boot_unclean(&store, &boots);
                Some(store)
            }
            Err(error) => {
                problems.push(error.to_string());
                None
            }
        };
        Self {
            journal,
            store,
            boot_unclean,
            problems,
        }
    }
}

fn ids(store: &Store) -> impl Iterator<Item = &str> {
    store.crashes().iter().map(|crash| crash.id.as_str())
}

/// The boots that notes tell of, each with the beginning of the one after it.
fn boots_of(earlier: &[EarlierBoot], this_began: Option<f64>, soak: Duration) -> Vec<Boot> {
    let mut boots: Vec<Boot> = Vec::new();
    for boot in earlier {
        let mut history = History::default();
        for noted in &boot.notes {
            history.take(noted, soak);
        }
        // A file that lost its first note has a name all the same.
        history.boot_id.get_or_insert_with(|| boot.boot_id.clone());
        let first = history.began.as_duration().as_secs_f64();
        if let Some(before) = boots.last_mut() {
            before.next_began = history.began_unix_seconds.map(|unix| unix - first);
        }
        boots.push(Boot {
            history,
            next_began: this_began,
        });
    }
    boots
}

/// Reading BTF and the programs takes some 20 MiB that the allocator would keep
/// for ever, although nothing later needs a tenth of it.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer and only returns free pages.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The status of every probe where none could be loaded.
fn no_probes() -> Vec<ProbeStatus> {
    EventKind::ALL
        .into_iter()
        .map(EventKind::name)
        .chain([TASK_SCAN])
        .map(|probe| ProbeStatus {
            probe,
            method: Method::None,
            problem: None,
        })
        .collect()
}

/// Passes the kernel side's log lines on, at debug level.
fn follow_kernel_log(probes: &mut Probes) {
    let logger = probes
        .take_log()
        .map_err(|error| error.to_string())
        .and_then(|log| readable(log).map_err(|error| error.to_string()));
    match logger {
        Ok(mut logger) => {
            tokio::spawn(async move {
                while let Ok(mut guard) = logger.readable_mut().await {
                    guard.clear_ready();
                    guard.get_inner_mut().flush();
                }
            });
        }
        Err(error) => warn!("the kernel side's log: {error}"),
    }
}
