//! Was the crash in the middle of an update? The first start after a crash finds out, while the
//! histories still have it.

use std::path::Path;

use livepatch_core::{
    crash::{HostCrash, Precision},
    updates::run::{self, Crash, UpdateRun},
};

use crate::{
    crash::store::Store,
    exporter::log_lines,
    host::packages::{Packages, runs_since},
};

/// The latest crashes that are looked at.
const CRASHES: usize = 16;

/// Stores with each crash that ended a boot the run of a package manager that was under way.
/// `began` is when the running boot began, in seconds since 1970. Returns what could not be read
/// or stored.
pub(super) fn note(store: &mut Store, rootfs: &Path, began: Option<f64>) -> Vec<String> {
    let last_end = store.crashes().iter().rev().find(ended_boot);
    let last_end = last_end.map(|crash| crash.id.clone());
    let moments: Vec<(String, Crash)> = store
        .crashes()
        .iter()
        .rev()
        .take(CRASHES)
        .filter(|crash| ended_boot(crash) && crash.update.is_none())
        .filter_map(|crash| {
            let is_last = last_end.as_ref() == Some(&crash.id);
            let moment = moment(crash, began.filter(|_| is_last))?;
            Some((crash.id.clone(), moment))
        })
        .collect();
    let Some(first) = moments.iter().map(|(_, crash)| crash.boot).min_by(f64::total_cmp) else {
        return Vec::new();
    };
    let (half_done, _) = Packages::new(rootfs).read();
    let (runs, mut problems) = runs_since(rootfs, before(first), &half_done);
    for (id, moment) in moments {
        let Some(run) = run::under_way(&runs, moment) else {
            continue;
        };
        log_lines::update_under_way(&id, run);
        let run: UpdateRun = run.clone();
        let stored = store.correct(&id, |crash| crash.update = Some(run));
        problems.extend(stored.err().map(|error| error.to_string()));
    }
    problems
}

fn ended_boot(crash: &&HostCrash) -> bool {
    crash.ended_boot == Some(true)
}

/// When the boot of a crash began and ended; `None` where its dates do not say that.
fn moment(crash: &HostCrash, next_boot: Option<f64>) -> Option<Crash> {
    let when = &crash.record.when;
    let at = when.unix_seconds.filter(|_| when.is_utc())?;
    let boot = at - when.uptime_seconds?;
    // Of a boot that ended without a word only the last entry of its journal is known.
    let is_lower_bound = matches!(when.precision, Precision::After);
    let latest = next_boot.filter(|_| is_lower_bound).unwrap_or(at);
    Some(Crash { boot, at, latest })
}

/// The whole second a minute before, by which clocks may differ.
fn before(seconds: f64) -> i64 {
    let earlier = (seconds - 60.0).max(0.0);
    i64::try_from(std::time::Duration::from_secs_f64(earlier).as_secs()).unwrap_or(0)
}
