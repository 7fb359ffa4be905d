//! What the status page shows, gathered.

use livepatch_monitor_ebpf::EventKind;

use super::{
    Anew, Exporter, lock,
    status_page::{BLOCKERS_SHOWN, Page, Pending, Transition},
};
use crate::kernel::{clock, probes::Method, tasks};
use livepatch_core::transition_state::Found;
use livepatch_core::{blockers::Blocker, degradation::Degradation};

impl Exporter {
    /// What the status page shows now. It reads what a scrape reads, and scans the
    /// tasks no more often. `stay` is the reader's wish that it be not renewed.
    #[must_use]
    pub fn status(&self, stay: bool) -> Page {
        let anew = self.read_anew();
        let degradations = self.degradations_now(&anew);
        let Anew {
            patches, crashes, ..
        } = anew;
        let host = rustix::system::uname();
        let in_force = lock(&self.journal).history.in_force.clone();
        let (last_crash, crashed_in_this_boot) = self.last_crash();
        let (interrupted, expected) = self.host_found();
        let (transition, blockers) = self.running();
        let mut page = Page {
            host: host.nodename().to_string_lossy().into_owned(),
            release: self.release.clone(),
            now_unix_seconds: clock::unix_seconds(clock::boot_time()),
            telemetry_path: self.options.telemetry_path.clone(),
            stay,
            in_force,
            transition,
            crashes,
            last_crash,
            crashed_in_this_boot,
            interrupted,
            expected,
            degradations,
            probes_missing: self
                .status
                .iter()
                .filter(|probe| probe.method == Method::None)
                .map(|probe| (probe.probe, probe.problem.clone()))
                .collect(),
            ..Page::default()
        };
        let watch = lock(&self.transition_state);
        page.totals = watch.transitions.totals();
        let names = patches.iter().flat_map(|set| &set.patches);
        let names = names.map(|patch| patch.name.clone());
        page.forced = names
            .filter_map(|name| Some((name.clone(), watch.transitions.forced(&name)?)))
            .collect();
        drop(watch);
        page.patches = patches;
        // Without a lock: each is a read of /proc.
        if let Some(pending) = page.transition.as_mut().and_then(|it| it.pending.as_mut()) {
            let procfs = &self.options.procfs;
            pending.shown = blockers
                .iter()
                .map(|one| tasks::report(procfs, one))
                .collect();
        }
        page
    }

    /// The running transition, and its blockers to describe.
    fn running(&self) -> (Option<Transition>, Vec<Blocker>) {
        let now = clock::boot_time();
        let watch = lock(&self.transition_state);
        let Some(active) = watch.transitions.active() else {
            return (None, Vec::new());
        };
        let found = watch.found(now);
        let transition = Transition {
            patch: active.patch.clone(),
            direction: active.direction,
            running_for: active.age(now),
            attempts: active.attempts,
            signals: active.signals(),
            stuck: watch.stuck(now, self.options.stuck_after),
            pending: found.map(|found| Pending {
                counts: found.counts.clone(),
                idle_unknown: found.idle_unknown,
                shown: Vec::new(),
            }),
        };
        (Some(transition), found.map(foremost).unwrap_or_default())
    }

    /// What the monitor cannot do on this host, and what went wrong at this reading.
    fn degradations_now(&self, anew: &Anew) -> Vec<Degradation> {
        let mut degradations = self.degradations.clone();
        let mut add = |what: String, remedy: &str| {
            degradations.push(Degradation {
                what,
                remedy: remedy.to_owned(),
            });
        };
        let log_readable = self.log_readable();
        let complaints = lock(&self.complaints);
        let complaint = |subject| complaints.get(subject).filter(|text| !text.is_empty());
        for run in anew.collectors.iter().filter(|run| !run.success) {
            let reason = complaint(run.collector).map_or("why is not known", String::as_str);
            let name = run.collector;
            add(
                format!("collector {name} could not read all it needs: {reason}"),
                "",
            );
        }
        if let Some(reason) = complaint("crashes") {
            add(reason.clone(), "");
        }
        if !log_readable {
            let device = self.options.kmsg.display();
            let reason = complaint("kmsg").map_or_else(String::new, |text| format!(" ({text})"));
            add(
                format!(
                    "the kernel log {device} cannot be read{reason}: crash signals are not attributed"
                ),
                "run as root or with CAP_SYSLOG, or name its place with --path.kmsg",
            );
        }
        drop(complaints);
        let errors = anew.crashes.recorder_errors;
        if errors > 0 {
            add(
                format!("notes of the flight recorder that did not reach the disk: {errors}"),
                "see that --state-dir can be written and is not full",
            );
        }
        if let Some(lost) = self.lost_events() {
            add(lost, "give the monitor more CPU time");
        }
        degradations
    }

    /// The events that were lost since the start, if any were.
    pub(super) fn lost_events(&self) -> Option<String> {
        losses(lock(&self.lost).as_deref()?)
    }
}

/// In words, which events were lost; nothing where none was.
fn losses(lost: &[(EventKind, u64)]) -> Option<String> {
    let kinds = lost.iter().filter(|(_, count)| *count > 0);
    let kinds: Vec<String> = kinds
        .map(|(kind, count)| format!("{count} {}", kind.name()))
        .collect();
    (!kinds.is_empty()).then(|| {
        format!(
            "kernel events lost because the ring buffer was full: {}",
            kinds.join(", ")
        )
    })
}

/// The blockers that are described: first those that will not move by themselves.
fn foremost(found: &Found) -> Vec<Blocker> {
    let mut blockers: Vec<&Blocker> = found.blockers.iter().collect();
    blockers.sort_by_key(|blocker| blocker.reason);
    blockers.into_iter().take(BLOCKERS_SHOWN).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_lost_is_named() {
        let kinds = [(EventKind::Panic, 0), (EventKind::PatchObject, 7)];
        let text = losses(&kinds).unwrap();
        assert!(text.ends_with(": 7 klp_patch_object"), "{text}");
        assert_eq!(losses(&kinds[..1]), None);
    }
}
