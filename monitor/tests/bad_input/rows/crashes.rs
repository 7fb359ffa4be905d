//! Rows of `crashes` and its subcommands.

use super::super::{
    Ends::{self, With},
    Row, no, row,
};

pub(crate) fn crashes() -> Vec<Row> {
    const SHOW: &str = "crashes show ID";
    const FILE: &str = "crashes import FILE";
    const SOAK: &str = "crashes import --soak";
    vec![
        no(
            "crashes --json",
            &["crashes", "--json", "show", "x"],
            &["--json"],
        ),
        no("crashes --json", &["crashes", "list"], &["list"]),
        row(
            "crashes --json",
            &["crashes", "--json", "--state-dir", "@state-crash-junk"],
            With(1),
            &["deadbeef.json"],
        ),
        row(
            "crashes --json",
            &["crashes", "--state-dir", "@state-crash-fifo"],
            With(1),
            &["deadbeef.json", "a pipe"],
        ),
        row(
            "crashes --json",
            &["crashes", "--state-dir", "@state-crash-huge"],
            With(1),
            &["deadbeef.json", "4 MiB"],
        ),
        row(
            "crashes --json",
            &["crashes", "--state-dir", "@state-crash-dir"],
            With(1),
            &["deadbeef.json", "a directory"],
        ),
        row(
            "crashes --json",
            &["crashes", "--state-dir", "@state-crash-denied"],
            With(1),
            &["deadbeef.json", "Permission denied"],
        ),
        no(SHOW, &["crashes", "show"], &["<ID>"]),
        no(
            SHOW,
            &["crashes", "show", ""],
            &["<ID>", "empty", "livepatch-monitor crashes"],
        ),
        no(
            SHOW,
            &["crashes", "show", "nothing"],
            &["nothing", "livepatch-monitor crashes"],
        ),
        no(
            SHOW,
            &["crashes", "show", "../../etc/passwd"],
            &["no crash has the id"],
        ),
        no(SHOW, &["crashes", "show", "BYTES"], &["UTF-8", "x\\xFF"]),
        no(
            "crashes show --json",
            &["crashes", "show", "x", "--json=1"],
            &["--json"],
        ),
        no(FILE, &["crashes", "import"], &["<FILE>"]),
        no(
            FILE,
            &["crashes", "import", "@absent"],
            &["absent", "No such file"],
        ),
        row(
            FILE,
            &["crashes", "import", "@empty"],
            With(2),
            &["cannot determine"],
        ),
        row(
            FILE,
            &["crashes", "import", "@file"],
            With(2),
            &["cannot determine"],
        ),
        row(
            FILE,
            &["crashes", "import", "@dir"],
            With(1),
            &["no crash found"],
        ),
        no(
            FILE,
            &["crashes", "import", "@fifo"],
            &["fifo", "nothing was written", "10 s", "file first"],
        ),
        no(
            FILE,
            &["crashes", "import", "@socket"],
            &["socket", "a socket"],
        ),
        no(
            FILE,
            &["crashes", "import", "@loop"],
            &["loop", "symbolic links"],
        ),
        no(
            FILE,
            &["crashes", "import", "@denied"],
            &["denied", "Permission denied", "run as root"],
        ),
        no(
            FILE,
            &["crashes", "import", "@binary"],
            &["binary", "not a kernel log", "console log"],
        ),
        no(
            FILE,
            &["crashes", "import", "@huge"],
            &["huge", "not a kernel log"],
        ),
        no(FILE, &["crashes", "import", "@bytes"], &["No such file"]),
        no(
            FILE,
            &["crashes", "import", "/dev/zero"],
            &["/dev/zero", "not a kernel log"],
        ),
        no(
            FILE,
            &["crashes", "import", "/proc/self/mem"],
            &["/proc/self/mem"],
        ),
        row(
            FILE,
            &["crashes", "import", "/dev/null"],
            With(2),
            &["/dev/null", "cannot determine whether there was a crash"],
        ),
        row(
            FILE,
            &["crashes", "import", "@dumps-fifo"],
            With(1),
            &["no crash found"],
        ),
        no(
            FILE,
            &["crashes", "import", "@dumps-junk"],
            &["console.log", "not a kernel log"],
        ),
        no(
            FILE,
            &["crashes", "import", "@dumps-huge"],
            &["console.log", "not a kernel log"],
        ),
        no(
            FILE,
            &["crashes", "import", "@dumps-denied"],
            &["console.log", "Permission denied"],
        ),
        row(
            FILE,
            &["crashes", "import", "@dumps-loop"],
            With(1),
            &["no crash found"],
        ),
        no(
            "crashes import --json",
            &["crashes", "import", "--json", "@absent"],
            &["absent", "problems"],
        ),
        no(
            SOAK,
            &["crashes", "import", "@file", "--soak", "long"],
            &["--soak", "long", "15s"],
        ),
        no(
            SOAK,
            &["crashes", "import", "@file", "--soak", "-5m"],
            &["--soak", "-5m", "negative"],
        ),
        no(
            SOAK,
            &["crashes", "import", "@file", "--soak", "1000000000y"],
            &["--soak", "10 years"],
        ),
        row(
            SOAK,
            &["crashes", "import", "@file", "--soak", "0s"],
            Ends::With(2),
            &["cannot determine whether there was a crash"],
        ),
    ]
}
