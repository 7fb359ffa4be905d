//! One event while its lines come in.

use std::rc::Rc;

use super::{
    super::{
        Kind, Signal, attribution,
        record::{CrashRecord, Frame, Function, Implicated, Module, NonFatalSignal, When},
    },
    Reading,
    format::Found,
    line::Line,
    symbol::{self, MAX_MODULES, MAX_NAME, cut},
    timeline::Timeline,
};

/// Frames kept of a trace; the kernel prints far fewer of a sane stack.
const MAX_FRAMES: usize = 128;
/// Bytes of a headline.
const MAX_HEADLINE: usize = 1024;
/// A module list that is this long may go on in the next line (`LOG_LINE_MAX` is
/// 1024 less the prefix).
const LONG_LINE: usize = 900;

/// Where in the call trace the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    /// Not begun.
    Ahead,
    /// Frames are being read.
    Inside,
    /// What comes now is another dump's, which tells nothing new.
    Behind,
}

#[derive(Debug)]
pub(super) struct Event {
    pub(super) primary: Signal,
    pub(super) signals: Vec<Signal>,
    pub(super) reports: u32,
    pub(super) panic: Option<String>,
    /// The line of `__die_header` was seen.
    pub(super) died: bool,
    /// The end mark was seen.
    pub(super) ended: bool,
    pub(super) last_clock: Option<f64>,
    /// When it started, on the host's clock.
    clock: Option<f64>,
    headline: String,
    when: When,
    cpu: Option<u32>,
    comm: Option<String>,
    pid: Option<u32>,
    taint: Option<String>,
    release: Option<String>,
    fault: Option<Function>,
    modules: Option<Vec<Module>>,
    /// The last line was one of the module list, and as long as a line gets.
    list_goes_on: bool,
    trace: Vec<Frame>,
    trace_at: Trace,
    /// Who printed the trace's first line: lines of others that come between are
    /// not of it.
    trace_by: Option<String>,
    cut: bool,
    timeline: Rc<Timeline>,
}

impl Event {
    pub(super) fn new(
        signal: Signal,
        who: &Found,
        line: &Line,
        when: When,
        timeline: Rc<Timeline>,
    ) -> Self {
        Self {
            primary: signal,
            signals: vec![signal],
            reports: 1,
            panic: None,
            died: false,
            ended: false,
            last_clock: line.clock,
            clock: line.clock,
            headline: cut(line.text.trim(), MAX_HEADLINE),
            when,
            cpu: who.cpu,
            comm: who.comm.clone(),
            pid: who.pid,
            taint: None,
            release: None,
            fault: None,
            modules: None,
            list_goes_on: false,
            trace: Vec::new(),
            trace_at: Trace::Ahead,
            trace_by: None,
            cut: false,
            timeline,
        }
    }

    /// Seconds from the event's last line to this one.
    pub(super) fn seconds_since(&self, line: &Line) -> Option<f64> {
        Some(line.clock? - self.last_clock?)
    }

    pub(super) fn add(&mut self, signal: Signal) {
        if !self.signals.contains(&signal) {
            self.signals.push(signal);
        }
    }

    /// The kernel panics over this event.
    pub(super) fn give_up(&mut self, panic: &str) {
        self.panic = Some(cut(panic, MAX_HEADLINE));
        self.add(Signal::Panic);
        self.end_dump();
    }

    /// The dump that follows is the event's own and not a second one.
    pub(super) fn expect_dump(&mut self) {
        self.trace_at = Trace::Ahead;
    }

    /// What comes now is not part of this event's own dump.
    pub(super) fn end_dump(&mut self) {
        self.trace_at = Trace::Behind;
        self.list_goes_on = false;
    }

    /// No contradiction between the task that a headline names and this event's.
    pub(super) fn is_about(&self, who: &Found) -> bool {
        let agree = |one: Option<u32>, two: Option<u32>| one.zip(two).is_none_or(|(a, b)| a == b);
        agree(self.cpu, who.cpu) && agree(self.pid, who.pid)
    }

    pub(super) fn same_cpu(&self, who: &Found) -> bool {
        self.cpu.zip(who.cpu).is_none_or(|(one, two)| one == two)
    }

    /// Another signal of the same event: if it is the more severe one, the event
    /// takes its name, and the dump that follows tells more.
    pub(super) fn upgrade(&mut self, signal: Signal, who: &Found, line: &Line) {
        self.add(signal);
        if signal <= self.primary {
            return;
        }
        self.primary = signal;
        self.headline = cut(line.text.trim(), MAX_HEADLINE);
        self.cpu = who.cpu.or(self.cpu);
        self.comm.clone_from(&who.comm);
        self.pid = who.pid;
        self.fault = None;
        self.trace.clear();
        self.trace_by = None;
        self.trace_at = Trace::Ahead;
        self.ended = false;
    }

    /// A line that neither begins nor ends an event.
    pub(super) fn detail(&mut self, line: &Line) {
        let text = line.text.as_str();
        if let Some(list) = text.trim_start().strip_prefix("Modules linked in:") {
            if self.modules.is_none() {
                self.modules = Some(Vec::new());
                self.list(list, text.len());
            }
            return;
        }
        if std::mem::take(&mut self.list_goes_on) && !text.contains(": ") {
            self.list(text, text.len());
            return;
        }
        if let Some(header) = symbol::task_header(text) {
            self.task(header);
            return;
        }
        if let Some(function) = symbol::instruction(text) {
            // In the trace of a panic it is what was interrupted, not what failed.
            let own = self.primary != Signal::Panic && self.primary != Signal::HungTask;
            if own && self.fault.is_none() {
                self.fault = Some(function);
            }
            return;
        }
        let text = text.trim();
        if text.eq_ignore_ascii_case("call trace:") {
            self.trace_at = match (self.trace_at, self.trace.is_empty()) {
                (Trace::Ahead, _) | (_, true) => Trace::Inside,
                _ => Trace::Behind,
            };
        } else if text == "</TASK>" && self.trace_at == Trace::Inside {
            self.end_dump();
        } else if self.trace_at == Trace::Inside {
            self.frame(line);
        }
    }

    fn frame(&mut self, line: &Line) {
        let Some(frame) = symbol::frame(&line.text) else {
            return;
        };
        if self.trace.is_empty() {
            self.trace_by.clone_from(&line.caller);
        } else if self.trace_by != line.caller {
            return;
        }
        if self.trace.len() == MAX_FRAMES {
            self.cut = true;
        } else {
            self.trace.push(frame);
        }
    }

    fn list(&mut self, text: &str, length: usize) {
        let Some(modules) = &mut self.modules else {
            return;
        };
        match symbol::modules(text) {
            Some(more) if modules.len() + more.len() <= MAX_MODULES => modules.extend(more),
            _ => self.cut = true,
        }
        self.list_goes_on = length >= LONG_LINE && !text.contains("[last unloaded:");
    }

    fn task(&mut self, header: symbol::TaskHeader) {
        // The detector of hung tasks reports another task than itself; its own is
        // shown where it panics.
        let other = self.primary == Signal::HungTask;
        if !other && self.comm.is_none() && self.agrees(&header) {
            self.comm = header.comm;
            self.cpu = self.cpu.or(header.cpu);
            self.pid = self.pid.or(header.pid);
        }
        if self.taint.is_none() {
            self.taint = header.taint;
        }
        if self.release.is_none() {
            self.release = header.release;
        }
    }

    fn agrees(&self, header: &symbol::TaskHeader) -> bool {
        self.is_about(&Found {
            cpu: header.cpu,
            pid: header.pid,
            ..Found::default()
        })
    }

    /// The record, or what it was if it was no crash. `release` is the boot's.
    pub(super) fn finish(
        self,
        release: Option<String>,
        reading: &Reading,
    ) -> Result<CrashRecord, Box<NonFatalSignal>> {
        let panicked = self.panic.is_some();
        let kind = self.primary.kind().or(panicked.then_some(Kind::Panic));
        let signal = self.primary;
        let faulted = self.fault.is_some();
        let function = self.fault.or_else(|| place(self.primary, &self.trace));
        let release = release
            .or(self.release)
            .map(|release| cut(&release, MAX_NAME));
        let mut record = CrashRecord {
            kind: kind.unwrap_or(Kind::Panic),
            signals: self.signals,
            reports: self.reports,
            when: self.when,
            release,
            headline: self.headline,
            panic: self.panic,
            function,
            cpu: self.cpu,
            comm: self.comm,
            pid: self.pid,
            taint: self.taint,
            modules: self.modules,
            trace: self.trace,
            cut: self.cut,
            patches: Vec::new(),
            phase: super::super::Phase::Unknown,
            transition: None,
            last_transition: None,
            implicated: Implicated::Unknown,
            evidence: Vec::new(),
            files: Vec::new(),
            host: None,
        };
        attribution::judge(&mut record, &self.timeline, self.clock, faulted, reading);
        match kind {
            Some(_) => Ok(record),
            None => Err(Box::new(NonFatalSignal {
                signal,
                when: record.when,
                headline: record.headline,
                function: record.function,
                phase: record.phase,
                implicated: record.implicated,
                evidence: record.evidence,
            })),
        }
    }
}

/// Where there is no instruction pointer: who called panic(), or where a blocked
/// task went to sleep.
fn place(signal: Signal, trace: &[Frame]) -> Option<Function> {
    let mut callers = trace
        .iter()
        .filter(|frame| frame.reliable)
        .map(|frame| &frame.function);
    let is_panic =
        |function: &&Function| ["panic", "vpanic", "nmi_panic"].contains(&function.name.as_str());
    let is_sleep = |function: &&Function| {
        let name = function.name.trim_start_matches('_');
        function.module.is_none()
            && (name.starts_with("schedule") || name.starts_with("io_schedule"))
    };
    match signal {
        Signal::HungTask => callers.find(|function| !is_sleep(function)).cloned(),
        _ => {
            callers.by_ref().find(|function| is_panic(function))?;
            callers.find(|function| !is_panic(function)).cloned()
        }
    }
}
