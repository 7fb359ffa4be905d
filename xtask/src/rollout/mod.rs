//! A rollout that goes wrong, for real: two virtual machines, Prometheus and
//! Alertmanager with what `dashboards/` ships, a pager, and the gate.

pub(crate) mod host;
pub(crate) mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use livepatch_monitor_tests::protocol::{HELD_PATCH, LANDING_PATCH, Order};

use crate::{dashboards::panels, machine::Prepared, page, paths};
use host::Host;
use stage::Stage;

/// Between two scrapes of a host, and two evaluations of the rules. An emulated
/// machine beside another answers slowly: a shorter one would take it for dead.
const INTERVAL: Duration = Duration::from_secs(5);

/// Longer than two scrapes, as on a real machine: an emulated one is back after one.
const FIRMWARE: Duration = Duration::from_secs(11);

/// What it runs on, of several.
pub(crate) const KERNEL: &str = "6.12";

/// The states of a host whose expositions are kept.
const RECORDED: [&str; 5] = ["unpatched", "transition", "stuck", "patched", "crashed"];

fn unix_seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Plays the story; each of its steps is told as it has passed, the first that fails
/// ends it. To bless is to take the hosts' expositions for those that the simulated
/// fleet is made of.
pub(crate) fn run(
    prepared: Prepared,
    monitor: &Path,
    bless: bool,
    mut passed: impl FnMut(&str),
) -> Result<()> {
    let folder = prepared.folder.clone();
    story(&Arc::new(prepared), monitor, &mut passed)?;
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

fn story(prepared: &Arc<Prepared>, monitor: &Path, passed: &mut dyn FnMut(&str)) -> Result<()> {
    let a = Host::start(prepared, "host-a", FIRMWARE)?;
    // Its ports are taken by now.
    a.wait_for_boot(1)?;
    let b = Host::start(prepared, "host-b", FIRMWARE)?;
    b.wait_for_boot(1)?;
    let stage = Stage::set(&prepared.folder, monitor, &[&a, &b], INTERVAL, &[])?;
    let start = unix_seconds();
    stage.wait_for_hosts(2)?;
    stage.keep(&a, "/metrics", "fleet/unpatched.prom")?;

    let words = stage.gate(HELD_PATCH, &[], 2)?;
    expect(&words, &["cannot tell", HELD_PATCH])?;
    let words = stage.gate(HELD_PATCH, &["--selector", "env=\"nowhere\""], 2)?;
    expect(&words, &["nowhere"])?;
    passed("the gate cannot tell of a patch that nobody has");

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
    expect(&stage.gate(LANDING_PATCH, &soaked, 0)?, &["go on"])?;
    stage.keep(&b, "/metrics", "fleet/patched.prom")?;
    // Not long enough, and not enough of them.
    stage.gate(LANDING_PATCH, &["--soak", "1h"], 2)?;
    stage.gate(LANDING_PATCH, &["--soak", "2s", "--min-hosts", "2"], 2)?;
    passed("the gate lets a patch go on that has landed and soaked");

    a.order(Order::Hold)?;
    a.order(Order::Patch)?;
    stage.keep(&a, "/metrics", "fleet/transition.prom")?;
    let page = stage.wait_for_page("LivepatchTransitionStuck", a.name(), HELD_PATCH)?;
    expect(page.annotation("description"), &["lpm_hold"])?;
    stage.keep(&a, "/metrics", "fleet/stuck.prom")?;
    let stuck = stage.keep(&a, "/", "page/stuck.html")?;
    let words = stage.gate(HELD_PATCH, &["--soak", "1s"], 1)?;
    expect(&words, &["hold", a.name(), "stuck"])?;
    passed("a stuck transition reaches the pager, and the gate holds");

    a.crash()?;
    stage.wait_for_page("LivepatchHostSilentInTransition", a.name(), HELD_PATCH)?;
    expect(
        &stage.gate(HELD_PATCH, &[], 1)?,
        &["hold", a.name(), "silent"],
    )?;
    passed("a crash in transition reaches the pager before the reboot");

    a.wait_for_boot(2)?;
    stage.wait_for_hosts(2)?;
    stage.wait_for_page("LivepatchHostCrashed", a.name(), HELD_PATCH)?;
    stage.keep(&a, "/metrics", "fleet/crashed.prom")?;
    let crashed = stage.keep(&a, "/", "page/crashed.html")?;
    expect(
        &stage.gate(HELD_PATCH, &[], 1)?,
        &["hold", a.name(), "crashed"],
    )?;
    stage.gate(HELD_PATCH, &["--max-crashed", "1"], 2)?;
    passed("and as a crash after it");

    b.order(Order::Hold)?;
    b.order(Order::Patch)?;
    let both = "count(last_over_time(livepatch_transition_active{patch=\"lpm_patch_a\",direction=\"patch\"}[10m]) == 1)";
    stage.wait_for_value(both, 2.0)?;
    b.crash()?;
    let page = stage.wait_for_page("LivepatchStopRollout", "", HELD_PATCH)?;
    expect(page.annotation("description"), &[a.name(), b.name()])?;
    expect(
        &stage.gate(HELD_PATCH, &[], 1)?,
        &["hold", a.name(), b.name()],
    )?;
    // One bad patch is one page, whatever it does to however many hosts.
    let pages = stage.pager.received();
    let groups: BTreeSet<_> = pages
        .iter()
        .filter(|page| page.receiver == "pager")
        .map(|page| &page.group_labels)
        .collect();
    let one = BTreeMap::from([("patch".to_owned(), HELD_PATCH.to_owned())]);
    ensure!(groups == BTreeSet::from([&one]), "the pages are {groups:?}");
    passed("two hosts hurt by one patch stop the rollout, as one page");

    b.wait_for_boot(2)?;
    stage.wait_for_hosts(2)?;
    stage.wait_for_page("LivepatchHostCrashed", b.name(), HELD_PATCH)?;
    let errors = stage.prometheus.rule_errors()?;
    ensure!(errors.is_empty(), "rules fail:\n{}", errors.join("\n"));
    passed("no rule fails");

    let prometheus = &stage.prometheus;
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

    page::check(&[("rollout-stuck", &stuck), ("rollout-crashed", &crashed)])?;
    passed("the status pages of a stuck and of a crashed host are fit to be read");

    a.finish()?;
    b.finish()
}

/// All of these words are said.
fn expect(said: &str, words: &[&str]) -> Result<()> {
    for word in words {
        if !said.contains(word) {
            bail!("`{word}` is not in what was said:\n{said}");
        }
    }
    Ok(())
}
