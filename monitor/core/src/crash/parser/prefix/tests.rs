use super::*;

#[track_caller]
fn check(line: &str, uptime: Option<f64>, unix: Option<f64>, caller: Option<&str>, text: &str) {
    let lines: Vec<Line> = Lines::new(line.as_bytes()).collect();
    let [line] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    let found = (
        line.uptime,
        line.unix,
        line.caller.as_deref(),
        line.text.as_str(),
    );
    assert_eq!(found, (uptime, unix, caller, text));
}

#[test]
fn single_lines() {
    check("plain", None, None, None, "plain");
    check(
        "[   12.345678]  f+0x1/0x2",
        Some(12.345_678),
        None,
        None,
        " f+0x1/0x2",
    );
    check("<4>[ 12.3] x", Some(12.3), None, None, "x");
    check("[   12.5][ T123] x", Some(12.5), None, Some("T123"), "x");
    check("[   12.5] [ T123] x", Some(12.5), None, Some("T123"), "x");
    check(
        "<0>[   12.5][    C0]  x ",
        Some(12.5),
        None,
        Some("C0"),
        " x",
    );
    check(
        "Nov 23 12:48:09 web-1 kernel: [   12.5] x",
        Some(12.5),
        None,
        None,
        "x",
    );
    check(
        "2026-11-23T12:48:09.250000+01:00 web-1 kernel: x",
        None,
        Some(1_795_434_489.25),
        None,
        "x",
    );
    check("[Mon Nov 23 12:48:09 2026] x", None, None, None, "x");
    check(
        "[Hardware Error]: x",
        None,
        None,
        None,
        "[Hardware Error]: x",
    );
    check("<TASK>", None, None, None, "<TASK>");
    check("\0\0[ 1.0] x\0", Some(1.0), None, None, "x");
}

#[test]
fn a_carriage_return_ends_a_line() {
    let texts: Vec<String> = Lines::new(b"a\r\nb\rc\n\n").map(|line| line.text).collect();
    assert_eq!(texts, ["a", "b", "c"]);
}

#[test]
fn a_message_in_the_middle_of_another_is_its_text() {
    let line = "[ 5.000000] traps: x [    6.000000] Kernel panic - not syncing: y";
    check(
        line,
        Some(5.0),
        None,
        None,
        "traps: x [    6.000000] Kernel panic - not syncing: y",
    );
}

#[test]
fn a_binary_field_of_an_export() {
    let mut text = b"__CURSOR=x\n_TRANSPORT=kernel\nMESSAGE\n".to_vec();
    text.extend(3_u64.to_le_bytes());
    text.extend(b"a\nb\n\n");
    let lines: Vec<_> = Lines::new(&text)
        .map(|line| (line.text, line.continues))
        .collect();
    assert_eq!(lines, [("a".to_owned(), false), ("b".to_owned(), true)]);
}

#[test]
fn dmesg_json_is_read_as_far_as_it_goes() {
    let whole = r#"{
   "dmesg": [
      {
         "pri": 4,
         "time":     1.000000,
         "caller": "T7",
         "msg": "a\n<4>[    2.000000] b\n"
      },{
         "pri": 4,
         "time":     2.000000,
         "msg": "b c"
      },{
         "pri": 30,
         "time":     3.000000,
         "msg": "Kernel panic - not syncing: a program's"
      }
   ]
}
"#;
    let read = |text: &str| {
        let lines = Lines::new(text.as_bytes()).filter(|line| line.uptime.is_some());
        let found = lines.map(|line| (line.uptime.unwrap(), line.caller, line.text));
        found.collect::<Vec<_>>()
    };
    let a = (1.0, Some("T7".to_owned()), "a".to_owned());
    let b = |text: &str| (2.0, None, text.to_owned());
    assert_eq!(read(whole), [a.clone(), b("b c")]);
    for (cut, last) in [
        ("b c\"", Some("b c")),
        ("b c", Some("b c")),
        ("\"b", Some("b")),
        ("2.000000,", None),
    ] {
        let end = whole.rfind(cut).unwrap() + cut.len();
        let expected: Vec<_> = [a.clone()].into_iter().chain(last.map(b)).collect();
        assert_eq!(read(&whole[..end]), expected, "{cut}");
    }
}

#[test]
fn bytes_of_a_journal_record_are_numbers_on_lines() {
    let text = "{\n\t\"_TRANSPORT\" : \"kernel\",\n\t\"MESSAGE\" : [\n\t\t97,\n\t\t27,\n\t\t91,\n\t\t109\n\
        \t],\n\t\"_HOSTNAME\" : \"web-1\"\n}\n{\n\t\"_TRANSPORT\" : \"kernel\",\n\t\"MESSAGE\" : \"b\"\n}\n";
    let lines: Vec<_> = Lines::new(text.as_bytes())
        .map(|line| (line.text, line.host))
        .collect();
    let host = Some("web-1".to_owned());
    assert_eq!(lines, [("a".to_owned(), host), ("b".to_owned(), None)]);
}

#[test]
fn opening_braces_are_no_records() {
    let text = "{\n".repeat(100_000);
    assert_eq!(Lines::new(text.as_bytes()).count(), 100_000);
}
