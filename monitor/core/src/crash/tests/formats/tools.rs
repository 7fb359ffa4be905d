//! One log as real tools wrote it (`tests/fixtures/crash/tools`): dmesg of util-linux
//! 2.38, journalctl 252, rsyslog 8.2302, ts, multilog, svlogd.

use super::*;

#[test]
fn each_tool_gives_the_same() {
    let folder = folder().join("tools");
    let read = |name: &str| {
        let bytes = fs::read(folder.join(name)).unwrap();
        let parsed = parser::read(&bytes, &Reading::new(SOAK));
        assert_eq!(parsed.problems, [""; 0], "{name}");
        comparable(only(parsed.records))
    };
    let base = read("console.log");
    assert_eq!((base.kind, base.phase), (Kind::Oops, Phase::Soak));
    assert_eq!(base.implicated, Implicated::Yes);
    let mut tools = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let mut expected = base.clone();
        // Neither date nor time: how long ago the transition ended is not in the text.
        if ["dmesg-t.log", "journalctl-cat.log"].contains(&name.as_str()) {
            expected.phase = Phase::Unknown;
        }
        assert_eq!(read(&name), expected, "{name}");
        tools += 1;
    }
    assert_eq!(tools, 49);
}

/// How exactly the date is known.
#[test]
fn dates_of_tools() {
    let folder = folder().join("tools");
    let precision = |name: &str| {
        let bytes = fs::read(folder.join(name)).unwrap();
        only(parser::read(&bytes, &Reading::new(SOAK)).records)
            .when
            .precision
    };
    for (name, expected) in [
        ("dmesg-d.log", Precision::Unknown),
        ("dmesg-T.log", Precision::LocalTime),
        ("dmesg-H-P.log", Precision::NoYear),
        ("dmesg--time-formatiso.log", Precision::Line),
        ("journalctl-short.log", Precision::NoYear),
        ("journalctl-short-full.log", Precision::Line),
        ("journalctl-short-unix.log", Precision::Line),
        ("journalctl-verbose.log", Precision::Line),
        ("multilog.log", Precision::Line),
        ("tai64nlocal.log", Precision::LocalTime),
        ("rsyslog-traditional.log", Precision::NoYear),
        ("rsyslog-file.log", Precision::Line),
        ("ts.log", Precision::NoYear),
    ] {
        assert_eq!(precision(name), expected, "{name}");
    }
}
