use serde_json::{Value, json};

use super::{super::board, *};

const CONTRACT: &str = "\
    | `livepatch_supported` | gauge | | S. |\n\
    | `livepatch_stuck_tasks` | gauge | patch, reason | S. |\n\
    | `livepatch_patch_crashes_total` | counter | patch | C. |\n\
    | `livepatch_transition_attempts_total` | counter | | A. |\n";
const RULES: &str = "- record: patch:livepatch_hosts_hurt:count\n- alert: LivepatchStopRollout\n";

const GOOD: &str = r#"livepatch_stuck_tasks{job=~"$job",instance=~"$instance",patch=~"$patch"}"#;

fn known() -> Known {
    Known::parse(CONTRACT, RULES).unwrap()
}

fn variable(name: &str, query: &str) -> Value {
    json!({ "type": "query", "name": name, "query": query, "multi": true, "includeAll": true,
            "allValue": ".+", "datasource": { "type": "prometheus", "uid": "${datasource}" } })
}

/// A dashboard without faults.
fn good(uid: &str, other: &str) -> Value {
    json!({
        "uid": uid, "title": uid, "description": "What it is for.", "tags": ["livepatch"],
        "schemaVersion": 41, "editable": false,
        "links": [{ "title": "Other", "url": format!("/d/{other}?${{job:queryparam}}") }],
        "templating": { "list": [
            { "type": "datasource", "name": "datasource", "query": "prometheus" },
            variable("job", "label_values(livepatch_supported, job)"),
            variable("instance", "label_values(livepatch_supported{job=~\"$job\"}, instance)"),
            variable("patch",
                "label_values(livepatch_patch_crashes_total{job=~\"$job\",instance=~\"$instance\"}, patch)"),
        ] },
        "panels": [
            { "id": 1, "type": "row", "title": "Row", "gridPos": { "x": 0, "y": 0, "w": 24, "h": 1 } },
            { "id": 2, "type": "stat", "title": "Panel", "description": "What it means.",
              "gridPos": { "x": 0, "y": 1, "w": 12, "h": 4 },
              "datasource": { "type": "prometheus", "uid": "${datasource}" },
              "fieldConfig": { "defaults": { "unit": "short" } },
              "targets": [{ "refId": "A", "expr": GOOD, "legendFormat": "{{patch}}" }] },
            { "id": 3, "type": "stat", "title": "Another", "description": "What it means.",
              "gridPos": { "x": 12, "y": 1, "w": 12, "h": 4 },
              "datasource": { "type": "prometheus", "uid": "${datasource}" },
              "fieldConfig": { "defaults": { "unit": "short" } },
              "targets": [{ "refId": "A", "expr": GOOD }] },
        ],
    })
}

/// The complaints about a good dashboard in which one value is replaced.
fn complaints(place: &str, value: Value) -> Vec<String> {
    let mut first = good("one", "two");
    let (parent, key) = place.rsplit_once('/').unwrap();
    match first.pointer_mut(parent).unwrap() {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        object => object[key] = value,
    }
    let boards = [
        Board::parse("one.json", &first.to_string()).unwrap(),
        Board::parse("two.json", &good("two", "one").to_string()).unwrap(),
    ];
    check(&boards, &known())
}

#[track_caller]
fn refused(place: &str, value: Value, with: &str) {
    let complaints = complaints(place, value.clone());
    assert!(
        complaints
            .iter()
            .any(|text| text.starts_with("one.json: ") && text.contains(with)),
        "{place} = {value}: {complaints:?}"
    );
}

#[track_caller]
fn query_refused(query: &str, with: &str) {
    refused("/panels/1/targets/0/expr", json!(query), with);
}

#[track_caller]
fn query_passes(query: &str) {
    let complaints = complaints("/panels/1/targets/0/expr", json!(query));
    let about_queries: Vec<_> = complaints
        .iter()
        .filter(|text| !text.contains("in its legend"))
        .collect();
    assert!(about_queries.is_empty(), "{query}: {about_queries:?}");
}

#[test]
fn shipped_boards_are_clean() {
    let boards = board::all().unwrap();
    assert_eq!(boards.len(), 2);
    assert_eq!(check(&boards, &Known::of_repository().unwrap()), [""; 0]);
}

#[test]
fn a_good_board_is_clean() {
    assert_eq!(complaints("/title", json!("other words")), [""; 0]);
}

#[test]
fn head_is_held_to_the_rules() {
    refused("/uid", json!("three"), "not its file's name");
    refused("/uid", json!("x".repeat(41)), "40 characters");
    refused("/title", json!(" "), "no title");
    refused("/description", json!(""), "no description");
    refused("/editable", json!(true), "editable");
    refused("/tags", json!(["linux"]), "tag livepatch");
    refused("/schemaVersion", json!(30), "schemaVersion");
}

#[test]
fn a_board_without_editable_is_editable() {
    let mut board = good("one", "one");
    board.as_object_mut().unwrap().remove("editable");
    assert!(
        Board::parse("one.json", &board.to_string())
            .unwrap()
            .editable
    );
}

#[test]
fn titles_of_boards_differ() {
    let complaints = complaints("/title", json!("two"));
    assert!(
        complaints
            .iter()
            .any(|text| text.contains("another board has the title two"))
    );
}

#[test]
fn variables_are_held_to_the_rules() {
    refused(
        "/templating/list/0/name",
        json!("source"),
        "no variable `datasource`",
    );
    refused(
        "/templating/list/0/query",
        json!("loki"),
        "no variable `datasource`",
    );
    refused(
        "/templating/list/1/name",
        json!("jobs"),
        "no variable `job`",
    );
    refused("/templating/list/1/multi", json!(false), "`job`: set multi");
    refused(
        "/templating/list/2/includeAll",
        json!(false),
        "`instance`: set multi",
    );
    refused(
        "/templating/list/3/allValue",
        json!(".*"),
        "`patch`: set multi",
    );
    refused(
        "/templating/list/1/datasource/uid",
        json!("x"),
        "is not asked of",
    );
    let query = "/templating/list/2/query";
    refused(query, json!("livepatch_supported"), "label_values");
    refused(
        query,
        json!("label_values(livepatch_supported, instance)"),
        "does not match job",
    );
    refused(
        query,
        json!("label_values(livepatch_supported{job=~\"$job\"}, host)"),
        "uses the label host",
    );
    refused(
        query,
        json!("label_values(nothing{job=~\"$job\"}, instance)"),
        "uses nothing",
    );
}

#[test]
fn layout_is_held_to_the_rules() {
    refused(
        "/panels/2/id",
        json!(2),
        "the id 2 is missing or used twice",
    );
    refused(
        "/panels/2/title",
        json!("Panel"),
        "two panels have the title",
    );
    refused("/panels/2/title", json!(""), "has no title");
    refused("/panels/2/type", json!("piechart"), "type piechart");
    refused("/panels/2/gridPos/x", json!(11), "lies over");
    refused("/panels/2/gridPos/x", json!(13), "not within 24 columns");
    refused("/panels/2/gridPos/h", json!(0), "not within 24 columns");
    refused("/panels/0/panels", json!([{}]), "hides panels");
}

#[test]
fn panels_are_held_to_the_rules() {
    refused("/panels/1/description", json!(""), "no description");
    refused(
        "/panels/1/fieldConfig",
        json!({ "defaults": {} }),
        "no unit",
    );
    refused(
        "/panels/1/datasource/uid",
        json!("abc"),
        "datasource is not",
    );
    refused("/panels/1/targets", json!([]), "no query");
    refused("/panels/1/targets/0/refId", json!(""), "refId");
    refused(
        "/panels/1/transformations",
        json!([{ "id": "mergee" }]),
        "`mergee`",
    );
    refused(
        "/panels/1/targets/0/legendFormat",
        json!("{{host}}"),
        "{{host}}",
    );
}

#[test]
fn links_lead_somewhere() {
    refused("/links", json!([]), "no link to two");
    refused(
        "/links",
        json!([{ "url": "/d/three?x" }, { "url": "/d/two" }]),
        "/d/three",
    );
    let override_link =
        json!([{ "properties": [{ "id": "links", "value": [{ "url": "/d/four" }] }] }]);
    refused("/panels/1/fieldConfig/overrides", override_link, "/d/four");
}

#[test]
fn queries_name_known_metrics_and_labels() {
    query_refused("sum(", "is not PromQL");
    query_refused(
        &GOOD.replace("stuck", "stucked"),
        "uses livepatch_stucked_tasks",
    );
    query_refused(r#"{job="x"}"#, "without a metric's name");
    query_refused(&GOOD.replace('}', ",host=\"a\"}"), "matches the label host");
    query_refused(&format!("sum by (host) ({GOOD})"), "by host");
    query_refused(&format!("{GOOD} * on (host) {GOOD}"), "by host");
    query_refused(&GOOD.replace("$patch", "$patches"), "the variable $patches");
    query_refused(
        r#"ALERTS{alertname="LivepatchStop",patch=~"$patch"}"#,
        "alert LivepatchStop,",
    );
    query_passes(r#"ALERTS{alertname="LivepatchStopRollout",patch=~"$patch"}"#);
}

#[test]
fn queries_heed_what_the_reader_chose() {
    query_refused(&GOOD.replace("job=~\"$job\",", ""), "does not match job");
    query_refused(
        &GOOD.replace("instance=~\"$instance\",", ""),
        "does not match instance",
    );
    query_refused(&GOOD.replace("patch=~", "patch="), "does not match patch");
    query_refused("patch:livepatch_hosts_hurt:count", "does not match patch");
    query_refused(
        &format!("{GOOD} or livepatch_supported"),
        "at livepatch_supported",
    );
    query_passes(r#"patch:livepatch_hosts_hurt:count{patch=~"$patch"}"#);
    // No patch too.
    query_passes(&GOOD.replace("$patch", "$patch|"));
}

#[test]
fn counters_are_for_rates() {
    let counter = r#"livepatch_transition_attempts_total{job=~"$job",instance=~"$instance"}"#;
    query_refused(counter, "without rate or increase");
    query_refused(
        &format!("max_over_time({counter}[$__range])"),
        "without rate or increase",
    );
    query_refused(&format!("rate({counter}[5m])"), "another range");
    query_refused(&format!("rate({counter}[$__range])"), "another range");
    query_refused(&format!("rate({GOOD}[$__rate_interval])"), "a gauge");
    query_refused(
        &format!("last_over_time({GOOD}[5m])"),
        "neither $__rate_interval nor $__range",
    );
    query_passes(&format!("rate({counter}[$__rate_interval])"));
    query_passes(&format!("increase({counter}[$__range])"));
    query_passes(&format!("last_over_time({GOOD}[$__range])"));
}

#[test]
fn what_others_export_too_is_narrowed() {
    let up = r#"up{job=~"$job",instance=~"$instance"}"#;
    query_refused(up, "other exporters");
    query_refused(&up.replace("up", "process_threads"), "other exporters");
    query_passes(&format!("{up} and on (job, instance) {GOOD}"));
}
