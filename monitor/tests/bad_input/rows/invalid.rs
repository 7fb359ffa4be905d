//! Directories that `serve` reads with one invalid file. `serve` reports it and serves.

use super::super::{Ends, Row, row};

/// A state directory in which one file is invalid.
pub(crate) fn state() -> Vec<Row> {
    const STATE: &str = "--state-dir";
    let invalid = |name: &'static [&'static str], says: &'static [&'static str]| {
        row(STATE, name, Ends::Serves, says)
    };
    vec![
        invalid(
            &["serve", "--state-dir", "@state-transition-fifo"],
            &["transition.json", "a pipe", "--state-dir"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-transition-junk"],
            &["transition.json", "UTF-8", "set aside"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-transition-dir"],
            &["transition.json", "a directory", "--state-dir"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-transition-loop"],
            &["transition.json", "--state-dir"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-transition-huge"],
            &["transition.json", "16 MiB", "set aside"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-transition-denied"],
            &["transition.json", "Permission denied", "--state-dir"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-recorder-fifo"],
            &[".rec", "a pipe", "--state-dir"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-recorder-junk"],
            &[".rec", "not a journal", "set aside"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-recorder-dir"],
            &[".rec", "a directory", "--state-dir"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-recorder-loop"],
            &[".rec", "--state-dir"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-recorder-huge"],
            &[".rec", "not a journal", "set aside"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-recorder-denied"],
            &[".rec", "Permission denied", "--state-dir"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-earlier-fifo"],
            &["0f1c4a52-aaaa.rec", "a pipe"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-earlier-junk"],
            &["0f1c4a52-aaaa.rec"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-earlier-huge"],
            &["0f1c4a52-aaaa.rec"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-lock-fifo"],
            &["lock", "--state-dir"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-lock-dir"],
            &["lock", "--state-dir"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-lock-denied"],
            &["lock", "Permission denied", "--state-dir"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-crash-fifo"],
            &["deadbeef.json", "a pipe"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-crash-junk"],
            &["deadbeef.json"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-crash-huge"],
            &["deadbeef.json", "MiB"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-crash-loop"],
            &["deadbeef.json"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-counts-junk"],
            &["counts.json"],
        ),
        invalid(
            &["serve", "--state-dir", "@state-counts-fifo"],
            &["counts.json", "a pipe"],
        ),
    ]
}

/// Directories in which one file is invalid.
pub(crate) fn directories() -> Vec<Row> {
    const ROOT: &str = "--path.rootfs";
    const EXPECT: &str = "serve --expect-dir";
    let invalid = |about, name: &'static [&'static str], says: &'static [&'static str]| {
        row(about, name, Ends::Serves, says)
    };
    vec![
        invalid(
            ROOT,
            &["serve", "--path.rootfs", "@root-dpkg-fifo"],
            &["dpkg/status", "a pipe", "--path.rootfs"],
        ),
        invalid(ROOT, &["serve", "--path.rootfs", "@root-dpkg-junk"], &[]),
        invalid(
            ROOT,
            &["serve", "--path.rootfs", "@root-dpkg-huge"],
            &["dpkg/status", "32 MiB"],
        ),
        invalid(
            ROOT,
            &["serve", "--path.rootfs", "@root-dpkg-dir"],
            &["dpkg/status", "a directory"],
        ),
        invalid(
            ROOT,
            &["serve", "--path.rootfs", "@root-dpkg-denied"],
            &["dpkg/status", "Permission denied"],
        ),
        invalid(
            ROOT,
            &["serve", "--path.rootfs", "@root-journal-fifo"],
            &["updates/0001", "a pipe"],
        ),
        invalid(
            ROOT,
            &["serve", "--path.rootfs", "@root-journal-huge"],
            &["updates/0001", "32 MiB"],
        ),
        invalid(
            ROOT,
            &["serve", "--path.rootfs", "@root-dpkg-lock-fifo"],
            &["dpkg/lock", "a pipe"],
        ),
        invalid(
            ROOT,
            &["serve", "--path.rootfs", "@root-dpkg-lock-loop"],
            &["dpkg/lock"],
        ),
        invalid(
            ROOT,
            &["serve", "--path.rootfs", "@root-yum-fifo"],
            &["transaction-all", "a pipe"],
        ),
        invalid(
            ROOT,
            &["serve", "--path.rootfs", "@root-yum-junk"],
            &["transaction-all", "UTF-8"],
        ),
        invalid(
            ROOT,
            &["serve", "--path.rootfs", "@root-yum-huge"],
            &["transaction-all", "16 MiB"],
        ),
        invalid(
            EXPECT,
            &["serve", "--expect-dir", "@expect-fifo"],
            &["livepatch_fix.ko", "a pipe"],
        ),
        invalid(
            EXPECT,
            &["serve", "--expect-dir", "@expect-junk"],
            &["livepatch_fix.ko", "is not a kernel module"],
        ),
        invalid(
            EXPECT,
            &["serve", "--expect-dir", "@expect-huge"],
            &["livepatch_fix.ko", "64 MiB"],
        ),
        invalid(
            EXPECT,
            &["serve", "--expect-dir", "@expect-dir"],
            &["livepatch_fix.ko", "a directory"],
        ),
        invalid(
            EXPECT,
            &["serve", "--expect-dir", "@expect-loop"],
            &["livepatch_fix.ko"],
        ),
        invalid(
            "--path.pstore",
            &["serve", "--path.pstore", "@pstore-fifo"],
            &[],
        ),
        invalid(
            "--path.pstore",
            &["serve", "--path.pstore", "@pstore-junk"],
            &["dmesg-erst", "binary"],
        ),
        invalid(
            "--path.pstore",
            &["serve", "--path.pstore", "@pstore-denied"],
            &["dmesg-erst", "Permission denied"],
        ),
        invalid(
            "--path.kdump",
            &["serve", "--path.kdump", "@kdump-fifo"],
            &[],
        ),
        invalid(
            "--path.kdump",
            &["serve", "--path.kdump", "@kdump-junk"],
            &["dmesg.202611270000", "binary"],
        ),
        invalid(
            "--path.kdump",
            &["serve", "--path.kdump", "@kdump-huge"],
            &["dmesg.202611270000", "binary"],
        ),
    ]
}
