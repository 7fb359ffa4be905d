//! Scenarios that crash the machine: each provokes a crash and, in the next boot, checks what the
//! monitor knows about it. What that boot needs is kept on a disk.

mod chaos;
mod expected;
mod fatal;
pub(crate) mod persistent;
mod power_cut;
mod survived;

use std::{fs, thread, time::Instant};

use anyhow::{Context as _, Result, bail};
use livepatch_monitor_tests::protocol::{Message, command_line};
use serde::{Deserialize, Serialize};

use crate::{
    boot, eventually::seconds, files, guest::Guest, monitor, runner::caught,
    scenarios::clock::unix_seconds, word,
};

/// A scenario of several boots.
struct CrashScenario {
    name: &'static str,
    /// Ends the boot by a crash; if it returns, the boot is ended cleanly.
    provoke: fn(&mut Guest) -> Result<()>,
    /// Checks, in a later boot, what the monitor knows about it.
    verify: fn(&mut Guest, &Memo) -> Result<()>,
}

macro_rules! scenarios {
    ($($theme:ident: $($name:ident),+;)+) => {
        &[$($(CrashScenario {
            name: stringify!($name),
            provoke: $theme::$name::provoke,
            verify: $theme::$name::verify,
        }),+),+]
    };
}

const ALL: &[CrashScenario] = scenarios! {
    survived: oops_in_patch_is_survived;
    fatal: oops_in_patch, oops_elsewhere;
    survived: warning_is_survived, warning_without_bpf, soft_lockup_is_survived;
    fatal: soft_lockup, hung_task;
    survived: rcu_stall_is_survived;
    fatal: nmi, sysrq_without_patch, lockup_while_loading, sysrq_in_transition, sysrq_after_transition;
    power_cut: power_cut_in_transition, power_cuts;
    survived: clean_reboot;
    chaos: full_disks, read_only_crash, failing_disk, stopped_and_starved;
};

/// What later boots of a scenario need.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Memo {
    /// The boots in which it was provoked.
    boot_ids: Vec<String>,
    /// When the first of them started to provoke it, in seconds since 1970.
    began: f64,
}

/// The progress of the machine.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// The number of finished scenarios.
    over: usize,
    /// The one in progress.
    memo: Option<Memo>,
}

const PROGRESS: &str = "/var/lib/progress.json";

/// How long to wait for a machine to go down.
const ALIVE: std::time::Duration = seconds(120);

/// Continues where the last boot ended.
pub(crate) fn run(guest: &mut Guest, words: &str) -> Result<()> {
    persistent::mount_disk()?;
    let kept = word(words, command_line::MEMORY).unwrap_or("none");
    persistent::open(kept)?;
    let chosen = choose(word(words, command_line::RUN).unwrap_or("all"))?;
    let cuts = word(words, command_line::CUTS).unwrap_or("5");
    let cuts: usize = cuts.parse().context("lpm.cuts is not a number")?;
    let mut progress = load()?;
    while let Some(scenario) = chosen.get(progress.over) {
        guest.begin(scenario.name);
        let begin = Instant::now();
        let repeats = if scenario.name == "power_cuts" {
            cuts
        } else {
            1
        };
        let result = match progress.memo.take() {
            Some(memo) if memo.boot_ids.len() >= repeats => {
                persistent::send(guest, scenario.name)?;
                let result = caught(|| (scenario.verify)(guest, &memo));
                finish(guest, scenario, result, begin)?;
                progress.over += 1;
                store(&progress)?;
                // The next one finds a machine that has never crashed.
                end_monitor(guest)?;
                monitor::forget()?;
                persistent::clear()?;
                continue;
            }
            memo => {
                if memo.is_none() {
                    guest.send(&Message::ScenarioStarted {
                        scenario: scenario.name.to_owned(),
                    })?;
                }
                let mut memo = memo.unwrap_or(Memo {
                    boot_ids: Vec::new(),
                    began: unix_seconds()?,
                });
                memo.boot_ids.push(persistent::boot_id()?);
                progress.memo = Some(memo);
                store(&progress)?;
                caught(|| (scenario.provoke)(guest))
            }
        };
        if let Err(error) = result {
            finish(guest, scenario, Err(error), begin)?;
            progress.over += 1;
            progress.memo = None;
            store(&progress)?;
            monitor::forget()?;
            persistent::clear()?;
        }
        // The scenario's changes to the kernel end with the boot.
        end_monitor(guest)?;
        announce(guest)?;
        boot::restart();
    }
    Ok(())
}

fn choose(names: &str) -> Result<Vec<&'static CrashScenario>> {
    if names == "all" {
        return Ok(ALL.iter().collect());
    }
    names
        .split(',')
        .map(|name| {
            let found = ALL.iter().find(|scenario| scenario.name == name);
            found.with_context(|| format!("there is no crash scenario {name}"))
        })
        .collect()
}

fn load() -> Result<Progress> {
    match fs::read(PROGRESS) {
        Ok(text) => serde_json::from_slice(&text).context(PROGRESS),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Progress::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {PROGRESS}")),
    }
}

fn store(progress: &Progress) -> Result<()> {
    let text = serde_json::to_vec(progress).context("cannot encode the progress")?;
    fs::write(PROGRESS, text).with_context(|| format!("cannot write {PROGRESS}"))?;
    rustix::fs::sync();
    Ok(())
}

fn finish(
    guest: &Guest,
    scenario: &CrashScenario,
    result: Result<()>,
    begin: Instant,
) -> Result<()> {
    let name = scenario.name.to_owned();
    let milliseconds = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    guest.send(&match result {
        Ok(()) => Message::ScenarioPassed {
            scenario: name,
            milliseconds,
        },
        Err(error) => Message::ScenarioFailed {
            scenario: name,
            reason: format!(
                "{error:#}\nthe monitor's log ends:\n{}",
                monitor::log_tail()
            ),
        },
    })
}

fn end_monitor(guest: &mut Guest) -> Result<()> {
    match guest.monitor().is_ok() {
        true => guest.stop_monitor(),
        false => Ok(()),
    }
}

/// Informs the host that this boot ends now, whatever happens next.
pub(crate) fn announce(guest: &Guest) -> Result<()> {
    guest.send(&Message::GoingDown)?;
    guest.drain()
}

/// Waits for the end of the boot, which must already be coming.
fn expect_end() -> Result<()> {
    thread::sleep(ALIVE);
    bail!("the machine should have gone down and has not")
}

/// Sets a sysctl of the kernel.
fn set(file: &str, value: &str) -> Result<()> {
    files::write(&format!("/proc/sys/kernel/{file}"), value)
}

#[cfg(test)]
mod tests {
    use livepatch_monitor_tests::protocol::CRASH_SCENARIOS;

    use super::*;

    #[test]
    fn the_host_knows_them_all() {
        let names: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names, CRASH_SCENARIOS);
    }
}
