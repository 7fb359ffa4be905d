//! A rollout that goes wrong on real kernels: two virtual machines, Prometheus and Alertmanager
//! with the shipped configuration of `dashboards/`, a pager, and the gate.

pub(crate) mod host;
pub(crate) mod stack;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use livepatch_monitor_tests::protocol::{COMPLETING_PATCH, HELD_PATCH, Order};

use crate::{
    dashboards::panels,
    fleet::series,
    host::paths,
    lab::{machine::Prepared, vm::EmulatorDied},
    status_page,
};
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

/// Runs the scenario. `passed` is called after each step; the first step that fails ends it. The
/// hosts must have the series of the recordings of which the simulated fleet is made, which are of
/// [`KERNEL`]; with `bless`, the hosts' expositions replace them.
///
/// # Errors
///
/// An [`EmulatorDied`] if the emulator of a host died of its own fault. Then no host runs any more,
/// and the scenario can be run again.
pub(crate) fn run(
    prepared: &Arc<Prepared>,
    monitor: &Path,
    bless: bool,
    mut passed: impl FnMut(&str),
) -> Result<()> {
    let folder = &prepared.folder;
    let is_recorded = prepared.kernel.name == KERNEL;
    let a = Host::start(prepared, "host-a", FIRMWARE)?;
    // Its ports are open by now.
    a.wait_for_boot(1)?;
    let b = Host::start(prepared, "host-b", FIRMWARE)?;
    if let Err(error) = play(&a, &b, folder, monitor, &mut passed) {
        return Err(cause(error, [a, b]));
    }
    a.finish()?;
    b.finish()?;
    let recordings = paths::root()?.join("tests/fleet");
    let mut differences = String::new();
    for state in RECORDED {
        let file = format!("{state}.prom");
        let (from, to) = (folder.join("fleet").join(&file), recordings.join(&file));
        if bless {
            fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        } else if is_recorded {
            let difference = series::difference(state, &read(&to)?, &read(&from)?)
                .with_context(|| format!("cannot compare with {}", to.display()))?;
            if !difference.is_empty() {
                differences.push_str(&format!("\n{}:\n{difference}", to.display()));
            }
        }
    }
    ensure!(
        differences.is_empty(),
        "the hosts have other series than their recordings; `cargo xtask test --scenario rollout \
         --bless` takes the new ones:{differences}"
    );
    if is_recorded && !bless {
        passed("the hosts have the series that the simulated hosts have");
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What has failed: an emulator, if one died, and then the other host is powered off.
fn cause(error: anyhow::Error, hosts: [Host; 2]) -> anyhow::Error {
    let is_of_emulator = |error: &anyhow::Error| error.is::<EmulatorDied>();
    let mut ended = hosts.iter().filter_map(|host| host.check().err());
    let Some(died) = ended.find(is_of_emulator) else {
        return error;
    };
    for host in hosts {
        if host.check().is_ok()
            && let Err(left) = host.finish()
        {
            return left.context(format!("{died:#}, and the other host cannot be ended"));
        }
    }
    died
}

/// A rollout in progress.
struct Rollout<'a> {
    a: &'a Host,
    b: &'a Host,
    stack: Stack,
    /// When Prometheus was started, in seconds since 1970.
    start: f64,
    passed: &'a mut dyn FnMut(&str),
}

fn play(
    a: &Host,
    b: &Host,
    folder: &Path,
    monitor: &Path,
    passed: &mut dyn FnMut(&str),
) -> Result<()> {
    b.wait_for_boot(1)?;
    let stack = Stack::start(folder, monitor, &[a, b], INTERVAL, &[])?;
    let start = unix_seconds();
    stack.wait_for_hosts(2)?;
    stack.keep(a, "/metrics", "fleet/unpatched.prom")?;

    let mut rollout = Rollout {
        a,
        b,
        stack,
        start,
        passed,
    };
    rollout.complete()?;
    let stuck = rollout.get_stuck()?;
    let crashed = rollout.crash()?;
    rollout.crash_again()?;
    rollout.check_panels()?;

    status_page::check(&[("rollout-stuck", &stuck), ("rollout-crashed", &crashed)])?;
    (rollout.passed)("the status pages of a stuck and of a crashed host are readable");
    Ok(())
}

impl Rollout<'_> {
    /// Runs the gate before any patch, and after one was applied on host-b.
    fn complete(&mut self) -> Result<()> {
        let words = self.stack.gate(HELD_PATCH, &[], 2)?;
        expect(&words, &["cannot determine", HELD_PATCH])?;
        let words = self
            .stack
            .gate(HELD_PATCH, &["--selector", "env=\"nowhere\""], 2)?;
        expect(&words, &["nowhere"])?;
        (self.passed)("the gate cannot determine anything about a patch that no host has");

        self.b.order(Order::Complete)?;
        let soaked = [
            "--soak",
            "2s",
            "--wait",
            "--wait-limit",
            "2m",
            "--selector",
            "env=\"test\"",
        ];
        expect(
            &self.stack.gate(COMPLETING_PATCH, &soaked, 0)?,
            &["continue"],
        )?;
        self.stack.keep(self.b, "/metrics", "fleet/patched.prom")?;
        // The soak is too short, and there are too few hosts.
        self.stack.gate(COMPLETING_PATCH, &["--soak", "1h"], 2)?;
        self.stack
            .gate(COMPLETING_PATCH, &["--soak", "2s", "--min-hosts", "2"], 2)?;
        (self.passed)("the gate lets a patch continue that is applied and has soaked");
        Ok(())
    }

    /// Patches host-a, where the transition gets stuck; returns its status page.
    fn get_stuck(&mut self) -> Result<PathBuf> {
        self.a.order(Order::Hold)?;
        self.a.order(Order::Patch)?;
        self.stack
            .keep(self.a, "/metrics", "fleet/transition.prom")?;
        let page =
            self.stack
                .wait_for_page("LivepatchTransitionStuck", self.a.name(), HELD_PATCH)?;
        expect(page.annotation("description"), &["lpm_hold"])?;
        self.stack.keep(self.a, "/metrics", "fleet/stuck.prom")?;
        let page = self.stack.keep(self.a, "/", "page/stuck.html")?;
        let words = self.stack.gate(HELD_PATCH, &["--soak", "1s"], 1)?;
        expect(&words, &["hold", self.a.name(), "stuck"])?;
        (self.passed)("a stuck transition reaches the pager, and the gate holds");
        Ok(page)
    }

    /// Crashes host-a in that transition and waits for its reboot; returns its status page.
    fn crash(&mut self) -> Result<PathBuf> {
        self.a.crash()?;
        self.stack
            .wait_for_page("LivepatchHostSilentInTransition", self.a.name(), HELD_PATCH)?;
        expect(
            &self.stack.gate(HELD_PATCH, &[], 1)?,
            &["hold", self.a.name(), "silent"],
        )?;
        (self.passed)("a crash in transition reaches the pager before the reboot");

        self.a.wait_for_boot(2)?;
        self.stack.wait_for_hosts(2)?;
        self.stack
            .wait_for_page("LivepatchHostCrashed", self.a.name(), HELD_PATCH)?;
        self.stack.keep(self.a, "/metrics", "fleet/crashed.prom")?;
        let page = self.stack.keep(self.a, "/", "page/crashed.html")?;
        expect(
            &self.stack.gate(HELD_PATCH, &[], 1)?,
            &["hold", self.a.name(), "crashed"],
        )?;
        self.stack.gate(HELD_PATCH, &["--max-crashed", "1"], 2)?;
        (self.passed)("and as a crash after it");
        Ok(page)
    }

    /// Patches host-b and crashes it too, which stops the rollout.
    fn crash_again(&mut self) -> Result<()> {
        self.b.order(Order::Hold)?;
        self.b.order(Order::Patch)?;
        let both = "count(last_over_time(livepatch_transition_active{patch=\"lpm_patch_a\",direction=\"patch\"}[10m]) == 1)";
        self.stack.wait_for_value(both, 2.0)?;
        self.b.crash()?;
        let page = self
            .stack
            .wait_for_page("LivepatchStopRollout", "", HELD_PATCH)?;
        expect(
            page.annotation("description"),
            &[self.a.name(), self.b.name()],
        )?;
        expect(
            &self.stack.gate(HELD_PATCH, &[], 1)?,
            &["hold", self.a.name(), self.b.name()],
        )?;
        // A bad patch is paged once, however many hosts it affects.
        let pages = self.stack.pager.received();
        let groups: BTreeSet<_> = pages
            .iter()
            .filter(|page| page.receiver == "pager")
            .map(|page| &page.group_labels)
            .collect();
        let one = BTreeMap::from([("patch".to_owned(), HELD_PATCH.to_owned())]);
        ensure!(groups == BTreeSet::from([&one]), "the pages are {groups:?}");
        (self.passed)("two hosts hurt by one patch stop the rollout, as one page");

        self.b.wait_for_boot(2)?;
        self.stack.wait_for_hosts(2)?;
        self.stack
            .wait_for_page("LivepatchHostCrashed", self.b.name(), HELD_PATCH)?;
        let errors = self.stack.prometheus.rule_errors()?;
        ensure!(errors.is_empty(), "rules fail:\n{}", errors.join("\n"));
        (self.passed)("no rule fails");
        Ok(())
    }

    /// Checks what every panel of the dashboards shows of the rollout.
    fn check_panels(&mut self) -> Result<()> {
        // Everything on the last page must be in the past of a step that is queried. The steps are
        // moments of the clock, and so this waits for the clock.
        thread::sleep(INTERVAL);
        let prometheus = &self.stack.prometheus;
        let complaints = panels::check_panels(
            |query, start, end, step| prometheus.query_range(query, start, end, step),
            self.start,
            unix_seconds(),
        )?;
        ensure!(
            complaints.is_empty(),
            "panels do not show what they mean:\n{}",
            complaints.join("\n")
        );
        (self.passed)("every panel of the dashboards shows what it means");
        Ok(())
    }
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
