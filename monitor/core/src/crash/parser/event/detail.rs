//! Parses the lines of a report after its first: header, registers, trace, module list.

use super::{
    super::{
        super::signal::{Property, Signal},
        MAX_COMM,
        format::Found,
        header::{self, MAX_MODULES},
        line::Line,
        symbol,
    },
    Event, List, PAUSE_SECONDS, Trace,
};

/// Most frames kept of a trace; the kernel prints far fewer of a valid stack.
const MAX_FRAMES: usize = 128;
/// A module list of this length may continue on the next line (`LOG_LINE_MAX` is 1024 minus the
/// prefix).
const LONG_LINE: usize = 900;

impl Event {
    /// Processes a line that neither starts nor ends an event.
    pub(in super::super) fn detail(&mut self, line: &Line) {
        if line.caller.is_some() && line.caller == self.foreign {
            return;
        }
        if self.panic.is_some() && is_stopping(&line.text) {
            self.end_dump();
            self.stopping = true;
        }
        if self.stopping {
            return;
        }
        if self.takes(&line.text) {
            let pause = self.part_at.zip(line.uptime).map(|(last, now)| now - last);
            if pause.is_some_and(|pause| pause.abs() > PAUSE_SECONDS) {
                self.complete.mixed |= !self.ended;
                return;
            }
            self.part(line);
        }
        // The rest of a wrapped line, or a program's text between the kernel's lines.
        self.complete.garbled |= self.when.uptime_seconds.is_some() && line.uptime.is_none();
        let text = line.text.as_str();
        if let Some(list) = text.trim_start().strip_prefix("Modules linked in:") {
            self.second_sign = true;
            match self.modules.is_none() {
                true => self.module_list(list, line),
                false => {
                    let own = self.trace_at == Trace::Behind || self.ended;
                    self.complete.mixed |= self.is_of_one_task() && !own;
                }
            }
            return;
        }
        if self.list != List::No {
            return;
        }
        if self.is_follow_up(text) {
            self.sign();
            self.follow_ups = true;
            self.end_dump();
            return;
        }
        if is_sign(text) {
            self.sign();
            self.over |= self.panic.is_some() && text.starts_with("Rebooting in ");
        }
        if let Some(header) = header::task_header(text) {
            let hung = self.primary.has(Property::ByDetector);
            self.second_sign |= header.cpu.is_some() || header.pid.is_some() || hung;
            // If the log shows who prints a line, all lines of another task are known.
            let other = self.caller.as_ref().zip(line.caller.as_ref());
            if self.is_of_one_task()
                && !self.agrees(&header)
                && other.is_some_and(|(one, two)| one != two)
            {
                self.foreign.clone_from(&line.caller);
                return;
            }
            self.task(header);
            return;
        }
        self.cpu = self.cpu.or_else(|| header::cpu(text));
        if let Some((comm, pid)) = header::process(text)
            && self.primary != Signal::HungTask
            && self.comm.is_none()
            && self.pid.is_none_or(|known| known == pid)
        {
            self.comm = Some(comm);
            self.pid = Some(pid);
        }
        let place = std::mem::replace(&mut self.place_follows, symbol::place_follows(text));
        let place = place.then(|| symbol::frame(text)).flatten();
        let place = place.map(|frame| frame.function);
        if let Some(function) = symbol::instruction(text).or(place) {
            self.second_sign = true;
            // A user's instruction has no name.
            self.own_sign |= function.offset.is_some() && !fits_in_a_name(text);
            // In the trace of a panic it is the code that was interrupted, not the code that
            // failed.
            let own = match self.primary {
                Signal::HungTask => false,
                Signal::Panic => self.lead,
                Signal::BadPage
                | Signal::Warning
                | Signal::RcuStall
                | Signal::SoftLockup
                | Signal::HardLockup
                | Signal::Oops => true,
                Signal::MachineCheck => self.panic.is_none(),
            };
            if own && self.fault.is_none() {
                self.fault = Some(function);
            }
            return;
        }
        self.trace_line(line);
    }

    fn trace_line(&mut self, line: &Line) {
        let text = line.text.trim();
        self.in_task = text == "<TASK>" || self.in_task && text != "</TASK>";
        let stack = ["<TASK>", "<IRQ>", "<NMI>"].contains(&text) && self.trace_at == Trace::Ahead;
        let title = text.eq_ignore_ascii_case("call trace:") || text == "Backtrace:";
        if title || stack {
            // Another task's, whose first line is not there.
            let second = self.trace_at != Trace::Ahead && self.reports == 1 && !self.follow_ups;
            self.complete.mixed |= second && self.panic.is_none() && !self.trace.is_empty();
            self.trace_at = match (self.trace_at, self.trace.is_empty()) {
                (Trace::Ahead, _) | (_, true) => Trace::Inside,
                _ => Trace::Behind,
            };
        } else if text == "</TASK>" && self.trace_at == Trace::Inside
            || text.starts_with("Last Breaking-Event-Address:")
            || text.starts_with("Instruction dump:")
        {
            self.complete.end = true;
            self.end_dump();
        } else if self.trace_at == Trace::Inside
            || self.trace_at == Trace::Ahead && self.needs_no_title(line)
        {
            self.frame(line);
        } else if self.trace_at == Trace::Ahead && symbol::frame(&line.text).is_some() {
            // A caller before the trace's title, which is damaged.
            self.complete.garbled = true;
        }
    }

    /// KFENCE and KCSAN print a trace without its title, riscv does behind the registers
    /// (`show_regs`, arch/riscv/kernel/process.c), and 32-bit ARM always (`dump_backtrace`,
    /// arch/arm/kernel/traps.c).
    fn needs_no_title(&self, line: &Line) -> bool {
        if symbol::is_arm_frame(line.text.trim_start()) {
            return true;
        }
        self.report.is_some() && line.text.starts_with(' ')
            || self.died && self.fault.is_some() && line.text.starts_with("[<")
    }

    fn frame(&mut self, line: &Line) {
        let Some(frame) = symbol::frame(&line.text) else {
            let text = line.text.as_str();
            let indented = (text.starts_with([' ', '[', '(']) || self.in_task)
                && !text.trim_start().starts_with('<');
            // Part of a place, not indented by decode_stacktrace.sh.
            let place = [".c:", ".h:", ".S:", "+0x"]
                .iter()
                .any(|part| text.contains(part));
            if self.trace_at == Trace::Inside && (indented || place) {
                let capital = text
                    .trim_start()
                    .starts_with(|c: char| c.is_ascii_uppercase());
                if !capital && self.gap.is_none() {
                    self.gap = Some(self.trace.len());
                }
                // Not the registers of an interrupt: those start in capitals.
                self.complete.garbled |= !capital;
            } else if !self.trace.is_empty() && !text.trim_start().starts_with('<') {
                self.complete.end = true;
                if self.report.is_some() && text.ends_with(':') {
                    self.end_dump();
                }
            }
            return;
        };
        self.trace_at = Trace::Inside;
        self.second_sign = true;
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

    /// Handles that the kernel shows another task than the one that the report is about: the holder
    /// of what a hung task waits for (kernel/hung_task.c, since 6.15), the thread of RCU's grace
    /// periods (kernel/rcu/tree_stall.h).
    fn is_follow_up(&self, text: &str) -> bool {
        match self.primary {
            Signal::HungTask => {
                text.starts_with("INFO: task ")
                    && [" likely owned by task ", " likely last held by task "]
                        .iter()
                        .any(|words| text.contains(words))
            }
            Signal::RcuStall => text.ends_with("RCU grace-period kthread stack dump:"),
            Signal::BadPage
            | Signal::Warning
            | Signal::SoftLockup
            | Signal::HardLockup
            | Signal::Oops
            | Signal::MachineCheck
            | Signal::Panic => false,
        }
    }

    /// Parses the list after `Modules linked in:`.
    pub(super) fn module_list(&mut self, text: &str, line: &Line) {
        self.modules = Some(Vec::new());
        self.list_goes_on(text, line);
    }

    pub(super) fn list_goes_on(&mut self, text: &str, line: &Line) {
        let Some(modules) = &mut self.modules else {
            return;
        };
        match header::modules(text) {
            Some(more) if modules.len() + more.len() <= MAX_MODULES => modules.extend(more),
            _ => self.cut = true,
        }
        if let Some(module) = header::last_unloaded(text) {
            self.complete.last_unloaded = Some(module);
            self.complete.modules = true;
            self.list = List::No;
        } else {
            self.list = List::Line {
                timed: line.uptime.is_some(),
                long: line.text.len() >= LONG_LINE,
            };
        }
    }

    /// Whether a line would add something to the event.
    fn takes(&self, text: &str) -> bool {
        let frame = || self.trace_at != Trace::Behind && symbol::frame(text).is_some();
        text.trim_start().starts_with("Modules linked in:")
            || header::task_header(text).is_some()
            || symbol::instruction(text).is_some()
            || frame()
    }

    /// Reports of one task, in which another task's header is not expected.
    const fn is_of_one_task(&self) -> bool {
        match self.primary {
            Signal::BadPage
            | Signal::Warning
            | Signal::Oops
            | Signal::SoftLockup
            | Signal::HardLockup => self.panic.is_none(),
            Signal::RcuStall | Signal::HungTask | Signal::MachineCheck | Signal::Panic => false,
        }
    }

    fn task(&mut self, header: header::TaskHeader) {
        let other = self.primary.has(Property::ByDetector);
        let agrees = self.agrees(&header);
        let one = self.is_of_one_task() || self.primary == Signal::Panic;
        let not_own = !agrees && one || other && self.panic.is_none();
        self.complete.mixed |= header.cpu.is_some() && not_own;
        self.complete.taint_damaged |= header.taint.is_none();
        if !other && self.comm.is_none() && agrees {
            self.comm = header.comm;
            self.cpu = self.cpu.or(header.cpu);
            self.pid = self.pid.or(header.pid);
        }
        if !agrees && self.is_of_one_task() {
            return;
        }
        if self.taint.is_none() {
            self.taint = header.taint;
        }
        if self.release.is_none() {
            self.release = header.release;
        }
    }

    fn agrees(&self, header: &header::TaskHeader) -> bool {
        self.is_about(&Found {
            cpu: header.cpu,
            pid: header.pid,
            ..Found::default()
        })
    }
}

/// `CPU3: stopping` (arch/{arm,arm64}/kernel/smp.c, up to 5.x): the other CPUs' dumps
/// follow that of panic().
fn is_stopping(text: &str) -> bool {
    let number = text.trim().strip_prefix("CPU");
    let number = number.and_then(|rest| rest.strip_suffix(": stopping"));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// The place of an instruction is so short that it may be a task's name.
fn fits_in_a_name(text: &str) -> bool {
    let start = text.trim_start();
    let end = start.floor_char_boundary(MAX_COMM);
    let name = start.get(..end).and_then(symbol::instruction);
    name.is_some_and(|name| symbol::instruction(text) == Some(name))
}

/// Text that only a report or a panic contains (kernel/panic.c, kernel/smp.c,
/// arch/x86/kernel/{setup,reboot}.c, arch/x86/kernel/cpu/mce/core.c, kernel/workqueue.c).
fn is_sign(text: &str) -> bool {
    const SIGNS: [&str; 10] = [
        "#PF: supervisor ",
        "#PF: error_code(",
        "Kernel Offset: 0x",
        "Kernel Offset: disabled",
        "SMP: stopping secondary CPUs",
        "Shutting down cpus with NMI",
        "mce: [Hardware Error]: ",
        "Showing busy workqueues and worker pools:",
        "Sending NMI from CPU",
        "\"echo 0 > /proc/sys/kernel/hung_task_timeout_secs\"",
    ];
    SIGNS.iter().any(|sign| text.starts_with(sign))
        || text.starts_with("Rebooting in ") && text.contains(" seconds.")
}
