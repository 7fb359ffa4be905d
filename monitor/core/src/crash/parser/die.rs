//! Parses the line of `die()`: name, code and counter.

use super::format::matches;

/// Names that `die()` is called with, after `Oops: ` since 6.11 on x86
/// (arch/x86/kernel/{traps,dumpstack}.c, arch/x86/mm/fault.c,
/// arch/s390/kernel/{traps,dumpstack}.c). More text may follow after a comma or a space.
const NAMES: &[&str] = &[
    "Oops",
    "general protection fault",
    "segment-related general protection fault",
    "invalid opcode",
    "divide error",
    "divide_error",
    "int3",
    "debug",
    "overflow",
    "bounds",
    "double fault",
    "stack segment",
    "segment not present",
    "invalid TSS",
    "coprocessor segment overrun",
    "alignment check",
    "simd exception",
    "fpu exception",
    "iret exception",
    "control protection fault",
    "VMM communication exception",
    "virtualization exception",
    "unknown exception",
    "Bad pagetable",
    "kernel stack overflow",
    "stack guard page",
    "Unknown program exception",
    "addressing exception",
    "data exception",
    "execute exception",
    "fixpoint divide exception",
    "fixpoint overflow exception",
    "floating point exception",
    "illegal operation",
    "monitor event",
    "operand exception",
    "operation exception",
    "privileged operation",
    "protection exception",
    "space switch event",
    "special operation exception",
    "specification exception",
    "transaction constraint exception",
    "translation exception",
    "translation specification exception",
    "user address fault",
    "vector processing exception",
    "HFP",
];

/// The form of other architectures, up to `[#1]`: arm and arm64, powerpc, riscv, loongarch and
/// mips.
const FORMATS: &[&str] = &[
    "Internal error: {}",
    "Oops: {}, sig: {n} ",
    "Oops",
    "Oops - {}",
    "Kernel BUG",
    "Kernel bug detected",
    "Break instruction in kernel code",
    "Reserved instruction in kernel code",
];

/// Longest name that is accepted although it is not in the list.
const MAX_NAME: usize = 64;

pub(super) fn is_die(text: &str) -> bool {
    let Some((before, behind)) = text.split_once("[#") else {
        return false;
    };
    let Some((count, tail)) = behind.split_once(']') else {
        return false;
    };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    number(count) && is_tail(tail) && (is_coded(before, tail) || is_of_format(before))
}

/// Whether a text is the first part of such a line, cut before the counter.
pub(super) fn is_cut_die(text: &str) -> bool {
    if text.contains("[#") {
        return false;
    }
    if text.starts_with("Internal error: ") || text.starts_with("general protection fault") {
        return true;
    }
    let Some(name) = text.strip_prefix("Oops: ") else {
        return false;
    };
    let code = |byte: u8| byte.is_ascii_hexdigit() || b" [".contains(&byte);
    // arch/powerpc/mm/fault.c, arch/powerpc/kernel/traps.c
    let powerpc = ["Kernel access of bad area", "Exception in kernel mode"];
    let mut names = NAMES.iter().chain(&powerpc);
    name.bytes().all(code) || names.any(|known| name.starts_with(known))
}

/// `NAME: CODE ` and, on s390, `ilc:N `. A name that is not in the list counts only if the kernel's
/// configuration follows.
fn is_coded(before: &str, tail: &str) -> bool {
    let mut before = before.trim_end();
    if let Some((rest, length)) = before.rsplit_once(" ilc:")
        && length.bytes().all(|byte| byte.is_ascii_digit())
    {
        before = rest;
    }
    let Some((name, code)) = before.rsplit_once(": ").or_else(|| {
        // `Split lock detected` ends its own line.
        before.strip_prefix(": ").map(|code| ("", code))
    }) else {
        return false;
    };
    let code = code.strip_prefix("0x").unwrap_or(code);
    let hexadecimal = (1..=16).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_hexdigit());
    if !hexadecimal {
        return false;
    }
    let name = name.strip_prefix("Oops: ").unwrap_or(name);
    let listed = NAMES.iter().any(|known| {
        name.strip_prefix(known)
            .is_some_and(|more| more.is_empty() || more.starts_with([',', ' ']))
    });
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" ,()-_#".contains(&byte);
    let configured = ["SMP", "PREEMPT"].iter().any(|word| tail.contains(word));
    listed || configured && name.len() <= MAX_NAME && name.bytes().all(plain)
}

fn is_of_format(before: &str) -> bool {
    FORMATS.iter().any(|format| {
        let whole = !format.contains('{') && before.trim_end() == *format;
        whole || format.contains('{') && matches(format, before).is_some()
    })
}

/// After `[#1]` there is the kernel's configuration, in capitals, or nothing; never text about a
/// user program, whose name may look like the rest.
fn is_tail(tail: &str) -> bool {
    let tail = tail.strip_prefix(':').unwrap_or(tail);
    // A console appends the module list to a line that lost its end.
    let tail = tail
        .split_once("Modules linked in:")
        .map_or(tail, |(tail, _)| tail);
    tail.split_ascii_whitespace().all(is_option)
}

/// `SMP`, `DEBUG_PAGEALLOC`, `NR_CPUS=2048`, `PREEMPT(lazy)`, `PREEMPT_{RT,(full)}`.
fn is_option(word: &str) -> bool {
    let name = word.split_once(['=', '(']).map_or(word, |(name, _)| name);
    let capital = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() > 1 && name.bytes().all(capital) || word.starts_with("PREEMPT_{")
}

#[cfg(test)]
mod tests {
    use super::is_die;

    #[test]
    fn of_every_architecture() {
        for text in [
            "Oops: 0002 [#1] PREEMPT SMP NOPTI",
            "Oops: Oops: 0002 [#12] SMP NOPTI",
            "Oops: 0003 [#1] PREEMPT(lazy) SMP",
            "Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
            "segment-related general protection fault: e030 [#1] PREEMPT SMP",
            "divide_error: 0000 [#1] SMP NOPTI",
            "stack guard page: 0000 [#1] SMP",
            "kernel stack overflow (double-fault): 0000 [#1] SMP",
            "a trap of a kernel to come: 0000 [#1] SMP",
            ": 0000 [#1] SMP NOPTI",
            "Unknown program exception: 0028 [#1] SMP ",
            "fixpoint overflow exception: 0008 ilc:2 [#1] SMP",
            "Internal error: Oops: 0000000096000045 [#1] SMP",
            "Internal error: Oops - BUG: 0 [#1] PREEMPT ARM",
            "Oops: Kernel access of bad area, sig: 11 [#8]",
            "Oops [#1]",
            "Oops - illegal instruction [#1]",
            "Kernel BUG [#1]",
            "Oops[#1]:",
            "invalid opcode: 0000 [#1] SMP Modules linked in: a b",
        ] {
            assert!(is_die(text), "{text}");
        }
    }

    /// A task's name has at most 15 bytes, and is followed by more of the kernel's text.
    #[test]
    fn not_a_name() {
        for text in [
            "see issue [#1]",
            "a: beef [#x]",
            "a: 00 [#1]",
            "Oops: 0 [#1] S invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE)",
            "Oops [#1] SMP A: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL)",
            "debug: 0 [#1] (77) used greatest stack depth: 11000 bytes left",
            "Oops[#1]: SMP/77: potentially unexpected fatal signal 11.",
            "Oops [#1] a[77]: syscall 400",
            "int3: 0 [#1] uses obsolete (PF_INET,SOCK_PACKET)",
        ] {
            assert!(!is_die(text), "{text}");
        }
    }
}
