//! Starts the exporter: attaches the probes, restores what an earlier process of this boot saved,
//! and reads sysfs and the kernel log.

mod records;
mod updates;

use std::sync::{Mutex, atomic::AtomicBool};

use aya::maps::{MapData, RingBuf};
use livepatch_monitor_ebpf::EventKind;
use tokio::{io::unix::AsyncFd, sync::Notify};
use tracing::{debug, warn};

use self::records::Records;
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
    kernel_log::{self, KernelLog},
    lock, log_lines, memory, readable,
};
use crate::{
    host::{expected::Expectations, machine, packages::Packages},
    kernel::{
        clock,
        kmsg::KmsgReader,
        probes::{Method, ProbeStatus, Probes, TASK_SCAN, Wanted},
        procfs, sysfs,
        tasks::TaskScanner,
    },
    state_dir,
};
use livepatch_core::{degradation::Degradation, journal::entry::Entry, transition::Watching};

/// The exporter and the sources that its event loop waits for.
pub(super) struct Started {
    pub(super) exporter: Exporter,
    pub(super) ring: Option<RingBuf<MapData>>,
    pub(super) log: Option<AsyncFd<KmsgReader>>,
    pub(super) watching: Watching,
}

/// Attaches the probes, opens what is read later, and finds out whether a transition runs.
///
/// # Errors
/// The metrics library refuses a metric; everything else degrades.
pub(super) fn start(options: Options) -> anyhow::Result<Started> {
    let mut degradations = Vec::new();
    let container = machine::container(&options.procfs, &options.sysfs);
    let attached = match (&container, options.once) {
        (Some(_), _) => Attached::nothing(&options),
        (None, true) => Attached::for_one_scan(&options, &mut degradations),
        (None, false) => Attached::attach(&options, &mut degradations),
    };
    let mut boot_id = procfs::boot_id(&options.procfs).ok();
    let crash_kernel = machine::crash_kernel(&options.procfs);
    let is_host = crash_kernel.is_none() && container.is_none();
    if !is_host {
        // This boot does not count: the boot that crashed stays the host's last one.
        boot_id = None;
    }
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy().into_owned();
    if is_host
        && !options.once
        && let Err(exposed) = state_dir::close_to_others(&options.state_dir)
    {
        degradations.push(see_message(exposed.to_string()));
    }
    let records = match is_host {
        false => Records::none(&options),
        true => Records::open(&options, boot_id.as_deref(), &release),
    };
    degradations.extend(crash_kernel);
    degradations.extend(records.problems.into_iter().map(see_message));
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
        patches: Patches::new(sysfs.clone(), release, container.as_ref()),
        transitions: Transitions::new(
            watching,
            KernelLog::open(&options.kmsg),
            procfs.clone(),
            options.stuck_after,
        ),
        tasks: Tasks::new(attached.scanner, sysfs.clone(), options.stuck_after),
        crashes: Crashes::new(crashes, &attached.status),
        updates: Updates::new(is_host.then(|| Packages::new(&options.rootfs, &procfs))),
        expected: ExpectedPatches::new(expectations),
        in_force: FunctionsInForce::new(procfs.clone(), &sysfs),
        crash_capture: CrashCapture::new(procfs.clone(), sysfs, records.pstore_full),
        refusals: Refusals::new(&options.kmsg),
        monitor: Monitor::new(procfs, attached.status, options.drill.clone()),
    };
    memory::give_back();
    if let Some(saved) = records.saved {
        let start = saved.start_unix_seconds;
        collectors.transitions.restore(saved.transitions, start);
    }
    let mut exporter = Exporter {
        collectors,
        journal: Mutex::new(records.journal),
        saving: Mutex::default(),
        complaints: Complaints::default(),
        degradations,
        changed: Notify::new(),
        patches_due: AtomicBool::new(false),
        options,
    };
    exporter.degradations.extend(container);
    if is_host && let Err(problems) = exporter.read_patches() {
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
    let waits = exporter.collectors.crashes.waits_for_log() && !exporter.options.once;
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
        remedy: "correct what this message names and restart the monitor".into(),
    }
}

/// What could be attached.
struct Attached {
    scanner: TaskScanner,
    ring: Option<RingBuf<MapData>>,
    status: Vec<ProbeStatus>,
    watching: Watching,
}

impl Attached {
    /// In a container, which is not a host: the host's own monitor reports what happens there.
    fn nothing(options: &Options) -> Self {
        Self {
            scanner: TaskScanner::new(None, &options.procfs),
            ring: None,
            status: no_probes(),
            watching: Watching::Snapshots,
        }
    }

    /// The task iterator, where a transition runs now.
    fn for_one_scan(options: &Options, degradations: &mut Vec<Degradation>) -> Self {
        let patches = sysfs::read_patches(&options.sysfs);
        let runs = patches.is_ok_and(|(patches, _)| patches.in_transition().is_some());
        let probes = runs.then(|| {
            let (procfs, sysfs) = (&options.procfs, &options.sysfs);
            Probes::attach(Wanted::TaskScan, procfs, sysfs, false)
        });
        let probes = match probes.transpose() {
            Ok(probes) => probes,
            Err(error) => {
                degradations.push(error.degradation());
                None
            }
        };
        Self {
            scanner: TaskScanner::new(probes, &options.procfs),
            ring: None,
            status: Vec::new(),
            watching: Watching::Snapshots,
        }
    }

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

/// Records the end of a transition that the journal has as running and that has ended while
/// no monitor ran.
fn end_what_ended(exporter: &Exporter) {
    if exporter.transition_runs() {
        return;
    }
    let running = lock(&exporter.journal).history.life.transition.clone();
    if let Some(running) = running {
        let ended = Entry::Ended {
            patch: running.patch,
            direction: Some(running.direction),
            outcome: None,
            took_seconds: None,
        };
        exporter.record(clock::boot_time(), ended);
    }
}

/// The status of all probes if none could be loaded.
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
