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

/// Texts that continue a report, and lines of programs that keep logs.
pub(super) const SIGNS: [&str; 15] = [
    "CPU: 1 PID: 7 Comm: x Tainted: G           OEK     6.12.0 #1",
    "RIP: 0010:f+0x1/0x2 [lp]",
    "pc : f+0x1/0x2",
    "Call Trace:\n g+0x1/0x2 [lp]",
    "Modules linked in: lp(OEK)",
    "---[ end trace 0000000000000000 ]---",
    "---[ end Kernel panic - not syncing: x ]---",
    "Kernel Offset: disabled",
    "Rebooting in 5",
    "mce: [Hardware Error]: x",
    "[  201.000001] kernel BUG at mm/slub.c:1!",
    "Nov 29 12:03:21 host kernel: kernel BUG at mm/slub.c:1!",
    "{\"_TRANSPORT\":\"kernel\",\"MESSAGE\":\"kernel BUG at mm/slub.c:1!\"}",
    "{\"_TRANSPORT\":\"kernel\",\"MESSAGE\":\"RIP: 0010:f+0x1/0x2 [lp]\"}",
    "3,9,201000001,-;kernel BUG at mm/slub.c:1!",
];

/// Lines about user programs and units: each contains the name of a task, a file, a unit or a
/// module (arch/x86/mm/fault.c, arch/x86/kernel/traps.c,
/// arch/arm64/kernel/traps.c, arch/powerpc/kernel/traps.c, arch/s390/mm/fault.c,
/// fs/exec.c, mm/oom_kill.c, kernel/module/main.c, kernel/audit.c, mm/page_alloc.c,
/// kernel/signal.c, kernel/exit.c, arch/x86/kernel/signal.c, net/packet/af_packet.c,
/// fs/{overlayfs,ext4,fat,smb,btrfs}, fs/drop_caches.c, net/sunrpc, drivers/usb/core/hub.c,
/// drivers/input/input.c, kernel/cgroup/pids.c, net/core/dev.c, block/scsi_ioctl.c, init/main.c).
pub(super) const LINES: [&str; 40] = [
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
    "EXT4-fs error (device loop0): ext4_lookup:1: inode #2: comm COMM: deleted inode referenced: 9",
    "FAT-fs (loop0): Unrecognized mount option \"FILE\" or missing value",
    "CIFS: Unknown mount option \"FILE\"",
    "BTRFS: device label FILE devid 1 transid 7 /dev/loop0 scanned by COMM (7)",
    "nfs: server FILE not responding, timed out",
    "usb 1-1: Product: FILE",
    "usb 1-1: Manufacturer: FILE",
    "input: FILE as /devices/virtual/input/input5",
    "cgroup: fork rejected by pids controller in /user.slice/FILE",
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=FILE,mems_allowed=0,task=COMM,pid=7,uid=1000",
    "device UNIT entered promiscuous mode",
    "UNIT: module verification failed: signature and/or required key missing - tainting kernel",
    "program COMM is using a deprecated SCSI ioctl, please convert it to SG_IO",
    "Unknown kernel command line parameters \"FILE\", will be passed to user space.",
    "FAT-fs (loop0): FILE",
    "audit: type=1400 audit(1795438089.828:1): apparmor=\"DENIED\" name=\"FILE\" comm=\"COMM\"",
];

/// What the kernel prints after such a line, for the same task or for another one.
const DUMP: &str = "CPU: 1 PID: 7 Comm: COMM Not tainted 6.12.0 #1\n\
    Call Trace:\n dump_stack_lvl+0x64/0x80\n out_of_memory+0xee/0x5a0\n\
    Modules linked in: acme(E)\nMem-Info:";

/// As long as a name may be: `NAME_MAX`, `TASK_COMM_LEN`.
fn cut(name: &str, length: usize) -> &str {
    name.get(..name.floor_char_boundary(length)).unwrap_or(name)
}

/// The line number `line` about a program with this name.
pub(super) fn line(line: usize, name: &str) -> String {
    let line = LINES[line % LINES.len()];
    let (name, comm) = (cut(name, 255), cut(name, 15));
    let module = name.replace(|one: char| one == ' ' || one.is_control(), "_");
    // A unit's name has no control characters, audit writes a name with one in hexadecimal.
    let escaped = line.starts_with("systemd") || line.starts_with("audit");
    let flat = name.replace(char::is_control, " ");
    line.replace("COMM", comm)
        .replace("FILE", if escaped { &flat } else { name })
        .replace("UNIT", cut(&module, 15))
}

/// What the kernel prints of a task.
pub(super) fn dump(name: &str) -> Vec<String> {
    let text = DUMP.split('\n');
    text.map(|line| line.replace("COMM", cut(name, 15)))
        .collect()
}

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// A console, and `dmesg -p`.
    Console,
    /// With who printed it.
    Callers,
    /// A clock that stands still for a while.
    Coarse,
    Untimed,
    /// `dmesg -T -p`.
    Dated,
    /// A server for serial lines.
    Server,
    /// `dmesg` indents what a message continues with.
    Indented,
    /// `journalctl` does too.
    Journal,
    /// rsyslog's imklog puts its tag before each line of a message.
    Imklog,
    Json,
    Kmsg,
}

pub(super) const FORMS: [Form; 11] = [
    Form::Console,
    Form::Callers,
    Form::Coarse,
    Form::Untimed,
    Form::Dated,
    Form::Server,
    Form::Indented,
    Form::Journal,
    Form::Imklog,
    Form::Json,
    Form::Kmsg,
];

impl Form {
    /// A message as such a log has it.
    fn message(self, seconds: usize, micros: usize, text: &str) -> String {
        let (minute, second) = (seconds / 60 % 60, seconds % 60);
        let each = |prefix: String| -> String {
            let lines = text.split('\n');
            lines.map(|line| format!("{prefix}{line}\n")).collect()
        };
        let indented = |prefix: String, by: usize| {
            let rest = format!("\n{}", " ".repeat(by));
            format!("{prefix}{}\n", text.replace('\n', &rest))
        };
        match self {
            Self::Console => each(format!("[{seconds:5}.{micros:06}] ")),
            Self::Callers => each(format!("[{seconds:5}.{micros:06}][  T77] ")),
            Self::Coarse => each(format!("[{seconds:5}.000000] ")),
            Self::Untimed => each(String::new()),
            Self::Dated => each(format!("[Sun Nov 29 12:{minute:02}:{second:02} 2026] ")),
            Self::Server => each(format!("2026-11-29 12:{minute:02}:{second:02} ")),
            Self::Indented => indented(format!("[{seconds:5}.{micros:06}] "), 15),
            Self::Journal => indented(
                format!("Nov 29 12:{minute:02}:{second:02} host kernel: "),
                29,
            ),
            Self::Imklog => each(format!(
                "Nov 29 12:{minute:02}:{second:02} host kernel: [{seconds:5}.{micros:06}] "
            )),
            Self::Json => {
                let mut json = String::new();
                for one in text.chars() {
                    match one {
                        '"' | '\\' => json.extend(['\\', one]),
                        _ if one.is_control() => json += &format!("\\u{:04x}", u32::from(one)),
                        _ => json.push(one),
                    }
                }
                let time = seconds * 1_000_000 + micros;
                format!(
                    "{{\"__MONOTONIC_TIMESTAMP\":\"{time}\",\"_TRANSPORT\":\"kernel\",\
                     \"MESSAGE\":\"{json}\"}}\n"
                )
            }
            Self::Kmsg => {
                let mut escaped = String::new();
                for byte in text.bytes() {
                    match byte {
                        b'\\' | 0..=31 | 127.. => escaped += &format!("\\x{byte:02x}"),
                        _ => escaped.push(char::from(byte)),
                    }
                }
                let time = seconds * 1_000_000 + micros;
                format!("4,{time},{time},-;{escaped}\n")
            }
        }
    }
}

/// A log of some lines, then these messages, each a second (or a microsecond) after the one
/// before, and then another.
pub(super) fn log(form: Form, messages: &[String], later: bool) -> String {
    let mut log = String::new();
    for line in 0..24 {
        log += &form.message(70 + line, 1, &format!("acme 0000:00:{line:02}.0: ready"));
    }
    for (at, message) in messages.iter().enumerate() {
        let (seconds, micros) = if later { (200 + at, 1) } else { (200, at + 1) };
        log += &form.message(seconds, micros, message);
    }
    log + &form.message(300, 1, "acme 0000:00:99.0: ready")
}
