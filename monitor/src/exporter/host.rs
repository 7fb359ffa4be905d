//! What an update left half done, which patches are missing, what of the next crash
//! would be kept.

use std::path::PathBuf;

use tracing::{info, warn};

use super::{Exporter, Options, lock};
use crate::{
    host::{
        crash_capture,
        expected::{Expectations, Expected, State},
        packages::{Interrupted, Packages},
    },
    metrics::CrashView,
};
use livepatch_core::{crash::capture::Source, patch::PatchSet};

/// Packages that a log line names.
const SHOWN: usize = 10;

/// The readers, which remember what they have read.
#[derive(Debug)]
pub(super) struct Host {
    packages: Packages,
    expectations: Expectations,
    /// What was said of it last, so that it is said once.
    interrupted: Vec<Interrupted>,
    expected: Vec<Expected>,
}

impl Host {
    pub(super) fn new(options: &Options, release: &str) -> Self {
        Self {
            packages: Packages::new(&options.rootfs),
            expectations: Expectations::new(
                &options.rootfs,
                release,
                &options.expected_directories,
                &options.expected_patches,
            ),
            interrupted: Vec::new(),
            expected: Vec::new(),
        }
    }
}

impl Host {
    /// The directories of livepatches that it reads, whether they are there or not.
    pub(super) fn expected_directories(&self) -> Vec<PathBuf> {
        self.expectations.directories().to_vec()
    }
}

impl Exporter {
    /// What the last reading found half done, and of what was expected.
    pub(super) fn host_found(&self) -> (Vec<Interrupted>, Vec<Expected>) {
        let host = lock(&self.host);
        (host.interrupted.clone(), host.expected.clone())
    }

    /// Adds what a scrape shows of the host. True if all could be read.
    pub(super) fn host_view(&self, view: &mut CrashView, loaded: Option<&PatchSet>) -> bool {
        let mut host = lock(&self.host);
        let (interrupted, mut problems) = host.packages.read();
        log_interrupted(&host.interrupted, &interrupted);
        for found in &interrupted {
            let count = u64::try_from(found.packages.len()).unwrap_or(u64::MAX);
            view.interrupted.insert(found.manager.name(), count);
        }
        host.interrupted = interrupted;
        if let Some(loaded) = loaded {
            let (expected, unreadable) = host.expectations.compare(loaded);
            problems.extend(unreadable);
            log_expected(&host.expected, &expected);
            for one in &expected {
                let missing = one.state != State::InForce;
                view.missing.insert(one.patch.clone(), missing);
            }
            host.expected = expected;
        }
        drop(host);
        for (source, ready) in crash_capture::read(&self.options.procfs, &self.options.sysfs) {
            view.evidence_ready.insert(source, ready);
        }
        let read = problems.is_empty();
        self.complain("host", &problems.join("; "));
        read
    }

    /// Says at the start what would not be kept of a crash.
    pub(super) fn log_evidence(&self) {
        let ready = crash_capture::read(&self.options.procfs, &self.options.sysfs);
        let dump = [Source::Pstore, Source::Kdump];
        let kept = ready
            .iter()
            .any(|(source, ready)| *ready && dump.contains(source));
        for (source, _) in ready.iter().filter(|(_, ready)| !ready) {
            let (source, remedy) = (source.name(), source.remedy());
            if kept {
                info!(remedy, "of a crash there would be nothing from {source}");
            } else {
                warn!(
                    remedy,
                    "no dump of a crash would outlive it; not ready: {source}"
                );
            }
        }
    }
}

fn log_interrupted(before: &[Interrupted], now: &[Interrupted]) {
    for found in now.iter().filter(|found| !before.contains(found)) {
        let manager = found.manager.name();
        if found.packages.is_empty() {
            // Said only where there was something before.
            if before.iter().any(|known| known.manager == found.manager) {
                info!(manager, "no package is half done any more");
            }
            continue;
        }
        let shown = found.packages.iter().take(SHOWN);
        let names: Vec<String> = shown
            .map(|package| format!("{} ({})", package.name, package.state))
            .collect();
        warn!(
            manager,
            packages = found.packages.len(),
            "an update was left half done: {}; repair it before the next one ({})",
            names.join(", "),
            found.manager.remedy()
        );
    }
}

fn log_expected(before: &[Expected], now: &[Expected]) {
    for one in now.iter().filter(|one| !before.contains(one)) {
        if let Some(problem) = one.state.problem() {
            let patch = one.patch.as_str();
            warn!(patch, "the livepatch {problem}");
        }
    }
}
