//! Turns the lines of one host into events, and events into records.

use std::{collections::VecDeque, rc::Rc};

use super::{
    super::{
        livepatch_log::LivepatchLog,
        proof,
        record::{CrashRecord, NonFatalSignal},
        signal::{Property, Signal},
    },
    Anchor, Reading,
    event::Event,
    format::Found,
    headless::Headless,
    headline::{Sign, cause, may_be_cause, may_be_start, recognise},
    histories, keep,
    line::Line,
    message::{Message, is_of_a_report},
    names::Names,
    turns::Turns,
    when,
};

/// Longest time between two interleaved reports.
const SAME_MOMENT_SECONDS: f64 = 1.0;
/// Most events that may still be reported again, or lead to a panic.
const MAX_OPEN: usize = 64;
/// Longest time between hung tasks that one pass of the detector reports (kernel/hung_task.c).
const ONE_LOOK_SECONDS: f64 = 10.0;
/// A clock that goes back to a time this early, by more than the CPUs' lines may be out of order,
/// is another boot's.
const EARLY_SECONDS: f64 = 60.0;
const BACK_SECONDS: f64 = 5.0;

/// A lockup that is reported again within this time is the same (the soft lockup detector repeats
/// itself every 20 s by default, hung tasks every 120 s).
const REPEAT_SECONDS: f64 = 300.0;

/// A panic that follows an oops within this time was caused by it.
const OOPS_TO_PANIC_SECONDS: f64 = 10.0;
/// State of the boot that is being read.
#[derive(Default)]
pub(super) struct Boot {
    release: Option<String>,
    /// A line that shows both clocks.
    anchor: Option<Anchor>,
    /// Shared with the events, because it changes far less often than events occur.
    livepatches: Rc<LivepatchLog>,
    /// Whether a livepatch message may be part of a user-chosen name.
    doubted_message: bool,
    /// The last timestamp seen.
    uptime: f64,
    /// Number of records and non-fatal signals of this boot.
    pub(super) records: usize,
    pub(super) non_fatal: usize,
}

pub(super) struct Reader<'a> {
    reading: &'a Reading,
    pub(super) boot: Boot,
    /// Events of this boot that may still get more lines, the oldest first.
    events: VecDeque<Event>,
    /// The event whose lines are being read.
    current: Option<usize>,
    pub(super) records: VecDeque<CrashRecord>,
    pub(super) non_fatal: VecDeque<NonFatalSignal>,
    /// Number of lines that only the kernel writes.
    pub(super) recognised: u64,
    /// A line that looks like one of these, but lacks what the kernel's others have.
    pub(super) doubted: Option<String>,
    /// A first line of an oops without any other line of a report.
    pub(super) lone: Option<String>,
    /// The rest of a report.
    pub(super) headless: Headless,
    /// What stands in names that users choose.
    names: Names,
    message: Message,
    /// Whether the current line may be part of one.
    joined: bool,
    /// Whether another machine's lines are mixed in.
    pub(super) turns: Turns,
}

impl histories::Read for Reader<'_> {
    fn new_boot(&mut self) {
        self.end_boot();
        self.boot = Boot::default();
    }

    fn starts_report(line: &Line) -> bool {
        matches!(
            recognise(&line.text),
            Some(Sign::Start(..) | Sign::Report(..) | Sign::Die | Sign::Panic(_))
        )
    }

    fn line(&mut self, line: &Line) {
        let text = line.text.as_str();
        let known = recognise(text);
        let livepatch = LivepatchLog::concerns(text.trim_start());
        if !line.understood && (known.is_some() || livepatch) {
            self.doubted
                .get_or_insert_with(|| text.chars().take(160).collect());
            return;
        }
        self.recognised += u64::from(known.is_some() || livepatch);
        // The continuation of a message of several lines may be a user's.
        let known = known.filter(|_| !line.continues);
        if let Some(uptime) = line.uptime {
            // A quiet console does not show the first line of a boot.
            if uptime < EARLY_SECONDS && uptime + BACK_SECONDS < self.boot.uptime {
                self.end_boot();
                self.boot = Boot::default();
            }
            self.boot.uptime = uptime;
            self.turns.line(uptime);
        }
        let of_a_report = is_of_a_report(text)
            || self
                .event()
                .is_some_and(|event| event.is_rest_of_list(text));
        self.joined = self.message.may_go_on(line, of_a_report);
        if self.names.holds(line) {
            return;
        }
        let joined = self.joined;
        let leaves = |event: &mut Event| event.is_left(line, known.as_ref(), joined, of_a_report);
        if self.event().is_some_and(leaves) {
            self.current = None;
        }
        if known.is_none() && may_be_start(text) {
            // Cut, or wrapped where the rest cannot be found.
            self.lone.get_or_insert_with(|| proof::lone_headline(text));
        }
        // Where no line has a time, boots and patches are believed.
        let in_name = self.joined && (self.boot.uptime > 0.0 || line.moment.is_some());
        let late = in_name || line.uptime.is_some_and(|uptime| uptime > EARLY_SECONDS);
        let known = known.filter(|sign| !(late && matches!(sign, Sign::Boot { .. })));
        if let Some((sign, event)) = known.as_ref().zip(self.event())
            && event.is_before_boot_of(sign, line)
        {
            self.end_boot();
            self.boot = Boot {
                uptime: line.uptime.unwrap_or_default(),
                ..Boot::default()
            };
        }
        if let Some(event) = self.event() {
            event.next(line);
        }
        let is_part = known.is_some();
        match known {
            Some(Sign::Boot { release }) => {
                self.end_boot();
                self.boot = Boot {
                    release,
                    ..Boot::default()
                };
            }
            Some(Sign::Start(signal, who)) => self.start(signal, None, &who, line),
            Some(Sign::Report(name, who)) => self.start(Signal::Warning, Some(name), &who, line),
            Some(Sign::Die) => self.die(line),
            Some(Sign::Panic(panic)) => self.panic(&panic, line),
            Some(Sign::EndTrace) => match self.event() {
                Some(event) => event.end(),
                None if text.trim_end().ends_with("]---") => self.headless(line),
                None => {}
            },
            Some(Sign::EndPanic(panic)) => {
                // Over a crash that has its own lines it is not said in a name.
                let joined = self.joined;
                let others = |event: &mut Event| event.panic.is_none() && !joined;
                if self.event().is_none_or(others) {
                    self.panic(&panic, line);
                }
                if let Some(event) = self.event() {
                    event.detail(line);
                    event.panic_ends(line);
                }
            }
            None => {
                if let Some(event) = self.event() {
                    event.detail(line);
                } else if self.events.is_empty() && self.headless.is(line) {
                    self.headless(line);
                }
                let text = text.trim_start();
                if livepatch && in_name {
                    self.boot.doubted_message = true;
                } else if livepatch && !line.continues {
                    Rc::make_mut(&mut self.boot.livepatches).read(text, line.clock);
                }
                if let Some(anchor) = when::anchor(line) {
                    self.boot.anchor = Some(anchor);
                }
            }
        }
        let joined = self.joined;
        if let Some(event) = self.event() {
            event.last_clock = line.clock.or(event.last_clock);
            event.read(joined);
            if is_part {
                event.part(line);
            }
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(reading: &'a Reading) -> Self {
        Self {
            reading,
            boot: Boot::default(),
            events: VecDeque::new(),
            current: None,
            records: VecDeque::new(),
            non_fatal: VecDeque::new(),
            recognised: 0,
            doubted: None,
            lone: None,
            headless: Headless::default(),
            names: Names::default(),
            message: Message::default(),
            joined: false,
            turns: Turns::default(),
        }
    }

    /// The line is of a report whose beginning is not there.
    fn headless(&mut self, line: &Line) {
        // Names stand in lines of the kernel's, which have times if others do.
        if !self.joined || self.boot.uptime <= 0.0 {
            self.headless.found(line);
        }
    }

    fn event(&mut self) -> Option<&mut Event> {
        self.events.get_mut(self.current?)
    }

    fn start(&mut self, signal: Signal, report: Option<&'static str>, who: &Found, line: &Line) {
        if let Some(event) = self.event() {
            let ago = event.seconds_since(line);
            let repeats = ago.is_none_or(|ago| ago <= REPEAT_SECONDS);
            if event.panic.is_some() {
                // Whatever follows a panic follows because of it.
                event.add(signal);
                event.interrupted();
                if ago.is_some_and(|ago| ago.abs() > SAME_MOMENT_SECONDS) {
                    return;
                }
                // Its lines and the panic's may be interleaved.
                event.mixed();
                return;
            }
            let about = event.is_about(who) || signal.has(Property::EachCpu);
            if event.primary == signal && about {
                match signal {
                    Signal::Oops if !event.died && !event.ended => return,
                    Signal::MachineCheck => return,
                    Signal::HardLockup if repeats => {
                        event.end_dump();
                        return;
                    }
                    Signal::SoftLockup | Signal::HungTask | Signal::RcuStall if repeats => {
                        event.reports = event.reports.saturating_add(1);
                        event.end_dump();
                        return;
                    }
                    Signal::BadPage
                    | Signal::Warning
                    | Signal::HardLockup
                    | Signal::Oops
                    | Signal::SoftLockup
                    | Signal::HungTask
                    | Signal::RcuStall
                    | Signal::Panic => {}
                }
            }
            let same = signal > event.primary || event.is_about(who);
            let lockups = [event.primary, signal]
                .iter()
                .all(|signal| signal.has(Property::StuckCpu));
            if lockups && same && repeats && event.same_cpu(who) {
                event.upgrade(signal, who, line);
                return;
            }
            if event.report.is_none()
                && report.is_some()
                && event.primary == signal
                && event.leads_to(signal, line)
            {
                // WARN() prints its message after its first line up to 4.18.
                event.report = report;
                return;
            }
            // Up to 4.2 the hard lockup is the message of a WARN().
            let warned = event.report.is_some()
                || event.primary == Signal::Warning && signal == Signal::HardLockup;
            if warned && report.is_none() && event.leads_to(signal, line) {
                event.restart(signal, who, line);
                return;
            }
        }
        if signal.has(Property::Repeats) && self.again(signal, who, line) {
            return;
        }
        self.open(signal, who, line);
        if let Some(event) = self.event() {
            event.report = report;
        }
    }

    /// Whether an earlier event is reported again, with others in between.
    fn again(&mut self, signal: Signal, who: &Found, line: &Line) -> bool {
        let same = |event: &Event| {
            let ago = event.seconds_since(line);
            event.primary == signal
                && event.panic.is_none()
                && !event.is_suspect()
                && event.is_surely_about(who)
                && ago.is_none_or(|ago| (0.0..=REPEAT_SECONDS).contains(&ago))
        };
        let Some(at) = self.events.iter().rposition(same) else {
            return false;
        };
        self.current = Some(at);
        if let Some(event) = self.event() {
            event.reports = event.reports.saturating_add(1);
            event.end_dump();
        }
        true
    }

    fn die(&mut self, line: &Line) {
        if let Some(event) = self.event() {
            if event.panic.is_some() {
                event.add(Signal::Oops);
                return;
            }
            if event.primary == Signal::Oops && !event.ended {
                // Another oops before the end of the first is a fault in its report.
                if event.died {
                    event.reports = event.reports.saturating_add(1);
                    event.end_dump();
                }
                event.died(line);
                return;
            }
            let soon = event
                .seconds_since(line)
                .is_none_or(|ago| ago <= OOPS_TO_PANIC_SECONDS);
            if event.primary.has(Property::BeforeDie) && !event.died && soon {
                event.add(Signal::Oops);
                event.died(line);
                return;
            }
            if event.report.is_some() && event.leads_to(Signal::Oops, line) {
                event.restart(Signal::Oops, &Found::default(), line);
                event.died = true;
                return;
            }
        }
        self.open(Signal::Oops, &Found::default(), line);
        if let Some(event) = self.event() {
            event.died = true;
            event.suspect_if_short();
        }
    }

    fn panic(&mut self, panic: &str, line: &Line) {
        if let Some(event) = self.event() {
            if event.panic.is_some() {
                event.mixed();
                return;
            }
            let soon = event
                .seconds_since(line)
                .is_none_or(|ago| ago <= OOPS_TO_PANIC_SECONDS);
            if event.lead && soon {
                event.lead_to(panic, line);
                return;
            }
            let after_oops = (event.primary == Signal::Oops || event.died) && soon;
            let cause = cause(panic, after_oops);
            let caused =
                cause == Some(event.primary) && (event.primary != Signal::Oops || after_oops);
            // A report that the panic interrupts.
            let broken_off = after_oops && !event.ended && cause.is_none();
            let cut = soon && cause.is_none() && may_be_cause(panic, event.primary);
            if caused
                || broken_off
                || cut
                || cause.is_some_and(|cause| event.signals.contains(&cause)) && soon
            {
                event.give_up(panic);
                if cause.is_some_and(|cause| cause.has(Property::ByDetector)) {
                    self.one_look(line);
                }
                return;
            }
        }
        // The line that began it is not in this text: the panic names the cause.
        self.headless.panics(line);
        let cause = cause(panic, false).unwrap_or(Signal::Panic);
        self.open(cause, &Found::default(), line);
        if let Some(event) = self.event() {
            event.lead = false;
            event.give_up(panic);
            event.expect_dump();
        }
    }

    /// The detector of hung tasks reports all of them and then panics: that is one
    /// crash, which started with the first.
    fn one_look(&mut self, line: &Line) {
        let of_it = |event: &Event| {
            let ago = event.seconds_since(line);
            let now = ago.is_some_and(|ago| (0.0..=ONE_LOOK_SECONDS).contains(&ago));
            event.primary.has(Property::ByDetector) && now
        };
        let events = std::mem::take(&mut self.events);
        let (tasks, rest): (Vec<Event>, Vec<Event>) = events.into_iter().partition(of_it);
        self.events = rest.into();
        let mut tasks = tasks.into_iter();
        let Some(mut first) = tasks.next() else {
            return;
        };
        for mut task in tasks {
            first.reports = first.reports.saturating_add(task.reports);
            if let Some(panic) = task.panic.take() {
                first.give_up(&panic);
            }
            first.others.push(task);
        }
        self.events.push_back(first);
        self.current = self.events.len().checked_sub(1);
    }

    fn open(&mut self, signal: Signal, who: &Found, line: &Line) {
        let when = when::of(line, self.boot.anchor);
        if let Some(event) = self.event() {
            event.interrupted();
        }
        let livepatches = Rc::clone(&self.boot.livepatches);
        if self.events.len() == MAX_OPEN
            && let Some(oldest) = self.events.pop_front()
        {
            self.close(oldest);
        }
        self.events
            .push_back(Event::new(signal, who, line, when, livepatches));
        self.current = self.events.len().checked_sub(1);
        let joined = self.joined;
        if let Some(event) = self.event().filter(|_| joined) {
            event.suspect();
        }
    }

    /// No more will be known about the boot's events.
    pub(super) fn end_boot(&mut self) {
        self.current = None;
        while let Some(event) = self.events.pop_front() {
            self.close(event);
        }
    }

    fn close(&mut self, event: Event) {
        if !event.is_believed() {
            // Where there are times, the kernel's own have a proof in time.
            if !event.is_crash() && event.last_clock.is_some() {
                return;
            }
            self.lone.get_or_insert_with(|| event.doubt());
            return;
        }
        match event.finish(self.boot.release.as_ref(), self.reading) {
            Ok(mut record) => {
                if self.boot.doubted_message {
                    record.not_proved(proof::DOUBTED_MESSAGE);
                }
                self.boot.records += 1;
                keep(&mut self.records, record);
            }
            Err(mut signal) => {
                if self.boot.doubted_message {
                    signal.not_proved();
                }
                self.boot.non_fatal += 1;
                keep(&mut self.non_fatal, *signal);
            }
        }
    }
}
