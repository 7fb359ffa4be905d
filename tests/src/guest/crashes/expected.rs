//! Compares what the monitor knows about the machine's crashes with what is expected.

use std::{fmt, path::Path};

use anyhow::{Context as _, Result, ensure};
use livepatch_monitor_test_support::http;
use serde::Deserialize;

use super::{Memo, persistent};
use crate::{
    eventually::seconds,
    exposition::{Exposition, expect_no_address},
    guest::Guest,
    monitor,
    runbooks::{self, Walk},
    scenarios::clock::{expect_between, unix_seconds},
};

/// The answer of `livepatch-monitor crashes --json`.
#[derive(Debug, Deserialize)]
struct List {
    crashes: Vec<Crash>,
}

/// A crash as the monitor records it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Crash {
    pub(super) id: String,
    pub(super) boot_id: Option<String>,
    ended_boot: Option<bool>,
    pub(super) kind: String,
    pub(super) phase: String,
    implicated: String,
    headline: String,
    function: Option<Function>,
    evidence: Vec<Evidence>,
    #[serde(default)]
    unproven: Vec<String>,
    pub(super) transition: Option<Transition>,
    patches: Vec<Patch>,
    when: When,
    files: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Function {
    name: String,
    module: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Evidence {
    kind: String,
    patch: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Transition {
    pub(super) patch: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Patch {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct When {
    unix_seconds: Option<f64>,
}

/// What the monitor should know about a crash.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) kind: &'static str,
    pub(super) phase: &'static str,
    pub(super) implicated: &'static str,
    /// Why no more is known where that is "unknown"; all of the reasons.
    pub(super) unproven: Vec<String>,
    /// Evidence, of this kind, against this patch.
    pub(super) evidence: Option<(&'static str, &'static str)>,
    /// The function it happened in, and its module.
    pub(super) function: Option<(&'static str, Option<&'static str>)>,
    /// The patch whose transition ran.
    pub(super) transition: Option<&'static str>,
    /// A patch that was loaded.
    pub(super) patch: Option<&'static str>,
    pub(super) ended_boot: bool,
}

impl Expected {
    /// A crash on a machine without livepatches.
    pub(super) const fn new(kind: &'static str, phase: &'static str) -> Self {
        Self {
            kind,
            phase,
            implicated: "no",
            unproven: Vec::new(),
            evidence: None,
            function: None,
            transition: None,
            patch: None,
            ended_boot: true,
        }
    }

    /// The patch that the crash counts for: it is implicated, or was in transition or soak.
    fn counts_for(&self) -> Option<&'static str> {
        let soaking = self.patch.filter(|_| self.phase == "soak");
        let implicated = self.evidence.map(|(_, patch)| patch);
        implicated.or(self.transition).or(soaking)
    }
}

/// Starts the monitor, twice: each time it must know exactly this crash, and the metrics must
/// agree.
pub(super) fn expect_one(guest: &mut Guest, memo: &Memo, expected: &Expected) -> Result<()> {
    guest.start_monitor(&[])?;
    let crashes = list(1)?;
    let crash = crashes.first().context("one crash and none")?;
    check(crash, memo, expected).with_context(|| format!("the monitor says {crash:?}"))?;
    expect_metrics(guest, expected)?;
    expect_shown(crash)?;

    guest.kill_monitor()?;
    guest.start_monitor(&[])?;
    let again = list(1)?;
    ensure!(
        crashes == again,
        "after another start the monitor says {again:?} instead of {crashes:?}"
    );
    expect_metrics(guest, expected)
}

/// Follows a runbook on a host with one crash, about this patch.
pub(super) fn follow(guest: &Guest, page: &str, patch: &str, seen: &[&str]) -> Result<()> {
    let crashes = list(1)?;
    let crash = crashes.first().context("one crash and none")?;
    let given = &[("ID", crash.id.as_str()), ("PATCH", patch)];
    runbooks::follow(guest, &Walk { page, given, seen })
}

fn expect_metrics(guest: &mut Guest, expected: &Expected) -> Result<()> {
    let metrics = guest.scrape()?;
    metrics.expect("livepatch_crashes_total", 1.0)?;
    metrics.expect_sum("livepatch_crash_signals_total", 0.0)?;
    metrics.expect(
        "livepatch_boot_unclean",
        f64::from(u8::from(expected.ended_boot)),
    )?;
    expect_last(&metrics, expected.kind, expected.phase, expected.implicated)?;
    metrics.expect("livepatch_recorder_errors_total", 0.0)?;
    expect_no_address(&http::body(monitor::ADDRESS, "/")?)?;
    let last = metrics.get("livepatch_last_crash_timestamp_seconds")?;
    let Some(patch) = expected.counts_for() else {
        return metrics.expect_absent("livepatch_patch_crashes_total");
    };
    metrics.expect_sum("livepatch_patch_crashes_total", 1.0)?;
    metrics.expect(
        &format!("livepatch_patch_crashes_total{{patch={patch}}}"),
        1.0,
    )?;
    metrics.expect(
        &format!("livepatch_patch_last_crash_timestamp_seconds{{patch={patch}}}"),
        last,
    )?;
    metrics.expect_sum(&format!("livepatch_last_crash_info{{patch={patch}}}"), 1.0)
}

/// The metrics say of the last crash just this.
pub(super) fn expect_last(
    metrics: &Exposition,
    kind: &str,
    phase: &str,
    implicated: &str,
) -> Result<()> {
    const INFO: &str = "livepatch_last_crash_info";
    metrics.expect_sum(INFO, 1.0)?;
    let said = format!("{INFO}{{kind={kind},phase={phase},implicated={implicated}}}");
    metrics.expect_sum(&said, 1.0)
}

/// The output of `crashes`, which must list this many.
pub(super) fn list(count: usize) -> Result<Vec<Crash>> {
    let answer = monitor::command(&["crashes", "--json"])?;
    let output = String::from_utf8(answer.output).context("`crashes --json` is not UTF-8")?;
    let list: List = serde_json::from_str(&output).with_context(|| {
        format!(
            "`crashes --json` ended with {} and said `{output}` {}",
            answer.code, answer.errors
        )
    })?;
    ensure!(
        list.crashes.len() == count,
        "`crashes` lists {} crashes, not {count}: {:?}",
        list.crashes.len(),
        list.crashes
    );
    ensure!(
        answer.code == i32::from(count == 0),
        "`crashes` ended with {}: {}",
        answer.code,
        answer.errors
    );
    Ok(list.crashes)
}

/// The table and the details must name what an operator needs.
fn expect_shown(crash: &Crash) -> Result<()> {
    for arguments in [["crashes"].as_slice(), &["crashes", "show", &crash.id]] {
        let answer = monitor::command(arguments)?;
        let text = String::from_utf8_lossy(&answer.output).into_owned();
        for word in [&crash.id, &crash.kind, &crash.phase] {
            ensure!(
                answer.code == 0 && text.contains(word.as_str()),
                "`{arguments:?}` ended with {} and does not say {word}: {text} {}",
                answer.code,
                answer.errors
            );
        }
    }
    Ok(())
}

fn check(crash: &Crash, memo: &Memo, expected: &Expected) -> Result<()> {
    same("kind", &crash.kind, expected.kind)?;
    same("phase", &crash.phase, expected.phase)?;
    same("implicated", &crash.implicated, expected.implicated)?;
    same("unproven", &crash.unproven, &expected.unproven)?;
    ensure!(
        crash.ended_boot == Some(expected.ended_boot),
        "ended_boot should be {}",
        expected.ended_boot
    );
    ensure!(
        crash.boot_id.is_some() && crash.boot_id.as_ref() == memo.boot_ids.last(),
        "its boot should be {:?}",
        memo.boot_ids.last()
    );
    if let Some((kind, patch)) = expected.evidence {
        ensure!(
            crash
                .evidence
                .iter()
                .any(|found| found.kind == kind && found.patch.as_deref() == Some(patch)),
            "there should be evidence {kind} against {patch}"
        );
    }
    if let Some((name, module)) = expected.function {
        let function = crash.function.as_ref().context("no function")?;
        same("function", &function.name, name)?;
        same("module", &function.module.as_deref(), &module)?;
    }
    let running = crash.transition.as_ref();
    let running = running.map(|running| running.patch.as_str());
    same("transition", &running, &expected.transition)?;
    if let Some(patch) = expected.patch {
        ensure!(
            crash.patches.iter().any(|known| known.name == patch),
            "{patch} should be among the patches"
        );
    }
    let when = crash.when.unix_seconds.context("it has no date")?;
    expect_between("its time", when, memo.began - 2.0, unix_seconds()?)?;
    ensure!(
        crash.kind == "reset" || !crash.headline.is_empty(),
        "it has no headline"
    );
    Ok(())
}

fn same<T: PartialEq<U> + fmt::Debug + ?Sized, U: fmt::Debug + ?Sized>(
    what: &str,
    value: &T,
    expected: &U,
) -> Result<()> {
    ensure!(value == expected, "{what} is {value:?}, not {expected:?}");
    Ok(())
}

/// While the machine runs: the metrics must have exactly one signal, this one.
pub(super) fn expect_signal(
    guest: &mut Guest,
    signal: &str,
    phase: &str,
    all: impl Fn(&Exposition) -> Result<()>,
) -> Result<()> {
    let counted = format!("livepatch_crash_signals_total{{signal={signal}}}");
    let metrics = guest.wait_for(seconds(10), &counted, 1.0)?;
    metrics.expect_sum("livepatch_crash_signals_total", 1.0)?;
    let phases = metrics.label_values("livepatch_crash_signal_last_timestamp_seconds", "phase")?;
    ensure!(
        phases == [phase],
        "the signals were seen in {phases:?}, not in {phase} only"
    );
    metrics.get(&format!(
        "livepatch_crash_signal_last_timestamp_seconds{{signal={signal},phase={phase}}}"
    ))?;
    // The kernel's own counts must agree, if it has any.
    let missed = "livepatch_crash_signals_missed";
    if kernel_counts() {
        metrics.expect(missed, 0.0)?;
    } else {
        metrics.expect_absent(missed)?;
    }
    all(&metrics)
}

/// Whether this kernel counts signals itself.
fn kernel_counts() -> bool {
    let files = [
        "/sys/kernel/oops_count",
        "/sys/kernel/warn_count",
        "/sys/kernel/softlockup_count",
        "/sys/kernel/hardlockup_count",
        "/sys/kernel/rcu_stall_count",
        "/proc/sys/kernel/hung_task_detect_count",
    ];
    files.iter().any(|file| Path::new(file).exists())
}

/// No crash is known, and the boot before ended cleanly.
pub(super) fn expect_none(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&[])?;
    list(0)?;
    let metrics = guest.scrape()?;
    metrics.expect_sum("livepatch_crashes_total", 0.0)?;
    metrics.expect_absent("livepatch_last_crash_info")?;
    metrics.expect("livepatch_boot_unclean", 0.0)?;
    ensure!(!persistent::boot_id()?.is_empty(), "no boot id");
    Ok(())
}
