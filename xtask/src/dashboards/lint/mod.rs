//! The rules for every dashboard. Pure: dashboards and known metrics in, complaints out.

mod query;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    board::{Board, Panel, Variable},
    known::Known,
};

/// The versions that Grafana 10 to 12 write; older ones can read them.
const SCHEMA_VERSIONS: std::ops::RangeInclusive<u32> = 39..=41;

const COLUMNS: u32 = 24;

/// Panel types that are built into Grafana, so that no plugin is needed.
const PANELS: [&str; 7] = [
    "row",
    "stat",
    "timeseries",
    "table",
    "state-timeline",
    "bargauge",
    "text",
];

/// The built-in transformations that are used.
const TRANSFORMATIONS: [&str; 2] = ["merge", "organize"];

/// Variables that every query must use if its metrics have that label.
const REQUIRED: [&str; 3] = ["job", "instance", "patch"];

const DATASOURCE: &str = "${datasource}";

/// All complaints, one line each.
pub(crate) fn check(boards: &[Board], known: &Known) -> Vec<String> {
    let mut complaints = Vec::new();
    for board in boards {
        let mut complain = |text: String| complaints.push(format!("{}: {text}", board.file));
        head(board, &mut complain);
        variables(board, known, &mut complain);
        layout(board, &mut complain);
        links(board, boards, &mut complain);
        for panel in board.shown() {
            self::panel(board, panel, known, &mut |text| {
                complain(format!("panel \"{}\": {text}", panel.title));
            });
        }
    }
    let mut seen = BTreeSet::new();
    for board in boards {
        for (what, value) in [("uid", &board.uid), ("title", &board.title)] {
            if !seen.insert((what, value)) {
                complaints.push(format!(
                    "{}: another board has the {what} {value}",
                    board.file
                ));
            }
        }
    }
    complaints
}

fn head(board: &Board, complain: &mut impl FnMut(String)) {
    if format!("{}.json", board.uid) != board.file {
        complain(format!("its uid is `{}`, not its file's name", board.uid));
    }
    if board.uid.len() > 40 {
        complain("its uid is longer than 40 characters, which Grafana refuses".into());
    }
    for (what, text) in [("title", &board.title), ("description", &board.description)] {
        if text.trim().is_empty() {
            complain(format!("it has no {what}"));
        }
    }
    if board.editable {
        complain("it is editable: set `editable` to false".into());
    }
    if !board.tags.iter().any(|tag| tag == "livepatch") {
        complain("it does not have the tag livepatch".into());
    }
    if !SCHEMA_VERSIONS.contains(&board.schema_version) {
        complain(format!(
            "its schemaVersion is {}, not one of {} to {}",
            board.schema_version,
            SCHEMA_VERSIONS.start(),
            SCHEMA_VERSIONS.end()
        ));
    }
}

fn variables(board: &Board, known: &Known, complain: &mut impl FnMut(String)) {
    let find = |name: &str| {
        board
            .templating
            .list
            .iter()
            .find(|variable| variable.name == name)
    };
    match find("datasource") {
        Some(variable) if variable.kind == "datasource" && variable.query == "prometheus" => {}
        _ => complain("it has no variable `datasource` of type datasource for prometheus".into()),
    }
    for name in REQUIRED {
        let Some(variable) = find(name) else {
            if name != "patch" {
                complain(format!("it has no variable `{name}`"));
            }
            continue;
        };
        if !variable.multi || !variable.include_all || variable.all_value != ".+" {
            complain(format!(
                "variable `{name}`: set multi, includeAll, and allValue to `.+`"
            ));
        }
    }
    for (index, variable) in board.templating.list.iter().enumerate() {
        if variable.kind != "query" {
            continue;
        }
        let mut complain =
            |text: String| complain(format!("variable `{}`: it {text}", variable.name));
        if variable.datasource["uid"] != DATASOURCE {
            complain(format!("is not asked of {DATASOURCE}"));
        }
        let before: Vec<String> = names(&board.templating.list[..index]);
        match variable.query.as_str().and_then(label_values) {
            Some((selector, label)) => {
                // A variable's query can use only the variables before it.
                let required: Vec<&str> = REQUIRED
                    .into_iter()
                    .filter(|name| before.iter().any(|known| known == name))
                    .collect();
                let context = query::Context {
                    known,
                    variables: &before,
                    required: &required,
                };
                // Listing a counter's series does not use its value.
                let wrong = query::check(&format!("count({selector})"), "", context);
                let wrong = wrong
                    .into_iter()
                    .filter(|text| !text.contains("without rate"));
                wrong.for_each(&mut complain);
                let metric = selector.split('{').next().unwrap_or_default();
                if known
                    .metrics
                    .get(metric)
                    .is_some_and(|metric| !metric.labels.contains(label))
                {
                    complain(format!(
                        "uses the label {label}, which {metric} does not have"
                    ));
                }
            }
            None => complain("is not of the form label_values(selector, label)".into()),
        }
    }
}

fn names(variables: &[Variable]) -> Vec<String> {
    variables
        .iter()
        .map(|variable| variable.name.clone())
        .collect()
}

/// The selector and the label of Grafana's `label_values(selector, label)`.
fn label_values(query: &str) -> Option<(&str, &str)> {
    let arguments = query.strip_prefix("label_values(")?.strip_suffix(')')?;
    let (selector, label) = arguments.rsplit_once(',')?;
    Some((selector.trim(), label.trim()))
}

fn layout(board: &Board, complain: &mut impl FnMut(String)) {
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for (index, panel) in board.panels.iter().enumerate() {
        let name = &panel.title;
        if panel.id == 0 || !ids.insert(panel.id) {
            complain(format!(
                "panel \"{name}\": the id {} is missing or used twice",
                panel.id
            ));
        }
        if name.trim().is_empty() {
            complain(format!("panel {} has no title", panel.id));
        } else if !titles.insert(name) {
            complain(format!("two panels have the title \"{name}\""));
        }
        if !PANELS.contains(&panel.kind.as_str()) {
            complain(format!(
                "panel \"{name}\": the type {} is not in use here",
                panel.kind
            ));
        }
        if !panel.panels.is_empty() {
            complain(format!("row \"{name}\" hides panels: leave it open"));
        }
        let place = panel.grid_pos;
        if place.w == 0 || place.h == 0 || place.x.saturating_add(place.w) > COLUMNS {
            complain(format!("panel \"{name}\" is not within {COLUMNS} columns"));
        }
        for other in &board.panels[..index] {
            if place.overlaps(other.grid_pos) {
                complain(format!("panel \"{name}\" lies over \"{}\"", other.title));
            }
        }
    }
}

fn panel(board: &Board, panel: &Panel, known: &Known, complain: &mut impl FnMut(String)) {
    if panel.description.trim().is_empty() {
        complain("it has no description".into());
    }
    let unit = &panel.field_config["defaults"]["unit"];
    if unit.as_str().is_none_or(str::is_empty) {
        complain("it has no unit".into());
    }
    if panel.datasource["uid"] != DATASOURCE || panel.datasource["type"] != "prometheus" {
        complain(format!("its datasource is not prometheus {DATASOURCE}"));
    }
    for transformation in &panel.transformations {
        let id = transformation["id"].as_str().unwrap_or_default();
        if !TRANSFORMATIONS.contains(&id) {
            complain(format!("the transformation `{id}` is not in use here"));
        }
    }
    if panel.targets.is_empty() {
        complain("it has no query".into());
    }
    let mut ids = BTreeSet::new();
    let context = query::Context {
        known,
        variables: &names(&board.templating.list),
        required: &REQUIRED.map(|name| if board.has_variable(name) { name } else { "" }),
    };
    for target in &panel.targets {
        if target.ref_id.is_empty() || !ids.insert(&target.ref_id) {
            complain(format!(
                "the refId `{}` is missing or used twice",
                target.ref_id
            ));
        }
        for text in query::check(&target.expr, &target.legend_format, context) {
            complain(format!(
                "query {} {text}\n    {}",
                target.ref_id, target.expr
            ));
        }
    }
}

/// Links between dashboards must be valid, and each dashboard must link to every other.
fn links(board: &Board, boards: &[Board], complain: &mut impl FnMut(String)) {
    let uid_of = |url: &str| {
        url.strip_prefix("/d/")
            .and_then(|rest| rest.split(['?', '/']).next())
            .map(str::to_owned)
    };
    let mut led = BTreeSet::new();
    for link in &board.links {
        led.extend(link["url"].as_str().and_then(uid_of));
    }
    let mut all = led.clone();
    for panel in &board.panels {
        urls(&panel.field_config, &mut |url| all.extend(uid_of(url)));
    }
    for uid in &all {
        if !boards.iter().any(|other| other.uid == *uid) {
            complain(format!(
                "it links to /d/{uid}, which is not one of these boards"
            ));
        }
    }
    for other in boards {
        if other.uid != board.uid && !led.contains(&other.uid) {
            complain(format!("it has no link to {}", other.uid));
        }
    }
}

fn urls(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            if let Some(url) = fields.get("url").and_then(Value::as_str) {
                found(url);
            }
            fields.values().for_each(|field| urls(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| urls(item, found)),
        _ => {}
    }
}
