//! What the shipped Prometheus rules must satisfy: each alert says enough to act on, has a page in
//! the runbooks, a unit test in which it fires and one in which it does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{host::paths, monitoring::prometheus::rule_files};

const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];
const PREFIX: &str = "Livepatch";
const THRESHOLD: &str = "livepatch:threshold_";
/// The folder under `dashboards/` with the rules of the global view, which replace the other rule
/// files.
const GLOBAL: &str = "prometheus/global";
/// The address of the runbooks, on a reserved domain: dashboards/README.md says how to replace it
/// with your own.
const RUNBOOKS: &str = "https://livepatch-monitor.example/runbooks/";

/// A file of rules.
#[derive(Debug, Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
struct Rule {
    alert: Option<String>,
    record: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The parts of a file of promtool unit tests that are checked.
#[derive(Debug, Deserialize)]
struct TestFile {
    tests: Vec<Test>,
}

#[derive(Debug, Deserialize)]
struct Test {
    #[serde(default)]
    alert_rule_test: Vec<AlertTest>,
    #[serde(default)]
    promql_expr_test: Vec<ExpressionTest>,
}

#[derive(Debug, Deserialize)]
struct AlertTest {
    alertname: String,
    #[serde(default)]
    exp_alerts: Vec<ExpectedAlert>,
}

/// Only its presence matters.
#[derive(Debug, Deserialize)]
struct ExpectedAlert {}

#[derive(Debug, Deserialize)]
struct ExpressionTest {
    expr: String,
}

/// Everything that is checked.
#[derive(Debug, Default)]
struct Shipped {
    rules: Vec<Rule>,
    tests: Vec<Test>,
    /// Names of the files in `runbooks/`.
    runbooks: BTreeSet<String>,
}

impl Shipped {
    fn read(dashboards: &Path, rule_files: &[PathBuf]) -> Result<Self> {
        let mut shipped = Self::default();
        for path in rule_files
            .iter()
            .chain(&paths::listed(&dashboards.join(GLOBAL))?)
        {
            let file: RuleFile = parse(path)?;
            let rules = file.groups.into_iter().flat_map(|group| group.rules);
            shipped.rules.extend(rules);
        }
        for path in paths::listed(&dashboards.join("prometheus/tests"))? {
            let file: TestFile = parse(&path)?;
            shipped.tests.extend(file.tests);
        }
        shipped.runbooks = paths::listed(&dashboards.join("runbooks"))?
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        Ok(shipped)
    }

    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut alerts = BTreeSet::new();
        for rule in &self.rules {
            if let Some(name) = &rule.alert {
                alerts.insert(name.as_str());
                complaints.extend(self.of_alert(name, rule));
            }
            if let Some(name) = &rule.record {
                complaints.extend(self.of_record(name));
            }
        }
        for name in &alerts {
            complaints.extend(self.of_tests(name));
        }
        for runbook in &self.runbooks {
            let alert = runbook.strip_suffix(".md");
            if alert.is_none_or(|name| !alerts.contains(name)) {
                complaints.push(format!("runbooks/{runbook}: there is no such alert"));
            }
        }
        for test in self.tests.iter().flat_map(|test| &test.alert_rule_test) {
            let name = &test.alertname;
            if !alerts.contains(name.as_str()) {
                complaints.push(format!("tests: there is no alert {name}"));
            }
        }
        complaints
    }

    fn of_alert(&self, name: &str, rule: &Rule) -> Vec<String> {
        let mut faults = Vec::new();
        if !name.starts_with(PREFIX) {
            faults.push(format!("its name does not begin with {PREFIX}"));
        }
        match rule.labels.get("severity") {
            Some(severity) if SEVERITIES.contains(&severity.as_str()) => {}
            other => faults.push(format!(
                "severity is {}, and should be one of {}",
                other.map_or("missing", String::as_str),
                SEVERITIES.join(", ")
            )),
        }
        let annotation = |key: &str| rule.annotations.get(key).filter(|text| !text.is_empty());
        match annotation("summary") {
            None => faults.push("it has no summary".to_owned()),
            Some(text) if text.contains("{{") => {
                faults.push("its summary is a template, and should be the same text always".into());
            }
            Some(_) => {}
        }
        if annotation("description").is_none() {
            faults.push("it has no description".to_owned());
        }
        let page = format!("{name}.md");
        match annotation("runbook_url") {
            None => faults.push("it has no runbook_url".to_owned()),
            Some(url) if *url != format!("{RUNBOOKS}{page}") => {
                faults.push(format!("its runbook_url should be {RUNBOOKS}{page}"));
            }
            Some(_) if !self.runbooks.contains(&page) => {
                faults.push(format!("there is no runbooks/{page}"));
            }
            Some(_) => {}
        }
        named(name, faults)
    }

    fn of_tests(&self, name: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let of_alert = || {
            let tests = self.tests.iter().flat_map(|test| &test.alert_rule_test);
            tests.filter(|test| test.alertname == name)
        };
        if !of_alert().any(|test| !test.exp_alerts.is_empty()) {
            faults.push("no unit test in which it fires".to_owned());
        }
        if !of_alert().any(|test| test.exp_alerts.is_empty()) {
            faults.push("no unit test in which it stays silent".to_owned());
        }
        named(name, faults)
    }

    fn of_record(&self, name: &str) -> Vec<String> {
        let mut faults = Vec::new();
        if name.starts_with(THRESHOLD) {
            // Tested through the alerts that compare with it.
            return Vec::new();
        }
        if !is_record_name(name) {
            faults.push(format!(
                "its name should be level:metric:operation, or {THRESHOLD}…"
            ));
        }
        let mut tests = self.tests.iter().flat_map(|test| &test.promql_expr_test);
        if !tests.any(|test| test.expr.contains(name)) {
            faults.push("no unit test asks for it".to_owned());
        }
        named(name, faults)
    }
}

/// Whether a name has the form `level:metric:operation`, each of lower-case letters, digits and
/// `_`.
fn is_record_name(name: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let parts: Vec<&str> = name.split(':').collect();
    parts.len() == 3 && parts.into_iter().all(is_word)
}

fn named(name: &str, faults: Vec<String>) -> Vec<String> {
    let line = |fault| format!("{name}: {fault}");
    faults.into_iter().map(line).collect()
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{}", path.display()))
}

/// The unit tests of the rules.
pub(super) fn tests() -> Result<Vec<PathBuf>> {
    paths::listed(&paths::root()?.join("dashboards/prometheus/tests"))
}

/// The rule files of the global view.
pub(super) fn global() -> Result<Vec<PathBuf>> {
    paths::listed(&paths::root()?.join("dashboards").join(GLOBAL))
}

/// Reads the shipped rules, their tests and the runbooks; an error lists every complaint.
pub(super) fn run() -> Result<()> {
    let complaints =
        Shipped::read(&paths::root()?.join("dashboards"), &rule_files()?)?.complaints();
    if !complaints.is_empty() {
        bail!(
            "{} complaints of the rules in dashboards/prometheus:\n{}",
            complaints.len(),
            complaints.join("\n")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"
groups:
  - name: livepatch
    interval: 5s
    rules:
      - record: livepatch:threshold_stuck_seconds
        expr: vector(60)
      - record: patch:livepatch_hosts_hurt:count
        expr: count by (patch) (x)
        labels: {cause: silent}
      - alert: LivepatchForced
        expr: livepatch_patch_forced == 1
        for: 1m
        labels: {severity: warning}
        annotations:
          summary: A transition was forced.
          description: "{{ $labels.instance }}"
          runbook_url: https://livepatch-monitor.example/runbooks/LivepatchForced.md
"#;

    const TESTS: &str = r#"
rule_files: [rules.yml]
tests:
  - interval: 1m
    input_series: [{series: a, values: 1x3}]
    alert_rule_test:
      - {eval_time: 1m, alertname: LivepatchForced}
      - eval_time: 2m
        alertname: LivepatchForced
        exp_alerts:
          - exp_labels: {severity: warning}
    promql_expr_test:
      - {expr: 'patch:livepatch_hosts_hurt:count', eval_time: 1m}
"#;

    fn complaints(rules: &str, tests: &str, runbooks: &[&str]) -> Vec<String> {
        let rules: RuleFile = serde_saphyr::from_str(rules).unwrap();
        let tests: TestFile = serde_saphyr::from_str(tests).unwrap();
        let shipped = Shipped {
            rules: rules.groups.into_iter().flat_map(|g| g.rules).collect(),
            tests: tests.tests,
            runbooks: runbooks.iter().map(|&name| name.to_owned()).collect(),
        };
        shipped.complaints()
    }

    #[test]
    fn good_rules_give_no_complaint() {
        assert_eq!(complaints(RULES, TESTS, &["LivepatchForced.md"]), [""; 0]);
    }

    /// Each change must cause exactly one complaint.
    #[test]
    fn each_fault_is_named() {
        const FOR: &str = "LivepatchForced: ";
        let pages: &[&str] = &["LivepatchForced.md"];
        for (from, to, complaint) in [
            (
                "severity: warning",
                "severity: page",
                "severity is page, and should be one of critical, warning, info",
            ),
            (
                "{severity: warning}",
                "{team: a}",
                "severity is missing, and should be one of critical, warning, info",
            ),
            (
                "A transition was forced.",
                "\"On {{ $labels.instance }}\"",
                "its summary is a template, and should be the same text always",
            ),
            ("summary:", "title:", "it has no summary"),
            ("description:", "text:", "it has no description"),
            ("runbook_url:", "url:", "it has no runbook_url"),
            (
                "runbooks/LivepatchForced.md",
                "runbooks/Forced.md",
                "its runbook_url should be https://livepatch-monitor.example/runbooks/LivepatchForced.md",
            ),
        ] {
            let rules = RULES.replace(from, to);
            assert_ne!(rules, RULES);
            assert_eq!(
                complaints(&rules, TESTS, pages),
                [format!("{FOR}{complaint}")]
            );
        }
    }

    #[test]
    fn records_and_prefixes_have_their_form() {
        let rules = RULES
            .replace("patch:livepatch_hosts_hurt:count", "hurt_hosts")
            .replace("LivepatchForced", "Forced");
        let tests = TESTS
            .replace("patch:livepatch_hosts_hurt:count", "hurt_hosts")
            .replace("LivepatchForced", "Forced");
        assert_eq!(
            complaints(&rules, &tests, &["Forced.md"]),
            [
                "hurt_hosts: its name should be level:metric:operation, or livepatch:threshold_…",
                "Forced: its name does not begin with Livepatch",
            ]
        );
        assert!(is_record_name("patch:livepatch_hosts_hurt:count"));
        for name in ["a:b", "a:b:c:d", "a::c", "a:B:c", "a:b:1c"] {
            assert!(!is_record_name(name), "{name}");
        }
    }

    #[test]
    fn pages_and_tests_fit_the_alerts() {
        assert_eq!(
            complaints(RULES, "tests: []", &["LivepatchGone.md"]),
            [
                "patch:livepatch_hosts_hurt:count: no unit test asks for it",
                "LivepatchForced: there is no runbooks/LivepatchForced.md",
                "LivepatchForced: no unit test in which it fires",
                "LivepatchForced: no unit test in which it stays silent",
                "runbooks/LivepatchGone.md: there is no such alert",
            ]
        );
        let of_other = TESTS.replace("LivepatchForced", "LivepatchOther");
        let found = complaints(RULES, &of_other, &["LivepatchForced.md"]);
        assert!(
            found.contains(&"tests: there is no alert LivepatchOther".to_owned()),
            "{found:?}"
        );
    }

    #[test]
    fn the_shipped_rules_are_in_order() {
        run().unwrap();
    }
}
