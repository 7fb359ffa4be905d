//! What `preflight` says before a load, against what the kernel then does.

use std::{collections::BTreeMap, fs, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    io::Errno,
    mount::{UnmountFlags, mount_bind, unmount},
};
use serde::Deserialize;

use crate::{
    eventually::seconds,
    files,
    guest::Guest,
    helpers::{self, Confinement, Hold, Task},
    kernel,
    livepatch::{Livepatch, PATCH_A, PATCH_B, PROBED, VMLINUX},
    modules,
    monitor::{self, Answer},
    probes::Probes,
    target,
};

const KPROBE_EVENTS: &str = "/sys/kernel/tracing/kprobe_events";
const ENABLE: &str = "/sys/kernel/tracing/events/lpm/seen/enable";

/// What is replaced in a forged module: what takes its place is as long.
const OLD_NAME: &[u8] = b"cmdline_proc_show\0";

/// What `preflight --json` says.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    verdict: String,
    modules: Vec<Judged>,
}

#[derive(Debug, Deserialize)]
struct Judged {
    findings: Vec<Finding>,
    forecast: Option<Forecast>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    severity: String,
    check: String,
    what: String,
}

#[derive(Debug, Deserialize)]
struct Forecast {
    samples: u32,
    source: String,
    tasks: usize,
    likely: Vec<Likely>,
}

#[derive(Debug, Deserialize)]
struct Likely {
    tid: u32,
    comm: String,
    unit: Option<String>,
    reason: String,
    object: Option<String>,
    function: Option<String>,
    detail: String,
    seen: u32,
}

impl Report {
    /// What it says of the one file.
    fn only(&self) -> Result<&Judged> {
        match self.modules.as_slice() {
            [judged] => Ok(judged),
            _ => anyhow::bail!("not one module in {self:?}"),
        }
    }

    /// What it says of a livepatch of the scenarios, without looking at the tasks for long.
    pub(super) fn of(patch: Livepatch, code: i32) -> Result<Self> {
        let file = module(patch.name);
        let answer = monitor::command(&["preflight", "--json", "--sample", "0s", &file])?;
        let text = String::from_utf8_lossy(&answer.output);
        ensure!(
            answer.code == code,
            "preflight of {file} ended with {}, not {code}, and said {text} {}",
            answer.code,
            answer.errors
        );
        serde_json::from_str(&text).with_context(|| format!("preflight said `{text}`"))
    }

    /// Expects no finding of this check that says this.
    pub(super) fn expect_not(&self, check: &str, says: &str) -> Result<()> {
        let found = self
            .only()?
            .findings
            .iter()
            .any(|finding| finding.check == check && finding.what.contains(says));
        ensure!(!found, "{check} says `{says}` in {self:?}");
        Ok(())
    }

    /// Expects a finding of this severity and check that says this.
    pub(super) fn expect(&self, severity: &str, check: &str, says: &str) -> Result<()> {
        let found = self.only()?.findings.iter().any(|finding| {
            finding.severity == severity && finding.check == check && finding.what.contains(says)
        });
        ensure!(
            found,
            "no {severity} of {check} that says `{says}` in {self:?}"
        );
        Ok(())
    }

    fn forecast(&self) -> Result<&Forecast> {
        let forecast = self.only()?.forecast.as_ref();
        forecast.with_context(|| format!("no forecast in {self:?}"))
    }

    fn likely(&self, tid: u32) -> Result<&Likely> {
        let likely = self
            .forecast()?
            .likely
            .iter()
            .find(|likely| likely.tid == tid);
        likely.with_context(|| format!("nothing about task {tid} in {self:?}"))
    }
}

/// Runs `preflight --json` on a file and expects this exit code.
fn preflight(file: &str, code: i32) -> Result<Report> {
    confined(Confinement::None, file, code)
}

fn confined(confinement: Confinement, file: &str, code: i32) -> Result<Report> {
    let command = [
        monitor::PROGRAM,
        "preflight",
        "--json",
        "--sample",
        "1s",
        file,
    ];
    let output = helpers::command(&Task::Confined {
        confinement,
        command: command.map(str::to_owned).to_vec(),
    })?
    .stdin(Stdio::null())
    .output()
    .context("cannot run preflight")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(code),
        "preflight of {file} ended with {}, not {code}, and said {text} {errors}",
        output.status
    );
    serde_json::from_str(&text).with_context(|| format!("preflight said `{text}` {errors}"))
}

fn module(name: &str) -> String {
    format!("/modules/{name}.ko")
}

/// A task asleep in a function is forecast as a blocker, and then holds the transition
/// up; also when its function is another livepatch's.
pub(super) fn forecast_comes_true(guest: &mut Guest) -> Result<()> {
    target::load()?;
    let holder = guest.hold(&Hold::of_a_service())?;
    let report = preflight(&module("lpm_patch_a"), 1)?;
    let forecast = report.forecast()?;
    ensure!(
        forecast.source == "iterator" && forecast.samples >= 1 && forecast.tasks > 10,
        "{forecast:?}"
    );
    let likely = report.likely(holder.pid)?;
    ensure!(
        likely.comm == "holder"
            && likely.unit.as_deref() == Some("holder.service")
            && likely.reason == "sleeping"
            && likely.object.as_deref() == Some("lpm_target")
            && likely.function.as_deref() == Some("lpm_hold")
            && likely.seen == forecast.samples,
        "{likely:?}"
    );
    ensure!(
        forecast.likely.len() == 1,
        "more than the holder: {forecast:?}"
    );
    report.expect(
        "warning",
        "blockers",
        "1 task in lpm_hold (module lpm_target)",
    )?;
    report.expect("info", "objects", "lpm_late is not loaded")?;
    // Without BTF there is no iterator: /proc shows the same.
    let report = confined(Confinement::NoBtf, &module("lpm_patch_a"), 1)?;
    ensure!(report.forecast()?.source == "proc", "{report:?}");
    let likely = report.likely(holder.pid)?;
    ensure!(likely.function.as_deref() == Some("lpm_hold"), "{likely:?}");
    // Without the right to look, the answer must not be `clear`.
    let report = confined(Confinement::NoBpf, &module("lpm_patch_a"), 2)?;
    ensure!(report.verdict == "cannot_tell", "{report:?}");

    PATCH_A.load()?;
    PATCH_A.expect_held()?;
    expect_blocked(holder.pid)?;

    let report = preflight(&module("lpm_refused"), 2)?;
    report.expect("failure", "transition", "lpm_patch_a is in transition")?;
    modules::expect_refused("lpm_refused", Errno::BUSY)?;
    let report = preflight(&module("lpm_patch_a"), 2)?;
    report.expect("failure", "loaded", "from the same build")?;
    modules::expect_refused("lpm_patch_a", Errno::EXIST)?;
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;

    target::hold()?;
    let holder = guest.hold(&Hold::ONE)?;
    let report = preflight(&module("lpm_patch_b"), 1)?;
    report.expect(
        "info",
        "stacked",
        "lpm_hold (module lpm_target) is already patched by lpm_patch_a",
    )?;
    let likely = report.likely(holder.pid)?;
    ensure!(
        likely.detail.contains("livepatch lpm_patch_a"),
        "{likely:?}"
    );
    PATCH_B.load()?;
    PATCH_B.expect_held()?;
    expect_blocked(holder.pid)?;
    target::release()?;
    PATCH_B.wait_transition_done(seconds(30))
}

/// The one task that `blockers` names is this one, in lpm_hold.
fn expect_blocked(tid: u32) -> Result<()> {
    let blockers = monitor::blockers()?;
    let task = blockers.task(tid)?;
    ensure!(
        blockers.pending == 1
            && task.reason == "sleeping"
            && task.object.as_deref() == Some("lpm_target")
            && task.function.as_deref() == Some("lpm_hold"),
        "`blockers` says {blockers:?}"
    );
    Ok(())
}

/// Files that must not be loaded, or that the kernel refuses.
pub(super) fn unfit_modules_are_refused(_: &mut Guest) -> Result<()> {
    let whole = fs::read(module("lpm_vmlinux")).context("cannot read lpm_vmlinux.ko")?;

    let release = kernel::release()?;
    let other = format!("9{}", release.get(1..).unwrap_or_default());
    let was = format!("vermagic={release}");
    let forged = forge(
        &whole,
        was.as_bytes(),
        format!("vermagic={other}").as_bytes(),
    )?;
    let report = preflight(&forged, 2)?;
    report.expect("failure", "kernel", &format!("built for kernel {other}"))?;

    let report = preflight(&module("lpm_target"), 2)?;
    report.expect("failure", "livepatch", "not a livepatch")?;

    let forged = forge(&whole, OLD_NAME, b"cmdline_proc_shox\0")?;
    let report = preflight(&forged, 2)?;
    report.expect(
        "failure",
        "symbols",
        "the kernel has no symbol cmdline_proc_shox",
    )?;
    expect_invalid(&forged)?;

    let ambiguous = ambiguous_symbol()?;
    let name = [ambiguous.as_bytes(), &[0; OLD_NAME.len()]].concat();
    let forged = forge(
        &whole,
        OLD_NAME,
        name.get(..OLD_NAME.len()).unwrap_or_default(),
    )?;
    let report = preflight(&forged, 2)?;
    report.expect(
        "failure",
        "symbols",
        &format!("symbols named {ambiguous}, and"),
    )?;
    expect_invalid(&forged)?;

    for (content, says) in [
        (&b"#!/bin/sh\n"[..], "not a kernel module"),
        (b"", "not a kernel module"),
        (b"\x28\xb5\x2f\xfdnonsense", "cannot be decompressed"),
        (
            whole.get(..whole.len() / 2).unwrap_or_default(),
            "kernel module",
        ),
    ] {
        fs::write("/tmp/garbage.ko", content).context("cannot write garbage")?;
        preflight("/tmp/garbage.ko", 2)?.expect("failure", "file", says)?;
    }
    preflight("/tmp/missing.ko", 2)?.expect("failure", "file", "cannot read it")?;
    preflight("/dev/zero", 2)?.expect("failure", "file", "not a regular file")
}

/// A module's file in which one thing stands in place of another.
fn forge(module: &[u8], was: &[u8], is: &[u8]) -> Result<String> {
    const FORGED: &str = "/tmp/forged.ko";
    ensure!(was.len() == is.len(), "what is forged must fit");
    let at = module.windows(was.len()).position(|window| window == was);
    let at = at.context("what is to be forged is not in the module")?;
    let mut forged = module.to_vec();
    if let Some(place) = forged.get_mut(at..at + is.len()) {
        place.copy_from_slice(is);
    }
    fs::write(FORGED, forged).with_context(|| format!("cannot write {FORGED}"))?;
    Ok(FORGED.to_owned())
}

fn expect_invalid(file: &str) -> Result<()> {
    let file = fs::File::open(file).with_context(|| format!("cannot open {file}"))?;
    let answer = rustix::system::finit_module(&file, c"", 0);
    ensure!(
        answer == Err(Errno::INVAL),
        "the kernel answered {answer:?}, not EINVAL"
    );
    Ok(())
}

/// A symbol that the kernel has several of, short enough to be forged.
fn ambiguous_symbol() -> Result<String> {
    let symbols = files::read("/proc/kallsyms")?;
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for line in symbols.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, "t" | "T", name] = words.as_slice()
            && name.len() < OLD_NAME.len()
        {
            *counts.entry(name).or_default() += 1;
        }
    }
    let ambiguous = counts.into_iter().find(|(_, count)| *count == 2);
    let (name, _) = ambiguous.context("this kernel has no symbol twice")?;
    Ok(name.to_owned())
}

/// Without obstacles the answer is `clear`; a tracer on the function is named, with what
/// the kernel will do about it.
pub(super) fn tracers_are_named(guest: &mut Guest) -> Result<()> {
    // This machine captures nothing of a crash.
    let report = preflight(&module("lpm_vmlinux"), 1)?;
    report.expect("warning", "crash_evidence", "neither pstore nor kdump")?;
    let result = with_a_crash_kernel(|| {
        let report = preflight(&module("lpm_vmlinux"), 0)?;
        ensure!(report.verdict == "clear", "{report:?}");
        let result = traced();
        // Whatever the result, the machine is left as it was.
        let _ = files::write(ENABLE, "0");
        let _ = files::write(KPROBE_EVENTS, "-:lpm/seen");
        result?;
        preflight(&module("lpm_vmlinux"), 0)?;
        Ok(())
    });
    result?;

    modules::load("lpm_kprobe")?;
    let report = preflight(&module("lpm_vmlinux"), 2)?;
    report.expect("failure", "tracers", "redirect cmdline_proc_show")?;
    modules::expect_refused("lpm_vmlinux", Errno::BUSY)?;
    modules::unload("lpm_kprobe")?;

    // The exporter's own probe, which a livepatch may share a function with: of the
    // kind that lets it.
    guest.start_monitor(&[])?;
    let (method, severity, tracer) = match kernel::is_since(6, 0)? {
        true => (
            "fentry",
            "info",
            ", fentry) is attached to klp_force_transition",
        ),
        false => (
            "kprobe",
            "warning",
            "a kprobe is attached to klp_force_transition+0x",
        ),
    };
    Probes::read()?.expect("klp_force_transition", method)?;
    let report = preflight(&module(PROBED.name), 1)?;
    report.expect(severity, "tracers", tracer)?;
    PROBED.apply(seconds(30))?;
    PROBED.remove(seconds(30))?;

    let Answer { code, output, .. } =
        monitor::command(&["preflight", "--sample", "0s", &module("lpm_vmlinux")])?;
    let text = String::from_utf8_lossy(&output);
    ensure!(
        code == 1 && text.starts_with("/modules/lpm_vmlinux.ko: warnings: 1\n"),
        "preflight ended with {code} and said {text}"
    );
    guest.note(text)?;
    Ok(())
}

fn traced() -> Result<()> {
    files::write(KPROBE_EVENTS, "p:lpm/seen cmdline_proc_show")?;
    files::write(ENABLE, "1")?;
    let report = preflight(&module("lpm_vmlinux"), 1)?;
    report.expect(
        "warning",
        "tracers",
        "a kprobe (lpm/seen) is attached to cmdline_proc_show+0x",
    )?;
    VMLINUX.apply(seconds(30))?;
    VMLINUX.remove(seconds(30))
}

/// As if a crash kernel were loaded: this machine has no memory set aside for one.
fn with_a_crash_kernel(work: impl FnOnce() -> Result<()>) -> Result<()> {
    const LOADED: &str = "/sys/kernel/kexec_crash_loaded";
    const YES: &str = "/tmp/kexec_crash_loaded";
    fs::write(YES, "1\n").with_context(|| format!("cannot write {YES}"))?;
    mount_bind(YES, LOADED).with_context(|| format!("cannot cover {LOADED}"))?;
    let result = work();
    unmount(LOADED, UnmountFlags::empty()).with_context(|| format!("cannot uncover {LOADED}"))?;
    result
}
