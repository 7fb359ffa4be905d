//! From the kernel's event to a scrape that shows it: the time, by the kernel's own clock,
//! and the monitor's work.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::{
    io::Errno,
    time::{ClockId, clock_gettime},
};

use super::{Table, milliseconds};
use crate::{
    counters::Counters, eventually::seconds, exposition::Exposition, guest::Guest, helpers::Hold,
    livepatch::PATCH_A, modules, process::cpu_time, target,
};

/// Enough for 99 of 100.
const ROUNDS: usize = 100;
/// Each is waited for until the monitor is idle.
const WORK_ROUNDS: u32 = 5;
/// Between two scrapes, which is the resolution of the result.
const POLL: Duration = Duration::from_millis(20);
/// Longer than the monitor lets a report finish before it reads the kernel log.
const REPORT: Duration = Duration::from_millis(500);

const INIT: &str = "klp_init_transition";
const ENABLE: &str = "klp_enable_patch";
const REVERSE: &str = "klp_reverse_transition";
const COMPLETE: &str = "klp_complete_transition";
const WARN: &str = "__warn";

const ACTIVE: &str = "livepatch_transition_active";
const NAMED: &str = "livepatch_blocking_tasks{function=lpm_hold}";
const REFUSED: &str = "livepatch_patch_load_failures_total";
const WARNINGS: &str = "livepatch_crash_signals_total{signal=warning}";
const REVERSALS: &str = "livepatch_transition_reversals_total";

/// What happens in a round, with the kernel function that is the event and the metric that
/// shows it.
const EVENTS: [(&str, &str); 6] = [
    ("start: livepatch_transition_active", INIT),
    ("start: the blocking function's name", INIT),
    ("refused: livepatch_patch_load_failures_total", ENABLE),
    ("a WARN: livepatch_crash_signals_total", WARN),
    ("reversal: livepatch_transition_reversals_total", REVERSE),
    ("end: livepatch_transition_active", COMPLETE),
];

pub(super) fn measure(guest: &mut Guest) -> Result<Table> {
    let mut took: [Vec<Duration>; 6] = Default::default();
    guest.start_monitor(&[])?;
    target::load()?;
    let work = work(guest)?;
    for (what, took) in work {
        guest.note(format!("{what}: {} M instructions", milliseconds(took)))?;
    }
    target::hold()?;
    guest.hold(&Hold::ONE)?;
    let functions = [INIT, ENABLE, REVERSE, COMPLETE, WARN];
    let counters = Counters::timed(&functions)?;
    for number in 1..=ROUNDS {
        let shown = round(guest)?;
        for ((took, shown), (_, event)) in took.iter_mut().zip(shown).zip(EVENTS) {
            let happened = counters.last_time(event)?;
            let late = shown.checked_sub(happened);
            took.push(late.with_context(|| format!("{event} is shown before it happened"))?);
        }
        if number % 10 == 0 {
            guest.note(format!("{number} of {ROUNDS} rounds"))?;
        }
    }
    let mut table = Table::new(
        &format!(
            "From the kernel's event to a scrape that shows it, {ROUNDS} times, one scrape every \
             {} ms (milliseconds)",
            POLL.as_millis()
        ),
        &["", "median", "99 %", "worst"],
    );
    for (mut took, (what, _)) in took.into_iter().zip(EVENTS) {
        took.sort();
        let at = |share: usize| -> Result<String> {
            let index = (took.len() * share).div_ceil(100).saturating_sub(1);
            let value = took.get(index).copied();
            value.map(milliseconds).context("nothing was measured")
        };
        table.row(&[what.to_owned(), at(50)?, at(99)?, at(100)?]);
    }
    for (what, took) in work {
        let what = format!("{what}: the monitor's millions of instructions");
        table.row(&[what, milliseconds(took), String::new(), String::new()]);
    }
    Ok(table)
}

/// When each of [`EVENTS`] was shown.
fn round(guest: &Guest) -> Result<[Duration; 6]> {
    let before = guest.monitor()?.scrape()?;
    let more = |selector: &str| -> Result<f64> {
        Ok(before.sum_of_any(selector)?.unwrap_or_default() + 1.0)
    };
    let (refused, warnings, reversals) = (more(REFUSED)?, more(WARNINGS)?, more(REVERSALS)?);
    // On another thread, because insmod returns only some time after the transition has begun.
    let insmod = thread::spawn(|| PATCH_A.load());
    let active = until(guest, ACTIVE, 1.0)?;
    let named = until(guest, NAMED, 1.0)?;
    let loaded = insmod.join();
    loaded.map_err(|_| anyhow!("the thread that loads panicked"))??;
    modules::expect_refused("lpm_refused", Errno::BUSY)?;
    let refused = until(guest, REFUSED, refused)?;
    warn()?;
    let warned = until(guest, WARNINGS, warnings)?;
    PATCH_A.disable()?;
    let reversed = until(guest, REVERSALS, reversals)?;
    let ended = until(guest, ACTIVE, 0.0)?;
    modules::unload(PATCH_A.name)?;
    Ok([active, named, refused, warned, reversed, ended])
}

fn warn() -> Result<()> {
    modules::load_with("/modules/lpm_crash.ko", "how=warn")?;
    modules::unload("lpm_crash")
}

/// Scrapes until the series add up to this value; returns when they did.
fn until(guest: &Guest, selector: &str, value: f64) -> Result<Duration> {
    let begin = Instant::now();
    while !shows(&guest.monitor()?.scrape()?, selector, value)? {
        ensure!(
            begin.elapsed() < seconds(60),
            "{selector} is not {value} in a minute"
        );
        thread::sleep(POLL);
    }
    now()
}

fn shows(metrics: &Exposition, selector: &str, value: f64) -> Result<bool> {
    let sum = metrics.sum_of_any(selector)?.unwrap_or_default();
    Ok((sum - value).abs() < f64::EPSILON)
}

/// By the clock of [`Counters::timed`].
fn now() -> Result<Duration> {
    let now = clock_gettime(ClockId::Monotonic);
    Ok(Duration::new(
        now.tv_sec.try_into().context("an absurd time")?,
        now.tv_nsec.try_into().context("an absurd time")?,
    ))
}

/// What the monitor uses of the CPUs from before an event until one scrape has shown it.
pub(super) fn work(guest: &mut Guest) -> Result<[(&'static str, Duration); 3]> {
    let pid = guest.monitor()?.pid();
    let (mut start, mut warned, mut end) = <(Duration, Duration, Duration)>::default();
    for _ in 0..WORK_ROUNDS {
        target::hold()?;
        guest.hold(&Hold::ONE)?;
        guest.wait_idle()?;
        let before = cpu_time(pid)?;
        PATCH_A.load()?;
        expect(guest, ACTIVE, 1.0)?;
        start += cpu_time(pid)? - before;

        let before = cpu_time(pid)?;
        target::release()?;
        PATCH_A.wait_transition_done(seconds(60))?;
        guest.wait_idle()?;
        expect(guest, ACTIVE, 0.0)?;
        end += cpu_time(pid)? - before;
        PATCH_A.remove(seconds(60))?;

        guest.wait_idle()?;
        let scraped = guest.monitor()?.scrape()?;
        let warnings = scraped.sum_of_any(WARNINGS)?.unwrap_or_default();
        let before = cpu_time(pid)?;
        warn()?;
        thread::sleep(REPORT);
        guest.wait_idle()?;
        expect(guest, WARNINGS, warnings + 1.0)?;
        warned += cpu_time(pid)? - before;
    }
    Ok([
        ("start shown", start / WORK_ROUNDS),
        ("end shown", end / WORK_ROUNDS),
        ("warning shown", warned / WORK_ROUNDS),
    ])
}

/// One scrape, which must show it.
fn expect(guest: &Guest, selector: &str, value: f64) -> Result<()> {
    let metrics = guest.monitor()?.scrape()?;
    ensure!(
        shows(&metrics, selector, value)?,
        "{selector} is {:?} at the first scrape, not {value}",
        metrics.sum_of_any(selector)?
    );
    Ok(())
}
