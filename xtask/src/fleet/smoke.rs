//! The short form for `cargo xtask test`: a small fleet, and every answer on which a rollout
//! depends. Checks that alerts fire; how soon is measured elsewhere.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    gate::Gate,
    hosts::instance,
    simulation::{Fleet, JOB},
};
use crate::{
    host::{paths, process, prometheus_tools},
    monitoring::{prometheus::Prometheus, wait_for},
};

const HOSTS: usize = 200;
/// The interval of scrapes and rules, in seconds.
const INTERVAL: u32 = 2;
const PATCH: &str = "livepatch_2026_11_fix";
/// How long to wait; everything takes only a few scrapes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Hosts that are patched without trouble, and those that crash.
const GOOD: std::ops::Range<usize> = 0..20;
const FIRST: usize = 100;
const SECOND: usize = 101;

/// Patches, crashes and reboots simulated hosts in front of a real Prometheus with the shipped
/// rules. The alerts must fire, and the gate must give the right answers.
pub(crate) fn run(monitor: &Path) -> Result<()> {
    prometheus_tools::prepare()?;
    process::step(&format!("a rollout on {HOSTS} simulated hosts"), || {
        rollout(monitor)
    })
}

fn rollout(monitor: &Path) -> Result<()> {
    let fleet = Fleet::start(HOSTS, PATCH)?;
    let folder = paths::target()?.join("fleet/smoke");
    let prometheus = fleet.prometheus(&folder, INTERVAL)?;
    let gate = Gate::new(monitor, prometheus.url(), PATCH);
    let alert = |name: &str, label: &str, value: &str| {
        wait_for_series(
            &prometheus,
            &format!("ALERTS{{alertname=\"{name}\",alertstate=\"firing\",{label}=\"{value}\"}}"),
        )
    };

    let nobody = Gate::new(monitor, "http://127.0.0.1:9".to_owned(), PATCH);
    expect(&nobody, 2, "no Prometheus answers")?;
    wait_for_series(
        &prometheus,
        &format!("count(up{{job=\"{JOB}\"}} == 1) == {HOSTS}"),
    )?;
    expect(&gate, 2, "no host has the patch")?;

    for host in GOOD {
        fleet.patch(host, 0.5)?;
    }
    wait_for_gate(&gate, 0, "twenty hosts are patched and have soaked")?;

    crash_in_transition(&fleet, &prometheus, FIRST)?;
    alert(
        "LivepatchHostSilentInTransition",
        "instance",
        &instance(FIRST),
    )?;
    expect(&gate, 1, "a host is silent since it was in transition")?;

    crash_in_transition(&fleet, &prometheus, SECOND)?;
    alert("LivepatchStopRollout", "patch", PATCH)?;
    expect(&gate, 1, "two hosts are silent")?;

    fleet.reboot(FIRST)?;
    alert("LivepatchHostCrashed", "instance", &instance(FIRST))?;
    expect(&gate, 1, "a host reports its crash")?;

    let stuck = format!("patch:livepatch_hosts_in_transition:count{{patch=\"{PATCH}\"}} == 1");
    fleet.patch(SECOND + 1, f64::INFINITY)?;
    wait_for_series(&prometheus, &stuck)?;
    fleet.finish(SECOND + 1)?;
    let patched = GOOD.len() + 1;
    wait_for_series(
        &prometheus,
        &format!("patch:livepatch_hosts_patched:count{{patch=\"{PATCH}\"}} == {patched}"),
    )?;

    let errors = prometheus.rule_errors()?;
    ensure!(errors.is_empty(), "rules fail: {}", errors.join("; "));
    Ok(())
}

/// A host crashes after Prometheus has seen it in transition.
fn crash_in_transition(fleet: &Fleet, prometheus: &Prometheus, host: usize) -> Result<()> {
    fleet.patch(host, f64::INFINITY)?;
    let name = instance(host);
    wait_for_series(
        prometheus,
        &format!("instance:livepatch_at_risk:since{{instance=\"{name}\",patch=\"{PATCH}\"}}"),
    )?;
    fleet.crash(host)
}

fn wait_for_series(prometheus: &Prometheus, query: &str) -> Result<()> {
    wait_for(&format!("`{query}`"), PATIENCE, || {
        ensure!(!prometheus.query(query)?.is_empty(), "it is empty");
        Ok(())
    })
}

/// Gate terms that can be met within a minute.
const TERMS: &[&str] = &["--soak", "2s", "--min-hosts", "20"];

fn expect(gate: &Gate, code: i32, when: &'static str) -> Result<()> {
    let answer = gate.ask(when, TERMS)?;
    ensure!(
        answer.code == code,
        "the gate must say {code} when {when}, and says {}:\n{}",
        answer.code,
        answer.text
    );
    Ok(())
}

fn wait_for_gate(gate: &Gate, code: i32, when: &'static str) -> Result<()> {
    wait_for(&format!("{code} of the gate when {when}"), PATIENCE, || {
        expect(gate, code, when)
    })
    .context("the gate")
}
