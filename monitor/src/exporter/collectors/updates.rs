//! Packages that an update left half done.

use std::{path::Path, sync::Mutex};

use super::Values as All;
use crate::{
    exporter::{
        collector::{Collected, Collector, Effect, Moment, Outcome},
        lock,
    },
    host::packages::{Interrupted, Packages},
    metrics::{Exposition, ExpositionError, Metric, count, metrics},
};

metrics! {
    UPDATE_INTERRUPTED = "livepatch_update_interrupted" Gauge ["manager"] "Packages that an update left half done; absent where unknown.";
}

/// Updates that were left half done.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// An entry for each package manager of this host whose state could be read.
    pub interrupted: Vec<Interrupted>,
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
        values.updates = Values { interrupted };
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
        )
    }
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
        }]
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
