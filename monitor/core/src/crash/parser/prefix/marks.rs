//! Texts by which the kernel's lines are known where their beginnings are not.

/// Fixed texts of the kernel that do not occur elsewhere.
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

/// Where the kernel's text starts in a line whose beginning is not understood.
pub(super) fn mark(text: &str) -> Option<usize> {
    MARKS.iter().filter_map(|mark| text.find(mark)).min()
}
