//! Packages that an update left half done.

use std::{collections::BTreeMap, sync::Mutex};

use super::{Values as All, crashes::InUpdate};
use crate::{
    exporter::{
        collector::{Collected, Collector, Effect, Moment, Outcome},
        lock,
    },
    host::packages::{Image, Interrupted, Manager, Packages, names},
    metrics::{Exposition, ExpositionError, Metric, count, metrics},
};

metrics! {
    UPDATE_INTERRUPTED = "livepatch_update_interrupted" Gauge ["manager"] "Packages that an update left half done; absent where unknown.";
    INTERRUPTED_BY_CRASH = "livepatch_update_interrupted_by_crash_info" Gauge ["manager", "patch", "implicated"] "The crash that interrupted the update that is half done now, with the patch that it implicates, or that was in transition or soak (empty: none); always 1, absent where no crash is known to have done it.";
}

/// A run of dpkg that began in this time after a crash still counts as part of the interrupted one
/// of apt's, or of its repair: of a reset only the last moment before it is known.
const AFTER_CRASH_SECONDS: i64 = 15 * 60;

/// Updates that were left half done.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// An entry for each package manager of this host whose state could be read.
    pub interrupted: Vec<Interrupted>,
    /// What an image host has prepared and not yet booted, or failed to prepare.
    pub images: Vec<Image>,
    /// When the last run of each package manager began that left something half done.
    pub last_begins: BTreeMap<&'static str, i64>,
}

#[derive(Debug)]
struct State {
    /// None in a container, which is no host, and in a crash kernel: the packages there are those
    /// of an image.
    packages: Option<Packages>,
    /// The previous findings, so that each is logged once.
    before: Vec<Interrupted>,
}

/// Reads the package managers' state.
#[derive(Debug)]
pub(in crate::exporter) struct Updates(Mutex<State>);

impl Updates {
    /// Of these packages, if they are a host's.
    pub(in crate::exporter) fn new(packages: Option<Packages>) -> Self {
        Self(Mutex::new(State {
            packages,
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
        let Some(packages) = &mut state.packages else {
            return Outcome::default();
        };
        let (interrupted, mut problems) = packages.read();
        let last_begins = packages.last_begins(&interrupted);
        let (images, of_images) = packages.images();
        problems.extend(of_images);
        let effects = news(&state.before, &interrupted);
        state.before.clone_from(&interrupted);
        values.updates = Values {
            interrupted,
            images,
            last_begins,
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
        let updates = &collected.values.updates;
        out.gauge(
            &INTERRUPTED_BY_CRASH,
            updates.interrupted.iter().filter_map(|found| {
                let last = updates.last_begins.get(found.manager.name());
                by_crash(found, *last?, &collected.values.crashes.in_updates)
            }),
        )
    }
}

/// The crash that left this: the update in whose middle it came has a package that is half done,
/// and is the last one of its package manager, which began at `last_begin`.
fn by_crash<'a>(
    found: &Interrupted,
    last_begin: i64,
    crashes: &'a [InUpdate],
) -> Option<([&'a str; 3], f64)> {
    let manager = found.manager.name();
    let crash = crashes.iter().find(|crash| {
        let run = &crash.run;
        let mut packages = found.packages.iter();
        // apt calls dpkg several times, which logs each.
        let is_of_apt = |at: i64| {
            found.manager == Manager::Dpkg
                && (run.begin_unix_seconds..at.saturating_add(AFTER_CRASH_SECONDS))
                    .contains(&last_begin)
        };
        let is_last =
            last_begin == run.begin_unix_seconds || crash.at_unix_seconds.is_some_and(is_of_apt);
        run.manager == manager && is_last && packages.any(|package| names(run, &package.name))
    })?;
    let patch = crash.patch.as_deref().unwrap_or_default();
    Some(([&crash.run.manager, patch, crash.implicated.name()], 1.0))
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
    use livepatch_core::{crash::Implicated, updates::run::UpdateRun};

    use super::*;
    use crate::host::packages::Package;

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
        let crash = |package: &str, patch: &str, begin: i64| InUpdate {
            run: UpdateRun {
                manager: "dpkg".to_owned(),
                begin_unix_seconds: begin,
                packages: vec![package.to_owned()],
                ..UpdateRun::default()
            },
            at_unix_seconds: Some(begin + 30),
            patch: Some(patch.to_owned()),
            implicated: Implicated::Yes,
        };
        let crashes = [
            crash("bash:amd64", "fix2", 2_000),
            crash("openssl:amd64", "fix1", 1_000),
        ];
        let found = left(&["openssl"]);
        let [found] = found.as_slice() else {
            panic!("{found:?}");
        };
        let by = Some((["dpkg", "fix1", "yes"], 1.0));
        assert_eq!(by_crash(found, 1_000, &crashes), by);
        assert_eq!(by_crash(found, 1_000, &crashes[..1]), None);
        // dpkg, called by that apt.
        assert_eq!(by_crash(found, 1_010, &crashes), by);
        // Another run came later: it may have left the package half done.
        assert_eq!(by_crash(found, 100_000, &crashes), None);
        assert_eq!(by_crash(found, 2_000, &crashes), None);
        // Of dnf and zypper each run is one in the history.
        let by_zypper = |last| {
            let mut crash = crash("openssl", "fix1", 1_000);
            crash.run.manager = "zypper".to_owned();
            let found = Interrupted {
                manager: Manager::Zypper,
                ..found.clone()
            };
            by_crash(&found, last, &[crash]).is_some()
        };
        assert!(by_zypper(1_000) && !by_zypper(1_010));
        let repaired = left(&[]);
        assert_eq!(by_crash(repaired.first().unwrap(), 1_000, &crashes), None);
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
