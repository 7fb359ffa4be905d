//! Names that users choose, in the lines that the kernel prints about their programs,
//! make no signal.

use proptest::prelude::*;

use super::*;
use crate::crash::Signal;

/// Texts that start a report when they stand at a line's start.
const STARTS: [&str; 9] = [
    "BUG: kernel NULL pointer dereference, address: 0000000000000010",
    "Oops: 0000 [#1] SMP",
    "Oops: 0000 [#1]",
    "Oops[#1]:",
    "kernel BUG at mm/slub.c:1!",
    "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a:1]",
    "Kernel panic - not syncing: sysrq triggered crash",
    "WARNING: CPU: 0 PID: 7 at a.c:1 f+0x1/0x2 [m]",
    "Internal error: Oops: 0000000096000004 [#1] SMP",
];

/// Lines about user programs and units: a task's name, a file's name, a unit's or a
/// module's stands in each (arch/x86/mm/fault.c, arch/x86/kernel/traps.c,
/// arch/arm64/kernel/traps.c, arch/powerpc/kernel/traps.c, arch/s390/mm/fault.c,
/// fs/exec.c, mm/oom_kill.c, kernel/module/main.c, kernel/audit.c).
const LINES: [&str; 14] = [
    "COMM[7]: segfault at 10 ip 0000000000401136 sp 00007ffd0c1b2a40 error 4 in FILE[401000+1000]",
    "COMM[7]: segfault at 10 ip 0000000000401136 sp 00007ffd0c1b2a40 error 4 in FILE[136,401000+1000] likely on CPU 1 (core 1, socket 0)",
    "traps: COMM[7] trap invalid opcode ip:401136 sp:7ffd0c1b2a40 error:0 in FILE[401000+1000]",
    "traps: COMM[7] general protection fault ip:401136 sp:7ffd0c1b2a40 error:0 in FILE[401000+1000]",
    "COMM[7]: unhandled exception: DABT (lower EL), ESR 0x0000000092000045, level 1 translation fault in FILE[401000+1000]",
    "COMM[7]: segfault (11) at 10 nip 10000a5c lr 10000a40 code 1 in FILE[10000000+10000]",
    "COMM[7]: unhandled signal 11 code 0x1 at 0x0000000000000010 in FILE[10000+1000]",
    "User process fault: interruption code 0011 ilc:3 in FILE[1000000+1000]",
    "process 'FILE' started with executable stack",
    "Out of memory: Killed process 7 (COMM) total-vm:10240kB, anon-rss:1024kB",
    "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),task=COMM,pid=7,uid=1000",
    "systemd[1]: Started FILE.",
    "UNIT: loading out-of-tree module taints kernel.",
    "audit: type=1400 audit(1795438089.828:1): apparmor=\"DENIED\" name=\"FILE\" comm=\"COMM\"",
];

proptest! {
    #[test]
    fn no_name_is_a_signal(
        line in 0..LINES.len(),
        start in 0..STARTS.len(),
        before in "[a-z\n]{0,3}",
        behind in "[a-z \n]{0,6}",
        timed: bool,
    ) {
        let name = format!("{before}{}{behind}", STARTS[start]);
        // TASK_COMM_LEN and MODULE_NAME_LEN.
        let comm: String = name.chars().take(15).collect();
        let module: String = name.replace([' ', '\n'], "_").chars().take(55).collect();
        // A unit's name has no newline, audit writes a name with one in hexadecimal.
        let escaped = LINES[line].starts_with("systemd") || LINES[line].starts_with("audit");
        let flat = name.replace('\n', " ");
        let text = LINES[line]
            .replace("COMM", &comm)
            .replace("FILE", if escaped { &flat } else { &name })
            .replace("UNIT", &module);
        let stamp = if timed { "[    5.000001] " } else { "" };
        let log: String = text.split('\n').map(|part| format!("{stamp}{part}\n")).collect();
        let parsed = parser::read(log.as_bytes(), &Reading::new(SOAK));
        prop_assert!(parsed.records.is_empty() && parsed.non_fatal.is_empty(), "{log}\n{parsed:#?}");
        // The line as the live hook has it: up to its first newline.
        let live: Option<Signal> = parser::signal(text.split('\n').next().unwrap());
        let is_start = comm.contains('\n') || name.contains('\n');
        prop_assert!(live.is_none() || is_start, "{text}");
    }
}
