//! Runs a monitor for a long time: its memory and descriptors do not grow, and its counts are the
//! kernel's. The machine has one CPU, so every other task is off it at the kernel's first attempt:
//! a transition takes some milliseconds instead of a second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use livepatch_monitor_test_support::http;
use livepatch_monitor_tests::protocol::command_line;

use crate::{
    counters::{ATTEMPT, Counters},
    eventually::seconds,
    exposition::{Exposition, ended},
    files,
    guest::Guest,
    helpers::Hold,
    livepatch::{Livepatch, PATCH_A, VMLINUX},
    lost_events::LostEvents,
    modules, monitor,
    probes::Probes,
    process::{self, Holdings, context_switches_by_thread, cpu_time},
    target, word,
};

/// The label of an event, and the kernel function that it is hooked to.
const FUNCTIONS: &[(&str, &str)] = &[
    ("klp_enable_patch", "klp_enable_patch"),
    ("klp_init_transition", "klp_init_transition"),
    ("klp_try_complete_transition", "klp_try_complete_transition"),
    ("klp_complete_transition", "klp_complete_transition"),
    ("klp_cancel_transition", "klp_cancel_transition"),
    ("klp_reverse_transition", "klp_reverse_transition"),
    ("klp_force_transition", "klp_force_transition"),
    ("klp_patch_object", "klp_patch_object"),
    ("klp_unpatch_object", "__klp_unpatch_object"),
    ("klp_free_patch", "klp_free_patch_work_fn"),
    ("__warn", "__warn"),
];

/// The monitor's state directory.
pub(super) const STATE: &str = "/var/lib/livepatch-monitor";
/// The journal (1 MiB at most) and the crashes.
pub(super) const MOST_STATE: u64 = 1_200_000;

/// Number of transitions after which the first values are taken; a tenth if fewer transitions are
/// requested.
const WARM_UP: u64 = 100;
/// Number of parts that the rest is divided into. At the end of each, a task holds up a transition
/// for a moment, because the scan of the tasks is part of the monitor too.
const PARTS: u64 = 4;
/// Cycles between two progress messages.
const NOTED: u64 = 25;
/// How much more memory, in KiB, the monitor may use at the end.
const GROWTH: u64 = 1024;
/// How long one transition may take on a starved machine.
const PATIENCE: Duration = seconds(60);

/// A thousand transitions and ten thousand scrapes do not change what the monitor uses.
pub(super) fn long_run(guest: &mut Guest) -> Result<()> {
    let cycles = asked_for(command_line::TRANSITIONS, 1_000)?.max(20) / 2;
    let scrapes = asked_for(command_line::SCRAPES, 10_000)?;
    let warm_up = WARM_UP.min(cycles / 5);
    let counters = count()?;
    target::load()?;
    guest.start_monitor(&[])?;
    let pid = guest.monitor()?.pid();
    let mut scraper = Scraper::start(scrapes);
    let begin = Instant::now();
    let mut done = 0;
    let mut made = 0;
    let mut first = None;
    for part in 0..=PARTS {
        let end = match part {
            0 => warm_up,
            _ => warm_up + (cycles - warm_up) * part / PARTS,
        };
        while done < end {
            there_and_back(VMLINUX)?;
            done += 1;
            scraper.permit(scrapes * done / cycles)?;
            if done.is_multiple_of(NOTED) {
                guest.note(format!(
                    "{} transitions, {} scrapes, {:.0} s",
                    2 * done + made,
                    scraper.done(),
                    begin.elapsed().as_secs_f64()
                ))?;
            }
        }
        held_there_and_back(guest)?;
        made += 2;
        scraper.catch_up()?;
        guest.wait_idle()?;
        let holds = Holdings::of(pid)?;
        guest.note(format!(
            "{} transitions, {} scrapes, {:.0} s: {holds:?}, {} bytes of state",
            2 * done + made,
            scraper.done(),
            begin.elapsed().as_secs_f64(),
            process::bytes_in(STATE)?
        ))?;
        let first = *first.get_or_insert(holds);
        ensure!(
            holds.resident <= first.resident + GROWTH
                && holds.descriptors <= first.descriptors
                && holds.threads <= first.threads,
            "the monitor held {first:?} after the warm-up and {holds:?} now"
        );
        let state = process::bytes_in(STATE)?;
        ensure!(state <= MOST_STATE, "{state} bytes in {STATE}");
    }
    let slowest = scraper.end()?;
    guest.note(format!("slowest scrape {slowest:?}"))?;

    // Nothing has happened for a while, so everything has been counted.
    let metrics = guest.scrape()?;
    expect_exact(&metrics, &counters)?;
    let each_way = whole(done + made / 2);
    for direction in ["patch", "unpatch"] {
        metrics.expect(&ended(direction, "completed"), each_way)?;
    }
    metrics.expect_sum("livepatch_transitions_total", 2.0 * each_way)?;
    metrics.expect("livepatch_monitor_events_lost_total", 0.0)?;
    metrics.expect(
        "livepatch_transition_attempts_total",
        counters.metric(ATTEMPT)?,
    )?;
    for none in [
        "livepatch_transition_reversals_total",
        "livepatch_transition_forces_total",
        "livepatch_patch_load_failures_total",
        "livepatch_recorder_errors_total",
        "livepatch_crash_signals_total",
    ] {
        metrics.expect_sum(none, 0.0)?;
    }
    metrics.expect_none_loaded()?;
    metrics.expect_sum("livepatch_monitor_collector_success", 3.0)
}

/// A number from the machine's command line.
fn asked_for(key: &str, default: u64) -> Result<u64> {
    let words = files::read("/proc/cmdline")?;
    word(&words, key).map_or(Ok(default), |text| {
        text.parse()
            .with_context(|| format!("{key}={text} is not a number"))
    })
}

/// Counts the calls of [`FUNCTIONS`], from before a monitor starts.
pub(super) fn count() -> Result<Counters> {
    let functions: Vec<&str> = FUNCTIONS.iter().map(|(_, function)| *function).collect();
    Counters::of(&functions)
}

/// Events seen and events lost add up to what the kernel did.
pub(super) fn expect_exact(metrics: &Exposition, counters: &Counters) -> Result<()> {
    let losses = LostEvents::read(metrics)?;
    let probes = Probes::read()?;
    let made = counters.read()?;
    for (event, function) in FUNCTIONS {
        let seen = probes.received(event)?;
        let lost = losses.of(event)?;
        let made = made.get(*function).copied().map(whole);
        ensure!(
            made == Some(seen + lost),
            "{event}: {seen} seen, {lost} lost, {made:?} made"
        );
    }
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of one run are below 2^52"
)]
fn whole(count: u64) -> f64 {
    count as f64
}

/// Enables a livepatch and disables it again.
pub(super) fn there_and_back(patch: Livepatch) -> Result<()> {
    patch.load()?;
    wait(patch)?;
    patch.disable()?;
    wait(patch)?;
    let begin = Instant::now();
    // The livepatch's memory is freed by deferred work.
    while let Err(error) = modules::try_unload(patch.name) {
        ensure!(begin.elapsed() < PATIENCE, "{error:#}");
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn wait(patch: Livepatch) -> Result<()> {
    let begin = Instant::now();
    while patch.in_transition()? {
        ensure!(
            begin.elapsed() < PATIENCE,
            "{} is still in transition",
            patch.name
        );
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The same, with a task that holds up the first of the two transitions until the monitor has named
/// it.
fn held_there_and_back(guest: &mut Guest) -> Result<()> {
    target::hold()?;
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    guest.wait_for(PATIENCE, "livepatch_blocking_tasks{function=lpm_hold}", 1.0)?;
    target::release()?;
    PATCH_A.wait_transition_done(PATIENCE)?;
    PATCH_A.remove(PATIENCE)
}

/// Scrapes in a thread, over one connection that is replaced by a new one now and then.
pub(super) struct Scraper {
    permits: Option<SyncSender<()>>,
    permitted: u64,
    done: Arc<AtomicU64>,
    thread: JoinHandle<Result<Duration>>,
}

impl Scraper {
    /// Number of permits that may be outstanding, so that the scrapes keep pace with the
    /// transitions.
    const AHEAD: usize = 50;
    /// Scrapes per connection.
    const OF_CONNECTION: u64 = 500;
    /// One in this many scrapes is parsed; the others are only received.
    const READ: u64 = 100;

    /// Scrapes as often as permits arrive, `most` times.
    pub(super) fn start(most: u64) -> Self {
        let (permits, permitted) = sync_channel(Self::AHEAD);
        let done = Arc::new(AtomicU64::new(0));
        let count = done.clone();
        let thread = thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            let mut client = http::Client::default();
            while permitted.recv().is_ok() {
                let number = count.load(Ordering::Relaxed) + 1;
                ensure!(number <= most, "more scrapes than asked for");
                if number.is_multiple_of(Self::OF_CONNECTION) {
                    client = http::Client::default();
                }
                let begin = Instant::now();
                let text = client.body(monitor::ADDRESS, "/metrics")?;
                slowest = slowest.max(begin.elapsed());
                if number.is_multiple_of(Self::READ) {
                    Exposition::parse(&text)?.expect_sum("livepatch_supported", 1.0)?;
                }
                count.store(number, Ordering::Relaxed);
            }
            Ok(slowest)
        });
        Self {
            permits: Some(permits),
            permitted: 0,
            done,
            thread,
        }
    }

    /// Number of scrapes so far.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Permits scrapes up to this number; waits while many are outstanding.
    pub(super) fn permit(&mut self, up_to: u64) -> Result<()> {
        let permits = self.permits.as_ref().context("it has ended")?;
        while self.permitted < up_to {
            if permits.send(()).is_err() {
                bail!("the scraper has given up after {} scrapes", self.done());
            }
            self.permitted += 1;
        }
        Ok(())
    }

    /// Waits until all permitted scrapes are done.
    fn catch_up(&self) -> Result<()> {
        let begin = Instant::now();
        while self.done() < self.permitted {
            ensure!(
                begin.elapsed() < PATIENCE && !self.thread.is_finished(),
                "{} scrapes of {} are done",
                self.done(),
                self.permitted
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends the thread; returns how long the slowest scrape took.
    pub(super) fn end(mut self) -> Result<Duration> {
        drop(self.permits.take());
        let result = self.thread.join();
        result.map_err(|_| anyhow!("the scraper panicked"))?
    }
}

/// Time without any activity.
const QUIET: Duration = seconds(20);
/// The same with a connection that is kept open: longer than the time limit of a response.
const QUIET_CONNECTED: Duration = seconds(40);
/// Wake-ups that a kept connection may cost until it is closed: its two time limits, each through
/// the three levels of tokio's timer wheel.
const OF_CONNECTION: u64 = 6;

/// While nothing happens, the monitor does nothing: none of its threads is woken once. A connection
/// that is kept open costs the web server's thread its time limits.
pub(super) fn quiet(guest: &mut Guest) -> Result<()> {
    target::load()?;
    guest.start_monitor(&[])?;
    let pid = guest.monitor()?.pid();
    // It has had work to do, and has finished it.
    held_there_and_back(guest)?;
    guest.wait_idle()?;
    let cpu = cpu_time(pid)?;
    let woken = woken_in(pid, QUIET)?;
    let cpu = cpu_time(pid)?.saturating_sub(cpu);
    guest.note(format!("woken in {QUIET:?}: {woken:?}"))?;
    ensure!(
        woken.is_empty() && cpu.is_zero(),
        "in {QUIET:?} in which nothing happened threads were woken: {woken:?}, {cpu:?} of CPU time"
    );

    let client = http::Client::default();
    client.body(monitor::ADDRESS, "/metrics")?;
    // The thread that answered sleeps again.
    guest.wait_idle()?;
    let connected = Holdings::of(pid)?.descriptors;
    let woken = woken_in(pid, QUIET_CONNECTED)?;
    guest.note(format!(
        "woken in {QUIET_CONNECTED:?} with a kept connection: {woken:?}"
    ))?;
    ensure!(
        woken
            .iter()
            .all(|(thread, times)| thread.ends_with(" web") && *times <= OF_CONNECTION),
        "in {QUIET_CONNECTED:?} with a kept connection threads were woken: {woken:?}"
    );
    // Both sides have kept the connection all the time, and it still works.
    let still = Holdings::of(pid)?.descriptors;
    ensure!(still == connected, "{connected} descriptors, then {still}");
    Exposition::parse(&client.body(monitor::ADDRESS, "/metrics")?)?
        .expect("livepatch_supported", 1.0)?;
    let still = Holdings::of(pid)?.descriptors;
    ensure!(
        still == connected,
        "another connection was opened: {still} descriptors"
    );
    Ok(())
}

/// How often each thread was woken during a time span, and where it was.
fn woken_in(pid: u32, span: Duration) -> Result<Vec<(String, u64)>> {
    let before = context_switches_by_thread(pid)?;
    thread::sleep(span);
    let after = context_switches_by_thread(pid)?;
    Ok(after
        .into_iter()
        .map(|(thread, count)| {
            let earlier = before.get(&thread).copied().unwrap_or(0);
            (thread, count - earlier)
        })
        .filter(|(_, count)| *count > 0)
        .collect())
}
