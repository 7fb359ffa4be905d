//! Lines of the kernel's log with names that users choose.

/// Texts that start a report if they are at a line's start.
pub(super) const STARTS: [&str; 22] = [
    "BUG: kernel NULL pointer dereference, address: 0000000000000010",
    "Oops: 0000 [#1] SMP",
    "Oops: 0000 [#1]",
    "Oops[#1]:",
    "kernel BUG at mm/slub.c:1!",
    "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a:1]",
    "Kernel panic - not syncing: sysrq triggered crash",
    "WARNING: CPU: 0 PID: 7 at a.c:1 f+0x1/0x2 [m]",
    "Internal error: Oops: 0000000096000004 [#1] SMP",
    "Oops: 0 [#1] SM",
    "Oops [#1] SMP",
    "int3: 0 [#1]",
    "BUG: Bad page s",
    "BUG: KASAN: x",
    "BUG: KCSAN: x",
    "UBSAN: a in b:1",
    "refcount_t: abc",
    "kernel BUG at x",
    "Linux version 9",
    "---[ end trace",
    "livepatch: 'x': patching complete",
    "INFO: task a:1 blocked for more than 120 seconds.",
];

/// Lines about user programs and units: a task's name, a file's name, a unit's or a
/// module's stands in each (arch/x86/mm/fault.c, arch/x86/kernel/traps.c,
/// arch/arm64/kernel/traps.c, arch/powerpc/kernel/traps.c, arch/s390/mm/fault.c,
/// fs/exec.c, mm/oom_kill.c, kernel/module/main.c, kernel/audit.c, mm/page_alloc.c,
/// kernel/signal.c, kernel/exit.c, arch/x86/kernel/signal.c, net/packet/af_packet.c,
/// fs/overlayfs, fs/ext4, fs/drop_caches.c).
pub(super) const LINES: [&str; 25] = [
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
    "COMM invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0",
    "COMM: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL), nodemask=(null)",
    "COMM/7: potentially unexpected fatal signal 11.",
    "COMM[7]: syscall 400",
    "COMM[7] bad frame in rt_sigreturn frame:00007ffd ip:7f3a sp:7ffd orax:ff in FILE[401000+1000]",
    "COMM (7) used greatest stack depth: 11000 bytes left",
    "COMM (7): drop_caches: 3",
    "COMM uses obsolete (PF_INET,SOCK_PACKET)",
    "overlayfs: failed to resolve 'FILE': -2",
    "overlayfs: unrecognized mount option \"FILE\" or missing value",
    "EXT4-fs (loop0): mounted filesystem FILE r/w with ordered data mode.",
    "audit: type=1400 audit(1795438089.828:1): apparmor=\"DENIED\" name=\"FILE\" comm=\"COMM\"",
];

/// What the kernel prints after such a line, for the same task.
const DUMP: &str = "CPU: 1 PID: 7 Comm: COMM Not tainted 6.12.0 #1\n\
    Call Trace:\n dump_stack_lvl+0x64/0x80\n out_of_memory+0xee/0x5a0\n\
    Modules linked in: acme(E)\nMem-Info:\n";

/// The line number `line` about a program with this name.
pub(super) fn line(line: usize, name: &str, timed: bool) -> String {
    let line = LINES[line % LINES.len()];
    // TASK_COMM_LEN and MODULE_NAME_LEN.
    let comm: String = name.chars().take(15).collect();
    let module: String = name
        .replace(|one: char| one == ' ' || one.is_control(), "_")
        .chars()
        .take(55)
        .collect();
    // A unit's name has no control characters, audit writes a name with one in hexadecimal.
    // Where no line has a time, only those about user programs are known to continue.
    let mounts = ["overlayfs", "EXT4-fs"]
        .iter()
        .any(|start| line.starts_with(start));
    let escaped = line.starts_with("systemd") || line.starts_with("audit") || mounts && !timed;
    let flat = name.replace(char::is_control, " ");
    line.replace("COMM", &comm)
        .replace("FILE", if escaped { &flat } else { name })
        .replace("UNIT", &module)
}

/// What the kernel prints after it, for the same task.
pub(super) fn dump(name: &str) -> String {
    let comm: String = name.chars().take(15).collect();
    DUMP.replace("COMM", &comm)
}

/// The lines of a log, the second line of a name with the time of its first.
pub(super) fn log(text: &str, dump: &str, timed: bool) -> String {
    let stamp = |micros: usize| match timed {
        true => format!("[    5.{micros:06}] "),
        false => String::new(),
    };
    let first = text.split('\n').map(|line| format!("{}{line}\n", stamp(1)));
    let rest = dump.lines().enumerate();
    let rest = rest.map(|(at, line)| format!("{}{line}\n", stamp(at + 2)));
    first.chain(rest).collect()
}
