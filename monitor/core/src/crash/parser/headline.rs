//! Recognises the lines that start, name and end a report.

use super::super::signal::Signal;
use super::report;
use super::{
    die::{is_cut_die, is_die},
    format::{self, Found, matches},
    symbol::{MAX_NAME, cut},
};

/// Meaning of such a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// `Linux version`: another boot starts.
    Boot { release: Option<String> },
    /// The first line of an event, with the task if the line names it.
    Start(Signal, Found),
    /// The first line of a report after which the kernel continues, by its name.
    Report(&'static str, Found),
    /// `…: 0002 [#1] …` (`__die_header`): an oops, perhaps with a line before it.
    Die,
    /// `Kernel panic - not syncing: …`
    Panic(String),
    /// `---[ end trace … ]---`
    EndTrace,
    /// `---[ end Kernel panic - not syncing: …`, which repeats the panic's text.
    EndPanic(String),
}

pub(super) fn recognise(text: &str) -> Option<Sign> {
    let text = text.trim_start();
    // The header of a dump contains a comm, which the owner of the task can choose.
    if text.starts_with("CPU: ") {
        return None;
    }
    sign(text).filter(|_| !of_a_user_program(text))
}

fn sign(text: &str) -> Option<Sign> {
    match text.bytes().next()? {
        b'L' => {
            // Longer than a task's name, which may be at a line's start.
            if let Some(rest) = text.strip_prefix("Linux version ")
                && let Some(release) = rest.split_ascii_whitespace().next()
                && release.starts_with(|first: char| first.is_ascii_digit())
                && release.contains('.')
            {
                return Some(Sign::Boot {
                    release: Some(cut(release, MAX_NAME)),
                });
            }
        }
        b'K' => {
            if let Some(rest) = text.strip_prefix(PANIC) {
                return Some(Sign::Panic(rest.to_owned()));
            }
        }
        b'-' => {
            let behind = text.strip_prefix("---[ end ")?;
            if let Some(rest) = behind.strip_prefix(PANIC) {
                // " ]---" since 4.19
                let panic = rest.split_once(" ]---").map_or(rest, |(panic, _)| panic);
                return Some(Sign::EndPanic(panic.trim_end().to_owned()));
            }
            let behind = behind.strip_prefix("trace ")?;
            let mark = behind.starts_with(|next: char| next == ']' || next.is_ascii_hexdigit());
            return mark.then_some(Sign::EndTrace);
        }
        _ => {}
    }
    if let Some(sign) = start(text) {
        return Some(sign);
    }
    if let Some((name, found)) = report::recognise(text) {
        return Some(Sign::Report(name, found));
    }
    is_die(text).then_some(Sign::Die)
}

fn start(text: &str) -> Option<Sign> {
    Signal::ALL.into_iter().find_map(|signal| {
        let mut formats = signal.headlines().iter();
        let found = formats.find_map(|format| matches(format, text))?;
        Some(Sign::Start(signal, found))
    })
}

/// Whether a line is a truncated headline of a crash.
pub(super) fn may_be_start(text: &str) -> bool {
    let text = text.trim();
    let crashes = Signal::ALL
        .into_iter()
        .filter(|signal| signal.kind().is_some());
    let mut formats = crashes.flat_map(Signal::headlines).copied();
    text.len() >= SHORTEST_PART
        && !of_a_user_program(text)
        && (is_cut_die(text)
            || PANIC.starts_with(text)
            || formats.any(|format| format::goes_on(format, text)))
}

/// Shorter prefixes are ambiguous.
const SHORTEST_PART: usize = 10;
const PANIC: &str = "Kernel panic - not syncing: ";

/// Whether a line is about a user program's fault, and starts with the program's name or contains a
/// file's name: `show_signal_msg` and `do_trap` of arch/x86, `arm64_show_signal`, `show_signal_msg`
/// of arch/powerpc, `report_user_fault` of arch/s390, `do_trap` of arch/riscv.
pub(super) fn of_a_user_program(text: &str) -> bool {
    if text.starts_with("traps: ") && !text.starts_with("traps: PANIC: double fault, ")
        || text.starts_with("User process fault: ")
        || text.starts_with("process '")
    {
        return true;
    }
    USER_FAULTS.iter().any(|fault| {
        text.split_once(fault).is_some_and(|(before, _)| {
            let id = before.rsplit_once('[').map(|(_, id)| id);
            id.is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
        })
    })
}

/// Text after `NAME[PID` in the kernel's messages about a fault of a user program.
const USER_FAULTS: [&str; 9] = [
    "]: segfault ",
    "]: unhandled ",
    "]: bad frame in ",
    "]: bus error ",
    "]: bad NIP ",
    "] bad frame in ",
    "] trap ",
    "] general protection",
    "]: undefined instruction",
];

/// The signal because of which the kernel panicked, according to the panic's text. If the text may
/// have other reasons (init may be killed by a signal of its own), it counts as an oops only if
/// `after_oops` says that one was just seen.
pub(super) fn cause(panic: &str, after_oops: bool) -> Option<Signal> {
    let of = |causes: &[(&str, Signal)]| {
        let mut causes = causes.iter();
        causes
            .find(|(text, _)| panic.contains(text))
            .map(|(_, signal)| *signal)
    };
    of(&CAUSES).or_else(|| of(&AFTER_OOPS).filter(|_| after_oops))
}

/// Whether the text of a panic was cut, and may be the one that this signal leads to.
pub(super) fn may_be_cause(cut: &str, signal: Signal) -> bool {
    let all = CAUSES.iter().chain(&AFTER_OOPS);
    let mut causes = all.filter(|(_, of)| *of == signal);
    causes.any(|(text, _)| text.starts_with(cut))
}

const CAUSES: [(&str, Signal); 13] = [
    ("softlockup: hung tasks", Signal::SoftLockup),
    ("Hard LOCKUP", Signal::HardLockup),
    ("Watchdog detected hard LOCKUP", Signal::HardLockup),
    ("hung_task: blocked tasks", Signal::HungTask),
    ("RCU Stall", Signal::RcuStall),
    ("panic_on_warn set", Signal::Warning),
    ("Fatal machine check", Signal::MachineCheck),
    ("achine check", Signal::MachineCheck),
    ("achine Check", Signal::MachineCheck),
    ("Unrecoverable HMI exception", Signal::MachineCheck),
    (
        "CPUs entered broadcast exception handler",
        Signal::MachineCheck,
    ),
    ("Fatal hardware error", Signal::MachineCheck),
    ("Fatal exception", Signal::Oops),
];

/// Panics that an oops leads to, but other causes too.
const AFTER_OOPS: [(&str, Signal); 6] = [
    ("Attempted to kill ", Signal::Oops),
    ("Aiee, killing interrupt handler", Signal::Oops),
    ("Machine halted", Signal::Oops),
    ("bad mode", Signal::Oops),
    ("Unhandled exception", Signal::Oops),
    ("unrecoverable exception", Signal::Oops),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(text: &str) -> Option<Signal> {
        match recognise(text) {
            Some(Sign::Start(signal, _)) => Some(signal),
            _ => None,
        }
    }

    #[test]
    fn headlines_of_every_age() {
        for (text, expected) in [
            (
                "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a:b:144]",
                Signal::SoftLockup,
            ),
            (
                "NMI watchdog: Watchdog detected hard LOCKUP on cpu 0",
                Signal::HardLockup,
            ),
            (
                "watchdog: CPU3: Watchdog detected hard LOCKUP on cpu 3",
                Signal::HardLockup,
            ),
            (
                "INFO: task a b:7 blocked for more than 120 seconds.",
                Signal::HungTask,
            ),
            (
                "rcu: INFO: rcu_preempt self-detected stall on CPU",
                Signal::RcuStall,
            ),
            (
                "INFO: rcu_sched detected stalls on CPUs/tasks: { 0}",
                Signal::RcuStall,
            ),
            (
                "WARNING: CPU: 0 PID: 150 at a.c:22 f+0x69/0xff0 [m]",
                Signal::Warning,
            ),
            (
                "WARNING: a.c:22 at f+0x45/0xff0 [m], CPU#1: insmod/110",
                Signal::Warning,
            ),
            (
                "mce: [Hardware Error]: CPU 0: Machine Check Exception: 5 Bank 4: be",
                Signal::MachineCheck,
            ),
            (
                "BUG: Bad page state in process a  pfn:1234",
                Signal::BadPage,
            ),
            ("kernel BUG at mm/slub.c:1!", Signal::Oops),
        ] {
            assert_eq!(signal(text), Some(expected), "{text}");
        }
        for text in [
            "WARNING: suspicious RCU usage",
            "mce: [Hardware Error]: Machine check events logged",
            "INFO: task lists are fine",
            "CPU: 0 PID: 1 Comm: x: 0000 [#1] Not tainted 6.1 #1",
        ] {
            assert_eq!(recognise(text), None, "{text}");
        }
    }

    #[test]
    fn who_is_meant() {
        let who = |text| match recognise(text) {
            Some(Sign::Start(_, who)) => (who.cpu, who.comm, who.pid),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            who("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a:b:144]"),
            (Some(1), Some("a:b".to_owned()), Some(144))
        );
        assert_eq!(
            who("WARNING: a.c:22 at f+0x45/0xff0 [m], CPU#1: a/b/110"),
            (Some(1), Some("a/b".to_owned()), Some(110))
        );
    }
}
