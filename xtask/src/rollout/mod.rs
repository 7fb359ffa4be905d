//! A rollout that goes wrong on real kernels: two virtual machines, Prometheus and Alertmanager
//! with the shipped configuration of `dashboards/`, a pager, and the gate.

pub(crate) mod host;
pub(crate) mod stack;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use livepatch_monitor_tests::protocol::{HELD_PATCH, LANDING_PATCH, Order};

use crate::{dashboards::panels, host::paths, lab::machine::Prepared, status_page};
use host::Host;
use stack::Stack;

/// The interval of scrapes and rule evaluations. Emulated machines answer slowly: with a shorter
/// interval they would count as down.
const INTERVAL: Duration = Duration::from_secs(5);

/// Longer than two scrape intervals, as on a real machine; an emulated one would be back after one.
const FIRMWARE: Duration = Duration::from_secs(11);

/// The kernel it runs on if several are given.
pub(crate) const KERNEL: &str = "6.12";

/// The states of a host whose expositions are kept.
const RECORDED: [&str; 5] = ["unpatched", "transition", "stuck", "patched", "crashed"];

fn unix_seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Runs the scenario. `passed` is called after each step; the first step that fails ends it. With
/// `bless`, the hosts' expositions replace the ones of which the simulated fleet is made.
pub(crate) fn run(
    prepared: Prepared,
    monitor: &Path,
    bless: bool,
    mut passed: impl FnMut(&str),
) -> Result<()> {
    let folder = prepared.folder.clone();
    play(&Arc::new(prepared), monitor, &mut passed)?;
    if bless {
        let recordings = paths::root()?.join("tests/fleet");
        for state in RECORDED {
            let file = format!("{state}.prom");
            let (from, to) = (folder.join("fleet").join(&file), recordings.join(&file));
            fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}

fn play(prepared: &Arc<Prepared>, monitor: &Path, passed: &mut dyn FnMut(&str)) -> Result<()> {
    let a = Host::start(prepared, "host-a", FIRMWARE)?;
    // Its ports are open by now.
    a.wait_for_boot(1)?;
    let b = Host::start(prepared, "host-b", FIRMWARE)?;
    b.wait_for_boot(1)?;
    let stack = Stack::start(&prepared.folder, monitor, &[&a, &b], INTERVAL, &[])?;
    let start = unix_seconds();
    stack.wait_for_hosts(2)?;
    stack.keep(&a, "/metrics", "fleet/unpatched.prom")?;

    let words = stack.gate(HELD_PATCH, &[], 2)?;
    expect(&words, &["cannot tell", HELD_PATCH])?;
    let words = stack.gate(HELD_PATCH, &["--selector", "env=\"nowhere\""], 2)?;
    expect(&words, &["nowhere"])?;
    passed("the gate cannot tell about a patch that no host has");

    b.order(Order::Land)?;
    let soaked = [
        "--soak",
        "2s",
        "--wait",
        "--wait-limit",
        "2m",
        "--selector",
        "env=\"test\"",
    ];
    expect(&stack.gate(LANDING_PATCH, &soaked, 0)?, &["go on"])?;
    stack.keep(&b, "/metrics", "fleet/patched.prom")?;
    // The soak is too short, and there are too few hosts.
    stack.gate(LANDING_PATCH, &["--soak", "1h"], 2)?;
    stack.gate(LANDING_PATCH, &["--soak", "2s", "--min-hosts", "2"], 2)?;
    passed("the gate lets a patch go on that has landed and soaked");

    a.order(Order::Hold)?;
    a.order(Order::Patch)?;
    stack.keep(&a, "/metrics", "fleet/transition.prom")?;
    let page = stack.wait_for_page("LivepatchTransitionStuck", a.name(), HELD_PATCH)?;
    expect(page.annotation("description"), &["lpm_hold"])?;
    stack.keep(&a, "/metrics", "fleet/stuck.prom")?;
    let stuck = stack.keep(&a, "/", "page/stuck.html")?;
    let words = stack.gate(HELD_PATCH, &["--soak", "1s"], 1)?;
    expect(&words, &["hold", a.name(), "stuck"])?;
    passed("a stuck transition reaches the pager, and the gate holds");

    a.crash()?;
    stack.wait_for_page("LivepatchHostSilentInTransition", a.name(), HELD_PATCH)?;
    expect(
        &stack.gate(HELD_PATCH, &[], 1)?,
        &["hold", a.name(), "silent"],
    )?;
    passed("a crash in transition reaches the pager before the reboot");

    a.wait_for_boot(2)?;
    stack.wait_for_hosts(2)?;
    stack.wait_for_page("LivepatchHostCrashed", a.name(), HELD_PATCH)?;
    stack.keep(&a, "/metrics", "fleet/crashed.prom")?;
    let crashed = stack.keep(&a, "/", "page/crashed.html")?;
    expect(
        &stack.gate(HELD_PATCH, &[], 1)?,
        &["hold", a.name(), "crashed"],
    )?;
    stack.gate(HELD_PATCH, &["--max-crashed", "1"], 2)?;
    passed("and as a crash after it");

    b.order(Order::Hold)?;
    b.order(Order::Patch)?;
    let both = "count(last_over_time(livepatch_transition_active{patch=\"lpm_patch_a\",direction=\"patch\"}[10m]) == 1)";
    stack.wait_for_value(both, 2.0)?;
    b.crash()?;
    let page = stack.wait_for_page("LivepatchStopRollout", "", HELD_PATCH)?;
    expect(page.annotation("description"), &[a.name(), b.name()])?;
    expect(
        &stack.gate(HELD_PATCH, &[], 1)?,
        &["hold", a.name(), b.name()],
    )?;
    // A bad patch is paged once, however many hosts it affects.
    let pages = stack.pager.received();
    let groups: BTreeSet<_> = pages
        .iter()
        .filter(|page| page.receiver == "pager")
        .map(|page| &page.group_labels)
        .collect();
    let one = BTreeMap::from([("patch".to_owned(), HELD_PATCH.to_owned())]);
    ensure!(groups == BTreeSet::from([&one]), "the pages are {groups:?}");
    passed("two hosts hurt by one patch stop the rollout, as one page");

    b.wait_for_boot(2)?;
    stack.wait_for_hosts(2)?;
    stack.wait_for_page("LivepatchHostCrashed", b.name(), HELD_PATCH)?;
    let errors = stack.prometheus.rule_errors()?;
    ensure!(errors.is_empty(), "rules fail:\n{}", errors.join("\n"));
    passed("no rule fails");

    // Everything on the last page must be in the past of every step that is queried.
    thread::sleep(INTERVAL);
    let prometheus = &stack.prometheus;
    let complaints = panels::check_panels(
        |query, start, end, step| prometheus.query_range(query, start, end, step),
        start,
        unix_seconds(),
    )?;
    ensure!(
        complaints.is_empty(),
        "panels do not show what they mean:\n{}",
        complaints.join("\n")
    );
    passed("every panel of the dashboards shows what it means");

    status_page::check(&[("rollout-stuck", &stuck), ("rollout-crashed", &crashed)])?;
    passed("the status pages of a stuck and of a crashed host are fit to be read");

    a.finish()?;
    b.finish()
}

/// Checks that the text contains all of these words.
fn expect(said: &str, words: &[&str]) -> Result<()> {
    for word in words {
        if !said.contains(word) {
            bail!("`{word}` is not in what was said:\n{said}");
        }
    }
    Ok(())
}
