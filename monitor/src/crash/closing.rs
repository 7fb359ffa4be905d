//! Determines how the boots of the journal ended: every boot that ended uncleanly gets exactly one
//! crash.

use std::time::Duration;

use livepatch_core::{
    boots::{Boot, is_of_signal},
    crash::{HostCrash, Implicated, Kind},
};

use super::{
    kdump_config::Targets,
    store::{Store, StoreError},
};

/// Whether a crash is known only from the journal.
pub(super) fn is_of_journal(crash: &HostCrash) -> bool {
    let record = &crash.record;
    record.files.is_empty() && record.trace.is_empty() && record.modules.is_none()
}

/// Ensures that a boot which ended uncleanly has exactly one crash that ended it.
pub(super) fn close(
    store: &mut Store,
    boot: &Boot,
    targets: &Targets,
    soak: Duration,
) -> Result<(), StoreError> {
    let Some(boot_id) = boot.history.boot_id.as_deref() else {
        return Ok(());
    };
    let of_boot = |crash: &&HostCrash| crash.boot_id.as_deref() == Some(boot_id);
    let crashes = || store.crashes().iter().filter(of_boot);
    let ended = |crash: &&HostCrash| crash.ended_boot == Some(true);
    if crashes().any(|crash| ended(&crash) && !is_of_journal(crash)) {
        // Its dump was found only after its end had been noticed.
        let made_up = crashes().filter(|crash| ended(crash) && is_of_journal(crash));
        let made_up: Vec<_> = made_up.map(|crash| crash.id.clone()).collect();
        return made_up.iter().try_for_each(|id| store.remove(id));
    }
    if boot.unclean() != Some(true) || crashes().any(|crash| ended(&crash)) {
        return Ok(());
    }
    let mut last = boot.last_word(soak);
    // An oops that was dumped, and nothing after it: the panic's own dump did not fit.
    let after =
        |crash: &&HostCrash| crash.ended_boot.is_none() && boot.may_have_ended(&crash.record);
    let known = crashes().find(|crash| is_of_signal(&crash.record, &last));
    let known = known.or_else(|| crashes().rev().find(after));
    if let Some(id) = known.map(|crash| crash.id.clone()) {
        return store.correct(&id, |crash| crash.ended_boot = Some(true));
    }
    if last.kind == Kind::Reset && last.implicated == Implicated::Unknown {
        let elsewhere = targets.elsewhere.iter();
        last.unproven.extend(
            elsewhere.map(|place| {
                format!("kdump writes its dumps to {place}: if there is one, import it")
            }),
        );
    }
    store.put(last, Some(boot_id), Some(true)).map(drop)
}

/// Whether the boot before this one ended uncleanly; `None` if unknown.
#[must_use]
pub fn last_boot_unclean(store: &Store, boots: &[Boot]) -> Option<bool> {
    let last = boots.last()?;
    let ended =
        |crash: &HostCrash| crash.boot_id == last.history.boot_id && crash.ended_boot == Some(true);
    if last.history.boot_id.is_some() && store.crashes().iter().any(ended) {
        return Some(true);
    }
    last.unclean()
}
