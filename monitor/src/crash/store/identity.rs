//! What identifies a crash, and whether two records are of one.

use livepatch_core::{
    boots::RESET_HEADLINE,
    crash::{CLOCK_WRONG_SECONDS, CrashRecord, HostCrash, Kind},
};

/// [`RESET_HEADLINE`] as earlier versions wrote it. It stays part of a reset's fingerprint, so that
/// a reset that an earlier version has recorded is not recorded again.
const OLD_RESET_HEADLINE: &str = "the boot ended without a word";

/// What identifies a crash: its line and its time on the boot's own clock; of a reset, which has
/// neither, the boot.
pub(super) fn fingerprint(record: &CrashRecord, boot_id: Option<&str>) -> String {
    let mut hash = crc32fast::Hasher::new();
    let headline = match record.headline.as_str() {
        RESET_HEADLINE => OLD_RESET_HEADLINE,
        headline => headline,
    };
    hash.update(headline.as_bytes());
    match (record.kind, boot_id) {
        (Kind::Reset, Some(boot_id)) => hash.update(boot_id.as_bytes()),
        _ => {
            let uptime = record.when.uptime_seconds.unwrap_or(0.0);
            hash.update(&uptime.to_bits().to_le_bytes());
            hash.update(record.release.as_deref().unwrap_or_default().as_bytes());
        }
    }
    format!("{:08x}", hash.finalize())
}

/// Whether two records of logs without the kernel's time are of one crash.
pub(super) fn is_same_without_uptime(one: &CrashRecord, other: &CrashRecord) -> bool {
    let times = one.when.unix_seconds.zip(other.when.unix_seconds);
    let timeless = |record: &CrashRecord| record.when.uptime_seconds.is_none();
    let same_file = other.files.iter().any(|file| one.files.contains(file));
    timeless(one)
        && timeless(other)
        && (one.kind, &one.headline) == (other.kind, &other.headline)
        && (same_file || times.is_some_and(|(one, other)| (one - other).abs() < 1.0))
}

pub(super) fn is_named(crash: &HostCrash, fingerprint: &str) -> bool {
    crash.id.rsplit('-').next() == Some(fingerprint)
}

/// Whether a crash that is no longer kept, `FINGERPRINT@UNIX_SECONDS` (earlier versions
/// wrote no time), is this one.
pub(super) fn is_past(past: &str, fingerprint: &str, record: &CrashRecord) -> bool {
    let (of_past, time) = past.split_once('@').unwrap_or((past, ""));
    let times = time.parse::<f64>().ok().zip(record.when.unix_seconds);
    let near = |(one, other): (f64, f64)| (one - other).abs() <= CLOCK_WRONG_SECONDS;
    of_past == fingerprint && times.is_none_or(near)
}
