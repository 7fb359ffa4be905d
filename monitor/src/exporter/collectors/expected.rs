//! Livepatches that should be in force on this kernel.

use std::{path::PathBuf, sync::Mutex};

use super::Values as All;
use crate::{
    exporter::{
        collector::{Collected, Collector, Effect, Moment, Outcome},
        lock,
    },
    host::expected::{Expectations, Expected},
    metrics::{Exposition, ExpositionError, Metric, bit, metrics},
};

metrics! {
    PATCH_MISSING = "livepatch_patch_missing" Gauge ["patch"] "Whether a livepatch that is expected on this kernel is not loaded and enabled, or loaded from another build; 0 if a newer version of it superseded it.";
}

/// Which livepatches should be in force, and whether they are.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// The expected livepatches; empty if it is unknown what is loaded.
    pub patches: Vec<Expected>,
}

#[derive(Debug)]
struct State {
    expectations: Expectations,
    /// The previous findings, so that each is logged once.
    before: Vec<Expected>,
}

/// Compares the loaded livepatches with the expected ones.
#[derive(Debug)]
pub(in crate::exporter) struct ExpectedPatches(Mutex<State>);

impl ExpectedPatches {
    pub(in crate::exporter) fn new(expectations: Expectations) -> Self {
        Self(Mutex::new(State {
            expectations,
            before: Vec::new(),
        }))
    }

    /// The directories of livepatches that are read, whether or not they exist.
    pub(in crate::exporter) fn directories(&self) -> Vec<PathBuf> {
        lock(&self.0).expectations.directories().to_vec()
    }
}

impl Collector<All> for ExpectedPatches {
    fn name(&self) -> &'static str {
        "expected"
    }

    fn label(&self) -> Option<&'static str> {
        Some(super::HOST)
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn collect(&self, _: &Moment, values: &mut All) -> Outcome {
        let Some(loaded) = &values.patches.set else {
            return Outcome::default();
        };
        let mut state = lock(&self.0);
        let (patches, problems) = state.expectations.compare(loaded, &values.patches.beside);
        let fresh = patches.iter().filter(|one| !state.before.contains(one));
        let missing = fresh.filter(|one| one.state.is_missing());
        let effects = missing.cloned().map(Effect::PatchMissing).collect();
        state.before.clone_from(&patches);
        values.expected = Values { patches };
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
        let expected = collected.values.expected.patches.iter();
        out.gauge(
            &PATCH_MISSING,
            expected.map(|one| {
                let missing = bit(one.state.is_missing());
                ([one.patch.as_str()], missing)
            }),
        )
    }
}
