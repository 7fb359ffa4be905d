//! One measurement: runs the scenario in front of a Prometheus and records the results.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    cost::{self, RESERVE, Reading, gibibytes},
    gate::{self, Gate},
    hosts::instance,
    report::{AlertTime, Figures, GroupTime, RuleTime},
    scenario::Scenario,
    simulation::{EVALUATION, Fleet, JOB},
};
use crate::{
    host::http,
    monitoring::{prometheus::Prometheus, wait_for},
};

/// How often the alerts are checked.
const POLL: Duration = Duration::from_millis(250);

/// How often Prometheus's own counters are read.
const READ: Duration = Duration::from_secs(5);

/// How long the first scrape of all hosts may take, in scrape intervals, plus seconds for
/// Prometheus to discover them. The first scrapes cost the most, because all series are new.
const WARM_UP: f64 = 12.0;
const SET_UP: f64 = 60.0;

/// How long Prometheus may fail to answer.
const LATE: Duration = Duration::from_secs(180);

/// Moments of the measurement, in scrape intervals from the start of the scenario; the first crash
/// comes later (`scenario::moments`).
const ASK_FIRST: f64 = 1.75;
const WINDOW: f64 = 2.0;

/// How long to wait for an alert, in scrape intervals after the scenario's end.
const PATIENCE: f64 = 3.0;

/// An expected alert, and when it fired.
#[derive(Clone, Debug)]
struct Expected {
    name: &'static str,
    of: String,
    query: String,
    /// When its cause happens, on the scenario's clock.
    since: f64,
    fired: Option<f64>,
}

fn expected(scenario: &Scenario, patch: &str) -> Vec<Expected> {
    let alert = |name, label: &str, value: &str, since| Expected {
        name,
        of: value.to_owned(),
        query: format!("ALERTS{{alertname=\"{name}\",alertstate=\"firing\",{label}=\"{value}\"}}"),
        since,
        fired: None,
    };
    let (first, at_first) = scenario.first_crash;
    let (second, at_second) = scenario.second_crash;
    const SILENT: &str = "LivepatchHostSilentInTransition";
    vec![
        alert(SILENT, "instance", &instance(first), at_first),
        alert(SILENT, "instance", &instance(second), at_second),
        alert("LivepatchStopRollout", "patch", patch, at_second),
        alert(
            "LivepatchHostCrashed",
            "instance",
            &instance(first),
            scenario.first_reboot,
        ),
    ]
}

pub(super) struct Run<'a> {
    /// The scrape interval in seconds.
    interval: f64,
    fleet: &'a Fleet,
    prometheus: &'a Prometheus,
    scenario: &'a Scenario,
    alerts: Vec<Expected>,
    /// How long it took until all hosts were scraped.
    first_scrapes: Duration,
    /// The first reading is from the start of the scenario.
    readings: Vec<Reading>,
    /// How long evaluations of each rule group took, in seconds.
    groups: BTreeMap<String, Vec<f64>>,
    gate: Gate,
    answers: Vec<gate::Answer>,
}

impl<'a> Run<'a> {
    /// Runs the whole scenario and returns what was measured.
    pub(super) fn whole(
        fleet: &'a Fleet,
        scenario: &'a Scenario,
        prometheus: &'a Prometheus,
        gate: Gate,
        interval: u32,
        patch: &str,
    ) -> Result<Figures> {
        let mut run = Self {
            interval: f64::from(interval),
            fleet,
            prometheus,
            alerts: expected(scenario, patch),
            scenario,
            first_scrapes: Duration::ZERO,
            readings: vec![answered(|| Reading::take(prometheus))?],
            groups: BTreeMap::new(),
            gate,
            answers: Vec::new(),
        };
        run.wait_for_all_hosts()?;
        run.readings = vec![answered(|| Reading::take(prometheus))?];
        run.groups.clear();
        fleet.hosts.begin()?;
        run.play()?;
        run.figures(interval)
    }

    fn now(&self) -> Result<f64> {
        self.fleet.hosts.now()
    }

    fn wait_for_all_hosts(&mut self) -> Result<()> {
        let hosts = self.fleet.waves.len();
        let query = format!("count(up{{job=\"{JOB}\"}} == 1)");
        let begin = Instant::now();
        loop {
            let up = answered(|| self.prometheus.query(&query))?;
            let up = up.first().and_then(|series| series.points.first());
            let up = up.map_or(0.0, |(_, value)| *value);
            if u32::try_from(hosts).is_ok_and(|hosts| up.total_cmp(&f64::from(hosts)).is_eq()) {
                self.first_scrapes = begin.elapsed();
                return Ok(());
            }
            if begin.elapsed().as_secs_f64() > WARM_UP * self.interval + SET_UP {
                bail!(
                    "Prometheus does not keep up: after {} s it scrapes {up} of {hosts} hosts; \
                     give a longer --scrape-interval",
                    begin.elapsed().as_secs()
                );
            }
            self.read_when_due()?;
            thread::sleep(POLL);
        }
    }

    fn play(&mut self) -> Result<()> {
        let mut asked = 0;
        loop {
            let now = self.now()?;
            self.look_for_alerts(now)?;
            let fired = |index: usize| self.alerts.get(index).is_some_and(|a| a.fired.is_some());
            let due = match asked {
                0 if now >= ASK_FIRST * self.interval => Some("before the crashes"),
                1 if fired(0) => Some("after the first crash"),
                2 if fired(2) => Some("after the second crash"),
                _ => None,
            };
            if let Some(moment) = due {
                let stale = format!("{}s", (3.0 * self.interval).max(120.0));
                self.answers
                    .push(self.gate.ask(moment, &["--stale-after", &stale])?);
                asked += 1;
            }
            self.read_when_due()?;
            let all = self.alerts.iter().all(|alert| alert.fired.is_some());
            if all || now > self.scenario.end + PATIENCE * self.interval {
                return Ok(());
            }
            thread::sleep(POLL);
        }
    }

    fn look_for_alerts(&mut self, now: f64) -> Result<()> {
        let prometheus = self.prometheus;
        let mut due = self
            .alerts
            .iter_mut()
            .filter(|alert| alert.fired.is_none() && alert.since <= now);
        due.try_for_each(|alert| {
            if !answered(|| prometheus.query(&alert.query))?.is_empty() {
                alert.fired = Some(self.fleet.hosts.now()?);
            }
            Ok(())
        })
    }

    /// Reads the counters, and stops before the machine is out of memory.
    fn read_when_due(&mut self) -> Result<()> {
        if self
            .readings
            .last()
            .is_some_and(|last| last.at.elapsed() < READ)
        {
            return Ok(());
        }
        let reading = answered(|| Reading::take(self.prometheus))?;
        for (group, seconds) in &reading.groups {
            // A group that has not been evaluated yet has 0.
            if *seconds > 0.0 {
                self.groups.entry(group.clone()).or_default().push(*seconds);
            }
        }
        self.readings.push(reading);
        let available = cost::available_memory()?;
        ensure!(
            available >= RESERVE,
            "stopped: only {:.1} GiB of memory are left; ask for fewer hosts, or give --trim",
            gibibytes(available)
        );
        Ok(())
    }

    fn figures(mut self, interval: u32) -> Result<Figures> {
        self.readings
            .push(answered(|| Reading::take(self.prometheus))?);
        let errors = answered(|| self.prometheus.rule_errors())?;
        let begin = self.readings.first().context("nothing was read")?;
        let last = self.readings.last().context("nothing was read")?;
        let (from, to) = self.window(begin.at).unwrap_or((begin, last));
        let hosts = self.fleet.waves.len();
        let hosts_as_float = u32::try_from(hosts).map_or(f64::INFINITY, f64::from);
        let value = |query: String| answered(|| self.prometheus.value(&query));
        Ok(Figures {
            hosts,
            scrape_interval_seconds: interval,
            evaluation_interval_seconds: interval.min(EVALUATION),
            series_per_host: last.head_series / hosts_as_float,
            samples_per_scrape: value(format!("avg(scrape_samples_scraped{{job=\"{JOB}\"}} > 0)"))?,
            active_series: last.head_series,
            first_scrapes_seconds: self.first_scrapes.as_secs_f64(),
            samples_per_second: to.samples_since(from),
            scrape_seconds_median: value(format!(
                "quantile(0.5, scrape_duration_seconds{{job=\"{JOB}\"}})"
            ))?,
            scrape_seconds_p99: value(format!(
                "quantile(0.99, scrape_duration_seconds{{job=\"{JOB}\"}})"
            ))?,
            resident_bytes: last.resident,
            peak_bytes: cost::peak_memory(self.prometheus.pid())?,
            cores: to.cores_since(from),
            simulator_cores: to.simulator_cores_since(from),
            waited_per_cpu_second: to.waiting_since(from),
            rule_groups: self
                .groups
                .iter()
                .map(|(name, seconds)| (name.clone(), GroupTime::of(seconds)))
                .collect(),
            slowest_rules: answered(|| slowest_rules(self.prometheus))?,
            rule_failures: last.rule_failures,
            rules_missed: last.rules_missed,
            rule_errors: errors,
            alerts: self
                .alerts
                .iter()
                .map(|alert| self.alert_time(alert))
                .collect(),
            gate: self.answers.clone(),
            machine_load: cost::load()?,
        })
    }

    /// The readings around a period in which all hosts are scraped and none crashes.
    fn window(&self, begin: Instant) -> Option<(&Reading, &Reading)> {
        let seconds = |reading: &Reading| reading.at.duration_since(begin).as_secs_f64();
        let from = self
            .readings
            .iter()
            .find(|reading| seconds(reading) >= WINDOW * self.interval)?;
        let to = self
            .readings
            .iter()
            .rfind(|reading| seconds(reading) <= self.scenario.first_crash.1)?;
        (to.at > from.at).then_some((from, to))
    }

    fn alert_time(&self, alert: &Expected) -> AlertTime {
        let seconds = alert.fired.map(|fired| fired - alert.since);
        AlertTime {
            name: alert.name.to_owned(),
            of: alert.of.clone(),
            seconds,
            intervals: seconds.map(|seconds| seconds / self.interval),
        }
    }
}

/// The last evaluation time of the slowest rules.
fn slowest_rules(prometheus: &Prometheus) -> Result<Vec<RuleTime>> {
    let answer: serde_json::Value =
        serde_json::from_str(&http::get(prometheus.port(), "/api/v1/rules")?)
            .context("/api/v1/rules")?;
    let groups = answer["data"]["groups"].as_array().into_iter().flatten();
    let mut rules: Vec<RuleTime> = groups
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
        .filter_map(|rule| {
            Some(RuleTime {
                name: rule["name"].as_str()?.to_owned(),
                query: rule["query"].as_str()?.to_owned(),
                seconds: rule["evaluationTime"].as_f64()?,
            })
        })
        .collect();
    rules.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    rules.truncate(8);
    Ok(rules)
}

/// Asks until there is an answer: a Prometheus that shares its cores may answer too late.
fn answered<T>(ask: impl FnMut() -> Result<T>) -> Result<T> {
    wait_for("an answer of Prometheus", LATE, ask)
}
