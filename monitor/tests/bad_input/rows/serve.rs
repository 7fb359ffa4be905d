//! `serve`

use super::super::{
    Ends::{self, Serves},
    Row, no, row,
};

pub(crate) fn serve() -> Vec<Row> {
    [flags(), state(), directories()]
        .into_iter()
        .flatten()
        .collect()
}

fn flags() -> Vec<Row> {
    const ADDRESS: &str = "serve --web.listen-address";
    const CONFIG: &str = "serve --web.config.file";
    const PATH: &str = "serve --web.telemetry-path";
    vec![
        no(
            ADDRESS,
            &["serve", "--web.listen-address", ":9969"],
            &["--web.listen-address", "0.0.0.0:9969"],
        ),
        no(
            ADDRESS,
            &["serve", "--web.listen-address", "localhost:9969"],
            &["localhost", "127.0.0.1:9969"],
        ),
        no(
            ADDRESS,
            &["serve", "--web.listen-address", "127.0.0.1:99999"],
            &["--web.listen-address", "127.0.0.1:9969"],
        ),
        no(
            ADDRESS,
            &["serve", "--web.listen-address", ""],
            &["--web.listen-address", "127.0.0.1:9969"],
        ),
        // RFC 5737: nobody's.
        no(
            ADDRESS,
            &["serve", "--web.listen-address", "192.0.2.1:9969"],
            &["192.0.2.1:9969", "Cannot assign", "--web.listen-address"],
        ),
        no(
            ADDRESS,
            &[
                "serve",
                "--config.check",
                "--web.listen-address",
                "192.0.2.1:9969",
            ],
            &["192.0.2.1:9969", "Cannot assign", "--web.listen-address"],
        ),
        no(
            ADDRESS,
            &["serve", "--web.listen-address", "[ff02::1]:9969"],
            &["[ff02::1]:9969", "--web.listen-address"],
        ),
        no(
            "serve --web.systemd-socket",
            &["serve", "--web.systemd-socket"],
            &["--web.systemd-socket", "no socket", "socket unit"],
        ),
        no(
            CONFIG,
            &["serve", "--web.config.file", "@absent"],
            &["absent", "No such file"],
        ),
        no(
            CONFIG,
            &["serve", "--web.config.file", "@dir"],
            &["dir", "not a regular file"],
        ),
        no(
            CONFIG,
            &["serve", "--web.config.file", "@fifo"],
            &["fifo", "not a regular file"],
        ),
        no(
            CONFIG,
            &["serve", "--web.config.file", "@socket"],
            &["socket", "not a regular file"],
        ),
        no(
            CONFIG,
            &["serve", "--web.config.file", "@loop"],
            &["loop", "symbolic links"],
        ),
        no(
            CONFIG,
            &["serve", "--web.config.file", "@denied"],
            &["denied", "Permission denied"],
        ),
        no(
            CONFIG,
            &["serve", "--web.config.file", "@huge"],
            &["huge", "bytes"],
        ),
        no(
            CONFIG,
            &["serve", "--web.config.file", "@binary"],
            &["binary", "UTF-8"],
        ),
        no(
            CONFIG,
            &["serve", "--web.config.file", "@file"],
            &["file:1"],
        ),
        no(
            CONFIG,
            &["serve", "--web.config.file", "@bytes"],
            &["No such file"],
        ),
        no(
            CONFIG,
            &["serve", "--config.check", "--web.config.file", "@binary"],
            &["--web.config.file", "binary", "UTF-8"],
        ),
        row(
            CONFIG,
            &["serve", "--web.config.file", "@empty"],
            Serves,
            &[],
        ),
        no(
            PATH,
            &["serve", "--web.telemetry-path", "metrics"],
            &["--web.telemetry-path", "metrics", "/metrics"],
        ),
        no(
            PATH,
            &["serve", "--web.telemetry-path", "/"],
            &["--web.telemetry-path", "/metrics"],
        ),
        no(
            PATH,
            &["serve", "--web.telemetry-path", "/-/healthy"],
            &["--web.telemetry-path", "/metrics"],
        ),
        no(
            PATH,
            &["serve", "--web.telemetry-path", "/a b"],
            &["--web.telemetry-path", "/metrics"],
        ),
        no(
            PATH,
            &["serve", "--web.telemetry-path", "BYTES"],
            &["UTF-8"],
        ),
        no(
            "serve --stuck-after",
            &["serve", "--stuck-after", "soon"],
            &["--stuck-after", "soon", "15s"],
        ),
        no(
            "serve --stuck-after",
            &["serve", "--stuck-after", "15"],
            &["--stuck-after", "15s"],
        ),
        no(
            "serve --stuck-after",
            &["serve", "--stuck-after", "-1s"],
            &["--stuck-after", "-1s", "negative"],
        ),
        no(
            "serve --stuck-after",
            &["serve", "--stuck-after", "99999999999999999999y"],
            &["--stuck-after", "15s"],
        ),
        no(
            "serve --stuck-after",
            &["serve", "--stuck-after", "11y"],
            &["--stuck-after", "10 years"],
        ),
        row(
            "serve --stuck-after",
            &["serve", "--stuck-after", "9years"],
            Serves,
            &[],
        ),
        no("serve --soak", &["serve", "--soak", ""], &["--soak", "30m"]),
        no(
            "serve --soak",
            &["serve", "--soak", "500000000000y"],
            &["--soak", "15s"],
        ),
        row("serve --soak", &["serve", "--soak", "9years"], Serves, &[]),
        no(
            "serve --expect",
            &["serve", "--expect", ""],
            &["--expect", "/sys/kernel/livepatch"],
        ),
        no(
            "serve --expect",
            &["serve", "--expect", "kpatch-fix.ko"],
            &["--expect", "kpatch_fix"],
        ),
        no(
            "serve --expect",
            &["serve", "--expect", "a\nb"],
            &["--expect", "/sys/kernel/livepatch"],
        ),
        no(
            "serve --expect-dir",
            &["serve", "--config.check", "--expect-dir", "@absent"],
            &["--expect-dir", "absent", "No such file"],
        ),
        row(
            "serve --expect-dir",
            &["serve", "--expect-dir", "@absent"],
            Serves,
            &["absent", "--expect-dir"],
        ),
        row(
            "serve --expect-dir",
            &["serve", "--expect-dir", "@file"],
            Serves,
            &["file", "--expect-dir"],
        ),
        row(
            "serve --expect-dir",
            &["serve", "--expect-dir", "@loop"],
            Serves,
            &["loop", "--expect-dir"],
        ),
        no(
            "serve --textfile",
            &["serve", "--config.check", "--textfile", "@file"],
            &["--textfile", "file", "no directory"],
        ),
        no(
            "serve --textfile",
            &["serve", "--config.check", "--textfile", "@absent"],
            &["--textfile", "absent"],
        ),
        row(
            "serve --textfile",
            &["serve", "--textfile", "@absent"],
            Serves,
            &["--textfile", "absent"],
        ),
        row(
            "serve --textfile",
            &["serve", "--textfile", "@file"],
            Serves,
            &["--textfile", "file"],
        ),
        no(
            "serve --config.check",
            &["serve", "--config.chek"],
            &["--config.chek", "--config.check"],
        ),
    ]
}

/// A state directory in which one file is spoilt.
fn state() -> Vec<Row> {
    const STATE: &str = "--state-dir";
    let spoilt = |name: &'static [&'static str], says: &'static [&'static str]| {
        row(STATE, name, Ends::Serves, says)
    };
    vec![
        spoilt(
            &["serve", "--state-dir", "@state-transition-fifo"],
            &["transition.json", "a pipe", "--state-dir"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-transition-junk"],
            &["transition.json", "UTF-8", "remove it"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-transition-dir"],
            &["transition.json", "a directory", "--state-dir"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-transition-loop"],
            &["transition.json", "--state-dir"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-transition-huge"],
            &["transition.json", "16 MiB", "remove it"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-transition-denied"],
            &["transition.json", "Permission denied", "--state-dir"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-recorder-fifo"],
            &[".rec", "a pipe", "--state-dir"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-recorder-junk"],
            &[".rec", "not a flight recorder's file", "move it away"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-recorder-dir"],
            &[".rec", "a directory", "--state-dir"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-recorder-loop"],
            &[".rec", "--state-dir"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-recorder-huge"],
            &[".rec", "not a flight recorder's file", "move it away"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-recorder-denied"],
            &[".rec", "Permission denied", "--state-dir"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-earlier-fifo"],
            &["0f1c4a52-aaaa.rec", "a pipe"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-earlier-junk"],
            &["0f1c4a52-aaaa.rec"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-earlier-huge"],
            &["0f1c4a52-aaaa.rec"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-lock-fifo"],
            &["lock", "--state-dir"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-lock-dir"],
            &["lock", "--state-dir"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-lock-denied"],
            &["lock", "Permission denied", "--state-dir"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-crash-fifo"],
            &["deadbeef.json", "a pipe"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-crash-junk"],
            &["deadbeef.json"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-crash-huge"],
            &["deadbeef.json", "MiB"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-crash-loop"],
            &["deadbeef.json"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-counts-junk"],
            &["counts.json"],
        ),
        spoilt(
            &["serve", "--state-dir", "@state-counts-fifo"],
            &["counts.json", "a pipe"],
        ),
    ]
}

/// Directories in which one file is spoilt.
fn directories() -> Vec<Row> {
    const ROOT: &str = "--path.rootfs";
    const EXPECT: &str = "serve --expect-dir";
    let spoilt = |about, name: &'static [&'static str], says: &'static [&'static str]| {
        row(about, name, Ends::Serves, says)
    };
    vec![
        spoilt(
            ROOT,
            &["serve", "--path.rootfs", "@root-dpkg-fifo"],
            &["dpkg/status", "a pipe", "--path.rootfs"],
        ),
        spoilt(ROOT, &["serve", "--path.rootfs", "@root-dpkg-junk"], &[]),
        spoilt(
            ROOT,
            &["serve", "--path.rootfs", "@root-dpkg-huge"],
            &["dpkg/status", "256 MiB"],
        ),
        spoilt(
            ROOT,
            &["serve", "--path.rootfs", "@root-dpkg-dir"],
            &["dpkg/status", "a directory"],
        ),
        spoilt(
            ROOT,
            &["serve", "--path.rootfs", "@root-dpkg-denied"],
            &["dpkg/status", "Permission denied"],
        ),
        spoilt(
            ROOT,
            &["serve", "--path.rootfs", "@root-journal-fifo"],
            &["updates/0001", "a pipe"],
        ),
        spoilt(
            ROOT,
            &["serve", "--path.rootfs", "@root-journal-huge"],
            &["updates/0001", "256 MiB"],
        ),
        spoilt(
            ROOT,
            &["serve", "--path.rootfs", "@root-dpkg-lock-fifo"],
            &["dpkg/lock", "a pipe"],
        ),
        spoilt(
            ROOT,
            &["serve", "--path.rootfs", "@root-dpkg-lock-loop"],
            &["dpkg/lock"],
        ),
        spoilt(
            ROOT,
            &["serve", "--path.rootfs", "@root-yum-fifo"],
            &["transaction-all", "a pipe"],
        ),
        spoilt(
            ROOT,
            &["serve", "--path.rootfs", "@root-yum-junk"],
            &["transaction-all", "UTF-8"],
        ),
        spoilt(
            ROOT,
            &["serve", "--path.rootfs", "@root-yum-huge"],
            &["transaction-all", "16 MiB"],
        ),
        spoilt(
            EXPECT,
            &["serve", "--expect-dir", "@expect-fifo"],
            &["livepatch_fix.ko", "a pipe"],
        ),
        spoilt(
            EXPECT,
            &["serve", "--expect-dir", "@expect-junk"],
            &["livepatch_fix.ko", "is no module"],
        ),
        spoilt(
            EXPECT,
            &["serve", "--expect-dir", "@expect-huge"],
            &["livepatch_fix.ko", "64 MiB"],
        ),
        spoilt(
            EXPECT,
            &["serve", "--expect-dir", "@expect-dir"],
            &["livepatch_fix.ko", "a directory"],
        ),
        spoilt(
            EXPECT,
            &["serve", "--expect-dir", "@expect-loop"],
            &["livepatch_fix.ko"],
        ),
        spoilt(
            "--path.pstore",
            &["serve", "--path.pstore", "@pstore-fifo"],
            &[],
        ),
        spoilt(
            "--path.pstore",
            &["serve", "--path.pstore", "@pstore-junk"],
            &["dmesg-erst", "binary"],
        ),
        spoilt(
            "--path.pstore",
            &["serve", "--path.pstore", "@pstore-denied"],
            &["dmesg-erst", "Permission denied"],
        ),
        spoilt(
            "--path.kdump",
            &["serve", "--path.kdump", "@kdump-fifo"],
            &[],
        ),
        spoilt(
            "--path.kdump",
            &["serve", "--path.kdump", "@kdump-junk"],
            &["dmesg.202611270000", "binary"],
        ),
        spoilt(
            "--path.kdump",
            &["serve", "--path.kdump", "@kdump-huge"],
            &["dmesg.202611270000", "binary"],
        ),
    ]
}
