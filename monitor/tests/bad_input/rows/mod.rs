//! The table, one file per command.

mod crashes;
mod gate;
mod invalid;
mod preflight;
mod serve;

use super::{Ends, Row, no, row};

pub(crate) use self::{
    crashes::crashes,
    gate::gate,
    invalid::{directories, state},
    preflight::preflight,
    serve::serve,
};

/// Flags of all commands.
pub(crate) fn common() -> Vec<Row> {
    vec![
        no(
            "--path.procfs",
            &["serve", "--config.check", "--path.procfs", "@absent"],
            &["--path.procfs", "absent"],
        ),
        row(
            "--path.procfs",
            &["serve", "--path.procfs", "@absent"],
            Ends::Serves,
            &["--path.procfs", "absent"],
        ),
        row(
            "--path.procfs",
            &["serve", "--path.procfs", "@file"],
            Ends::Serves,
            &["--path.procfs", "file"],
        ),
        no(
            "--path.procfs",
            &["preflight", "@binary", "--path.procfs", "@file"],
            &["binary"],
        ),
        no(
            "--path.sysfs",
            &["serve", "--config.check", "--path.sysfs", "@file"],
            &["--path.sysfs", "file"],
        ),
        no(
            "--path.sysfs",
            &["status", "--path.sysfs", "@absent"],
            &["--path.sysfs", "absent"],
        ),
        no(
            "--path.sysfs",
            &["blockers", "--path.sysfs", "@file"],
            &["--path.sysfs", "file"],
        ),
        no(
            "--path.sysfs",
            &["status", "--path.sysfs", "@loop"],
            &["--path.sysfs", "loop"],
        ),
        row(
            "--path.sysfs",
            &["serve", "--path.sysfs", "@absent"],
            Ends::Serves,
            &["--path.sysfs", "absent"],
        ),
        no(
            "--path.kmsg",
            &["serve", "--config.check", "--path.kmsg", "@absent"],
            &["--path.kmsg", "absent", "No such file"],
        ),
        row(
            "--path.kmsg",
            &["serve", "--path.kmsg", "@absent"],
            Ends::Serves,
            &["absent", "No such file", "--path.kmsg"],
        ),
        row(
            "--path.kmsg",
            &["serve", "--path.kmsg", "@dir"],
            Ends::Serves,
            &["dir", "directory", "--path.kmsg"],
        ),
        row(
            "--path.kmsg",
            &["serve", "--path.kmsg", "@fifo"],
            Ends::Serves,
            &[],
        ),
        row(
            "--path.kmsg",
            &["serve", "--path.kmsg", "@huge"],
            Ends::Serves,
            &[],
        ),
        row(
            "--path.kmsg",
            &["serve", "--path.kmsg", "@binary"],
            Ends::Serves,
            &[],
        ),
        row(
            "--path.kmsg",
            &["serve", "--path.kmsg", "@denied"],
            Ends::Serves,
            &["denied", "Permission denied", "--path.kmsg"],
        ),
        row(
            "--path.kmsg",
            &["serve", "--path.kmsg", "@bytes"],
            Ends::Serves,
            &["No such file", "--path.kmsg"],
        ),
        no(
            "--state-dir",
            &["serve", "--config.check", "--state-dir", "@file"],
            &["--state-dir", "file", "not a directory"],
        ),
        row(
            "--state-dir",
            &["serve", "--state-dir", "@file"],
            Ends::Serves,
            &["file", "Not a directory", "--state-dir"],
        ),
        row(
            "--state-dir",
            &["serve", "--state-dir", "@loop"],
            Ends::Serves,
            &["loop", "--state-dir"],
        ),
        row(
            "--state-dir",
            &["serve", "--state-dir", "/proc/nowhere"],
            Ends::Serves,
            &["/proc/nowhere", "--state-dir"],
        ),
        no(
            "--state-dir",
            &["crashes", "--state-dir", "@file"],
            &["file", "Not a directory", "--state-dir"],
        ),
        no(
            "--state-dir",
            &["crashes", "--state-dir", "@loop"],
            &["loop", "--state-dir"],
        ),
        row(
            "--state-dir",
            &["crashes", "--state-dir", "@absent"],
            Ends::With(1),
            &["absent", "--state-dir", "no exporter has run"],
        ),
        no(
            "--path.rootfs",
            &["serve", "--config.check", "--path.rootfs", "@absent"],
            &["--path.rootfs", "absent", "No such file"],
        ),
        row(
            "--path.rootfs",
            &["serve", "--path.rootfs", "@absent"],
            Ends::Serves,
            &["--path.rootfs", "absent"],
        ),
        row(
            "--path.rootfs",
            &["crashes", "--path.rootfs", "@file"],
            Ends::With(1),
            &["--path.rootfs", "file"],
        ),
        row(
            "--path.pstore",
            &[
                "crashes",
                "--state-dir",
                "@absent",
                "--path.pstore",
                "@file",
            ],
            Ends::With(1),
            &["--path.pstore", "file"],
        ),
        row(
            "--path.pstore",
            &["serve", "--path.pstore", "@loop"],
            Ends::Serves,
            &["--path.pstore", "loop"],
        ),
        row(
            "--path.systemd-pstore",
            &["serve", "--path.systemd-pstore", "@file"],
            Ends::Serves,
            &["--path.systemd-pstore", "file"],
        ),
        row(
            "--path.kdump",
            &["serve", "--path.kdump", "@file"],
            Ends::Serves,
            &["--path.kdump", "file"],
        ),
        no(
            "--log.level",
            &["status", "--log.level", "loud"],
            &["--log.level", "loud", "error, warn, info, debug"],
        ),
        no(
            "--log.format",
            &["status", "--log.format", "xml"],
            &["--log.format", "xml", "text, json"],
        ),
        no(
            "--log.format",
            &["status", "--log.format", "BYTES"],
            &["--log.format", "text, json"],
        ),
    ]
}

/// Rows of `status` and of `blockers`.
pub(crate) fn commands() -> Vec<Row> {
    vec![
        no("status --json", &["status", "--jsn"], &["--jsn", "--json"]),
        no("status --json", &["status", "json"], &["json"]),
        no(
            "status --json",
            &["status", "--json", "--json"],
            &["--json"],
        ),
        no("blockers --json", &["blockers", "--json=1"], &["--json"]),
        no(
            "blockers --limit",
            &["blockers", "--limit", "many"],
            &["--limit", "many", "such as 50"],
        ),
        no(
            "blockers --limit",
            &["blockers", "--limit", "-1"],
            &["--limit", "-1", "negative"],
        ),
        no(
            "blockers --limit",
            &["blockers", "--limit", "99999999999999999999999"],
            &["--limit", "such as 50"],
        ),
        no("blockers --limit", &["blocker"], &["blocker", "blockers"]),
        no("blockers --all", &["blockers", "--all=3"], &["--all"]),
        no("blockers --stack", &["blockers", "--stack", "x"], &["x"]),
        no(
            "wait --patch",
            &["wait", "--patch", "kpatch-fix.ko"],
            &["--patch", "kpatch_fix"],
        ),
        no(
            "wait --timeout",
            &["wait", "--timeout", "60"],
            &["--timeout", "60", "15s"],
        ),
        no(
            "wait --timeout",
            &["wait", "--timeout", "-1s"],
            &["--timeout", "negative"],
        ),
        no("doctor --json", &["doctor", "--jsn"], &["--jsn", "--json"]),
        no("wait --json", &["wait", "--json", "no"], &["no"]),
    ]
}
