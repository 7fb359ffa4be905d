//! bpftrace on the functions that the monitor probes and on one that a livepatch
//! replaces, and a second monitor beside the first.

use std::{
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use livepatch_monitor_test_support::http;
use serde_json::Value;

use super::program::Running;
use crate::{
    eventually::{eventually, seconds},
    exposition::Exposition,
    files,
    guest::Guest,
    helpers::{self, Confinement, Hold, Task},
    kernel,
    livepatch::{PATCH_A, VMLINUX},
    monitor,
    probes::Probes,
    target,
};

/// Both ways of hooking a function, on what the monitor hooks, and a kprobe on what
/// lpm_vmlinux replaces. The last shows that all are attached.
const SCRIPT: &str = "\
fentry:klp_init_transition { @begun = count(); }
kprobe:klp_try_complete_transition { @attempts = count(); }
kprobe:klp_complete_transition { @ended = count(); }
fentry:klp_complete_transition { @ended_too = count(); }
kprobe:cmdline_proc_show { @shown = count(); }
interval:ms:500 { printf(\"attached\\n\"); }
";

/// The other way, on what lpm_vmlinux replaces. Before 6.0 the kernel refuses a livepatch on
/// a function with a BPF trampoline.
const TRAMPOLINE: &str = "fentry:cmdline_proc_show { @shown_too = count(); }\n";

const SECOND: &str = "127.0.0.1:9970";

/// Between two scrapes of the second monitor.
const POLL: Duration = Duration::from_millis(100);

pub(super) fn bpftrace_traces_too(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&["--stuck-after", "3s"])?;
    // Before 6.0 a livepatch and a trampoline share no function.
    let trampoline = kernel::is_since(6, 0)?;
    let script = format!("{SCRIPT}{}", if trampoline { TRAMPOLINE } else { "" });
    let mut bpftrace = Running::start(&["bpftrace", "-e", &script], None)?;
    bpftrace.wait_for("attached", seconds(120))?;
    expect_named(trampoline)?;
    let second = second_monitor(guest)?;

    target::load()?;
    let holder = guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    let metrics = guest.wait_for(seconds(40), "livepatch_stuck_tasks", 1.0)?;
    expect_held(&metrics)?;
    expect_held(&second_wait_for("livepatch_stuck_tasks", 1.0)?)?;
    monitor::blockers()?.task(holder.pid)?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    // The livepatch replaces the function, probes on it or not.
    VMLINUX.apply(seconds(30))?;
    let shown = files::read("/proc/cmdline")?;
    ensure!(
        shown == "patched by lpm_vmlinux\n",
        "/proc/cmdline holds `{shown}`"
    );
    VMLINUX.remove(seconds(30))?;

    let all = "livepatch_transitions_total";
    let metrics = guest.wait_for(seconds(10), all, 3.0)?;
    second_wait_for(all, 3.0)?;
    let (ours, theirs) = (Probes::read()?, Probes::read_from(SECOND)?);
    drop(second);
    bpftrace.interrupt()?;
    let counted = bpftrace.end(seconds(60))?;
    for (map, event) in [
        ("@begun", "klp_init_transition"),
        ("@attempts", "klp_try_complete_transition"),
        ("@ended", "klp_complete_transition"),
        ("@ended_too", "klp_complete_transition"),
    ] {
        let count = count(&counted.output, map)
            .with_context(|| format!("no {map} in what bpftrace says: {}", counted.output))?;
        ours.expect_received(event, count)?;
        theirs.expect_received(event, count)?;
    }
    ours.expect_received("klp_init_transition", 3.0)?;
    let attempts = metrics.get("livepatch_transition_attempts_total")?;
    guest.note(format!(
        "3 transitions, {attempts} attempts: the same for bpftrace and both monitors"
    ))?;
    metrics.expect("livepatch_monitor_events_lost_total", 0.0)
}

fn expect_held(metrics: &Exposition) -> Result<()> {
    target::expect_blocker_named(metrics)?;
    // No task sleeps in the tracer's programs.
    metrics.expect_sum("livepatch_pending_tasks", 1.0)
}

/// `preflight` names the hooks on the function.
fn expect_named(trampoline: bool) -> Result<()> {
    let answer = monitor::command(&[
        "preflight",
        "--json",
        "--sample",
        "0s",
        "/modules/lpm_vmlinux.ko",
    ])?;
    let report: Value = serde_json::from_slice(&answer.output).context("preflight's answer")?;
    ensure!(
        answer.code == 1,
        "preflight ended with {}: {report}",
        answer.code
    );
    let text = report.to_string();
    for (part, said) in [
        ("a kprobe is attached to cmdline_proc_show", true),
        ("fentry) is attached to cmdline_proc_show", trampoline),
    ] {
        ensure!(
            text.contains(part) == said,
            "whether preflight says `{part}` should be {said}: {text}"
        );
    }
    Ok(())
}

/// A monitor with a state of its own; dropped, it is killed.
struct Second(std::process::Child);

impl Drop for Second {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn second_monitor(guest: &Guest) -> Result<Second> {
    let command = [
        monitor::PROGRAM,
        "serve",
        "--web.listen-address",
        SECOND,
        "--state-dir",
        "/tmp/second",
        "--stuck-after",
        "3s",
    ];
    let child = helpers::command(&Task::Confined {
        confinement: Confinement::None,
        command: command.map(str::to_owned).to_vec(),
    })?
    .stdin(Stdio::null())
    .stdout(Stdio::null())
    .stderr(Stdio::null())
    .spawn()
    .context("cannot start a second monitor")?;
    let second = Second(child);
    eventually(seconds(60), || Ok(http::body(SECOND, "/metrics")?))?;
    // From here on every scrape must succeed.
    second_scrape()?;
    guest.note("two monitors and bpftrace are attached")?;
    Ok(second)
}

/// As [`Guest::wait_for`], of the second monitor: every scrape must succeed, agree with
/// itself and with the one before.
fn second_wait_for(selector: &str, value: f64) -> Result<Exposition> {
    let begin = Instant::now();
    let mut earlier: Option<Exposition> = None;
    loop {
        let metrics = second_scrape()?;
        if let Some(earlier) = &earlier {
            metrics.expect_later_than(earlier)?;
        }
        let sum = metrics.sum_of_any(selector)?;
        if sum == Some(value) {
            return Ok(metrics);
        }
        ensure!(
            begin.elapsed() < seconds(40),
            "{selector} of the second monitor is {sum:?}, not {value}"
        );
        earlier = Some(metrics);
        thread::sleep(POLL);
    }
}

fn second_scrape() -> Result<Exposition> {
    let metrics = Exposition::parse(&http::body(SECOND, "/metrics")?)?;
    metrics.expect_consistent()?;
    Ok(metrics)
}

/// The value of `@map: 3`.
fn count(output: &str, map: &str) -> Option<f64> {
    output.lines().find_map(|line| {
        line.strip_prefix(map)?
            .strip_prefix(':')?
            .trim()
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_by_the_whole_name() {
        let output = "attached\n\n\n@ended: 3\n@ended_too: 4\n";
        assert_eq!(count(output, "@ended"), Some(3.0));
        assert_eq!(count(output, "@ended_too"), Some(4.0));
        assert_eq!(count(output, "@begun"), None);
    }
}
