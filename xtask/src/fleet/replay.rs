//! A day of a fleet, replayed through the shipped rules by promtool, and the pages that must come
//! of it, exactly: none while scrapes get lost and nothing crashes.
//!
//! promtool evaluates the rules as Prometheus does, at their own intervals, in a fraction of the
//! time. The series are those that the rules of pages read.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::prng;
use crate::{
    host::{paths, process, prometheus_tools},
    monitoring::prometheus::rule_files,
};

/// Seconds between two scrapes.
const INTERVAL: usize = 15;
/// Share of the scrapes that get lost, on every host at random.
const LOST: f64 = 0.02;
/// Scrapes for which a transition runs, and its seconds.
const TRANSITION: usize = 2;
/// Scrapes from a crash to the answer after the reboot.
const REBOOT: usize = 20;
const PATCH: &str = "fix";
/// How often each critical alert began to fire: its series changes to another time of beginning
/// whenever it begins again.
const PAGES: &str = "sum by (alertname, instance, patch) (\
    changes(ALERTS_FOR_STATE{severity=\"critical\"}[1d]) + 1 \
    and on (alertname, instance, patch) \
    count_over_time(ALERTS{alertstate=\"firing\",severity=\"critical\"}[1d]))";

/// An alert that fires, and one that never gets beyond pending.
const TWICE_RULES: &str = "\
groups:
  - name: twice
    rules:
      - {alert: Fires, expr: x > 0, labels: {severity: critical}}
      - {alert: Waits, expr: x > 0, for: 1h, labels: {severity: critical}}
";

/// It fires twice on one host and once on another.
const TWICE: &str = "\
rule_files: [twice.rules.yml]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - {series: 'x{instance=\"a\", patch=\"fix\"}', values: 1x20 0x20 1x20 0x20}
      - {series: 'x{instance=\"b\", patch=\"fix\"}', values: 0x10 1x20 0x50}
    promql_expr_test:
      - expr: PAGES
        eval_time: 20m
        exp_samples:
          - {labels: '{alertname=\"Fires\", instance=\"a\", patch=\"fix\"}', value: 2}
          - {labels: '{alertname=\"Fires\", instance=\"b\", patch=\"fix\"}', value: 1}
";

/// A host that crashes.
#[derive(Clone, Copy, Debug)]
struct Crash {
    host: usize,
    /// Scrapes after the beginning of its transition; none for a crash before the patch.
    after: Option<usize>,
}

/// A day.
#[derive(Clone, Copy, Debug)]
struct Replay {
    name: &'static str,
    crashes: &'static [Crash],
    /// The pages that must come, each once: alert, and host if it is about one.
    pages: &'static [(&'static str, Option<usize>)],
}

const REPLAYS: [Replay; 2] = [
    Replay {
        name: "2 % of the scrapes get lost, and no host crashes",
        crashes: &[],
        pages: &[],
    },
    Replay {
        name: "2 % of the scrapes get lost, and three hosts crash",
        crashes: &[
            // In its transition, in its soak, and before it has the patch.
            Crash {
                host: 300,
                after: Some(1),
            },
            Crash {
                host: 600,
                after: Some(20),
            },
            Crash {
                host: 900,
                after: None,
            },
        ],
        pages: &[
            ("LivepatchHostCrashed", Some(300)),
            ("LivepatchHostCrashed", Some(600)),
            ("LivepatchHostSilentInTransition", Some(300)),
            ("LivepatchStopRollout", None),
        ],
    },
];

/// How much is replayed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Day {
    pub(crate) hosts: usize,
    pub(crate) hours: usize,
    /// The same number loses the same scrapes.
    pub(crate) seed: u64,
}

impl Day {
    fn scrapes(self) -> usize {
        self.hours * 3600 / INTERVAL
    }

    /// When a host gets the patch, by the number of the scrape: one host after the other over the
    /// first three quarters of the day.
    fn patched_at(self, host: usize) -> usize {
        100 + host * (self.scrapes() * 3 / 4) / self.hosts.max(1)
    }
}

/// Runs each replay. Fails where other pages come than those expected.
pub(crate) fn run(day: Day) -> Result<()> {
    prometheus_tools::prepare()?;
    let folder = paths::target()?.join("fleet/replay");
    paths::empty(&folder)?;
    count_repeated_pages(&folder)?;
    for (number, replay) in REPLAYS.iter().enumerate() {
        let what = format!(
            "{} hours of {} hosts: {}",
            day.hours, day.hosts, replay.name
        );
        process::step(&what, || check(&folder, number, replay, day))?;
        println!("    {} pages, as expected", replay.pages.len());
    }
    Ok(())
}

/// Fails unless [`PAGES`] counts an alert twice that resolved and fired again.
fn count_repeated_pages(folder: &Path) -> Result<()> {
    for (name, text) in [
        ("twice.rules.yml", TWICE_RULES.to_owned()),
        ("twice.yml", TWICE.replace("PAGES", PAGES)),
    ] {
        let file = folder.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let promtool = prometheus_tools::path("promtool")?;
    let file = folder.join("twice.yml");
    process::output(Command::new(promtool).args(["test", "rules"]).arg(&file))?;
    Ok(())
}

fn check(folder: &Path, number: usize, replay: &Replay, day: Day) -> Result<()> {
    let file = folder.join(format!("{number}.yml"));
    fs::write(&file, test_file(replay, day)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let promtool = prometheus_tools::path("promtool")?;
    process::output(Command::new(promtool).args(["test", "rules"]).arg(&file))?;
    fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
}

/// The replay as a unit test of the rules.
fn test_file(replay: &Replay, day: Day) -> Result<String> {
    let mut text = String::from("rule_files:\n");
    for file in rule_files()? {
        let _ = writeln!(text, "  - {}", file.display());
    }
    text.push_str(
        "evaluation_interval: 15s\n\
         group_eval_order: [livepatch-thresholds, livepatch-fleet, livepatch-coverage, \
         livepatch-scrapes, livepatch-silence, livepatch-crash-history, livepatch-crash, \
         livepatch-host, livepatch-transition]\n\
         tests:\n  - interval: 15s\n    input_series:\n",
    );
    for host in 0..day.hosts {
        series(&mut text, replay, host, day);
    }
    let _ = write!(
        text,
        "    promql_expr_test:\n      \
         - expr: {PAGES}\n        \
         eval_time: {}s\n        exp_samples:{}\n",
        (day.scrapes() - 1) * INTERVAL,
        if replay.pages.is_empty() { " []" } else { "" }
    );
    for (alert, host) in replay.pages {
        let instance = host
            .map(|host| format!(", instance=\"h{host}\""))
            .unwrap_or_default();
        let _ = writeln!(
            text,
            "          - {{labels: '{{alertname=\"{alert}\"{instance}, patch=\"{PATCH}\"}}', value: 1}}"
        );
    }
    Ok(text)
}

/// What scrapes of a host give.
fn series(text: &mut String, replay: &Replay, host: usize, day: Day) {
    let start = day.patched_at(host);
    let all = day.scrapes();
    let crash = replay.crashes.iter().find(|crash| crash.host == host);
    let crash = crash.map(|crash| match crash.after {
        Some(after) => (start + after, true),
        None => (start - 50, false),
    });
    let down = |scrape: usize| crash.is_some_and(|(at, _)| (at..at + REBOOT).contains(&scrape));
    let is_scraped =
        |scrape: usize| !down(scrape) && prng::uniform(day.seed ^ scrape as u64, host) >= LOST;
    // A host that crashed with the patch does not get it again.
    let end = crash
        .filter(|(_, with_patch)| *with_patch)
        .map_or(all, |(at, _)| at);
    let complete = start + TRANSITION;
    let mut up = Values::default();
    let mut rows = [(); 5].map(|()| Values::default());
    for scrape in 0..all {
        let answers = is_scraped(scrape);
        up.push(Some(if answers { 1 } else { 0 }));
        let moving = (start..complete.min(end)).contains(&scrape);
        let soaking = (complete..end).contains(&scrape);
        let crashed = crash.filter(|(at, with_patch)| *with_patch && scrape > *at);
        let of = |holds: bool, value: usize| (answers && holds).then_some(value);
        let values = [
            of(moving, start * INTERVAL),
            of(soaking, complete * INTERVAL),
            of(soaking, TRANSITION * INTERVAL),
            of(
                crashed.is_some() || moving || soaking,
                usize::from(crashed.is_some()),
            ),
            of(
                crashed.is_some(),
                crashed.map_or(0, |(at, _)| at * INTERVAL),
            ),
        ];
        for (row, value) in rows.iter_mut().zip(values) {
            row.push(value);
        }
    }
    let mut add = |name: &str, labels: &str, values: &Values| {
        if !values.is_empty() {
            let _ = writeln!(
                text,
                "      - series: {name}{{job=\"livepatch-monitor\", instance=\"h{host}\"{labels}}}\n        values: {}",
                values.text()
            );
        }
    };
    let of_patch = format!(", patch=\"{PATCH}\"");
    add("up", "", &up);
    for (name, values) in [
        "livepatch_transition_start_timestamp_seconds",
        "livepatch_patching_complete_timestamp_seconds",
        "livepatch_patching_duration_seconds",
        "livepatch_patch_crashes_total",
        "livepatch_patch_last_crash_timestamp_seconds",
    ]
    .into_iter()
    .zip(&rows)
    {
        add(name, &of_patch, values);
    }
}

/// The values of a series in promtool's notation: equal ones are counted, and where there is
/// none after one, the series has ended, as Prometheus ends it.
#[derive(Debug, Default)]
struct Values {
    runs: Vec<(Option<usize>, usize)>,
}

impl Values {
    fn push(&mut self, value: Option<usize>) {
        match self.runs.last_mut() {
            Some((last, count)) if *last == value => *count += 1,
            _ => self.runs.push((value, 1)),
        }
    }

    fn is_empty(&self) -> bool {
        self.runs.iter().all(|(value, _)| value.is_none())
    }

    fn text(&self) -> String {
        let mut parts = Vec::new();
        for (number, (value, count)) in self.runs.iter().enumerate() {
            match (value, count) {
                // promtool counts the repetitions after the first.
                (Some(value), count) => parts.push(format!("{value}x{}", count - 1)),
                (None, count) if number > 0 => {
                    parts.push("stale".to_owned());
                    if *count > 1 {
                        parts.push(format!("_x{}", count - 1));
                    }
                }
                (None, count) => parts.push(format!("_x{count}")),
            }
        }
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Day = Day {
        hosts: 1000,
        hours: 4,
        seed: 1,
    };

    #[test]
    fn a_series_ends_where_a_scrape_is_lost() {
        let mut values = Values::default();
        for value in [None, None, Some(7), Some(7), None, None, Some(7), None] {
            values.push(value);
        }
        assert_eq!(values.text(), "_x2 7x1 stale _x1 7x0 stale");
        assert!(!values.is_empty());
        assert!(
            Values {
                runs: vec![(None, 3)]
            }
            .is_empty()
        );
    }

    #[test]
    fn hosts_that_crash_exist_and_are_patched_in_the_day() {
        for replay in REPLAYS {
            for crash in replay.crashes {
                assert!(
                    DAY.patched_at(crash.host) + 200 < DAY.scrapes(),
                    "{crash:?}"
                );
                assert!(crash.host < DAY.hosts);
            }
        }
        let text = test_file(&REPLAYS[1], Day { hosts: 2, ..DAY }).unwrap();
        assert_eq!(text.matches("series: up{").count(), 2, "{text}");
    }
}
