//! Whether the functions of enabled patches really run.
//!
//! The kernel makes `enabled_functions` page by page, each with ftrace's lock held, which a livepatch
//! that is being enabled needs as well (t_start, kernel/trace/ftrace.c). So it is read only where a
//! patch is enabled, never in a transition or while a module is being loaded, and at most every
//! five minutes unless the patches have changed; the reading is given up when a module comes.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use livepatch_core::{
    in_force::{self, ObjectInForce, Seen},
    patch::PatchSet,
    transition::BootTime,
};

use super::Values as All;
use crate::{
    exporter::{
        collector::{Collected, Collector, Moment, Outcome},
        lock,
    },
    kernel::tracers::Lists,
    metrics::{Exposition, ExpositionError, Metric, count, metrics},
};

metrics! {
    IN_FORCE = "livepatch_patch_functions_in_force" Gauge ["patch", "object"] "Functions of an enabled livepatch that provably run as the patch has them; absent where unknown.";
    NOT_IN_FORCE = "livepatch_patch_functions_not_in_force" Gauge ["patch", "reason"] "Functions of an enabled livepatch that are not, or not provably, in force, by reason; a reason that applies to none has no series.";
}

/// How long what was read holds.
const FRESH: Duration = Duration::from_secs(300);

/// What is in force.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// Each object of each enabled patch.
    pub objects: Vec<ObjectInForce>,
}

#[derive(Debug)]
struct State {
    lists: Lists,
    /// What was read last, of which patches, and when.
    last: Option<(BootTime, Arc<PatchSet>, Seen)>,
}

/// Compares what the patches replace with what ftrace redirects.
#[derive(Debug)]
pub(in crate::exporter) struct FunctionsInForce {
    procfs: PathBuf,
    state: Mutex<State>,
}

impl FunctionsInForce {
    /// Opens the lists: they can be read later without privileges.
    pub(in crate::exporter) fn new(procfs: PathBuf, sysfs: &Path) -> Self {
        let lists = Lists::open(sysfs);
        Self {
            procfs,
            state: Mutex::new(State { lists, last: None }),
        }
    }
}

impl Collector<All> for FunctionsInForce {
    fn name(&self) -> &'static str {
        "in_force"
    }

    fn label(&self) -> Option<&'static str> {
        None
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn collect(&self, moment: &Moment, values: &mut All) -> Outcome {
        let Some(set) = &values.patches.set else {
            return Outcome::default();
        };
        let mut state = lock(&self.state);
        if in_force::functions(set).is_empty() {
            state.last = None;
            return Outcome::default();
        }
        let is_moving = set.in_transition().is_some();
        let is_fresh = state.last.as_ref().is_some_and(|(time, of, _)| {
            of == set && moment.now.since(*time).is_some_and(|age| age < FRESH)
        });
        if !is_moving && !is_fresh && moment.history.loading(moment.now).is_none() {
            // Listing BPF programs takes CAP_SYS_ADMIN, which the exporter gives up.
            let programs = Err("BPF programs are not listed".to_owned());
            let lists = &mut state.lists;
            if let Some(seen) = lists.seen_between_loads(&self.procfs, set, programs) {
                state.last = Some((moment.now, set.clone(), seen));
            }
        }
        let objects = match &state.last {
            Some((_, of, seen)) if is_moving || of == set => in_force::judge(set, seen),
            _ => in_force::judge(set, &unread()),
        };
        values.in_force = Values { objects };
        Outcome::default()
    }

    fn export(
        &self,
        collected: &Collected<All>,
        out: &mut Exposition,
    ) -> Result<(), ExpositionError> {
        let objects = &collected.values.in_force.objects;
        out.gauge(
            &IN_FORCE,
            objects.iter().filter_map(|one| {
                let known = u64::try_from(one.known()?).ok()?;
                Some(([one.patch.as_str(), one.object.as_str()], count(known)))
            }),
        )?;
        let mut by_reason = std::collections::BTreeMap::<(&str, &str), u64>::new();
        for one in objects {
            for (reason, functions) in one.reasons() {
                let functions = u64::try_from(functions).unwrap_or(u64::MAX);
                *by_reason.entry((&one.patch, reason)).or_default() += functions;
            }
        }
        out.gauge(
            &NOT_IN_FORCE,
            by_reason
                .into_iter()
                .filter(|(_, functions)| *functions > 0)
                .map(|((patch, reason), functions)| ([patch, reason], count(functions))),
        )
    }
}

/// Nothing was read of these patches yet.
fn unread() -> Seen {
    let why = || "not read while a transition runs or a module is being loaded".to_owned();
    Seen {
        traced: Err(why()),
        redirected_elsewhere: 0,
        kprobes: Err(why()),
        overridable: Err(why()),
        modules: Err(why()),
        programs: Err(why()),
    }
}
