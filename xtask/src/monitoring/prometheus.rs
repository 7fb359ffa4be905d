//! A Prometheus with the shipped rules.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    ops::Deref,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::{Server, free_port};
use crate::host::{http, paths, prometheus_tools};

/// What it scrapes and how often.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The interval of scrapes and rules, in Prometheus's notation.
    pub(crate) interval: String,
    /// The items of `scrape_configs`, as YAML from column 0.
    pub(crate) scrape_configs: String,
    /// The port of an Alertmanager on 127.0.0.1.
    pub(crate) alertmanager: Option<u16>,
    /// Arguments beside those that every test passes.
    pub(crate) arguments: Vec<String>,
    /// Thresholds that differ from the shipped ones: `livepatch:threshold_…`, value.
    pub(crate) thresholds: &'static [(&'static str, u32)],
}

#[derive(Debug)]
pub(crate) struct Prometheus(Server);

impl Deref for Prometheus {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

/// A series of a result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: BTreeMap<String, String>,
    /// Unix time in seconds, and value.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Prometheus {
    /// Starts one with an empty store under `folder`.
    pub(crate) fn start(folder: &Path, config: &Config) -> Result<Self> {
        let folder = folder.join("prometheus");
        paths::empty(&folder)?;
        let file = folder.join("prometheus.yml");
        let rules = config.rules(&folder)?;
        fs::write(&file, config.text(&rules))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let port = free_port(9090)?;
        let mut arguments = vec![
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--log.level=warn".to_owned(),
        ];
        if let Some(pages) = prometheus_tools::prometheus_pages()? {
            arguments.push(format!("--web.local-assets={}", pages.display()));
        }
        arguments.extend(config.arguments.iter().cloned());
        Server::start(
            &prometheus_tools::path("prometheus")?,
            &arguments,
            port,
            folder.join("log"),
        )
        .map(Self)
        .context("Prometheus")
    }

    /// A server that answers Prometheus's API.
    pub(crate) fn of(server: Server) -> Self {
        Self(server)
    }

    /// Sends an instant query and returns the series of its result.
    pub(crate) fn query(&self, query: &str) -> Result<Vec<Series>> {
        self.ask(&format!("/api/v1/query?query={}", encoded(query)))
            .with_context(|| format!("the query `{query}`"))
    }

    /// A range query; times in Unix seconds.
    pub(crate) fn query_range(
        &self,
        query: &str,
        start: f64,
        end: f64,
        step: f64,
    ) -> Result<Vec<Series>> {
        self.ask(&format!(
            "/api/v1/query_range?query={}&start={start}&end={end}&step={step}",
            encoded(query)
        ))
        .with_context(|| format!("the query `{query}`"))
    }

    /// The value of an instant query that must return exactly one series.
    pub(crate) fn value(&self, query: &str) -> Result<f64> {
        let series = self.query(query)?;
        match series.as_slice() {
            [Series { points, .. }] if points.len() == 1 => Ok(points[0].1),
            _ => bail!("`{query}` gives {series:?}, not one value"),
        }
    }

    fn ask(&self, path: &str) -> Result<Vec<Series>> {
        decode(&http::get(self.port(), path)?)
    }

    /// Rules that cannot be evaluated, with their errors.
    pub(crate) fn rule_errors(&self) -> Result<Vec<String>> {
        let answer: serde_json::Value =
            serde_json::from_str(&http::get(self.port(), "/api/v1/rules")?)
                .context("/api/v1/rules")?;
        let groups = answer["data"]["groups"]
            .as_array()
            .context("/api/v1/rules has no groups")?;
        let rules = groups.iter().flat_map(|group| group["rules"].as_array());
        Ok(rules
            .flatten()
            .filter(|rule| rule["health"] == "err")
            .map(|rule| format!("{}: {}", rule["name"], rule["lastError"]))
            .collect())
    }
}

impl Config {
    /// The shipped rules, or copies of them under `folder` with other thresholds.
    fn rules(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut files = rule_files()?;
        if self.thresholds.is_empty() {
            return Ok(files);
        }
        for file in &mut files {
            let text = fs::read_to_string(&*file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let name = file.file_name().context("a rule file without a name")?;
            *file = folder.join(name);
            fs::write(&*file, with_thresholds(&text, self.thresholds))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(files)
    }

    fn text(&self, rules: &[PathBuf]) -> String {
        let mut text = format!(
            "global:\n  scrape_interval: {0}\n  scrape_timeout: {0}\n  evaluation_interval: {0}\nrule_files:\n",
            self.interval
        );
        for file in rules {
            let _ = writeln!(text, "  - {}", file.display());
        }
        if let Some(port) = self.alertmanager {
            let _ = writeln!(
                text,
                "alerting:\n  alertmanagers:\n    - static_configs:\n        - targets: [\"127.0.0.1:{port}\"]"
            );
        }
        text.push_str("scrape_configs:\n");
        text.push_str(&self.scrape_configs);
        text
    }
}

/// The shipped rules: the files in `dashboards/prometheus/*.yml` with groups.
pub(crate) fn rule_files() -> Result<Vec<PathBuf>> {
    let has_groups = |text: String| text.lines().any(|line| line == "groups:");
    let mut files = paths::listed(&paths::root()?.join("dashboards/prometheus"))?;
    files.retain(|path| {
        let is_yaml = path.extension().is_some_and(|extension| extension == "yml");
        is_yaml && fs::read_to_string(path).is_ok_and(has_groups)
    });
    Ok(files)
}

/// The text of a rule file with other values for these recording rules.
fn with_thresholds(text: &str, thresholds: &[(&str, u32)]) -> String {
    let mut changed = String::new();
    let mut value = None;
    for line in text.lines() {
        let word = line.trim_start();
        if let Some(name) = word.strip_prefix("- record: ") {
            let known = thresholds.iter().find(|(threshold, _)| *threshold == name);
            value = known.map(|(_, value)| value);
        }
        match value {
            Some(value) if word.starts_with("expr:") => {
                let indent = &line[..line.len() - word.len()];
                changed.push_str(&format!("{indent}expr: vector({value})\n"));
            }
            _ => {
                changed.push_str(line);
                changed.push('\n');
            }
        }
    }
    changed
}

/// Percent-encodes a text for a URL's query.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: serde_json::Value,
}

#[derive(Deserialize)]
struct Row {
    metric: BTreeMap<String, String>,
    value: Option<(f64, String)>,
    values: Option<Vec<(f64, String)>>,
}

fn decode(answer: &str) -> Result<Vec<Series>> {
    let Answer { data } =
        serde_json::from_str(answer).with_context(|| format!("not an answer: {answer}"))?;
    if data.result_type == "scalar" {
        let point: (f64, String) = serde_json::from_value(data.result).context("a scalar")?;
        return Ok(vec![Series {
            labels: BTreeMap::new(),
            points: vec![number(&point)?],
        }]);
    }
    let rows: Vec<Row> = serde_json::from_value(data.result).context("series")?;
    rows.into_iter()
        .map(|row| {
            let points = row.values.into_iter().flatten().chain(row.value);
            Ok(Series {
                labels: row.metric,
                points: points.map(|point| number(&point)).collect::<Result<_>>()?,
            })
        })
        .collect()
}

fn number((time, value): &(f64, String)) -> Result<(f64, f64)> {
    let value = value
        .parse()
        .with_context(|| format!("`{value}` is not a number"))?;
    Ok((*time, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_decoded() {
        let vector = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"patch":"a"},"value":[1.5,"2"]}]}}"#;
        let series = decode(vector).unwrap();
        assert_eq!(series[0].labels["patch"], "a");
        assert_eq!(series[0].points, [(1.5, 2.0)]);
        let matrix = r#"{"data":{"resultType":"matrix","result":[
            {"metric":{},"values":[[1,"0.5"],[2,"+Inf"]]}]}}"#;
        assert_eq!(
            decode(matrix).unwrap()[0].points,
            [(1.0, 0.5), (2.0, f64::INFINITY)]
        );
        let scalar = r#"{"data":{"resultType":"scalar","result":[1,"7"]}}"#;
        assert_eq!(decode(scalar).unwrap()[0].points, [(1.0, 7.0)]);
        assert!(decode("<html>").is_err());
    }

    #[test]
    fn only_the_named_threshold_is_changed() {
        let text = "      - record: a\n        expr: vector(1)\n      - record: b\n        expr: vector(2)\n";
        assert_eq!(
            with_thresholds(text, &[("b", 7)]),
            text.replace("vector(2)", "vector(7)")
        );
    }

    #[test]
    fn queries_survive_a_url() {
        assert_eq!(encoded("a{b=\"ü\"}"), "a%7Bb%3D%22%C3%BC%22%7D");
    }
}
