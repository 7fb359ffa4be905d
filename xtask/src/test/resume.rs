//! Decides what to do about a machine that ended before its scenarios were finished.

/// Why a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The emulator died of its own fault.
    Emulator,
    /// Anything else: the guest's kernel, the guest, a limit.
    Other,
}

/// What a run does next after a machine has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// A new machine runs these scenarios.
    Resume(Vec<String>),
    /// The machine has failed.
    Fail,
}

/// Only the emulator's own fault justifies another machine, and only once: it runs the scenarios
/// without a result, starting with the one that was interrupted. `finished` are those with a
/// result, which may be a failure.
pub(super) fn decide(
    scenarios: &[String],
    finished: &[String],
    cause: Cause,
    resumed: bool,
) -> Decision {
    if cause == Cause::Other || resumed {
        return Decision::Fail;
    }
    let left: Vec<String> = scenarios
        .iter()
        .filter(|name| !finished.contains(name))
        .cloned()
        .collect();
    if left.is_empty() {
        return Decision::Fail;
    }
    Decision::Resume(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_machine_goes_on_from_the_scenario_that_died() {
        let all = names(&["a", "b", "c"]);
        for (finished, left) in [
            (vec![], vec!["a", "b", "c"]),
            (vec!["a"], vec!["b", "c"]),
            (vec!["a", "b"], vec!["c"]),
        ] {
            assert_eq!(
                decide(&all, &names(&finished), Cause::Emulator, false),
                Decision::Resume(names(&left))
            );
        }
    }

    #[test]
    fn a_second_death_fails() {
        let all = names(&["a", "b"]);
        assert_eq!(decide(&all, &[], Cause::Emulator, true), Decision::Fail);
    }

    #[test]
    fn a_guest_that_dies_fails() {
        let all = names(&["a", "b"]);
        assert_eq!(decide(&all, &[], Cause::Other, false), Decision::Fail);
    }

    #[test]
    fn an_emulator_that_dies_after_the_last_scenario_fails() {
        let all = names(&["a"]);
        assert_eq!(decide(&all, &all, Cause::Emulator, false), Decision::Fail);
    }
}
