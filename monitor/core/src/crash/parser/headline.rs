//! The lines that begin, name and end an event.

use super::super::Signal;
use super::symbol::{MAX_NAME, cut};

/// What such a line says. Where not said otherwise the texts are the same in 6.1,
/// 6.12 and 7.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// `Linux version`: another boot begins.
    Boot { release: Option<String> },
    /// The first line of an event, with the task where it says so itself.
    Start(Signal, Who),
    /// `…: 0002 [#1] …` (`__die_header`): an oops, perhaps with a line before it.
    Die,
    /// `Kernel panic - not syncing: …`
    Panic(String),
    /// `---[ end trace … ]---`
    EndTrace,
}

/// The task or CPU that a headline names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) cpu: Option<u32>,
    pub(super) comm: Option<String>,
    pub(super) pid: Option<u32>,
}

pub(super) fn recognise(text: &str) -> Option<Sign> {
    let text = text.trim_start();
    // The header of a dump holds a comm, which is whatever its owner likes.
    if text.starts_with("CPU: ") {
        return None;
    }
    if let Some(rest) = text.strip_prefix("Linux version ") {
        let release = rest.split_ascii_whitespace().next();
        return Some(Sign::Boot {
            release: release.map(|release| cut(release, MAX_NAME)),
        });
    }
    if let Some(rest) = text.strip_prefix("Kernel panic - not syncing: ") {
        return Some(Sign::Panic(rest.to_owned()));
    }
    if text.starts_with("---[ end trace") {
        return Some(Sign::EndTrace);
    }
    start(text)
        .map(|(signal, who)| Sign::Start(signal, who))
        .or_else(|| is_die(text).then_some(Sign::Die))
}

fn start(text: &str) -> Option<(Signal, Who)> {
    let nobody = Who::default();
    let cpu = |number: &str| Who {
        cpu: leading_number(number),
        ..Who::default()
    };
    if let Some((_, rest)) = text.split_once("BUG: soft lockup - CPU#") {
        return Some((Signal::SoftLockup, locked_up(rest)));
    }
    if let Some((_, rest)) = text.split_once("Watchdog detected hard LOCKUP on cpu ") {
        return Some((Signal::HardLockup, cpu(rest)));
    }
    if let Some(rest) = text.strip_prefix("INFO: task ") {
        let (task, _) = rest.rsplit_once(" blocked ")?;
        return rest
            .contains(" for more than ")
            .then(|| (Signal::HungTask, task_name(task, ':')));
    }
    let rcu = text.strip_prefix("rcu: ").unwrap_or(text);
    if rcu.starts_with("INFO: rcu") && rcu.contains("stall") {
        return Some((Signal::RcuStall, nobody));
    }
    if let Some(rest) = text.strip_prefix("WARNING: ") {
        return warning(rest).map(|who| (Signal::Warning, who));
    }
    if let Some((_, rest)) = text.split_once("[Hardware Error]: CPU ") {
        return rest
            .contains(": Machine Check Exception: ")
            .then(|| (Signal::MachineCheck, cpu(rest)));
    }
    if text.starts_with("BUG: Bad page") || text.starts_with("BUG: Bad rss-counter") {
        return Some((Signal::BadPage, nobody));
    }
    let oops = text.starts_with("BUG: kernel NULL pointer dereference")
        || text.starts_with("BUG: unable to handle ")
        || text.starts_with("kernel BUG at ")
        || text.starts_with("Unable to handle kernel ")
        || text.starts_with("PANIC: double fault")
        || text.starts_with("BUG: ") && text.contains("stack guard page was hit");
    oops.then_some((Signal::Oops, nobody))
}

/// `1 stuck for 22s! [comm:pid]`
fn locked_up(rest: &str) -> Who {
    let task = rest
        .split_once("! [")
        .and_then(|(_, task)| task.trim_end().strip_suffix(']'));
    Who {
        cpu: leading_number(rest),
        ..task.map(|task| task_name(task, ':')).unwrap_or_default()
    }
}

/// `CPU: 1 PID: 77 at file:line f+0x1/0x2` up to 6.12, `file:line at f+0x1/0x2,
/// CPU#1: comm/77` in 7.2. Other warnings (`WARNING: suspicious RCU usage`) are not
/// those of WARN().
fn warning(rest: &str) -> Option<Who> {
    if let Some(numbers) = rest.strip_prefix("CPU: ") {
        let (cpu, numbers) = numbers.split_once(" PID: ")?;
        let (pid, _) = numbers.split_once(" at ")?;
        return Some(Who {
            cpu: leading_number(cpu),
            comm: None,
            pid: leading_number(pid),
        });
    }
    let (_, rest) = rest.split_once(" at ")?;
    let (_, rest) = rest.split_once(", CPU#")?;
    let (cpu, task) = rest.split_once(": ")?;
    Some(Who {
        cpu: leading_number(cpu),
        ..task_name(task, '/')
    })
}

/// A comm may hold the separator too: the last one counts.
fn task_name(task: &str, separator: char) -> Who {
    match task.rsplit_once(separator) {
        Some((comm, pid)) => Who {
            cpu: None,
            comm: Some(cut(comm, MAX_NAME)),
            pid: leading_number(pid),
        },
        None => Who::default(),
    }
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.get(..end.unwrap_or(text.len()))?.parse().ok()
}

/// `…: 0002 [#1]…`; the number has up to 16 digits on arm64.
fn is_die(text: &str) -> bool {
    let Some((before, after)) = text.split_once(" [#") else {
        return false;
    };
    let counted = after
        .split_once(']')
        .is_some_and(|(count, _)| count.parse::<u32>().is_ok());
    let code = before.rsplit_once(": ").map_or("", |(_, code)| code);
    counted && (4..=16).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The signal over which the kernel panicked, by the panic's text. An oops is one
/// only where `oops` says that one was just seen, if the text may have other
/// reasons (init may be killed by a signal of its own).
pub(super) fn cause(panic: &str, after_oops: bool) -> Option<Signal> {
    let has = |part: &str| panic.contains(part);
    if has("softlockup: hung tasks") {
        Some(Signal::SoftLockup)
    } else if has("Hard LOCKUP") || has("hard LOCKUP") {
        Some(Signal::HardLockup)
    } else if has("hung_task: blocked tasks") {
        Some(Signal::HungTask)
    } else if has("RCU Stall") {
        Some(Signal::RcuStall)
    } else if has("panic_on_warn set") {
        Some(Signal::Warning)
    } else if has("achine check") || has("CPUs entered broadcast exception handler") {
        Some(Signal::MachineCheck)
    } else if has("Fatal exception")
        || after_oops && (has("Attempted to kill ") || has("Aiee, killing interrupt handler"))
    {
        Some(Signal::Oops)
    } else {
        None
    }
}

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
    fn die_lines() {
        for text in [
            "Oops: 0002 [#1] PREEMPT SMP NOPTI",
            "Oops: Oops: 0002 [#12] SMP NOPTI",
            "Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
            "invalid opcode: 0000 [#1] SMP",
            "Internal error: Oops: 0000000096000045 [#1] SMP",
        ] {
            assert_eq!(recognise(text), Some(Sign::Die), "{text}");
        }
        for text in ["see issue [#1]", "a: beef [#x]", "a: 00 [#1]"] {
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
