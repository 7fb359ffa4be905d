//! Inputs in `tests/fixtures/crash/words`, a file for each architecture and kind, with the expected
//! result in the line before each.

use super::*;
use crate::crash::{NonFatalSignal, parser::ParsedLog, record::Function};

fn place(function: Option<&Function>) -> String {
    function.map_or_else(
        || "-".to_owned(),
        |function| match &function.module {
            Some(module) => format!("{}[{module}]", function.name),
            None => function.name.clone(),
        },
    )
}

/// `kind xREPORTS place implicated` for a crash, `~report place implicated` for a signal that was
/// not one, `!` for a problem.
fn found(parsed: &ParsedLog) -> String {
    let crash = |record: &CrashRecord| {
        let (kind, place) = (record.kind.name(), place(record.function.as_ref()));
        format!(
            "{kind} x{} {place} {}",
            record.reports,
            record.implicated.name()
        )
    };
    let non_fatal = |signal: &NonFatalSignal| {
        let name = signal.report.as_deref().unwrap_or(signal.signal.name());
        let place = place(signal.function.as_ref());
        format!("~{name} {place} {}", signal.implicated.name())
    };
    let crashes = parsed.records.iter().map(crash);
    let mut all: Vec<String> = crashes
        .chain(parsed.non_fatal.iter().map(non_fatal))
        .collect();
    all.extend((!parsed.problems.is_empty()).then(|| "!".to_owned()));
    all.join("; ")
}

#[track_caller]
fn check(file: &str, fewest: usize) {
    let path = folder().join("words").join(file);
    let text = fs::read_to_string(path).unwrap();
    let inputs: Vec<&str> = text.split("%%% ").skip(1).collect();
    assert!(inputs.len() >= fewest, "{file}: {}", inputs.len());
    for input in inputs {
        let (title, log) = input.split_once('\n').unwrap();
        let (name, expected) = title.split_once(" | ").unwrap_or((title, ""));
        let parsed = parser::read(log.as_bytes(), &Reading::new(SOAK));
        assert_eq!(found(&parsed), expected, "{name}: {:?}", parsed.problems);
        for record in &parsed.records {
            let proved = record.implicated == Implicated::No;
            assert!(proved || record.phase != Phase::Unpatched, "{name}");
        }
    }
}

#[test]
fn of_s390x() {
    check("s390x.txt", 8);
}

#[test]
fn of_powerpc() {
    check("powerpc.txt", 14);
}

#[test]
fn of_arm64() {
    check("arm64.txt", 9);
}

#[test]
fn of_x86() {
    check("x86.txt", 38);
}

#[test]
fn of_reports_and_other_architectures() {
    check("reports.txt", 24);
}

#[test]
fn names_are_not_the_kernels_words() {
    check("names.txt", 40);
}

#[test]
fn columns_and_quotes_around_lines() {
    check("wrappings.txt", 29);
}

#[test]
fn of_more_kernels() {
    check("more.txt", 15);
}

#[test]
fn a_negative_needs_proof() {
    check("proof.txt", 14);
}

#[test]
fn what_came_before_or_behind_is_lost() {
    check("cut.txt", 16);
}

#[test]
fn places_of_older_and_other_kernels() {
    check("places.txt", 12);
}

#[test]
fn headers_and_pastes() {
    check("old.txt", 9);
}

#[test]
fn who_an_old_header_means() {
    let path = folder().join("words/old.txt");
    let text = fs::read_to_string(path).unwrap();
    let (_, log) = text.split_once("%%% old-arm-header").unwrap();
    let (_, log) = log.split_once('\n').unwrap();
    let log = log.split("%%% ").next().unwrap();
    let record = only(parser::read(log.as_bytes(), &Reading::new(SOAK)).records);
    assert_eq!(record.cpu, Some(0));
    assert_eq!(
        (record.comm.as_deref(), record.pid),
        (Some("acme_d"), Some(17))
    );
    assert_eq!(record.taint.as_deref(), Some(""));
    assert_eq!(record.release.as_deref(), Some("3.4.0-571-gcca29a0"));
}
