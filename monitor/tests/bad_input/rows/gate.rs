//! Rows of `gate` up to its first query; tests/gate has the handling of responses.

use super::super::{Row, no};

/// Nobody listens on port 9 of this machine.
macro_rules! gate {
    ($($word:expr),*) => {
        &["gate", "--prometheus", "http://127.0.0.1:9", "--patch", "fix", $($word),*]
    };
}

pub(crate) fn gate() -> Vec<Row> {
    [questions(), numbers(), rollout(), durations(), ways_in()]
        .into_iter()
        .flatten()
        .collect()
}

fn questions() -> Vec<Row> {
    const URL: &str = "gate --prometheus";
    let url = |line: &'static [&'static str], says: &'static [&'static str]| no(URL, line, says);
    vec![
        url(&["gate", "--patch", "fix"], &["--prometheus"]),
        url(
            &["gate", "--patch", "fix", "--prometheus", ""],
            &["--prometheus", "http://prometheus:9090"],
        ),
        url(
            &["gate", "--patch", "fix", "--prometheus", "prometheus:9090"],
            &["--prometheus", "http://"],
        ),
        url(
            &["gate", "--patch", "fix", "--prometheus", "ftp://prometheus"],
            &["--prometheus", "http://"],
        ),
        url(
            &["gate", "--patch", "fix", "--prometheus", "http://a b"],
            &["--prometheus", "http://prometheus:9090"],
        ),
        url(
            &[
                "gate",
                "--patch",
                "fix",
                "--prometheus",
                "http://me:secret@prometheus",
            ],
            &["--prometheus", "--password-file"],
        ),
        url(
            &[
                "gate",
                "--patch",
                "fix",
                "--prometheus",
                "http://prometheus/graph?g0",
            ],
            &["--prometheus", "?"],
        ),
        url(
            &[
                "gate",
                "--patch",
                "fix",
                "--prometheus",
                "http://127.0.0.1:99999",
            ],
            &["--prometheus", "port", "http://prometheus:9090"],
        ),
        url(
            &[
                "gate",
                "--patch",
                "fix",
                "--prometheus",
                "http://127.0.0.1:",
            ],
            &["--prometheus"],
        ),
        url(
            &["gate", "--patch", "fix", "--prometheus", "http://"],
            &["--prometheus", "http://prometheus:9090"],
        ),
        url(
            &["gate", "--patch", "fix", "--prometheus", "BYTES"],
            &["UTF-8"],
        ),
        url(gate!(), &["http://127.0.0.1:9", "refused", "--prometheus"]),
        url(
            &[
                "gate",
                "--patch",
                "fix",
                "--prometheus",
                "http://nowhere.invalid:9090",
                "--timeout",
                "20s",
            ],
            &["nowhere.invalid", "--prometheus"],
        ),
        no(
            "gate --patch",
            &["gate", "--prometheus", "http://127.0.0.1:9"],
            &["--patch"],
        ),
        no(
            "gate --patch",
            &["gate", "--prometheus", "http://127.0.0.1:9", "--patch", ""],
            &["--patch", "empty"],
        ),
        no(
            "gate --selector",
            gate!("--selector", "env=prod"),
            &["--selector", "character 5", "env=\"prod\""],
        ),
        no(
            "gate --selector",
            gate!("--selector", "job=\"x\""),
            &["--selector", "--job"],
        ),
        no(
            "gate --selector",
            gate!("--selector", "env=\"p\"} or vector(1)"),
            &["--selector"],
        ),
        no(
            "gate --selector",
            gate!("--selector", "env=~\"(\""),
            &["--prometheus"],
        ),
        no("gate --job", gate!("--job", ""), &["--job", "empty"]),
        no("gate --json", gate!("--json=1"), &["--json"]),
        no("gate --wait", gate!("--wait=1"), &["--wait"]),
    ]
}

fn numbers() -> Vec<Row> {
    vec![
        no(
            "gate --max-crashed",
            gate!("--max-crashed", "-1"),
            &["--max-crashed", "negative"],
        ),
        no(
            "gate --max-crashed",
            gate!("--max-crashed", "1%"),
            &["--max-crashed", "such as 50"],
        ),
        no(
            "gate --max-stuck-ratio",
            gate!("--max-stuck-ratio", "NaN"),
            &["--max-stuck-ratio", "0.02"],
        ),
        no(
            "gate --max-stuck-ratio",
            gate!("--max-stuck-ratio", "2"),
            &["--max-stuck-ratio", "0.02"],
        ),
        no(
            "gate --max-stuck-ratio",
            gate!("--max-stuck-ratio", "-0.1"),
            &["--max-stuck-ratio", "-0.1", "negative"],
        ),
        no(
            "gate --max-stuck-ratio",
            gate!("--max-stuck-ratio", "inf"),
            &["--max-stuck-ratio", "0.02"],
        ),
        no(
            "gate --min-hosts",
            gate!("--min-hosts", "all"),
            &["--min-hosts", "such as 50"],
        ),
        no(
            "gate --min-hosts",
            gate!("--min-hosts", "99999999999999999999"),
            &["--min-hosts", "such as 50"],
        ),
        no(
            "gate --max-missing",
            gate!("--max-missing", "-2"),
            &["--max-missing", "negative"],
        ),
        no(
            "gate --since",
            gate!("--since", "yesterday"),
            &["--since", "1970"],
        ),
        no(
            "gate --since",
            gate!("--since", "-5"),
            &["--since", "negative"],
        ),
        no(
            "gate --since",
            gate!("--since", "NaN"),
            &["--since", "2026-"],
        ),
        no(
            "gate --since",
            gate!("--since", "1969-12-31T00:00:00Z"),
            &["--since", "2026-"],
        ),
        no(
            "gate --since",
            gate!("--since", "2026-13-01T00:00:00Z"),
            &["--since", "2026-"],
        ),
    ]
}

/// The requirements and limits of a rollout.
fn rollout() -> Vec<Row> {
    const HOSTS: &str = "gate --expect-hosts";
    const RISK: &str = "gate --max-risk";
    let risk = |line, says| no(RISK, line, says);
    vec![
        no(
            HOSTS,
            gate!("--expect-hosts", ""),
            &["--expect-hosts", "empty"],
        ),
        no(
            HOSTS,
            gate!("--expect-hosts", "@absent"),
            &[
                "--expect-hosts",
                "absent",
                "No such file",
                "a number or a file",
            ],
        ),
        no(
            HOSTS,
            gate!("--expect-hosts", "-3"),
            &["--expect-hosts", "-3", "negative"],
        ),
        no(
            HOSTS,
            gate!("--expect-hosts", "@dir"),
            &["--expect-hosts", "dir", "directory"],
        ),
        no(
            HOSTS,
            gate!("--expect-hosts", "@binary"),
            &["--expect-hosts", "binary", "UTF-8"],
        ),
        no(
            HOSTS,
            gate!("--expect-hosts", "@empty"),
            &["--expect-hosts", "empty", "names no host"],
        ),
        no("gate --next", gate!("--next", "100"), &["--max-risk"]),
        no(
            "gate --next",
            gate!("--max-risk", "1%", "--next", "many"),
            &["--next", "many"],
        ),
        no(
            "gate --next",
            gate!("--max-risk", "1%", "--next", "-1"),
            &["--next"],
        ),
        risk(gate!("--max-risk", "0"), &["--max-risk", "1% or 3"]),
        risk(gate!("--max-risk", "0%"), &["--max-risk", "1% or 3"]),
        risk(gate!("--max-risk", "101%"), &["--max-risk", "1% or 3"]),
        risk(gate!("--max-risk", "NaN%"), &["--max-risk", "1% or 3"]),
        risk(gate!("--max-risk", "-1"), &["--max-risk"]),
        risk(gate!("--max-risk", "0.5"), &["--max-risk", "1% or 3"]),
    ]
}

fn durations() -> Vec<Row> {
    vec![
        no("gate --soak", gate!("--soak", "soon"), &["--soak", "15s"]),
        no(
            "gate --soak",
            gate!("--soak", "1000y"),
            &["--soak", "10 years"],
        ),
        no(
            "gate --soak",
            gate!("--soak", "10y"),
            &["--soak", "10 years"],
        ),
        no(
            "gate --stale-after",
            gate!("--stale-after", "1"),
            &["--stale-after", "15s"],
        ),
        no(
            "gate --stale-after",
            gate!("--stale-after", "0s"),
            &["--stale-after", "10s"],
        ),
        no(
            "gate --lookback",
            gate!("--lookback", "0s"),
            &["--lookback", "10s"],
        ),
        no(
            "gate --lookback",
            gate!("--lookback", "-1h"),
            &["--lookback", "negative"],
        ),
        no(
            "gate --wait-limit",
            gate!("--wait-limit", "forever"),
            &["--wait-limit", "15s"],
        ),
        no(
            "gate --wait-limit",
            gate!("--wait", "--wait-limit", "0s"),
            &["--wait-limit"],
        ),
        no(
            "gate --wait-every",
            gate!("--wait-every", "10ms"),
            &["--wait-every", "10s"],
        ),
        no(
            "gate --timeout",
            gate!("--timeout", "0s"),
            &["--timeout", "10s"],
        ),
        no("gate --timeout", gate!("--timeout", "9years"), &["refused"]),
        no(
            "gate --timeout",
            gate!("--timeout", "11y"),
            &["--timeout", "10 years"],
        ),
    ]
}

fn ways_in() -> Vec<Row> {
    const TOKEN: &str = "gate --bearer-token-file";
    const PASSWORD: &str = "gate --password-file";
    const AUTHORITY: &str = "gate --ca-file";
    vec![
        no(
            TOKEN,
            gate!("--bearer-token-file", "@absent"),
            &["--bearer-token-file", "absent", "No such file"],
        ),
        no(
            TOKEN,
            gate!("--bearer-token-file", "@dir"),
            &["--bearer-token-file", "dir", "directory"],
        ),
        no(
            TOKEN,
            gate!("--bearer-token-file", "@fifo"),
            &["--bearer-token-file", "fifo", "nothing was written"],
        ),
        no(
            TOKEN,
            gate!("--bearer-token-file", "@socket"),
            &["--bearer-token-file", "a socket"],
        ),
        no(
            TOKEN,
            gate!("--bearer-token-file", "@loop"),
            &["--bearer-token-file", "loop", "symbolic links"],
        ),
        no(
            TOKEN,
            gate!("--bearer-token-file", "@denied"),
            &["--bearer-token-file", "denied", "Permission denied"],
        ),
        no(
            TOKEN,
            gate!("--bearer-token-file", "@empty"),
            &["--bearer-token-file", "empty", "is empty"],
        ),
        no(
            TOKEN,
            gate!("--bearer-token-file", "@binary"),
            &["--bearer-token-file", "binary", "UTF-8", "right file"],
        ),
        no(
            TOKEN,
            gate!("--bearer-token-file", "@huge"),
            &["--bearer-token-file", "huge", "64 KiB", "right file"],
        ),
        no(
            TOKEN,
            gate!("--bearer-token-file", "/dev/zero"),
            &["--bearer-token-file", "/dev/zero", "64 KiB"],
        ),
        no(
            TOKEN,
            gate!("--bearer-token-file", "@two-lines"),
            &["--bearer-token-file", "several lines", "only the secret"],
        ),
        no(
            TOKEN,
            gate!("--bearer-token-file", "@password", "--user", "me"),
            &["--bearer-token-file", "--user"],
        ),
        no(
            PASSWORD,
            gate!("--user", "me", "--password-file", "@absent"),
            &["--password-file", "absent", "No such file"],
        ),
        no(
            PASSWORD,
            gate!("--user", "me", "--password-file", "@huge"),
            &["--password-file", "huge", "64 KiB"],
        ),
        no(
            PASSWORD,
            gate!("--user", "me", "--password-file", "@bytes"),
            &["--password-file", "No such file"],
        ),
        no(PASSWORD, gate!("--password-file", "@password"), &["--user"]),
        no("gate --user", gate!("--user", "me"), &["--password-file"]),
        no(
            "gate --user",
            gate!("--user", "me:secret", "--password-file", "@password"),
            &["--user", "colon"],
        ),
        no(
            "gate --user",
            gate!("--user", "", "--password-file", "@password"),
            &["--user", "empty"],
        ),
        no(
            AUTHORITY,
            gate!("--ca-file", "@absent"),
            &["--ca-file", "absent", "No such file"],
        ),
        no(
            AUTHORITY,
            gate!("--ca-file", "@dir"),
            &["--ca-file", "dir", "a directory"],
        ),
        no(
            AUTHORITY,
            gate!("--ca-file", "@fifo"),
            &["--ca-file", "fifo", "a pipe"],
        ),
        no(
            AUTHORITY,
            gate!("--ca-file", "@binary"),
            &["--ca-file", "binary", "BEGIN CERTIFICATE"],
        ),
        no(
            AUTHORITY,
            gate!("--ca-file", "@empty"),
            &["--ca-file", "empty", "BEGIN CERTIFICATE"],
        ),
        no(
            AUTHORITY,
            gate!("--ca-file", "@huge"),
            &["--ca-file", "huge", "16 MiB"],
        ),
        no(
            AUTHORITY,
            gate!("--ca-file", "@denied"),
            &["--ca-file", "denied", "Permission denied"],
        ),
        no(
            "gate --tenant",
            gate!("--tenant", "a\nb"),
            &["--tenant", "header"],
        ),
        no(
            "gate --tenant",
            gate!("--tenant", ""),
            &["--tenant", "empty"],
        ),
        no("gate --tenant", gate!("--tenant", "BYTES"), &["UTF-8"]),
    ]
}
