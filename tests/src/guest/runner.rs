//! Runs scenarios one after the other and reports each.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use anyhow::{Result, anyhow};
use livepatch_monitor_tests::protocol::Message;

use crate::{guest::Guest, monitor, scenarios::Scenario};

/// Runs those of the scenarios that a comma-separated list names, or `all`.
pub(crate) fn run(guest: &mut Guest, known: &'static [Scenario], names: &str) -> Result<()> {
    // Set when the machine could not be cleaned up: a later result would prove nothing.
    let mut unclean = None;
    for choice in choose(known, names) {
        let (name, run) = match choice {
            Ok(scenario) => (scenario.name, scenario.run),
            Err(name) => {
                start(guest, &name)?;
                fail(guest, &name, "there is no such scenario")?;
                continue;
            }
        };
        start(guest, name)?;
        if let Some(cause) = &unclean {
            fail(guest, name, &format!("not run: {cause}"))?;
            continue;
        }
        let begin = Instant::now();
        let result = caught(|| run(guest));
        let milliseconds = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let log = monitor::log_tail();
        let cleaned = caught(|| guest.clean_up());
        if let Err(error) = &cleaned {
            unclean = Some(format!("the clean-up after {name} failed: {error:#}"));
        }
        match result.and(cleaned) {
            Ok(()) => guest.send(&Message::ScenarioPassed {
                scenario: name.to_owned(),
                milliseconds,
            })?,
            Err(error) if log.is_empty() => fail(guest, name, &format!("{error:#}"))?,
            Err(error) => fail(
                guest,
                name,
                &format!("{error:#}\nthe monitor's log ends:\n{log}"),
            )?,
        }
    }
    Ok(())
}

fn choose(known: &'static [Scenario], names: &str) -> Vec<Result<&'static Scenario, String>> {
    if names == "all" {
        return known.iter().map(Ok).collect();
    }
    names
        .split(',')
        .map(|name| {
            known
                .iter()
                .find(|scenario| scenario.name == name)
                .ok_or_else(|| name.to_owned())
        })
        .collect()
}

fn start(guest: &mut Guest, scenario: &str) -> Result<()> {
    guest.begin(scenario);
    guest.send(&Message::ScenarioStarted {
        scenario: scenario.to_owned(),
    })
}

fn fail(guest: &Guest, scenario: &str, reason: &str) -> Result<()> {
    guest.send(&Message::ScenarioFailed {
        scenario: scenario.to_owned(),
        reason: reason.to_owned(),
    })
}

/// A panic is a failure like any other: it must not end PID 1.
pub(crate) fn caught(work: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|payload| Err(anyhow!("panicked: {}", panic_text(payload.as_ref()))))
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
