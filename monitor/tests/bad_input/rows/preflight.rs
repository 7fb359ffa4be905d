//! Rows of `preflight`: flags, and files that are not livepatch modules.

use super::super::{Row, no};

pub(crate) fn preflight() -> Vec<Row> {
    const FILE: &str = "preflight FILE";
    const SAMPLE: &str = "preflight --sample";
    const LIMIT: &str = "preflight --limit";
    vec![
        no(FILE, &["preflight"], &["<FILE>"]),
        no(
            FILE,
            &["preflight", "@absent"],
            &["absent", "No such file", "right file"],
        ),
        no(
            FILE,
            &["preflight", "@dir"],
            &["dir", "a directory", "right file"],
        ),
        no(
            FILE,
            &["preflight", "@fifo"],
            &["fifo", "a pipe", "right file"],
        ),
        no(
            FILE,
            &["preflight", "@socket"],
            &["socket", "a socket", "right file"],
        ),
        no(
            FILE,
            &["preflight", "/dev/zero"],
            &["/dev/zero", "a device", "right file"],
        ),
        no(
            FILE,
            &["preflight", "@loop"],
            &["loop", "symbolic links", "right file"],
        ),
        no(
            FILE,
            &["preflight", "@denied"],
            &["denied", "Permission denied", "right file"],
        ),
        no(FILE, &["preflight", "@empty"], &["empty", "right file"]),
        no(FILE, &["preflight", "@binary"], &["binary", "right file"]),
        no(
            FILE,
            &["preflight", "@huge"],
            &["huge", "64 MiB", "no module", "right file"],
        ),
        no(
            FILE,
            &["preflight", "@bytes"],
            &["No such file", "right file"],
        ),
        no(
            FILE,
            &["preflight", "/proc/self/mem"],
            &["/proc/self/mem", "right file"],
        ),
        no(
            SAMPLE,
            &["preflight", "@file", "--sample", "some"],
            &["--sample", "some", "15s"],
        ),
        no(
            SAMPLE,
            &["preflight", "@file", "--sample", "2h"],
            &["--sample", "an hour", "3s"],
        ),
        no(
            SAMPLE,
            &["preflight", "@file", "--sample", "-3s"],
            &["--sample", "-3s", "negative"],
        ),
        no(
            "preflight --json",
            &["preflight", "@absent", "--json"],
            &["\"verdict\"", "No such file"],
        ),
        no(
            LIMIT,
            &["preflight", "@file", "--limit", "-1"],
            &["--limit", "-1", "negative"],
        ),
        no(
            LIMIT,
            &["preflight", "@file", "--limit", "1.5"],
            &["--limit", "such as 50"],
        ),
        no(
            LIMIT,
            &["preflight", "@file", "--limit", ""],
            &["--limit", "such as 50"],
        ),
    ]
}
