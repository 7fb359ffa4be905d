//! How the exporter starts: probes, what an earlier process of this boot knew, what sysfs
//! and the kernel log say now.

use std::{
    sync::{Mutex, atomic::AtomicBool},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use livepatch_monitor_ebpf::EventKind;
use tokio::{io::unix::AsyncFd, sync::Notify};
use tracing::{debug, warn};

use super::{
    Exporter, Options,
    collectors::{
        Collectors,
        crash_capture::CrashCapture,
        crashes::{self, Crashes},
        expected::ExpectedPatches,
        in_force::FunctionsInForce,
        monitor::Monitor,
        patches::Patches,
        refusals::Refusals,
        tasks::Tasks,
        transitions::Transitions,
        updates::Updates,
    },
    complaints::Complaints,
    journal::{
        file::{EarlierBoot, Recorder, RecorderError},
        writer::Journal,
    },
    kernel_log::{self, KernelLog},
    lock, log_lines, readable,
    saved_state::StateFile,
};
use crate::{
    crash::{
        gather::{ThisBoot, after_boot, last_boot_unclean},
        store::Store,
    },
    host::expected::Expectations,
    kernel::{
        clock,
        kmsg::KmsgReader,
        probes::{Method, ProbeStatus, Probes, TASK_SCAN, Wanted},
        procfs,
        tasks::TaskScanner,
    },
};
use livepatch_core::{
    crash::boots::Boot,
    degradation::Degradation,
    journal::entry::Entry,
    lifecycle::History,
    transition::{BootTime, Watching},
};

/// The exporter, and what its event loop waits for.
pub(super) struct Started {
    pub(super) exporter: Exporter,
    pub(super) ring: Option<RingBuf<MapData>>,
    pub(super) log: Option<AsyncFd<KmsgReader>>,
    pub(super) watching: Watching,
}

/// Attaches the probes, opens what is read later, and finds out what runs now.
///
/// # Errors
/// The metrics library refuses a metric; everything else degrades.
pub(super) fn start(options: Options) -> anyhow::Result<Started> {
    let mut degradations = Vec::new();
    let attached = Attached::attach(&options, &mut degradations);
    let boot_id = procfs::boot_id(&options.procfs).ok();
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy().into_owned();
    let records = Records::open(&options, boot_id.as_deref(), &release);
    degradations.extend(records.problems.into_iter().map(see_message));
    let (state, saved) = StateFile::open(&options.state_dir, boot_id.as_deref());
    let crashes = crashes::Start {
        store: records.store,
        boot_id,
        boot_unclean: records.boot_unclean,
        log: KernelLog::open(&options.kmsg),
        procfs: options.procfs.clone(),
        sysfs: options.sysfs.clone(),
        soak: options.soak,
    };
    let expectations = Expectations::new(
        &options.rootfs,
        &release,
        &options.expected_directories,
        &options.expected_patches,
    );
    let watching = attached.watching;
    let (procfs, sysfs) = (options.procfs.clone(), options.sysfs.clone());
    let collectors = Collectors {
        patches: Patches::new(sysfs.clone(), release),
        transitions: Transitions::new(
            watching,
            KernelLog::open(&options.kmsg),
            procfs.clone(),
            options.stuck_after,
        )?,
        tasks: Tasks::new(attached.scanner, sysfs.clone(), options.stuck_after),
        crashes: Crashes::new(crashes, &attached.status),
        updates: Updates::new(&options.rootfs),
        expected: ExpectedPatches::new(expectations),
        in_force: FunctionsInForce::new(procfs.clone(), &sysfs),
        crash_capture: CrashCapture::new(procfs.clone(), sysfs),
        refusals: Refusals::new(&options.kmsg),
        monitor: Monitor::new(procfs, attached.status, options.drill.clone()),
    };
    give_back_memory();
    match saved {
        Ok(Some(saved)) => collectors
            .transitions
            .restore(saved.transitions, saved.start_unix_seconds),
        Ok(None) => {}
        Err(error) => degradations.push(see_message(error.to_string())),
    }
    let mut exporter = Exporter {
        collectors,
        journal: Mutex::new(records.journal),
        state,
        complaints: Complaints::default(),
        degradations,
        changed: Notify::new(),
        patches_due: AtomicBool::new(false),
        options,
    };
    if let Err(problems) = exporter.read_patches() {
        exporter.degradations.push(Degradation {
            what: format!(
                "cannot determine which livepatches are loaded: {}",
                problems.join("; ")
            ),
            remedy: "mount sysfs, or name its place with --path.sysfs".into(),
        });
    }
    end_what_ended(&exporter);
    log_lines::degradations(&exporter.degradations);
    log_lines::crash_capture(&exporter.collectors.crash_capture.read());
    let waits = exporter.collectors.crashes.waits_for_log();
    let log = match waits {
        true => kernel_log::to_wait_for(&exporter.options.kmsg),
        false => {
            kernel_log::check(&exporter.options.kmsg);
            None
        }
    };
    Ok(Started {
        exporter,
        ring: attached.ring,
        log,
        watching,
    })
}

fn see_message(what: String) -> Degradation {
    Degradation {
        what,
        remedy: "see the message".into(),
    }
}

/// The probes, as far as they could be attached.
struct Attached {
    scanner: TaskScanner,
    ring: Option<RingBuf<MapData>>,
    status: Vec<ProbeStatus>,
    watching: Watching,
}

impl Attached {
    fn attach(options: &Options, degradations: &mut Vec<Degradation>) -> Self {
        let attached = Probes::attach(
            Wanted::Everything,
            &options.procfs,
            &options.sysfs,
            options.kernel_log,
        );
        let mut probes = match attached {
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
            pass_on_kernel_log(probes);
        }
        let sees = ring.is_some() && probes.as_ref().is_some_and(Probes::see_transitions);
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
        Self {
            scanner: TaskScanner::new(probes, &options.procfs),
            ring,
            status,
            watching: match sees {
                true => Watching::Probes,
                false => Watching::Snapshots,
            },
        }
    }
}

/// Notes the end of a transition that the journal has as running and that has ended while
/// no monitor ran.
fn end_what_ended(exporter: &Exporter) {
    if exporter.transition_runs() {
        return;
    }
    let running = lock(&exporter.journal).history.transition.clone();
    if let Some(running) = running {
        let ended = Entry::Ended {
            patch: running.patch,
            direction: Some(running.direction),
            outcome: None,
            took_seconds: None,
        };
        exporter.note(clock::boot_time(), ended);
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
                    "cannot read the boot's id below {} (see --path.procfs): nothing is recorded",
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
                // Which boot a dump is of takes the journal, which is another monitor's.
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
                    log_lines::crash(crash);
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

/// The boots that the journal has, each with the start of the one after it.
fn boots_of(earlier: &[EarlierBoot], this_began: Option<f64>, soak: Duration) -> Vec<Boot> {
    let mut boots: Vec<Boot> = Vec::new();
    for boot in earlier {
        let mut history = History::default();
        for noted in &boot.notes {
            history.take(noted, soak);
        }
        // A file that lost its first entry still has a name.
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

/// Reading BTF and the programs takes some 20 MiB that the allocator would keep for ever,
/// although nothing later needs a tenth of it.
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

/// Passes the log lines of the BPF programs on, at debug level.
fn pass_on_kernel_log(probes: &mut Probes) {
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
        Err(error) => warn!("cannot read the log of the BPF programs: {error}"),
    }
}
