//! The rest of a report whose beginning is not in the log: the ring buffer has lost it,
//! or the console was connected too late.

use super::{header, line::Line, symbol};

/// Lines that a dump without a report takes: one that somebody asked for (sysrq), or of
/// the kernel's dump_stack().
const DUMP_LINES: u32 = 200;

/// A panic that follows a report by no more than this was caused by it.
const PANIC_SECONDS: f64 = 10.0;

#[derive(Debug, Default)]
pub(super) struct Headless {
    /// The log has begun.
    begun: bool,
    /// Lines that may still be of a dump that is no report.
    dump: u32,
    /// The first line of a report without its beginning, and when it was printed.
    found: Option<(String, Option<f64>)>,
}

impl Headless {
    /// Whether a line, before which no report began, is one that only a report has.
    pub(super) fn is(&mut self, line: &Line) -> bool {
        let text = line.text.trim_start();
        if text.is_empty() {
            return false;
        }
        self.dump = self.dump.saturating_sub(1);
        let first = !std::mem::replace(&mut self.begun, true);
        if DUMPS.iter().any(|dump| text.starts_with(dump)) {
            self.dump = DUMP_LINES;
        }
        if header::task_header(text).is_some_and(|header| header.comm.is_some()) {
            // Behind the line that says what the dump is about.
            self.dump = DUMP_LINES;
            return first;
        }
        is_end(text) || self.dump == 0 && is_instruction(text)
    }

    pub(super) fn found(&mut self, line: &Line) {
        let text = || line.text.trim().chars().take(160).collect();
        self.found.get_or_insert_with(|| (text(), line.clock));
    }

    /// The kernel panics: over the report, if that was just before.
    pub(super) fn panics(&mut self, line: &Line) {
        self.found.take_if(|(_, clock)| {
            let ago = line.clock.zip(*clock).map(|(now, then)| now - then);
            ago.is_none_or(|ago| (0.0..=PANIC_SECONDS).contains(&ago))
        });
    }

    pub(super) fn into_line(self) -> Option<String> {
        self.found.map(|(line, _)| line)
    }
}

/// What a dump without a report starts with (lib/nmi_backtrace.c, drivers/tty/sysrq.c).
const DUMPS: [&str; 4] = [
    "NMI backtrace for cpu ",
    "Sending NMI from CPU ",
    "sysrq: ",
    "SysRq : ",
];

/// Inside a trace it is what an interrupt came upon.
fn is_instruction(text: &str) -> bool {
    let hardware = text.starts_with("mce: ") || text.starts_with("MCE: ");
    let place = symbol::instruction(text).filter(|_| !hardware);
    place.is_some_and(|place| place.offset.is_some()) || text.starts_with("Krnl PSW : ")
}

/// kernel/{panic,exit,hung_task,module/main}.c, arch/*/kernel/process.c
fn is_end(text: &str) -> bool {
    let numbered = |start: &str, end: &str| {
        let rest = text
            .strip_prefix(start)
            .and_then(|rest| rest.strip_suffix(end));
        rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    text.starts_with("Modules linked in:")
        || text.starts_with("Fixing recursive fault but reboot is needed!")
        || text.starts_with("\"echo 0 > /proc/sys/kernel/hung_task_timeout_secs\"")
        || text.starts_with("Process ") && text.contains(" (pid: ") && text.ends_with(')')
        || numbered("Rebooting in ", " seconds..")
}
