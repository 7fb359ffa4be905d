//! Those who look on at the function that a livepatch replaces.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{super::preflight::Report, FUNCTION, cmdline, trampolines_share};
use crate::{
    bpf::{Kind, Program},
    eventually::{eventually, seconds},
    files, kernel,
    livepatch::Livepatch,
    modules,
};

const TRACING: &str = "/sys/kernel/tracing";

/// Somebody who looks on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    Kprobe,
    Kretprobe,
    Fprobe,
    FprobeReturn,
    FunctionTracer,
    FunctionGraph,
    Callback,
    Fentry,
    Fexit,
}

use Other::{
    Callback, Fentry, Fexit, Fprobe, FprobeReturn, FunctionGraph, FunctionTracer, Kprobe, Kretprobe,
};

/// The same, at work until it is dropped.
#[derive(Debug)]
pub(super) struct Attached {
    other: Other,
    program: Option<Program>,
    detached: bool,
}

impl Other {
    /// Attaches it to [`FUNCTION`]. What the kernel calls a success is looked up in its list.
    pub(super) fn attach(self) -> Result<Attached> {
        let before = users(FUNCTION)?;
        // From here on, so that one that is attached by half goes too.
        let mut attached = Attached {
            other: self,
            program: None,
            detached: false,
        };
        match self {
            Kprobe => event("p:lpm/seen cmdline_proc_show")?,
            Kretprobe => event("r:lpm/seen cmdline_proc_show")?,
            Fprobe => event("f:lpm/seen cmdline_proc_show")?,
            FprobeReturn => event("f:lpm/seen cmdline_proc_show%return")?,
            FunctionTracer => tracer("function")?,
            FunctionGraph => tracer("function_graph")?,
            Callback => modules::load("lpm_ftrace")?,
            Fentry => attached.program = Some(Program::attach(Kind::Fentry, FUNCTION, 0)?),
            Fexit => attached.program = Some(Program::attach(Kind::Fexit, FUNCTION, 0)?),
        }
        let now = users(FUNCTION)?;
        ensure!(
            now == before + 1,
            "{self:?}: {before} users in enabled_functions, then {now}"
        );
        Ok(attached)
    }

    /// What preflight says of it: severity and words.
    const fn forecast(self) -> (&'static str, &'static [&'static str]) {
        const OLD_NAME: &str = "filed under the old name";
        const HOLDS: &str = "hold the transition up";
        match self {
            Kprobe => (
                "warning",
                &[
                    "a kprobe (lpm/seen) is attached to cmdline_proc_show+",
                    OLD_NAME,
                ],
            ),
            Kretprobe => (
                "warning",
                &[
                    "a kretprobe (lpm/seen) is attached to cmdline_proc_show+",
                    OLD_NAME,
                    HOLDS,
                ],
            ),
            FunctionGraph => (
                "info",
                &[
                    "calls a tracer from cmdline_proc_show",
                    OLD_NAME,
                    "on 5.10 function_graph sees none",
                    HOLDS,
                ],
            ),
            Fprobe | FprobeReturn | FunctionTracer | Callback => (
                "info",
                &["calls a tracer from cmdline_proc_show", OLD_NAME, HOLDS],
            ),
            Fentry => (
                "info",
                &["BPF program lpm_other (id ", ", fentry", OLD_NAME],
            ),
            Fexit => (
                "warning",
                &["BPF program lpm_other (id ", ", fexit", OLD_NAME, HOLDS],
            ),
        }
    }

    pub(super) fn expect_forecast(self, patch: Livepatch) -> Result<()> {
        let report = Report::of(patch, 1)?;
        let (severity, words) = self.forecast();
        for words in words {
            report
                .expect(severity, "tracers", words)
                .with_context(|| format!("{self:?}"))?;
        }
        Ok(())
    }

    /// Whether this kernel has it, and lets it share a function with a livepatch.
    pub(super) fn is_here(self) -> Result<bool> {
        match self {
            // kernel/trace/trace_fprobe.c is there from 6.5 on.
            Fprobe | FprobeReturn => kernel::is_since(6, 5),
            Fentry | Fexit => trampolines_share(),
            FunctionTracer | FunctionGraph | Callback | Kprobe | Kretprobe => Ok(true),
        }
    }

    /// Whether it sees the calls of a function that a livepatch replaces.
    fn sees_replaced(self) -> Result<bool> {
        match self {
            FunctionGraph => kernel::is_since(5, 11),
            _ => Ok(true),
        }
    }
}

impl Attached {
    /// Fails unless it fires, and takes the function for the old one.
    pub(super) fn expect_fires(&self) -> Result<()> {
        ensure!(self.fires()?, "{:?} saw nothing", self.other);
        Ok(())
    }

    /// The same while a livepatch replaces the function: where it is known to be blind there,
    /// it must be.
    pub(super) fn expect_fires_beside_livepatch(&self) -> Result<()> {
        let (fires, sees) = (self.fires()?, self.other.sees_replaced()?);
        ensure!(
            fires == sees,
            "{:?} beside a livepatch: fires: {fires}, expected: {sees}",
            self.other
        );
        Ok(())
    }

    fn fires(&self) -> Result<bool> {
        let before = self.hits()?;
        fs::write(format!("{TRACING}/trace"), "").context("cannot empty the trace")?;
        cmdline()?;
        Ok(match before {
            Some(before) => self.hits()?.is_some_and(|now| now > before),
            None => files::read(&format!("{TRACING}/trace"))?.contains(FUNCTION),
        })
    }

    /// Undoes all of [`Other::attach`], also where only a part was done.
    fn end(&mut self) -> Result<()> {
        match self.other {
            Kprobe | Kretprobe | Fprobe | FprobeReturn => {
                let disabled = files::write(&format!("{TRACING}/events/lpm/seen/enable"), "0");
                files::write(&format!("{TRACING}/dynamic_events"), "-:lpm/seen")?;
                disabled
            }
            FunctionTracer | FunctionGraph => {
                let stopped = files::write(&format!("{TRACING}/current_tracer"), "nop");
                let filter = format!("!{FUNCTION}\n");
                files::write(&format!("{TRACING}/set_ftrace_filter"), &filter)?;
                stopped
            }
            Callback => modules::unload("lpm_ftrace"),
            Fentry | Fexit => {
                self.program = None;
                Ok(())
            }
        }
    }

    fn hits(&self) -> Result<Option<u64>> {
        if let Some(program) = &self.program {
            return program.runs().map(Some);
        }
        if self.other != Callback {
            return Ok(None);
        }
        let hits = files::read("/sys/module/lpm_ftrace/parameters/hits")?;
        Ok(Some(hits.trim().parse().context("no number of hits")?))
    }

    pub(super) fn detach(mut self) -> Result<()> {
        let before = users(FUNCTION)?;
        self.end()?;
        self.detached = true;
        // A trampoline goes some time after its last program.
        eventually(seconds(10), || {
            let now = users(FUNCTION)?;
            ensure!(now < before, "{before} users, then {now}");
            Ok(())
        })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Its scenario has failed, and the next one must not find it.
        if !self.detached {
            let _ = self.end();
        }
    }
}

fn event(definition: &str) -> Result<()> {
    files::write(&format!("{TRACING}/dynamic_events"), definition)?;
    files::write(&format!("{TRACING}/events/lpm/seen/enable"), "1")
}

fn tracer(name: &str) -> Result<()> {
    files::write(&format!("{TRACING}/set_ftrace_filter"), FUNCTION)?;
    files::write(&format!("{TRACING}/current_tracer"), name)
}

/// How many users ftrace has on a function: `name (users) FLAGS`.
pub(super) fn users(function: &str) -> Result<u32> {
    let list = files::read(&format!("{TRACING}/enabled_functions"))?;
    let line = list.lines().find_map(|line| {
        let rest = line.strip_prefix(function)?.strip_prefix(" (")?;
        rest.split(')').next()
    });
    line.map_or(Ok(0), |users| users.parse().context("no number of users"))
}
