use proptest::prelude::*;

use super::*;

const TEXT: &str = "\
# HELP a_total Things.
# TYPE a_total counter
a_total{x=\"1\",y=\"p\"} 2
a_total{x=\"1\",y=\"q\"} 3
b 0.5
c_bucket{le=\"+Inf\"} +Inf
";

#[test]
fn series_are_found() {
    let exposition = Exposition::parse(TEXT).unwrap();
    exposition.expect("a_total{x=1,y=p}", 2.0).unwrap();
    exposition.expect("b", 0.5).unwrap();
    exposition.expect_sum("a_total{x=1}", 5.0).unwrap();
    assert_eq!(exposition.sum_of_any("d").unwrap(), None);
    exposition.expect_absent("a_total{x=2}").unwrap();
    assert_eq!(exposition.value("a_total{x=1}").unwrap(), None);
    assert_eq!(exposition.label_values("a_total", "y").unwrap(), ["p", "q"]);
}

#[test]
fn failures_show_what_is_there() {
    let exposition = Exposition::parse(TEXT).unwrap();
    let error = exposition.expect("a_total{x=1,y=p}", 7.0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a_total{x=1,y=p} is 2, not 7; there is: a_total{x=1,y=p} 2; a_total{x=1,y=q} 3"
    );
    assert!(exposition.expect_absent("a_total{y=q}").is_err());
    assert!(exposition.expect("e", 0.0).is_err());
    // A missing series is not zero.
    assert!(exposition.expect_sum("e", 0.0).is_err());
}

#[test]
fn contradictions_are_found() {
    let read = |text: &str| Exposition::parse(text).unwrap();
    let active = "livepatch_transition_active{patch=\"a\"} 1\n";
    let pending = "livepatch_pending_tasks{patch=\"a\"} 1\n";
    let blocking = "livepatch_blocking_tasks{patch=\"a\"} 2\n";
    let good = read(&format!("{active}{pending}"));
    good.expect_consistent().unwrap();
    assert!(read(pending).expect_consistent().is_err());
    let bad = read(&format!("{active}{pending}{blocking}"));
    assert!(bad.expect_consistent().is_err());
}

#[test]
fn a_counter_that_falls_is_found() {
    let read = |text: &str| Exposition::parse(text).unwrap();
    let (one, two) = (read("a_total 1\nb 5\n"), read("a_total 2\nb 4\n"));
    two.expect_later_than(&one).unwrap();
    assert!(one.expect_later_than(&two).is_err());
    assert!(read("b 5\n").expect_later_than(&one).is_err());
    read("b 5\n")
        .expect_later_than(&read("a_total 0\n"))
        .unwrap();
}

#[test]
fn varying_values_are_masked() {
    let text = "\
# HELP livepatch_patch_info x
livepatch_patch_info{patch=\"b\",srcversion=\"F01\"} 1
livepatch_patch_info{patch=\"a\",srcversion=\"F00\"} 1
# HELP livepatch_pending_tasks x
livepatch_pending_tasks{patch=\"a\"} 1
# HELP process_open_fds x
process_open_fds 12
";
    let exposition = Exposition::parse(text).unwrap();
    assert_eq!(
        exposition.masked(),
        "\
# HELP livepatch_patch_info x
livepatch_patch_info{patch=\"a\",srcversion=\"~\"} 1
livepatch_patch_info{patch=\"b\",srcversion=\"~\"} 1
# HELP livepatch_pending_tasks x
livepatch_pending_tasks{patch=\"a\"} 1
# HELP process_open_fds x
process_open_fds NaN
"
    );
}

#[test]
fn damage_is_an_error() {
    for text in [
        "",
        "a",
        "a{x=\"1\" 2",
        "a{x=\"1} 2",
        "a{x=1} 2",
        "a x",
        "a 1\na 2",
        "a{x=\"1\\x\"} 2",
        "a{x=\"1\",x=\"2\"} 2",
        "\x1b[2J 1",
    ] {
        assert!(Exposition::parse(text).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_label_value_reads_back(value in any::<String>()) {
        let escaped = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let (series, number) = parse_sample(&format!("a{{x=\"{escaped}\"}} 1")).unwrap();
        prop_assert_eq!(series.labels.get("x"), Some(&value));
        prop_assert!((number - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn no_text_breaks_the_parser(text in any::<String>()) {
        let _ = Exposition::parse(&text);
    }
}

#[test]
fn addresses_of_the_kernel_are_found() {
    for text in ["x ffffc90000123000", "a{f=\"0xffffffffc0123456\"} 1"] {
        assert!(expect_no_address(text).is_err(), "{text}");
    }
    for text in [
        "x 1795452767000000",
        "id=\"7E5C8D2A9B1F4E6D3C0A7B8\"",
        "0x10",
    ] {
        assert!(expect_no_address(text).is_ok(), "{text}");
    }
}
