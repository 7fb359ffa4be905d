//! Which lines of the kernel log the BPF program forwards.

const fn word(text: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*text)
}

/// Whether a line of the kernel log with these first eight bytes, as a little-endian number,
/// may be the first line of a crash report. User space reads the line itself.
#[inline(always)]
#[must_use]
pub const fn may_begin_report(start: u64) -> bool {
    const FOUR: u64 = (1 << 32) - 1;
    const FIVE: u64 = (1 << 40) - 1;
    const SEVEN: u64 = (1 << 56) - 1;
    start == word(b"Kernel p")
        || start == word(b"watchdog")
        || start == word(b"NMI watc")
        || start == word(b"WARNING:")
        || start == word(b"INFO: ta")
        || start == word(b"INFO: rc")
        || start == word(b"rcu: INF")
        || start == word(b"mce: [Ha")
        || start == word(b"kernel B")
        || start == word(b"Kernel B")
        || start == word(b"Kernel s")
        || start == word(b"Unable t")
        || start == word(b"Unhandle")
        || start == word(b"Bad mode")
        || start == word(b"Bad kern")
        || start == word(b"Insuffic")
        || start == word(b"SError I")
        || start == word(b"traps: P")
        || start == word(b"PANIC: d")
        || start == word(b"PANIC: e")
        || start & FOUR == word(b"CPU \0\0\0\0")
        || start & FIVE == word(b"BUG: \0\0\0")
        || start & FIVE == word(b"Oops:\0\0\0")
        || start & SEVEN == word(b"UBSAN: \0")
}
