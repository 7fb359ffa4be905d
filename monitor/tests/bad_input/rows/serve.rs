//! Rows of `serve`: flags, addresses and the files that they name.

use super::super::{Ends::Serves, Row, no, row};

pub(crate) fn serve() -> Vec<Row> {
    const ADDRESS: &str = "serve --web.listen-address";
    const CONFIG: &str = "serve --web.config.file";
    const PATH: &str = "serve --web.telemetry-path";
    vec![
        no(
            "serve --drill",
            &["serve", "--drill", "loud"],
            &["--drill", "loud", "critical"],
        ),
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
        // RFC 5737: reserved for documentation.
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
            &["--textfile", "file", "not a directory"],
        ),
        no(
            "serve --textfile",
            &["serve", "--config.check", "--textfile", "@absent"],
            &["--textfile", "absent"],
        ),
        no("serve --once", &["serve", "--once"], &["--textfile"]),
        no(
            "serve --once",
            &["serve", "--once", "--textfile", "@absent"],
            &["--textfile", "absent"],
        ),
        no(
            "serve --once",
            &[
                "serve",
                "--once",
                "--textfile",
                "@absent",
                "--web.listen-address",
                "127.0.0.1:0",
            ],
            &["--once", "--web.listen-address"],
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
