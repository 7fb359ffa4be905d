//! `cargo xtask demo`: a livepatch gets stuck in a VM, then the machine crashes. Shows what the
//! monitor, Prometheus and Alertmanager make of it.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use livepatch_monitor_tests::protocol::{HELD_PATCH, Order};

use crate::{
    build::guest_binaries,
    host::{http, packages, process, prometheus_tools},
    lab::{kernels, machine},
    rollout::{
        host::{self, Host},
        stack::Stack,
    },
};

/// A single machine answers within a second.
const INTERVAL: Duration = Duration::from_secs(2);

/// Shorter than the default, so that the alert comes soon.
const STUCK_SECONDS: u32 = 5;

/// How long the machine stays down: long enough for a scrape to fail.
const FIRMWARE: Duration = Duration::from_secs(3);

/// The shortest time for which a state is shown.
const SHOW: Duration = Duration::from_secs(5);

const HOST: &str = "demo-host";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The kernel to boot [default: 6.12, or another one that is in the cache]
    #[arg(long)]
    kernel: Option<String>,
    /// How long everything stays up at the end, to be looked at
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    stay: u64,
}

/// Runs the demonstration from setup to power-off.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let line = kernels::one(arguments.kernel.as_deref())?;
    prometheus_tools::prepare()?;
    packages::install_vm_packages()?;
    let programs = guest_binaries::build_all()?;
    let modules = host::modules();
    let prepared = machine::prepare(line, &programs, "demo", host::extras(&modules))?;
    let release = prepared.kernel.to_string();
    process::step(&format!("demo on kernel {release}"), || {
        let prepared = Arc::new(prepared);
        let host = Host::start(&prepared, HOST, FIRMWARE)?;
        let stack = Stack::start(
            &prepared.folder,
            &programs.monitor,
            &[&host],
            INTERVAL,
            &[("livepatch:threshold_stuck_seconds", STUCK_SECONDS)],
        )?;
        play(&host, &stack, &release)?;
        if arguments.stay > 0 {
            println!("\n[all stays up for {} s]", arguments.stay);
            thread::sleep(Duration::from_secs(arguments.stay));
        }
        host.finish()
    })
}

fn play(host: &Host, stack: &Stack, release: &str) -> Result<()> {
    host.wait_for_boot(1)?;
    println!("\n[a machine with Linux {release} is up and runs livepatch-monitor serve]\n");
    println!("    its page        http://127.0.0.1:{}/", host.exporter());
    println!(
        "    its metrics     http://127.0.0.1:{}/metrics",
        host.exporter()
    );
    println!("    Prometheus      {}/", stack.prometheus.url());
    println!(
        "    Alertmanager    {}/api/v2/alerts",
        stack.alertmanager.url()
    );
    stack.wait_for_hosts(1)?;
    println!("    (here the alert on a stuck transition waits {STUCK_SECONDS} s instead of 60)");

    println!("\n[a task of holder.service sleeps in the kernel, in lpm_hold; a livepatch comes");
    println!(" that replaces lpm_hold, and stays in transition: the kernel waits for the task]\n");
    host.order(Order::Hold)?;
    println!("$ insmod {HELD_PATCH}.ko");
    host.order(Order::Patch)?;
    let begin = Instant::now();
    stack.wait_for_value("sum(livepatch_stuck_tasks)", 1.0)?;
    println!("$ cat /sys/kernel/livepatch/{HELD_PATCH}/transition\n1");
    println!("\n[without a monitor this is all there is to see; with it:]\n");
    host.order(Order::Status)?;
    host.order(Order::Blockers)?;
    show_metrics(host)?;
    page(stack, "LivepatchTransitionStuck")?;
    gate(stack, &["--soak", "1s"], 1)?;
    thread::sleep(SHOW.saturating_sub(begin.elapsed()));

    println!("\n[the service is restarted, its task leaves lpm_hold]\n");
    host.order(Order::Release)?;
    host.order(Order::Status)?;
    // Until Prometheus has scraped it, the gate answers for the previous state.
    stack.wait_for_value("sum(livepatch_stuck_tasks)", 0.0)?;
    gate(stack, &["--soak", "1s", "--wait", "--wait-limit", "1m"], 0)?;

    // The rules must have recorded this before the crash.
    stack.wait_for_value(
        "count(instance:livepatch_at_risk:since{phase=\"soak\"})",
        1.0,
    )?;
    println!("\n[a moment later the machine panics]\n");
    host.crash()?;
    page(stack, "LivepatchHostSilentInSoak")?;
    gate(stack, &["--soak", "1s"], 1)?;
    host.wait_for_boot(2)?;
    println!("\n[it has booted again; the journal and pstore know what it was]\n");
    host.order(Order::Crashes)?;
    page(stack, "LivepatchHostCrashed")
}

/// Prints the alert that the pager received.
fn page(stack: &Stack, alert: &str) -> Result<()> {
    let page = stack.wait_for_page(alert, HOST, HELD_PATCH)?;
    println!("\n[the pager receives]\n");
    println!(
        "    {} ({})",
        page.annotation("summary"),
        page.label("severity")
    );
    for line in page.annotation("description").lines() {
        println!("    {line}");
    }
    println!("    {}", page.annotation("runbook_url"));
    Ok(())
}

fn gate(stack: &Stack, arguments: &[&str], code: i32) -> Result<()> {
    let words = stack.gate(HELD_PATCH, arguments, code)?;
    println!(
        "\n$ livepatch-monitor gate --prometheus {} --patch {HELD_PATCH} {}",
        stack.prometheus.url(),
        arguments.join(" ")
    );
    print!("{words}");
    println!("$ echo $?\n{code}");
    Ok(())
}

/// Of all series of the host, those about the patch: without the zeros and the monitor's own.
fn is_about_the_patch(line: &str) -> bool {
    line.starts_with("livepatch_")
        && !line.starts_with("livepatch_monitor_")
        && !line.ends_with(" 0")
}

fn show_metrics(host: &Host) -> Result<()> {
    let exposition = http::get(host.exporter(), "/metrics")?;
    println!("\n[of what Prometheus scrapes now]\n");
    for line in exposition.lines().filter(|line| is_about_the_patch(line)) {
        println!("    {line}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_about_the_patch;

    #[test]
    fn the_patch_is_kept_apart_from_the_rest() {
        assert!(is_about_the_patch(
            "livepatch_stuck_tasks{patch=\"a\",reason=\"sleeping\"} 1"
        ));
        for line in [
            "livepatch_stuck_tasks{patch=\"a\",reason=\"running\"} 0",
            "livepatch_monitor_build_info{version=\"1\"} 1",
            "process_open_fds 7",
            "# HELP livepatch_supported x",
        ] {
            assert!(!is_about_the_patch(line), "{line}");
        }
    }
}
