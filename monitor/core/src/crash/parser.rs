//! The kernel's log, from whatever kept it: a serial console, `dmesg`, syslog,
//! kdump's vmcore-dmesg, pstore. The many lines of one event become one record.

mod event;
pub(super) mod format;
mod headline;
mod histories;
mod line;
mod prefix;
mod symbol;
pub(super) mod timeline;

use std::{collections::VecDeque, rc::Rc};

use event::Event;
use format::Found;
use headline::{Sign, cause, recognise};
use histories::{Histories, History};
use line::{Line, lines};
use prefix::date::Kind as DateKind;
use timeline::Timeline;

use super::{
    Signal,
    record::{CrashRecord, NonFatalSignal, Precision, When, merge},
};
use crate::function_ref::FunctionRef;

/// Records, and lesser signals, kept of one text.
const MAX_EVENTS: usize = 256;
/// A panic that follows an oops by no more than this was caused by it.
const OOPS_TO_PANIC_SECONDS: f64 = 10.0;
/// A lockup that is reported again within this is the same (the soft lockup
/// detector repeats itself every 20 s by default, hung tasks every 120 s).
const REPEAT_SECONDS: f64 = 300.0;

/// A clock that goes back to this early, by more than the CPUs' lines may be out of
/// order, is another boot's.
const EARLY_SECONDS: f64 = 60.0;
const BACK_SECONDS: f64 = 5.0;

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anchor {
    /// Seconds since 1970.
    pub unix_seconds: f64,
    /// Seconds on the log's clock.
    pub uptime_seconds: f64,
}

/// What a text told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedLog {
    /// Crashes, oldest first; of more than 256 the latest.
    pub records: Vec<CrashRecord>,
    /// Signals that were no crash and led to none; of more than 256 the latest.
    pub lesser: Vec<NonFatalSignal>,
    /// What could not be made out, and why nothing can be concluded from it.
    pub problems: Vec<String>,
}

/// A function that a loaded patch replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The patch.
    pub patch: String,
    /// The function.
    pub function: FunctionRef,
}

/// What a text is read with.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// How long after the end of a transition a crash counts as in its wake.
    pub soak_seconds: f64,
    /// What is known of the last boot's clock from elsewhere.
    pub anchor: Option<Anchor>,
    /// What the loaded patches replace, where that is known.
    pub replaced: Vec<Replaced>,
}

impl Reading {
    /// Of a text of which nothing else is known.
    #[must_use]
    pub fn new(soak_seconds: f64) -> Self {
        Self {
            soak_seconds,
            anchor: None,
            replaced: Vec::new(),
        }
    }
}

/// The signal that a line of the kernel's begins or names, if it does.
#[must_use]
pub fn signal(line: &str) -> Option<Signal> {
    match recognise(line)? {
        Sign::Start(signal, _) => Some(signal),
        Sign::Report(..) => Some(Signal::Warning),
        Sign::Die => Some(Signal::Oops),
        Sign::Panic(_) => Some(Signal::Panic),
        Sign::Boot { .. } | Sign::EndTrace => None,
    }
}

/// Reads a text. The memory taken is bounded by the longest line and the number of
/// events kept, not by the text.
#[must_use]
pub fn read(text: &[u8], reading: &Reading) -> ParsedLog {
    let mut lines = lines(text);
    let mut histories = Histories::new();
    let mut log = Log::default();
    for line in &mut lines {
        if let Some(closed) = histories.line(line, || Reader::new(reading)) {
            log.add(closed);
        }
    }
    let closed = histories.closed;
    let mut rest = histories.rest();
    if let Some(anchor) = reading.anchor
        && let Some(History { reader, .. }) = rest.last_mut()
    {
        reader.close();
        let of_boot = reader.records.iter_mut().rev().take(reader.boot.records);
        for record in of_boot {
            date(&mut record.when, anchor);
        }
        let of_boot = reader.lesser.iter_mut().rev().take(reader.boot.lesser);
        for lesser in of_boot {
            date(&mut lesser.when, anchor);
        }
    }
    rest.into_iter().for_each(|history| log.add(history));
    log.end(&lines.summary, closed)
}

/// What the hosts of a text told.
#[derive(Default)]
struct Log {
    records: VecDeque<CrashRecord>,
    lesser: VecDeque<NonFatalSignal>,
    recognised: u64,
    doubted: Option<String>,
}

impl Log {
    fn add(&mut self, history: History<Reader<'_>>) {
        let mut reader = history.reader;
        reader.close();
        for mut record in reader.records {
            record.host.clone_from(&history.host);
            keep(&mut self.records, record);
        }
        for lesser in reader.lesser {
            keep(&mut self.lesser, lesser);
        }
        self.recognised += reader.recognised;
        self.doubted = self.doubted.take().or(reader.doubted);
    }

    fn end(self, summary: &prefix::Summary, closed: u64) -> ParsedLog {
        let mut problems = Vec::new();
        if let Some(sample) = summary.sample.as_ref()
            && (summary.unclear > 1 || self.recognised == 0)
        {
            problems.push(format!(
                "the beginnings of these lines are not understood ({}): {sample}",
                summary.unclear
            ));
        } else if summary.kernel == 0 && self.recognised == 0 {
            problems.push(
                "no line of it is known to be the kernel's: cannot determine whether there was a \
                 crash; give the output of dmesg or journalctl -k"
                    .to_owned(),
            );
        }
        if let Some(line) = self.doubted {
            problems.push(format!(
                "not believed, since it lacks the time that the kernel's other lines bear: {line}"
            ));
        }
        if closed > 0 {
            problems.push(format!(
                "too many hosts take turns: what was known of {closed} of them was left out; give \
                 one file for each host"
            ));
        }
        ParsedLog {
            records: merge(self.records.into()),
            lesser: self.lesser.into(),
            problems,
        }
    }
}

/// The last time on the kernel's clock that a text bears.
#[must_use]
pub fn last_uptime(text: &[u8]) -> Option<f64> {
    // Only the end can matter, and it is short of a few lines without a time.
    let tail = text.get(text.len().saturating_sub(TAIL)..).unwrap_or(text);
    lines(tail).filter_map(|line| line.uptime).last()
}

/// Bytes in which [`last_uptime`] looks.
const TAIL: usize = 64 << 10;

fn date(when: &mut When, anchor: Anchor) {
    if let Some(uptime) = when.uptime_seconds
        && when.precision < Precision::Dump
    {
        when.unix_seconds = Some(anchor.unix_seconds - anchor.uptime_seconds + uptime);
        when.precision = Precision::Dump;
    }
}

/// What is known of the boot that is being read.
#[derive(Default)]
struct Boot {
    release: Option<String>,
    /// Where the log shows both clocks.
    anchor: Option<Anchor>,
    /// Shared with the events: it changes far less often than they come.
    timeline: Rc<Timeline>,
    /// The last time seen.
    uptime: f64,
    /// Records and lesser signals of this boot.
    records: usize,
    lesser: usize,
}

struct Reader<'a> {
    reading: &'a Reading,
    boot: Boot,
    open: Option<Event>,
    records: VecDeque<CrashRecord>,
    lesser: VecDeque<NonFatalSignal>,
    /// Lines that only the kernel writes.
    recognised: u64,
    /// One that looks so, but lacks what the kernel's others have.
    doubted: Option<String>,
}

impl histories::Read for Reader<'_> {
    fn new_boot(&mut self) {
        self.close();
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
        let livepatch = Timeline::concerns(text.trim_start());
        if !line.understood && (known.is_some() || livepatch) {
            self.doubted
                .get_or_insert_with(|| text.chars().take(160).collect());
            return;
        }
        self.recognised += u64::from(known.is_some() || livepatch);
        // What a message of several lines goes on with may be a user's.
        let known = known.filter(|_| !line.continues);
        if let Some(uptime) = line.uptime {
            // A quiet console does not show the line that a boot begins with.
            if uptime < EARLY_SECONDS && uptime + BACK_SECONDS < self.boot.uptime {
                self.close();
                self.boot = Boot::default();
            }
            self.boot.uptime = uptime;
        }
        match known {
            Some(Sign::Boot { release }) => {
                self.close();
                self.boot = Boot {
                    release,
                    ..Boot::default()
                };
            }
            Some(Sign::Start(signal, who)) => self.start(signal, &who, line),
            Some(Sign::Report(_, who)) => self.start(Signal::Warning, &who, line),
            Some(Sign::Die) => self.die(line),
            Some(Sign::Panic(panic)) => self.panic(&panic, line),
            Some(Sign::EndTrace) => {
                if let Some(event) = &mut self.open {
                    event.ended = true;
                    event.end_dump();
                }
            }
            None => {
                if let Some(event) = &mut self.open {
                    event.detail(line);
                }
                let text = text.trim_start();
                if livepatch && !line.continues {
                    Rc::make_mut(&mut self.boot.timeline).read(text, line.clock);
                }
                if let Some(anchor) = anchor(line) {
                    self.boot.anchor = Some(anchor);
                }
            }
        }
        if let (Some(event), Some(clock)) = (&mut self.open, line.clock) {
            event.last_clock = Some(clock);
        }
    }
}

impl<'a> Reader<'a> {
    fn new(reading: &'a Reading) -> Self {
        Self {
            reading,
            boot: Boot::default(),
            open: None,
            records: VecDeque::new(),
            lesser: VecDeque::new(),
            recognised: 0,
            doubted: None,
        }
    }

    fn start(&mut self, signal: Signal, who: &Found, line: &Line) {
        if let Some(event) = &mut self.open {
            let ago = event.seconds_since(line);
            let repeats = ago.is_none_or(|ago| ago <= REPEAT_SECONDS);
            if event.panic.is_some() {
                // Whatever is said after a panic is said because of it.
                event.add(signal);
                return;
            }
            // A machine check is told of each CPU and bank.
            let about = event.is_about(who) || signal == Signal::MachineCheck;
            if event.primary == signal && about {
                match signal {
                    Signal::Oops if !event.died && !event.ended => return,
                    Signal::MachineCheck => return,
                    Signal::SoftLockup | Signal::HungTask | Signal::RcuStall if repeats => {
                        event.reports = event.reports.saturating_add(1);
                        event.end_dump();
                        return;
                    }
                    _ => {}
                }
            }
            if is_lockup(event.primary) && is_lockup(signal) && repeats && event.same_cpu(who) {
                event.upgrade(signal, who, line);
                return;
            }
        }
        self.open(signal, who, line);
    }

    fn die(&mut self, line: &Line) {
        if let Some(event) = &mut self.open {
            if event.panic.is_some() {
                event.add(Signal::Oops);
                return;
            }
            if event.primary == Signal::Oops && !event.ended {
                // Another before the end of the first is a fault in its report.
                if event.died {
                    event.reports = event.reports.saturating_add(1);
                    event.end_dump();
                }
                event.died = true;
                return;
            }
        }
        self.open(Signal::Oops, &Found::default(), line);
        if let Some(event) = &mut self.open {
            event.died = true;
        }
    }

    fn panic(&mut self, panic: &str, line: &Line) {
        if let Some(event) = &mut self.open {
            if event.panic.is_some() {
                return;
            }
            let soon = event
                .seconds_since(line)
                .is_none_or(|ago| ago <= OOPS_TO_PANIC_SECONDS);
            let after_oops = event.primary == Signal::Oops && soon;
            let cause = cause(panic, after_oops);
            let caused =
                cause == Some(event.primary) && (event.primary != Signal::Oops || after_oops);
            if caused || cause.is_some_and(|cause| event.signals.contains(&cause)) && soon {
                event.give_up(panic);
                return;
            }
        }
        // The line that began it is not in this text: the panic names the cause.
        let cause = cause(panic, false).unwrap_or(Signal::Panic);
        self.open(cause, &Found::default(), line);
        if let Some(event) = &mut self.open {
            event.give_up(panic);
            event.expect_dump();
        }
    }

    fn open(&mut self, signal: Signal, who: &Found, line: &Line) {
        self.close();
        let (unix_seconds, precision) = match (line.unix, line.uptime, self.boot.anchor) {
            (Some(unix), _, _) => (Some(unix), Precision::Line),
            (None, Some(uptime), Some(anchor)) => (
                Some(anchor.unix_seconds - anchor.uptime_seconds + uptime),
                Precision::LogClock,
            ),
            _ => match line.date.map(|date| (date.seconds, date.kind)) {
                Some((seconds, DateKind::Local)) => (Some(seconds), Precision::LocalTime),
                Some(_) => (None, Precision::NoYear),
                None => (None, Precision::Unknown),
            },
        };
        let when = When {
            uptime_seconds: line.uptime,
            unix_seconds,
            precision,
        };
        let timeline = Rc::clone(&self.boot.timeline);
        self.open = Some(Event::new(signal, who, line, when, timeline));
    }

    fn close(&mut self) {
        let Some(event) = self.open.take() else {
            return;
        };
        let release = self.boot.release.clone();
        match event.finish(release, self.reading) {
            Ok(record) => {
                self.boot.records += 1;
                keep(&mut self.records, record);
            }
            Err(lesser) => {
                self.boot.lesser += 1;
                keep(&mut self.lesser, *lesser);
            }
        }
    }
}

fn keep<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() == MAX_EVENTS {
        list.pop_front();
    }
    list.push_back(item);
}

/// Signals of a CPU that is stuck, which are raised one after the other.
const fn is_lockup(signal: Signal) -> bool {
    matches!(
        signal,
        Signal::RcuStall | Signal::SoftLockup | Signal::HardLockup
    )
}

/// Lines that show the wall clock beside the log's: `audit(1795438089.828:1)`, and
/// the RTC's `setting system clock to 2026-11-23T12:48:09 UTC (1795438089)`.
fn anchor(line: &Line) -> Option<Anchor> {
    let text = line.text.as_str();
    let digits = if let Some((_, rest)) = text.split_once(" audit(") {
        rest.split_once(':')?.0
    } else {
        let (_, rest) = text.split_once(": setting system clock to ")?;
        rest.rsplit_once('(')?.1.strip_suffix(')')?
    };
    let plain = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    Some(Anchor {
        unix_seconds: (plain && digits.len() < 20).then(|| digits.parse().ok())??,
        uptime_seconds: line.uptime?,
    })
}
