//! Modules that the kernel refused to load because a livepatch failed for them.
//!
//! The kernel reports this in its log and nowhere else: `patch 'P' failed for module 'M', refusing
//! to load module 'M'` (klp_module_coming, kernel/livepatch/core.c, 5.10 to 7.2; 4.4 does not have
//! that function). The log's new lines are read at each scrape.

use std::{collections::BTreeMap, path::Path, sync::Mutex};

use livepatch_core::transition::BootTime;

use super::Values as All;
use crate::{
    exporter::{
        collector::{Collected, Collector, Effect, Moment, Outcome},
        lock,
    },
    kernel::{
        clock,
        kmsg::{KmsgReader, Record},
    },
    metrics::{Exposition, ExpositionError, Metric, metrics},
};

metrics! {
    REFUSED = "livepatch_modules_refused_total" Counter ["patch"] "Modules that the kernel refused to load because the patch failed for them, since the monitor started.";
}

/// Modules remembered by name; a host patches a handful.
const MAX_REMEMBERED: usize = 256;

/// A module that was refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// The patch that failed.
    pub patch: String,
    /// The module that the kernel did not load.
    pub module: String,
    /// How often it was refused since the monitor started.
    pub count: u64,
    /// When it was last refused, in seconds since 1970.
    pub unix_seconds: Option<f64>,
}

/// Modules that the kernel refused to load because a livepatch failed for them.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// Each patch and module, by name; `None` if the log cannot be read.
    pub refused: Vec<Refused>,
    /// Whether the log can be read.
    pub is_known: bool,
}

#[derive(Debug)]
struct State {
    log: Option<KmsgReader>,
    refused: BTreeMap<(String, String), (u64, Option<f64>)>,
}

/// Reads the kernel's log.
#[derive(Debug)]
pub(in crate::exporter) struct Refusals(Mutex<State>);

impl Refusals {
    /// Opens the log and skips what is in it: what was refused before is not counted.
    pub(in crate::exporter) fn new(kmsg: &Path) -> Self {
        let log = KmsgReader::open(kmsg).ok().and_then(|mut log| {
            log.skip().ok()?;
            Some(log)
        });
        Self(Mutex::new(State {
            log,
            refused: BTreeMap::new(),
        }))
    }
}

impl State {
    /// Processes a line of the log; returns patch and module if it reports a refusal.
    fn take(&mut self, record: &Record) -> Option<(String, String)> {
        let (patch, module) = parse(record)?;
        let key = (patch.to_owned(), module.to_owned());
        if self.refused.len() >= MAX_REMEMBERED && !self.refused.contains_key(&key) {
            return None;
        }
        let time = BootTime::from_duration(record.time + clock::suspended());
        let known = self.refused.entry(key.clone()).or_default();
        *known = (known.0 + 1, clock::unix_seconds(time));
        Some(key)
    }
}

fn parse(record: &Record) -> Option<(&str, &str)> {
    if record.facility != 0 {
        return None;
    }
    let (_, rest) = record.text.split_once("patch '")?;
    let (patch, rest) = rest.split_once("' failed for module '")?;
    let (module, rest) = rest.split_once("', ")?;
    rest.starts_with("refusing to load module")
        .then_some((patch, module))
}

impl Collector<All> for Refusals {
    fn name(&self) -> &'static str {
        "refusals"
    }

    fn label(&self) -> Option<&'static str> {
        None
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn collect(&self, _: &Moment, values: &mut All) -> Outcome {
        let mut state = lock(&self.0);
        let mut log = state.log.take();
        let mut effects = Vec::new();
        let mut problems = Vec::new();
        if let Some(log) = &mut log {
            let read = log.read_new(|record| {
                let refused = state.take(record);
                effects
                    .extend(refused.map(|(patch, module)| Effect::ModuleRefused { patch, module }));
            });
            problems.extend(read.err().map(|error| error.to_string()));
        }
        values.refusals = Values {
            is_known: log.is_some() && problems.is_empty(),
            refused: state
                .refused
                .iter()
                .map(|((patch, module), (count, unix_seconds))| Refused {
                    patch: patch.clone(),
                    module: module.clone(),
                    count: *count,
                    unix_seconds: *unix_seconds,
                })
                .collect(),
        };
        state.log = log;
        Outcome {
            effects,
            problems,
            ..Outcome::default()
        }
    }

    fn export(
        &self,
        collected: &Collected<All>,
        out: &mut Exposition,
    ) -> Result<(), ExpositionError> {
        let values = &collected.values;
        if !values.refusals.is_known {
            return Ok(());
        }
        let loaded = values.patches.set.iter().flat_map(|set| &set.patches);
        let mut counts: BTreeMap<&str, u64> =
            loaded.map(|patch| (patch.name.as_str(), 0)).collect();
        for refused in &values.refusals.refused {
            *counts.entry(&refused.patch).or_default() += refused.count;
        }
        out.counter(
            &REFUSED,
            counts.into_iter().map(|(patch, count)| ([patch], count)),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record(facility: u32, text: &str) -> Record {
        Record {
            level: 4,
            facility,
            sequence: 1,
            time: Duration::from_secs(1),
            text: text.to_owned(),
        }
    }

    #[test]
    fn the_kernels_line_is_counted_and_nobody_elses() {
        const LINE: &str =
            "livepatch: patch 'fix' failed for module 'nft', refusing to load module 'nft'";
        let mut state = State {
            log: None,
            refused: BTreeMap::new(),
        };
        for (facility, text) in [
            (1, LINE),
            (0, "livepatch: applying patch 'fix' to loading module 'nft'"),
            (0, "livepatch: patch 'fix' failed for module 'nft'"),
        ] {
            assert_eq!(state.take(&record(facility, text)), None, "{text}");
        }
        for count in 1..=2 {
            let refused = state.take(&record(0, LINE));
            assert_eq!(refused, Some(("fix".to_owned(), "nft".to_owned())));
            let key = ("fix".to_owned(), "nft".to_owned());
            assert_eq!(state.refused[&key].0, count);
        }
    }
}
