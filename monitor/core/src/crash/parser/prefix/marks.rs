//! Texts that identify the kernel's lines if their prefixes are unknown.

/// Fixed kernel texts that do not occur elsewhere.
pub(super) const MARKS: [&str; 14] = [
    "Kernel panic - not syncing",
    "BUG: kernel NULL pointer",
    "BUG: unable to handle",
    "BUG: soft lockup - CPU#",
    "Unable to handle kernel",
    "kernel BUG at ",
    "---[ end trace",
    "------------[ cut here",
    "Modules linked in:",
    "Call Trace:",
    "RIP: 0010:",
    "Linux version ",
    "Oops: ",
    "livepatch: ",
];

/// Position of the kernel's text in a line with an unknown prefix.
pub(super) fn mark(text: &str) -> Option<usize> {
    MARKS.iter().filter_map(|mark| text.find(mark)).min()
}
