use std::{cell::RefCell, collections::BTreeMap};

use anyhow::bail;

use super::*;

const BOARD: &str = r#"{ "uid": "b", "panels": [
    { "type": "row", "title": "R", "gridPos": { "x": 0, "y": 0, "w": 24, "h": 1 } },
    { "type": "stat", "title": "P", "gridPos": { "x": 0, "y": 1, "w": 24, "h": 1 },
      "targets": [{ "refId": "A", "expr": "rate(m{job=~\"$job\",patch=~\"$patch|\"}[$__rate_interval]) + n[$__range]" }] } ] }"#;

const PATCH: Labels = &[("patch", "a")];

fn series(patch: &str, values: &[f64]) -> Series {
    Series {
        labels: BTreeMap::from([("patch".to_owned(), patch.to_owned())]),
        points: values.iter().map(|value| (1.0, *value)).collect(),
    }
}

fn judged(expect: &'static [Expect], answer: &[Series]) -> Vec<String> {
    let board = Board::parse("b.json", BOARD).unwrap();
    let expectations = [Expectation {
        board: "b",
        panel: "P",
        query: "A",
        expect,
    }];
    check(&[board], &expectations, 10.0, 20.0, |_, _, _, _| {
        Ok(answer.to_vec())
    })
    .unwrap()
}

#[track_caller]
fn fits(expect: &'static [Expect], answer: &[Series]) {
    assert_eq!(judged(expect, answer), [""; 0]);
}

#[track_caller]
fn fails(expect: &'static [Expect], answer: &[Series]) {
    let complaints = judged(expect, answer);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(
        complaints[0].starts_with("b: panel \"P\", query A: "),
        "{complaints:?}"
    );
}

#[test]
fn highest_values_are_compared() {
    let answer = [series("a", &[0.0, 2.0, 1.0]), series("b", &[9.0])];
    fits(&[Expect::Max(PATCH, 2.0), Expect::Max(&[], 9.0)], &answer);
    fails(&[Expect::Max(PATCH, 1.0)], &answer);
    fails(&[Expect::Max(PATCH, 3.0)], &answer);
    fails(&[Expect::Max(&[("patch", "c")], 2.0)], &answer);
    fails(&[Expect::Max(&[("object", "a")], 2.0)], &answer);
}

#[test]
fn lowest_values_are_compared() {
    let answer = [series("a", &[67.0, 1.0]), series("b", &[9.0])];
    fits(&[Expect::Min(PATCH, 1.0), Expect::Min(&[], 1.0)], &answer);
    fails(&[Expect::Min(PATCH, 67.0)], &answer);
    fails(&[Expect::Min(PATCH, 0.0)], &answer);
    fails(&[Expect::Min(&[("patch", "c")], 1.0)], &answer);
}

#[test]
fn bounds_are_compared() {
    let answer = [series("a", &[1.0, 2.0])];
    fits(
        &[Expect::Above(PATCH, 1.5), Expect::Below(PATCH, 1.5)],
        &answer,
    );
    fails(&[Expect::Above(PATCH, 2.0)], &answer);
    fails(&[Expect::Below(PATCH, 1.0)], &answer);
    fails(&[Expect::Above(PATCH, 0.0)], &[]);
    fails(&[Expect::Below(PATCH, 0.0)], &[]);
}

#[test]
fn presence_and_absence_are_distinguished() {
    let (some, zero) = ([series("a", &[1.0])], [series("a", &[0.0])]);
    fits(&[Expect::Shows(PATCH)], &zero);
    fails(&[Expect::Shows(PATCH)], &[series("b", &[1.0])]);
    fits(&[Expect::Zero("why")], &zero);
    fails(&[Expect::Zero("why")], &some);
    fails(&[Expect::Zero("why")], &[]);
    fits(&[Expect::Nothing("why")], &[]);
    fails(&[Expect::Nothing("why")], &zero);
    fits(&[Expect::Quiet("why")], &[]);
    fits(&[Expect::Quiet("why")], &zero);
    fails(&[Expect::Quiet("why")], &some);
}

#[test]
fn a_panel_without_an_expectation_is_at_fault() {
    let board = Board::parse("b.json", BOARD).unwrap();
    let complaints = check(&[board], &[], 0.0, 1.0, |_, _, _, _| Ok(vec![])).unwrap();
    assert!(complaints[0].contains("nothing is said"), "{complaints:?}");
}

#[test]
fn an_expectation_without_a_panel_is_at_fault() {
    let expectations = [Expectation {
        board: "b",
        panel: "P",
        query: "A",
        expect: &[],
    }];
    let complaints = check(&[], &expectations, 0.0, 1.0, |_, _, _, _| Ok(vec![])).unwrap();
    assert!(
        complaints[0].contains("which is not there"),
        "{complaints:?}"
    );
}

#[test]
fn an_expectation_expects_something() {
    for expectation in EXPECTATIONS {
        assert!(!expectation.expect.is_empty(), "{expectation:?}");
    }
}

#[test]
fn queries_are_asked_with_everything_chosen() {
    let board = Board::parse("b.json", BOARD).unwrap();
    let asked = RefCell::new(Vec::new());
    let expectations = [Expectation {
        board: "b",
        panel: "P",
        query: "A",
        expect: &[Expect::Nothing("why")],
    }];
    check(
        &[board],
        &expectations,
        10.0,
        20.5,
        |query, start, end, step| {
            asked
                .borrow_mut()
                .push((query.to_owned(), start, end, step));
            Ok(vec![])
        },
    )
    .unwrap();
    let query = r#"rate(m{job=~".+",patch=~".+|"}[20s]) + n[11s]"#;
    assert_eq!(*asked.borrow(), [(query.to_owned(), 10.0, 20.5, STEP)]);
}

#[test]
fn every_query_of_the_shipped_boards_has_an_expectation() {
    // With no results, only the expectations of no series are met.
    let complaints = check_panels(|_, _, _, _| Ok(vec![]), 0.0, 1.0).unwrap();
    let unsaid: Vec<_> = complaints
        .iter()
        .filter(|text| text.contains("nothing is said") || text.contains("which is not there"))
        .collect();
    assert!(unsaid.is_empty(), "{unsaid:#?}");
    assert!(complaints.len() > EXPECTATIONS.len() / 2);
}

#[test]
fn a_query_that_cannot_be_asked_is_an_error() {
    assert!(check_panels(|_, _, _, _| bail!("down"), 0.0, 1.0).is_err());
}
