//! An event under construction.

mod after;
mod detail;
mod finish;

use std::rc::Rc;

use super::{
    super::{
        livepatch_log::LivepatchLog,
        proof::Completeness,
        record::{Frame, Function, Module, When},
        signal::{Property, Signal},
    },
    MAX_COMM,
    format::Found,
    header,
    headline::Sign,
    line::Line,
    symbol::{self, cut},
};

/// Most bytes of a headline.
const MAX_HEADLINE: usize = 1024;
/// Longest time from a line that announces a report to the report.
const LEAD_SECONDS: f64 = 1.0;
/// A report's lines follow each other immediately; later lines, or lines with another timestamp,
/// belong to another report.
const PAUSE_SECONDS: f64 = 10.0;
/// State of the module list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    /// The line before did not belong to the module list.
    No,
    /// It did, and the list may continue on the next line.
    Line {
        /// Whether it had a timestamp.
        timed: bool,
        /// Whether it reached the maximum line length.
        long: bool,
    },
}

/// Position in the call trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    /// The trace has not started yet.
    Ahead,
    /// Frames are being read.
    Inside,
    /// The following lines belong to another dump, and are ignored.
    Behind,
}

#[derive(Debug)]
pub(super) struct Event {
    pub(super) primary: Signal,
    pub(super) signals: Vec<Signal>,
    pub(super) reports: u32,
    pub(super) panic: Option<String>,
    /// Whether the line of `__die_header` was seen.
    pub(super) died: bool,
    /// Whether it is a text printed just before panic(), whose line is still to come.
    pub(super) lead: bool,
    /// The name of the report, if it has one.
    pub(super) report: Option<&'static str>,
    /// Further reports with the same cause; ignored.
    pub(super) others: Vec<Event>,
    /// Whether the end mark was seen.
    pub(super) ended: bool,
    /// The last line of panic() was seen.
    over: bool,
    pub(super) last_clock: Option<f64>,
    /// When it started, on the host's clock.
    clock: Option<f64>,
    /// The kernel's time of the last line that belongs to it.
    part_at: Option<f64>,
    headline: String,
    when: When,
    cpu: Option<u32>,
    comm: Option<String>,
    pid: Option<u32>,
    taint: Option<String>,
    release: Option<String>,
    fault: Option<Function>,
    modules: Option<Vec<Module>>,
    /// State of the module list at the last line.
    list: List,
    trace: Vec<Frame>,
    trace_at: Trace,
    /// How many callers were read before a line of the trace that cannot be.
    gap: Option<usize>,
    /// The place of the instruction is on the next line.
    place_follows: bool,
    /// The other CPUs' dumps have begun.
    stopping: bool,
    /// Who printed the trace's first line: lines of others that come between are
    /// not of it.
    trace_by: Option<String>,
    cut: bool,
    complete: Completeness,
    /// Whether a second line was seen that only a kernel report has.
    second_sign: bool,
    /// Whether its first line may be part of a message with a name that contains a newline, until a
    /// sign follows that is not part of one.
    suspect: bool,
    /// Whether its first line is no longer than a task's name.
    short: bool,
    /// Whether a line was seen that only a crash report has.
    own_sign: bool,
    /// Whether the trace is that of the thread that detects hung tasks.
    is_of_detector: bool,
    /// Whether dumps of other tasks follow this event's own.
    follow_ups: bool,
    /// The caller that printed its first line.
    caller: Option<String>,
    /// The caller that prints lines of another task, interleaved with this event's.
    foreign: Option<String>,
    /// Whether the position is between `<TASK>` and `</TASK>`.
    in_task: bool,
    livepatches: Rc<LivepatchLog>,
}

impl Event {
    pub(super) fn new(
        signal: Signal,
        who: &Found,
        line: &Line,
        when: When,
        livepatches: Rc<LivepatchLog>,
    ) -> Self {
        let (headline, list) = unglued(line.text.trim());
        let mut event = Self {
            primary: signal,
            signals: vec![signal],
            reports: 1,
            panic: None,
            died: false,
            lead: signal == Signal::Panic,
            report: None,
            others: Vec::new(),
            ended: false,
            over: false,
            last_clock: line.clock,
            clock: line.clock,
            part_at: line.uptime,
            headline: cut(headline, MAX_HEADLINE),
            when,
            cpu: who.cpu,
            comm: who.comm.clone(),
            pid: who.pid,
            taint: None,
            release: None,
            fault: who.place.clone(),
            modules: None,
            list: List::No,
            trace: Vec::new(),
            trace_at: Trace::Ahead,
            gap: None,
            place_follows: false,
            stopping: false,
            trace_by: None,
            cut: false,
            complete: Completeness::default(),
            second_sign: false,
            suspect: false,
            short: line.text.trim().len() <= MAX_COMM,
            own_sign: false,
            is_of_detector: false,
            follow_ups: false,
            caller: line.caller.clone(),
            foreign: None,
            in_task: false,
            livepatches,
        };
        if let Some(list) = list {
            event.module_list(list, line);
        }
        event
    }

    /// Seconds from the event's last line to this one.
    pub(super) fn seconds_since(&self, line: &Line) -> Option<f64> {
        Some(line.clock? - self.last_clock?)
    }

    /// Records that a line belongs to the event.
    pub(super) fn part(&mut self, line: &Line) {
        self.part_at = line.uptime.or(self.part_at);
    }

    pub(super) fn add(&mut self, signal: Signal) {
        if !self.signals.contains(&signal) {
            self.signals.push(signal);
        }
    }

    /// Records that the kernel panics because of this event.
    pub(super) fn give_up(&mut self, panic: &str) {
        self.panic = Some(cut(panic, MAX_HEADLINE));
        self.add(Signal::Panic);
        self.sign();
        if let Some((_, place)) = panic.split_once("Kernel stack is corrupted in: ")
            && self.fault.is_none()
        {
            self.fault = symbol::place_of(place);
        }
        self.end_dump();
    }

    /// Records the panic that this event was printed just before.
    pub(super) fn lead_to(&mut self, panic: &str, line: &Line) {
        self.give_up(panic);
        self.lead = false;
        self.headline = cut(line.text.trim(), MAX_HEADLINE);
        self.expect_dump();
    }

    /// Expects the event's own dump, which follows.
    pub(super) fn expect_dump(&mut self) {
        self.is_of_detector = self.primary.has(Property::ByDetector);
        self.trace_at = Trace::Ahead;
        self.complete.end = false;
    }

    const fn sign(&mut self) {
        self.second_sign = true;
        self.own_sign = true;
    }

    /// Whether nothing but the first line was seen.
    pub(super) fn is_headline_only(&self) -> bool {
        self.trace.is_empty() && self.taint.is_none() && self.modules.is_none() && !self.died
    }

    /// Records the line of `die()`, which follows the report's first line.
    pub(super) fn died(&mut self, line: &Line) {
        self.died = true;
        self.second_sign = true;
        self.own_sign |= line.text.trim().len() > MAX_COMM;
    }

    /// Whether this event only announces a separate kernel report: `list_add corruption` before a
    /// BUG(), `refcount_t:` in a WARN().
    pub(super) fn leads_to(&self, signal: Signal, line: &Line) -> bool {
        let soon = self.seconds_since(line);
        signal >= self.primary
            && self.is_headline_only()
            && soon.is_none_or(|ago| ago <= LEAD_SECONDS)
    }

    /// Starts the report that was announced.
    pub(super) fn restart(&mut self, signal: Signal, who: &Found, line: &Line) {
        if signal > self.primary {
            self.upgrade(signal, who, line);
            return;
        }
        self.headline = cut(line.text.trim(), MAX_HEADLINE);
        self.cpu = who.cpu.or(self.cpu);
        self.pid = who.pid.or(self.pid);
        if self.comm.is_none() {
            self.comm.clone_from(&who.comm);
        }
        if self.fault.is_none() {
            self.fault.clone_from(&who.place);
        }
    }

    /// Whether enough was seen to rule out forged text.
    pub(super) fn is_believed(&self) -> bool {
        !self.suspect
            && (!self.primary.has(Property::NeedsSecondSign)
                || self.second_sign
                || self.panic.is_some())
    }

    /// Whether it is a crash, by itself or because the kernel panicked.
    pub(super) const fn is_crash(&self) -> bool {
        self.primary.kind().is_some() || self.panic.is_some()
    }

    /// Marks the first line as possibly part of a name.
    pub(super) const fn suspect(&mut self) {
        self.suspect = true;
    }

    /// Marks the first line as possibly a task's name, if it is that short.
    pub(super) const fn suspect_if_short(&mut self) {
        self.suspect |= self.short;
    }

    /// Whether a line shows that the event's lines end before it. What follows must neither prove
    /// the event, nor may a name's lines prove another report.
    pub(super) fn is_left(
        &self,
        line: &Line,
        known: Option<&Sign>,
        may_be_of_a_name: bool,
        of_a_report: bool,
    ) -> bool {
        let starts = match known {
            Some(Sign::Start(..) | Sign::Report(..) | Sign::Die | Sign::Panic(_)) => true,
            Some(Sign::Boot { .. } | Sign::EndTrace | Sign::EndPanic(_)) | None => false,
        };
        if !self.suspect {
            return starts && may_be_of_a_name && !self.is_crash();
        }
        let ago = self.seconds_since(line);
        let begins_another = starts && !may_be_of_a_name && known != Some(&Sign::Die);
        !of_a_report || begins_another || ago.is_some_and(|ago| ago > PAUSE_SECONDS)
    }

    pub(super) const fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Processes a line that was read. A sign that only a report has confirms the event, if it is
    /// not itself part of a name. Other dumps, which users may cause, have a task's header and a
    /// trace too.
    pub(super) const fn read(&mut self, may_be_of_a_name: bool) {
        if !self.suspect {
            return;
        }
        if may_be_of_a_name {
            self.second_sign = false;
            self.own_sign = false;
        }
        self.suspect = !self.own_sign;
    }

    /// Whether a line may be the rest of the module list.
    pub(super) fn is_rest_of_list(&self, text: &str) -> bool {
        self.list != List::No && header::modules(text).is_some()
    }

    /// What comes now is not part of this event's own dump.
    pub(super) fn end_dump(&mut self) {
        if !self.trace.is_empty() || self.died {
            self.complete.end = true;
        }
        self.trace_at = Trace::Behind;
    }

    /// Records that another event's lines come before this one is complete.
    pub(super) fn interrupted(&mut self) {
        let expected = self.trace_at == Trace::Ahead && self.panic.is_some();
        self.complete.mixed |= !self.ended && (self.trace_at == Trace::Inside || expected);
    }

    /// Records that lines of another report are interleaved.
    pub(super) const fn mixed(&mut self) {
        self.complete.mixed = true;
    }

    /// Records the report's end mark.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.sign();
        self.complete.end = true;
        self.end_dump();
    }

    /// Processes any line: it completes the module list before it, unless it continues that list.
    pub(super) fn next(&mut self, line: &Line) {
        let List::Line { timed, long } = self.list else {
            return;
        };
        let text = line.text.as_str();
        let same = line.uptime.is_some() || !timed;
        let names = !text.contains(": ") && !text.contains("---");
        if names && (long || !same) && header::modules(text).is_some_and(|more| !more.is_empty()) {
            self.list_goes_on(text, line);
            return;
        }
        self.list = List::No;
        self.complete.modules = same;
    }

    /// Whether the two are certainly about the same task or CPU.
    pub(super) fn is_surely_about(&self, who: &Found) -> bool {
        let same = |one: Option<u32>, two: Option<u32>| one.is_some() && one == two;
        let names = self.comm.as_ref().zip(who.comm.as_ref());
        (same(self.pid, who.pid) || who.pid.is_none() && same(self.cpu, who.cpu))
            && self.is_about(who)
            && names.is_none_or(|(one, two)| one == two)
    }

    /// Whether the task that a headline names may be this event's.
    pub(super) fn is_about(&self, who: &Found) -> bool {
        let agree = |one: Option<u32>, two: Option<u32>| one.zip(two).is_none_or(|(a, b)| a == b);
        agree(self.cpu, who.cpu) && agree(self.pid, who.pid)
    }

    pub(super) fn same_cpu(&self, who: &Found) -> bool {
        self.cpu.zip(who.cpu).is_none_or(|(one, two)| one == two)
    }

    /// Adds another signal of the same event. If it is more severe, the event takes its name, and
    /// the dump that follows has more details.
    pub(super) fn upgrade(&mut self, signal: Signal, who: &Found, line: &Line) {
        self.add(signal);
        if signal <= self.primary {
            return;
        }
        self.primary = signal;
        let (headline, list) = unglued(line.text.trim());
        self.headline = cut(headline, MAX_HEADLINE);
        self.cpu = who.cpu.or(self.cpu);
        self.comm.clone_from(&who.comm);
        self.pid = who.pid;
        self.fault.clone_from(&who.place);
        self.trace.clear();
        self.gap = None;
        self.trace_by = None;
        self.trace_at = Trace::Ahead;
        self.ended = false;
        self.complete.end = false;
        if let Some(list) = list {
            self.modules = None;
            self.module_list(list, line);
        }
    }
}

/// A console appends the module list of the next line to one that ends without a newline, with the
/// digit of its level in between (`KERN_DEFAULT`, `d`, up to 4.4).
fn unglued(text: &str) -> (&str, Option<&str>) {
    match text.split_once("Modules linked in:") {
        Some((headline, list)) => (headline.trim_end_matches('d').trim_end(), Some(list)),
        None => (text, None),
    }
}
