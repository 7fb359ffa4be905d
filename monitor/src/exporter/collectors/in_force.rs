//! Whether the functions of enabled patches really run.
//!
//! The kernel makes `enabled_functions` page by page, each with ftrace's lock held, which a
//! livepatch that is being enabled needs as well (t_start, kernel/trace/ftrace.c). So it is read
//! only where a patch is enabled, never in a transition or while a module is being loaded, and at
//! most every five minutes unless the patches have changed; the reading is given up when a module
//! comes. Until it can be read again, the last reading stands for 15 minutes, for the objects that
//! have not changed since.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use livepatch_core::{
    in_force::{self, ObjectInForce, Seen},
    patch::{Patch, PatchSet},
    preflight::host::Known,
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
/// How long it holds where it cannot be read again.
const LONGEST: Duration = Duration::from_secs(900);

/// What is in force.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// Each object of each enabled patch.
    pub objects: Vec<ObjectInForce>,
}

#[derive(Debug)]
struct State {
    lists: Lists,
    last: Option<Reading>,
}

/// What was read last.
#[derive(Debug)]
struct Reading {
    time: BootTime,
    /// The patches that were enabled then.
    of: Arc<PatchSet>,
    seen: Seen,
}

impl Reading {
    fn is_within(&self, span: Duration, now: BootTime) -> bool {
        now.since(self.time).is_some_and(|age| age < span)
    }

    /// Whether it is about this object: the patch was enabled and had the object as it is now.
    fn covers(&self, set: &PatchSet, patch: &str, object: &str) -> bool {
        let Some((then, now)) = self.of.get(patch).zip(set.get(patch)) else {
            return false;
        };
        let object_of = |patch: &Patch| {
            let mut objects = patch.objects.iter();
            objects.find(|one| one.name == object).cloned()
        };
        then.enabled == Some(true)
            && (&then.srcversion, &then.build_id) == (&now.srcversion, &now.build_id)
            && object_of(then) == object_of(now)
    }
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

    /// Reads the lists, unless that could hold up a livepatch.
    ///
    /// # Errors
    /// Why they were not read.
    fn read(&self, state: &mut State, set: &Arc<PatchSet>, moment: &Moment) -> Known<()> {
        if let Some(patch) = set.in_transition() {
            return Err(format!("not read while {} is in transition", patch.name));
        }
        if let Some(patch) = moment.history.loading(moment.now) {
            return Err(format!("not read while {patch} is being loaded"));
        }
        // Listing BPF programs takes CAP_SYS_ADMIN, which the exporter gives up.
        let programs = Err("BPF programs are not listed".to_owned());
        let seen = state
            .lists
            .seen_between_loads(&self.procfs, set, programs)?;
        state.last = Some(Reading {
            time: moment.now,
            of: set.clone(),
            seen,
        });
        Ok(())
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
        let is_fresh = state
            .last
            .as_ref()
            .is_some_and(|last| last.of == *set && last.is_within(FRESH, moment.now));
        let unread = match is_fresh {
            true => None,
            false => self.read(&mut state, set, moment).err(),
        };
        let by_nothing = in_force::judge(set, &unseen(unread.as_deref().unwrap_or_default()));
        let last = state.last.as_ref();
        let objects = match last.filter(|last| last.is_within(LONGEST, moment.now)) {
            Some(last) => in_force::judge(set, &last.seen)
                .into_iter()
                .zip(by_nothing)
                .map(
                    |(read, unread)| match last.covers(set, &read.patch, &read.object) {
                        true => read,
                        false => unread,
                    },
                )
                .collect(),
            None => by_nothing,
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

/// Nothing was read, or too long ago.
fn unseen(why: &str) -> Seen {
    Seen {
        traced: Err(why.to_owned()),
        redirected_elsewhere: 0,
        kprobes: Err(why.to_owned()),
        events: Vec::new(),
        overridable: Err(why.to_owned()),
        modules: Err(why.to_owned()),
        programs: Err(why.to_owned()),
    }
}

#[cfg(test)]
mod tests;
