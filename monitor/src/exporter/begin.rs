//! How the exporter begins: probes, what an earlier process of this boot knew,
//! what sysfs and the kernel log say now.

use std::sync::Mutex;

use aya::maps::{MapData, RingBuf};
use livepatch_monitor_ebpf::EventKind;
use tracing::{debug, info, warn};

use super::{Exporter, Options, lock, readable, watch::Watch};
use crate::{
    kernel::{
        clock, kmsg,
        probes::{Degradation, Method, ProbeStatus, Probes, TASK_SCAN, Wanted},
        procfs, sysfs,
        tasks::TaskScanner,
    },
    livepatch::transition::{BootTime, Transitions, Watching},
    metrics::Durations,
    state,
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
        give_back_memory();
        let mut exporter = Self {
            boot_id: procfs::boot_id(&options.procfs).ok(),
            scanner: Mutex::new(scanner),
            watch: Mutex::new(Watch::new(watching)),
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
        for missing in &exporter.degradations {
            warn!(remedy = missing.remedy, "degraded: {}", missing.what);
        }
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
                    lock(&self.watch).transitions = transitions;
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
                let effects = lock(&self.watch).snapshot(now, &patches);
                self.carry_out(&effects);
            }
            Err(error) => self.degradations.push(Degradation {
                what: format!("livepatches cannot be read: {error}"),
                remedy: "mount sysfs, or name its place with --path.sysfs".into(),
            }),
        }
    }

    /// Joined in mid-transition: the kernel log has its start, if it reaches back.
    pub(super) fn start_from_kernel_log(&self) {
        let Some((Some(patch), direction)) = lock(&self.watch)
            .transitions
            .active()
            .map(|active| (active.patch.clone(), active.direction))
        else {
            return;
        };
        match kmsg::transition_start(&self.options.kmsg, &patch, direction) {
            Ok(Some(since_boot)) => {
                // The log's clock stands still in suspend.
                let time = BootTime::from_duration(since_boot + clock::suspended());
                if lock(&self.watch).transitions.started_at(&patch, time) {
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
        let transitions = lock(&self.watch).transitions.save();
        let saved = state::Saved::new(boot_id, self.start_unix_seconds(), transitions);
        if let Err(error) = state::store(&self.options.state_dir, &saved) {
            warn!("{error}");
        }
    }
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
