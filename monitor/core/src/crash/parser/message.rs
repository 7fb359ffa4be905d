//! Where one message of the kernel may end: a name in it may contain newlines, and the text after
//! one becomes a separate line.

use super::{
    MAX_COMM, header,
    headline::{of_a_user_program, recognise},
    line::Line,
    symbol,
};
use crate::crash::livepatch_log::LivepatchLog;

/// Most bytes of a message of the kernel (`LOG_LINE_MAX`, since 6.4 `PRINTKRB_RECORD_MAX`,
/// kernel/printk): text further on belongs to another message.
const MAX_MESSAGE: usize = 1024;

/// The message that the last line belongs to.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// Bytes after the last line that may still belong to its message.
    rest: usize,
    /// Timestamp and caller of the message.
    moment: Option<f64>,
    caller: Option<String>,
    /// A line had what the kernel's lines with names have.
    quotes: bool,
}

impl Message {
    /// Processes a line; returns whether it may belong to the message of the lines before it.
    pub(super) fn may_go_on(&mut self, line: &Line, of_a_report: bool) -> bool {
        let other_moment = line.moment.is_some() && line.moment != self.moment;
        let callers = line.caller.as_ref().zip(self.caller.as_ref());
        let other_caller = callers.is_some_and(|(one, two)| one != two);
        // No user program runs at the time 0.
        let at_start = line
            .uptime
            .is_some_and(|uptime| uptime <= 0.0 && line.moment == Some(uptime));
        let begins = line.begins_message || other_moment || other_caller || at_start;
        let goes_on = line.continues || !begins && self.rest > 0;
        let room = match of_a_report {
            true if header::task_header(&line.text).is_some() => MAX_COMM + 1,
            true => 0,
            false if holds_no_name(&line.text) => 0,
            false => MAX_MESSAGE,
        };
        let bytes = least_bytes(&line.text) + 1;
        let rest = if goes_on { self.rest } else { 0 };
        self.rest = rest
            .saturating_sub(bytes)
            .max(room.saturating_sub(match of_a_report {
                true => 0,
                false => bytes,
            }));
        self.quotes |= [": ", " '", " \"", "[", "="]
            .iter()
            .any(|part| line.text.contains(part));
        let is_prose = !self.quotes && self.moment.is_none() && line.moment.is_none();
        if is_prose && is_fence(&line.text) {
            self.rest = 0;
        }
        self.moment = line.moment.or(self.moment);
        self.caller.clone_from(&line.caller);
        goes_on
    }
}

/// The fewest bytes that a line can have had in the kernel: a byte that is no UTF-8 became a
/// character of three, and `dmesg` shows what is not printable as `\\x1b`.
fn least_bytes(text: &str) -> usize {
    let strange = text.matches(char::REPLACEMENT_CHARACTER).count() * 2;
    let escaped = text.match_indices("\\x").filter(|(at, _)| {
        let digits = text.get(at + 2..at + 4);
        digits.is_some_and(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()))
    });
    text.len() - strange - escaped.count() * 3
}

/// The start or end of a code block in Markdown: a document in which somebody has quoted a log, and
/// what comes next is that log. Where lines have times, or a line of the kernel's may have come
/// before, it ends nothing.
fn is_fence(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with("```") || text.starts_with("~~~")
}

/// Whether a line contains no user-chosen name: if nothing shows where messages end, it ends its
/// own (drivers/usb/core/hub.c, drivers/s390/net/qeth_core_main.c, net/ipv6/addrconf.c,
/// drivers/net, drivers/char/random.c, init/main.c).
fn holds_no_name(text: &str) -> bool {
    const STATES: [&str; 6] = [
        "device is up",
        "link up",
        "link is up",
        "link down",
        "link becomes ready",
        "Link is Down",
    ];
    const LINES: [&str; 3] = [
        "random: crng init done",
        "Run /init as init process",
        "Run /sbin/init as init process",
    ];
    if LINES.contains(&text) {
        return true;
    }
    let Some((device, state)) = text.trim().rsplit_once(": ") else {
        return false;
    };
    let device = device
        .strip_prefix("IPv6: ADDRCONF(NETDEV_CHANGE): ")
        .unwrap_or(device);
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b".-:".contains(&byte);
    let is_device =
        |name: &str| name.bytes().all(named) && name.bytes().any(|byte| byte.is_ascii_digit());
    is_device(device) && STATES.contains(&state)
        || device.strip_prefix("usb ").is_some_and(is_device) && is_new_device(state)
}

/// `new high-speed USB device number 2 using xhci_hcd`
fn is_new_device(text: &str) -> bool {
    let words: Vec<&str> = text.split(' ').collect();
    matches!(
        words.as_slice(),
        [
            "new",
            _,
            "USB",
            "device",
            "number",
            _,
            "using",
            "xhci_hcd" | "ehci-pci" | "uhci_hcd"
        ]
    )
}

/// Whether only a report has such a line. The first line of a message with a user-chosen name is
/// not one, except for a task's name.
pub(super) fn is_of_a_report(text: &str) -> bool {
    let text = text.trim();
    let exact = [
        "",
        "<TASK>",
        "</TASK>",
        "<IRQ>",
        "</IRQ>",
        "<NMI>",
        "</NMI>",
        "<SOFTIRQ>",
        "</SOFTIRQ>",
        "<#DF>",
        "</#DF>",
        "<ENTRY_TRAMPOLINE>",
        "</ENTRY_TRAMPOLINE>",
    ];
    if of_a_user_program(text) {
        return false;
    }
    exact.contains(&text)
        || text.bytes().all(|byte| byte == b'=')
        || STARTS.iter().any(|start| text.starts_with(start))
        || recognise(text).is_some()
        || LivepatchLog::concerns(text)
        || header::task_header(text).is_some()
        || symbol::frame(text).is_some()
        || symbol::instruction(text).is_some()
        || is_general_register(text)
        || is_address(text)
}

/// `[ffff800080001234] pgd=…` (arm64, arm).
fn is_address(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    inner.is_some_and(|(inner, _)| is_number(inner))
}

fn is_number(text: &str) -> bool {
    text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `x29: ffff800080…`, `r10: 00000000…`, `a0 : ffff…`, `GPR04: c000…`, `ra 90000000…` (arm64,
/// arm, riscv, powerpc, loongarch).
fn is_general_register(text: &str) -> bool {
    let mut words = text.split([' ', '(', ':']).filter(|word| !word.is_empty());
    let Some(name) = words.next() else {
        return false;
    };
    let letters = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (1..=3).contains(&letters.len())
        && name.len() <= 5
        && letters.bytes().all(|byte| byte.is_ascii_alphabetic())
        && words.next().is_some_and(is_number)
}

/// The start of such lines (arch/*/kernel/{process,traps,dumpstack}.c, arch/*/mm/fault.c,
/// kernel/{panic,hung_task,watchdog}.c, kernel/rcu/tree_stall.h, kernel/sched/core.c,
/// lib/dump_stack.c, mm/kasan/report.c, kernel/module/main.c).
const STARTS: &[&str] = &[
    "------------[ cut here ]",
    "---[ end ",
    "Call Trace",
    "Call trace:",
    "Backtrace",
    "Stack:",
    "Stack from ",
    "Code: ",
    "Modules linked in:",
    "Hardware name: ",
    "Workqueue: ",
    "Tainted: ",
    "Kernel Offset: ",
    "Rebooting in ",
    "SMP: stopping secondary CPUs",
    "Shutting down cpus with NMI",
    "Sending NMI from CPU",
    "NMI backtrace for cpu ",
    "Showing busy workqueues",
    "\"echo 0 > /proc/sys/kernel/hung_task_timeout_secs\"",
    "sysrq: Trigger a crash",
    "mce: [Hardware Error]: ",
    "Dumping ftrace buffer:",
    "(ftrace buffer empty)",
    // x86
    "#PF: ",
    "PGD ",
    "IP: ",
    "RIP: ",
    "RIP  [<",
    "RSP ",
    "RSP: ",
    "RAX: ",
    "RDX: ",
    "RBP: ",
    "R10: ",
    "R13: ",
    "FS:  ",
    "CS:  ",
    "CR0: ",
    "CR2: ",
    "DR0: ",
    "DR3: ",
    "DR6: ",
    "PKRU: ",
    "ORIG_RAX: ",
    "EIP: ",
    "EAX: ",
    "ESI: ",
    "DS: ",
    "EFLAGS: ",
    // arm64, arm
    "Mem abort info:",
    "Data abort info:",
    "ESR = ",
    "Exception class = ",
    "task: ",
    "EC = ",
    "SET = ",
    "EA = ",
    "FSC = ",
    "ISV = ",
    "CM = ",
    "GCS = ",
    "user pgtable: ",
    "swapper pgtable: ",
    "pgd = ",
    "pstate: ",
    "PSTATE ",
    "pc : ",
    "lr : ",
    "sp : ",
    "psr: ",
    "PC is at ",
    "LR is at ",
    "Flags: ",
    "Control: ",
    // powerpc
    "Faulting instruction address: ",
    "Kernel attempted to ",
    "BE PAGE_SIZE",
    "LE PAGE_SIZE",
    "NIP:",
    "NIP [",
    "LR [",
    "REGS: ",
    "MSR: ",
    "MSR:  ",
    "CFAR: ",
    "Instruction dump:",
    // s390
    "Krnl PSW : ",
    "Krnl GPRS: ",
    "Krnl Code: ",
    "R:0 T:",
    "Failing address: ",
    "Fault in ",
    "AS:",
    "Last Breaking-Event-Address:",
    "INFO: lockdep is turned off.",
    // riscv, loongarch, mips
    "epc",
    "status: ",
    "ERA",
    "CRMD: ",
    "PRMD: ",
    "EUEN: ",
    "ECFG: ",
    "ESTAT: ",
    "BADV: ",
    "PRID: ",
];
