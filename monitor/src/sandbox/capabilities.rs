//! Capabilities: determines which are needed and drops the others.

use capctl::caps::{Cap, CapSet, CapState, ambient, bounding};

use super::{Part, Sandbox};

/// Which of the candidates `works` needs, added in their order until it succeeds. Empty if it works
/// without any, or fails even with all.
///
/// During a test this thread has only the capabilities that are being tested.
pub fn needed(candidates: &[Cap], mut works: impl FnMut() -> bool) -> CapSet {
    let Ok(before) = CapState::get_current() else {
        // Without knowing the current ones, nothing can be tested.
        return candidates.iter().copied().collect();
    };
    let mut trial = before;
    trial.effective.clear();
    let mut found = None;
    let ladder = candidates.iter().filter(|cap| before.permitted.has(**cap));
    for more in std::iter::once(None).chain(ladder.map(Some)) {
        trial.effective.add_all(more.copied());
        if trial.set_current().is_ok() && works() {
            found = Some(trial.effective);
            break;
        }
    }
    // It only restores permitted capabilities, which the kernel does not refuse.
    let _ = before.set_current();
    found.unwrap_or_default()
}

/// Empties the bounding set, which limits what an executed program could gain. It needs
/// CAP_SETPCAP, which becoming another user takes away; without it the set stays as the service
/// manager has left it.
pub(super) fn empty_bounding_set(sandbox: &mut Sandbox) {
    let emptied =
        CapState::get_current().and_then(|state| match state.effective.has(Cap::SETPCAP) {
            true => bounding::clear(),
            false => Ok(()),
        });
    if let Err(error) = emptied {
        sandbox.lacks(
            format!("cannot empty the bounding set of capabilities: {error}"),
            "report the kernel version to the project",
        );
    }
}

pub(super) fn enter(keep: CapSet, sandbox: &mut Sandbox) {
    match give_up(keep) {
        Ok(kept) => {
            sandbox.kept = kept;
            if kept.is_empty() {
                sandbox.holds.push(Part::Capabilities);
            }
        }
        Err(error) => sandbox.lacks(
            format!("cannot drop the capabilities: {error}"),
            "report the kernel version to the project",
        ),
    }
}

fn give_up(keep: CapSet) -> capctl::Result<CapSet> {
    let mut state = CapState::get_current()?;
    if ambient::is_supported() {
        ambient::clear()?;
    }
    let kept = state.permitted & keep;
    state.permitted = kept;
    state.effective = kept;
    state.inheritable.clear();
    state.set_current()?;
    Ok(kept)
}
