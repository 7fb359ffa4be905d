//! Surroundings that fail while a transition runs, during a report that the machine
//! survives, and (disks, a stopped monitor, a second one) while the machine goes down:
//! nothing is lost that was on the disk, nothing is counted twice, and the metrics are
//! right again a second later. Where the monitor has to be started again, they are right
//! once it has started.

mod device;
pub(super) mod failing_disk;
pub(super) mod full_disks;
pub(super) mod read_only_crash;
mod small_disk;
pub(super) mod stopped_and_starved;
mod surroundings;
mod turns;

use std::thread;

use anyhow::{Context as _, Result, ensure};

use super::{
    Memo, announce, expect_end,
    expected::{Expected, expect_one},
};
use crate::{eventually::seconds, exposition::Exposition, files, guest::Guest, helpers::Task};

/// A WARN during the transition.
const WARNING: &str = "livepatch_crash_signals_total{signal=warning}";
/// Journal entries that could not be written to disk.
const UNRECORDED: &str = "livepatch_recorder_errors_total";
/// Log lines of the monitor that were lost.
const UNLOGGED: &str = "livepatch_monitor_log_lines_lost_total";
/// The monitor's message once its log can be written again.
const LOGGED_AGAIN: &str = "the log can be written again";

/// A module that triggers a WARN, once.
fn warn(guest: &mut Guest) -> Result<()> {
    let helper = guest.helper(&Task::Load {
        module: "lpm_crash".to_owned(),
        parameters: "how=warn".to_owned(),
    })?;
    guest.wait_helper(helper, seconds(60))
}

/// What the metrics say a second after something was mended, at once and for good. Of a
/// turn after that the probes wake the monitor only with the kernel's second attempt, some
/// seconds later.
fn a_second_later(guest: &mut Guest) -> Result<Exposition> {
    thread::sleep(seconds(1));
    guest.scrape()
}

/// The kernel panics at once, on command. A new thread has an empty kernel stack: on an old one the
/// trace shows, as guesses, functions of modules that the thread was in before, and panic() prints
/// no list of modules to explain them.
fn crash(guest: &Guest) -> Result<()> {
    announce(guest)?;
    thread::spawn(|| files::write("/proc/sysrq-trigger", "c"))
        .join()
        .map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    expect_end()
}

/// What is known about [`crash`] during the transition.
fn expected() -> Expected {
    Expected {
        transition: Some("lpm_patch_a"),
        patch: Some("lpm_patch_a"),
        ..Expected::new("panic", "transition")
    }
}

fn expect_logged(log: &str, what: &str) -> Result<()> {
    ensure!(log.contains(what), "the log does not say `{what}`:\n{log}");
    Ok(())
}

/// The value of a sample, which must be a count.
fn count(metrics: &Exposition, selector: &str) -> Result<f64> {
    metrics
        .sum_of_any(selector)?
        .with_context(|| format!("no {selector}"))
}
