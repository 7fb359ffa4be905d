//! Events as fast as the machine can make them: what is lost is counted, memory is
//! bounded, scrapes are answered, and what is said afterwards is what sysfs says.

use std::{
    fs::File,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use livepatch_monitor_test_support::http;
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};

use super::endurance::{MOST_STATE, STATE, count, expect_exact, there_and_back};
use crate::{
    counters::Counters,
    eventually::seconds,
    exposition::Exposition,
    files,
    guest::Guest,
    helpers::Hold,
    kernel_log,
    livepatch::{PATCH_A, VMLINUX},
    lost_events::LostEvents,
    modules, monitor,
    probes::Probes,
    process::{self, Holdings},
    target,
};

/// Times a transition is reversed: an even number leaves it where it was.
const REVERSALS: u32 = 1_000;
/// Livepatches refused because another one is in transition.
const REFUSALS: u32 = 100;
/// WARNs of one module.
const WARNINGS: u32 = 2_000;
/// What each of them says (tests/modules/lpm_crash.c).
const WARNING: &str = "lpm_crash warns";
/// Lines that look like the beginning of a kernel's report.
const LINES: u32 = 20_000;
/// More than the ring buffer takes of them.
const LINES_UNREAD: u32 = 2_000;
/// Reversals, of some events each, that fit into what reports leave of the buffer.
const TURNS_THAT_FIT: u32 = 50;
/// More than the whole of it takes.
const TURNS_UNREAD: u32 = 500;

/// What the monitor may hold in a storm, in KiB: it reads the kernel's log for each
/// report, which on this machine is at most 1 MiB.
const MOST_MEMORY: u64 = 40 * 1024;
/// Until what was made has been read.
const SETTLE: Duration = seconds(60);

/// The events of livepatch: reversals and refusals in a tight loop lose none.
pub(super) fn livepatch_storm(guest: &mut Guest) -> Result<()> {
    let counters = count()?;
    hold_up_both_ways(guest)?;
    let scraping = Scraping::start(guest)?;
    let begin = Instant::now();
    reverse(REVERSALS)?;
    let turned = begin.elapsed();
    for _ in 0..REFUSALS {
        modules::expect_refused("lpm_refused", Errno::BUSY)?;
    }
    let seen = scraping.end()?;
    guest.note(format!(
        "{REVERSALS} reversals in {turned:?}, {REFUSALS} refusals in {:?}; {seen}",
        begin.elapsed().saturating_sub(turned)
    ))?;
    let metrics = when_counted(guest, &counters)?;
    metrics.expect(
        "livepatch_transition_active{patch=lpm_patch_a,direction=patch}",
        1.0,
    )?;
    metrics.expect("livepatch_monitor_events_lost_total", 0.0)?;
    metrics.expect("livepatch_transition_reversals_total", f64::from(REVERSALS))?;
    metrics.expect_sum(
        "livepatch_transitions_total{outcome=reversed}",
        f64::from(REVERSALS),
    )?;
    metrics.expect("livepatch_patch_load_failures_total", f64::from(REFUSALS))?;
    metrics.expect("livepatch_recorder_errors_total", 0.0)?;
    let state = process::bytes_in(STATE)?;
    ensure!(state <= MOST_STATE, "{state} bytes in {STATE}");
    let_go(guest)?;
    when_counted(guest, &counters)?.expect_none_loaded()
}

/// Reports of the kernel in a tight loop: WARNs, and lines in its log.
pub(super) fn report_storm(guest: &mut Guest) -> Result<()> {
    quiet_console()?;
    let counters = count()?;
    let warnings_before = kernel_warnings()?;
    hold_up(guest)?;
    let scraping = Scraping::start(guest)?;
    let begin = Instant::now();
    modules::load_with(
        "/modules/lpm_crash.ko",
        &format!("how=warn times={WARNINGS}"),
    )?;
    let seen = scraping.end()?;
    guest.note(format!("{WARNINGS} WARNs in {:?}; {seen}", begin.elapsed()))?;
    let metrics = when_counted(guest, &counters)?;
    ensure!(
        counters.get("__warn")? == u64::from(WARNINGS),
        "the kernel counts other WARNs too: {:?}",
        counters.read()?
    );
    let lost = LostEvents::read(&metrics)?.of("__warn")?;
    guest.note(format!("{lost} of the WARNs were lost"))?;
    if let Some(before) = warnings_before {
        let now = kernel_warnings()?.context("the kernel's count is gone")?;
        ensure!(now - before == u64::from(WARNINGS), "{before}, then {now}");
        metrics.expect("livepatch_crash_signals_missed", lost)?;
    }
    // The log is read when it has come to rest: what is still in it by then is counted,
    // each once.
    let kept = kernel_log::count(|line| line == WARNING)?;
    ensure!(kept > 1, "the log has {kept} of the WARNs");
    let warnings = "livepatch_crash_signals_total{signal=warning}";
    let metrics = guest.wait_until(SETTLE, |metrics| {
        let counted = metrics.sum(warnings)?;
        ensure!(
            counted >= f64::from(kept),
            "{counted} warnings are counted, and {kept} are in the log"
        );
        Ok(())
    })?;
    let counted = metrics.sum(warnings)?;
    guest.note(format!(
        "{counted} warnings are counted, {kept} were left in the log"
    ))?;
    ensure!(
        counted <= f64::from(WARNINGS),
        "{counted} of {WARNINGS} warnings are counted"
    );
    modules::unload("lpm_crash")?;

    let scraping = Scraping::start(guest)?;
    let begin = Instant::now();
    let before = lines(&guest.scrape()?)?;
    write_lines(LINES)?;
    let took = begin.elapsed();
    let seen = scraping.end()?;
    let metrics = guest.wait_until(SETTLE, |metrics| {
        expect_lines(metrics, before, f64::from(LINES))
    })?;
    metrics.expect(
        "livepatch_transition_active{patch=lpm_patch_a,direction=patch}",
        1.0,
    )?;
    metrics.expect_sum("livepatch_pending_tasks", 1.0)?;
    guest.note(format!(
        "{LINES} lines in {took:?}, {} lost; {seen}",
        LostEvents::read(&metrics)?.of("printk_console")?
    ))?;
    let state = process::bytes_in(STATE)?;
    ensure!(state <= MOST_STATE, "{state} bytes in {STATE}");
    loud_console()?;
    let_go(guest)?;
    when_counted(guest, &counters)?.expect_none_loaded()
}

/// A monitor that cannot read for a while: the kernel continues, what did not fit is
/// counted, and when it reads again sysfs shows what it missed.
pub(super) fn stopped_monitor(guest: &mut Guest) -> Result<()> {
    quiet_console()?;
    let counters = count()?;
    hold_up_both_ways(guest)?;
    let before = lines(&guest.scrape()?)?;
    let pid = i32::try_from(guest.monitor()?.pid()).context("an absurd pid")?;
    let pid = Pid::from_raw(pid).context("pid 0")?;
    kill_process(pid, Signal::STOP).context("cannot stop the monitor")?;
    write_lines(LINES_UNREAD)?;
    // Of the kernel's reports the buffer is full, and takes the steps of a transition
    // all the same, until it is full of these as well.
    reverse(TURNS_THAT_FIT)?;
    let_go_on(pid)?;
    guest.wait_until(SETTLE, |metrics| {
        expect_lines(metrics, before, f64::from(LINES_UNREAD))
    })?;
    let metrics = when_counted(guest, &counters)?;
    metrics.expect(
        "livepatch_transition_reversals_total",
        f64::from(TURNS_THAT_FIT),
    )?;
    let losses = LostEvents::read(&metrics)?;
    let turns = losses.of("klp_reverse_transition")?;
    ensure!(turns == 0.0, "{turns} reversals were lost");
    let lost = losses.of("printk_console")?;
    guest.note(format!("{lost} of {LINES_UNREAD} lines were lost"))?;
    ensure!(lost >= 1.0, "no line was lost");

    kill_process(pid, Signal::STOP).context("cannot stop the monitor")?;
    reverse(TURNS_UNREAD)?;
    // A monitor that stands still holds nothing up.
    let_go(guest)?;
    let_go_on(pid)?;
    loud_console()?;

    when_counted(guest, &counters)?;
    // Events of the end were lost: it is found by looking at sysfs.
    let metrics = guest.wait_until(SETTLE, Exposition::expect_none_loaded)?;
    let losses = LostEvents::read(&metrics)?;
    for event in ["klp_reverse_transition", "klp_complete_transition"] {
        let lost = losses.of(event)?;
        guest.note(format!("{lost} of {event} were lost"))?;
        ensure!(lost >= 1.0, "nothing was lost of {event}");
    }
    // How those ended is not known, and not made up.
    metrics.expect_sum("livepatch_transitions_total{outcome=completed}", 0.0)?;

    there_and_back(VMLINUX)?;
    let after = when_counted(guest, &counters)?;
    after.expect_sum("livepatch_transitions_total{outcome=completed}", 2.0)?;
    let (before, after) = (
        losses.of("klp_complete_transition")?,
        LostEvents::read(&after)?.of("klp_complete_transition")?,
    );
    ensure!(before == after, "{before} ends were lost, then {after}");
    Ok(())
}

/// A monitor that sees a transition which a task holds up.
fn hold_up(guest: &mut Guest) -> Result<()> {
    target::load()?;
    guest.start_monitor(&[])?;
    guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    guest.wait_for(SETTLE, "livepatch_pending_tasks", 1.0)?;
    Ok(())
}

/// Waits until all that the kernel has made is counted, as seen or as lost. Twice, since
/// an event is counted a moment before what it changes; a transition that is held up
/// makes new ones every second.
fn when_counted(guest: &mut Guest, counters: &Counters) -> Result<Exposition> {
    guest.wait_until(SETTLE, |metrics| expect_exact(metrics, counters))?;
    guest.wait_until(SETTLE, |metrics| expect_exact(metrics, counters))
}

/// The same, and another task that holds up the way back: born patched, it sleeps in
/// the new function.
fn hold_up_both_ways(guest: &mut Guest) -> Result<()> {
    hold_up(guest)?;
    let other_way = guest.hold(&Hold::ONE)?;
    ensure!(
        other_way.patch_state()? == 1,
        "the second task runs the old function"
    );
    Ok(())
}

fn reverse(times: u32) -> Result<()> {
    for number in 0..times {
        let enabled = if number % 2 == 0 { "0" } else { "1" };
        files::write("/sys/kernel/livepatch/lpm_patch_a/enabled", enabled)?;
    }
    Ok(())
}

fn let_go_on(monitor: Pid) -> Result<()> {
    kill_process(monitor, Signal::CONT).context("the monitor cannot continue")
}

fn let_go(guest: &Guest) -> Result<()> {
    guest.note("the task is let go")?;
    target::release()?;
    PATCH_A.wait_transition_done(SETTLE)?;
    PATCH_A.remove(SETTLE)
}

/// The serial console is slower than any storm: it gets emergencies only.
fn quiet_console() -> Result<()> {
    files::write("/proc/sys/kernel/printk", "1")?;
    files::write("/proc/sys/kernel/printk_devkmsg", "on\n")
}

fn loud_console() -> Result<()> {
    files::write("/proc/sys/kernel/printk", "7")
}

/// The kernel's own count of WARNs (6.2 and later).
fn kernel_warnings() -> Result<Option<u64>> {
    const FILE: &str = "/sys/kernel/warn_count";
    if !std::fs::exists(FILE).unwrap_or(false) {
        return Ok(None);
    }
    let text = files::read(FILE)?;
    let count = text.trim().parse();
    count
        .map(Some)
        .with_context(|| format!("{FILE} holds `{text}`"))
}

/// Lines that look like the beginning of a report; they are user space's.
fn write_lines(count: u32) -> Result<()> {
    let mut log = File::options()
        .write(true)
        .open("/dev/kmsg")
        .context("cannot open /dev/kmsg")?;
    for number in 0..count {
        let line = format!("BUG: no bug, line {number} of a storm\n");
        log.write_all(line.as_bytes())
            .context("cannot write to /dev/kmsg")?;
    }
    Ok(())
}

/// Of the lines those that were seen and those that were lost.
fn lines(metrics: &Exposition) -> Result<f64> {
    let seen = Probes::read()?.received("printk_console")?;
    let lost = LostEvents::read(metrics)?.of("printk_console")?;
    Ok(seen + lost)
}

#[expect(clippy::float_cmp, reason = "counts are whole numbers")]
fn expect_lines(metrics: &Exposition, before: f64, made: f64) -> Result<()> {
    let now = lines(metrics)?;
    ensure!(
        now - before == made,
        "of {made} lines {} were seen or lost: {before} before, {now} now; {} seen, {} lost",
        now - before,
        Probes::read()?.received("printk_console")?,
        metrics.get("livepatch_monitor_events_lost_total")?,
    );
    Ok(())
}

/// What was seen of the monitor in a storm.
struct Seen {
    scrapes: u32,
    slowest: Duration,
    memory: u64,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} scrapes meanwhile, the slowest took {:?}, {} KiB resident at most",
            self.scrapes, self.slowest, self.memory
        )
    }
}

/// Scrapes on a thread of its own, and looks at what the monitor holds.
struct Scraping {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<Seen>>,
}

impl Scraping {
    fn start(guest: &Guest) -> Result<Self> {
        let pid = guest.monitor()?.pid();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let client = http::Client::default();
            let mut seen = Seen {
                scrapes: 0,
                slowest: Duration::ZERO,
                memory: 0,
            };
            loop {
                let begin = Instant::now();
                Exposition::parse(&client.body(monitor::ADDRESS, "/metrics")?)?
                    .expect_consistent()?;
                seen.slowest = seen.slowest.max(begin.elapsed());
                seen.memory = seen.memory.max(Holdings::of(pid)?.resident);
                seen.scrapes += 1;
                if stopped.load(Ordering::Relaxed) {
                    return Ok(seen);
                }
                thread::sleep(Duration::from_millis(200));
            }
        });
        Ok(Self { stop, thread })
    }

    fn end(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let result = self.thread.join();
        let seen = result.map_err(|_| anyhow!("the thread that scrapes panicked"))??;
        ensure!(
            seen.memory < MOST_MEMORY,
            "{MOST_MEMORY} KiB or more: {seen}"
        );
        Ok(seen)
    }
}
