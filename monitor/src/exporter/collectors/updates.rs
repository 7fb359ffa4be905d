//! Packages that an update left half done.

use std::{path::Path, sync::Mutex};

use livepatch_core::{crash::Implicated, updates::run::UpdateRun};

use super::Values as All;
use crate::{
    exporter::{
        collector::{Collected, Collector, Effect, Moment, Outcome},
        lock,
    },
    host::packages::{Image, Interrupted, Packages, names},
    metrics::{Exposition, ExpositionError, Metric, count, metrics},
};

metrics! {
    UPDATE_INTERRUPTED = "livepatch_update_interrupted" Gauge ["manager"] "Packages that an interrupted update left half installed or removed; absent where unknown.";
    INTERRUPTED_BY_CRASH = "livepatch_update_interrupted_by_crash_info" Gauge ["manager", "patch", "implicated"] "The crash that interrupted the update that is now unfinished, with the patch that it implicates, or that was in transition or soak (empty: none); always 1, absent where no crash interrupted it.";
}

/// Updates that were left half done.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// An entry for each package manager of this host whose state could be read.
    pub interrupted: Vec<Interrupted>,
    /// What an image host has prepared and not yet booted, or failed to prepare.
    pub images: Vec<Image>,
}

#[derive(Debug)]
struct State {
    packages: Packages,
    /// The previous findings, so that each is logged once.
    before: Vec<Interrupted>,
}

/// Reads the package managers' state.
#[derive(Debug)]
pub(in crate::exporter) struct Updates(Mutex<State>);

impl Updates {
    /// For the host whose file system is mounted at `root`.
    pub(in crate::exporter) fn new(root: &Path) -> Self {
        Self(Mutex::new(State {
            packages: Packages::new(root),
            before: Vec::new(),
        }))
    }
}

impl Collector<All> for Updates {
    fn name(&self) -> &'static str {
        "updates"
    }

    fn label(&self) -> Option<&'static str> {
        Some(super::HOST)
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn collect(&self, _: &Moment, values: &mut All) -> Outcome {
        let mut state = lock(&self.0);
        let (interrupted, problems) = state.packages.read();
        let effects = news(&state.before, &interrupted);
        state.before.clone_from(&interrupted);
        values.updates = Values {
            interrupted,
            images: state.packages.images(),
        };
        Outcome {
            effects,
            ..Outcome::of(problems)
        }
    }

    fn export(
        &self,
        collected: &Collected<All>,
        out: &mut Exposition,
    ) -> Result<(), ExpositionError> {
        let interrupted = collected.values.updates.interrupted.iter();
        out.gauge(
            &UPDATE_INTERRUPTED,
            interrupted.map(|found| {
                let packages = count(found.packages.len() as u64);
                ([found.manager.name()], packages)
            }),
        )?;
        let rows = collected.values.updates.interrupted.iter();
        out.gauge(
            &INTERRUPTED_BY_CRASH,
            rows.filter_map(|found| by_crash(found, &collected.values.crashes.in_updates)),
        )
    }
}

/// The crash that left this: the update in whose middle it came has a package that is half done.
fn by_crash<'a>(
    found: &Interrupted,
    crashes: &'a [(UpdateRun, Option<String>, Implicated)],
) -> Option<([&'a str; 3], f64)> {
    let manager = found.manager.name();
    let (run, patch, implicated) = crashes.iter().find(|(run, _, _)| {
        let mut packages = found.packages.iter();
        run.manager == manager && packages.any(|package| names(run, &package.name))
    })?;
    let patch = patch.as_deref().unwrap_or_default();
    Some(([&run.manager, patch, implicated.name()], 1.0))
}

/// The changes that are worth a log line. "Nothing is half done" is one only after something was.
fn news(before: &[Interrupted], now: &[Interrupted]) -> Vec<Effect> {
    let fresh = now.iter().filter(|found| !before.contains(found));
    fresh
        .filter_map(|found| match found.packages.is_empty() {
            false => Some(Effect::UpdateInterrupted(found.clone())),
            true => before
                .iter()
                .any(|known| known.manager == found.manager)
                .then_some(Effect::UpdateRepaired(found.manager)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::packages::{Manager, Package};

    fn left(packages: &[&str]) -> Vec<Interrupted> {
        let package = |name: &&str| Package {
            name: (*name).to_owned(),
            state: "unpacked".to_owned(),
        };
        vec![Interrupted {
            manager: Manager::Dpkg,
            packages: packages.iter().map(package).collect(),
            commands: Vec::new(),
            run: None,
        }]
    }

    #[test]
    fn the_crash_that_did_it_is_the_one_in_an_update_of_a_package_that_is_half_done() {
        let run = |package: &str| UpdateRun {
            manager: "dpkg".to_owned(),
            packages: vec![package.to_owned()],
            ..UpdateRun::default()
        };
        let crash =
            |package: &str, patch: &str| (run(package), Some(patch.to_owned()), Implicated::Yes);
        let crashes = [crash("bash:amd64", "fix2"), crash("openssl:amd64", "fix1")];
        let found = left(&["openssl"]);
        let [found] = found.as_slice() else {
            panic!("{found:?}");
        };
        let by = by_crash(found, &crashes);
        assert_eq!(by, Some((["dpkg", "fix1", "yes"], 1.0)));
        assert_eq!(by_crash(found, &crashes[..1]), None);
        let repaired = left(&[]);
        assert_eq!(repaired.first().and_then(|it| by_crash(it, &crashes)), None);
    }

    #[test]
    fn each_change_is_logged_once() {
        assert!(news(&[], &left(&[])).is_empty());
        let half_done = left(&["openssl"]);
        let first = news(&[], &half_done);
        assert!(
            matches!(first.as_slice(), [Effect::UpdateInterrupted(_)]),
            "{first:?}"
        );
        assert!(news(&half_done, &half_done).is_empty());
        let then = news(&half_done, &left(&[]));
        assert!(
            matches!(then.as_slice(), [Effect::UpdateRepaired(Manager::Dpkg)]),
            "{then:?}"
        );
    }
}
