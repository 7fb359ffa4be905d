//! `livepatch-monitor gate`

mod expected;
mod render;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::{
    Cli, complain, print,
    values::{count, duration, moment, not_empty},
};
use crate::prometheus_client::{Access, Client, Failure, Login, Url};
use livepatch_core::gate::{
    answer::Sample,
    hosts::{self, Expected, Host, Terms},
    promql::{Question, Scope},
    risk::MaxRisk,
    selector::Selector,
    verdict::{Asked, Decision, Kind, Limits, Passes, decide},
};

/// Exit code 0: continue; 1: hold; 2: cannot determine, which must be treated as hold.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 continue, 1 hold, 2 cannot determine, which must be treated as hold.\n\n\
    A host that is down counts as failed (silent) until it can be scraped again, if it had \
    the patch when it was last scraped."
)]
pub(super) struct Gate {
    /// URL of Prometheus, Thanos, Mimir or VictoriaMetrics, including its path prefix if it has one
    #[arg(
        long,
        value_name = "URL",
        env = "LIVEPATCH_MONITOR_PROMETHEUS",
        value_parser = Url::parse
    )]
    prometheus: Url,
    /// The livepatch, as /sys/kernel/livepatch names it
    #[arg(long, value_name = "NAME", value_parser = not_empty)]
    patch: String,
    /// Hosts to judge, as label matchers: env="prod",rack!~"r1|r2"; all if empty
    #[arg(long, value_name = "MATCHERS", default_value = "", value_parser = selector)]
    selector: Selector,
    /// Prometheus job that scrapes the monitors
    #[arg(long, value_name = "JOB", default_value = "livepatch-monitor", value_parser = not_empty)]
    job: String,
    /// How many hosts may have crashed or gone silent with the patch
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count)]
    max_crashed: usize,
    /// Ratio of the hosts with the patch that may be stuck in its transition, 0 to 1
    #[arg(long, value_name = "RATIO", default_value_t = 0.02, value_parser = ratio)]
    max_stuck_ratio: f64,
    /// How long the patch must be in force on a host without a crash
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    soak: Duration,
    /// How many hosts must have soaked
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count)]
    min_hosts: usize,
    /// How many hosts may be missing: down without the patch, gone, stale
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count)]
    max_missing: usize,
    /// Hosts that Prometheus must know: a file with one per line, or how many; those it has no data
    /// on are missing
    #[arg(long, value_name = "FILE|N", value_parser = not_empty)]
    expect_hosts: Option<String>,
    /// How many hosts get the patch next; default: all hosts without it
    #[arg(long, value_name = "N", requires = "max_risk")]
    next: Option<u64>,
    /// Highest risk for the next hosts, with 95 % confidence: 1% of them fail, or 3 of them
    #[arg(long, value_name = "RISK")]
    max_risk: Option<MaxRisk>,
    /// Ignore crashes before this time: 2026-11-23T16:00:00Z, or seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<f64>,
    /// A host last scraped longer ago than this is stale; with a shorter scrape interval, two
    /// intervals count instead
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = seconds)]
    stale_after: Duration,
    /// How far back to search for the patches that a host had loaded before it went down
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = seconds)]
    lookback: Duration,
    /// Wait while hosts soak or are in transition, after a missed scrape, or while Prometheus is
    /// unavailable for a while
    #[arg(long)]
    wait: bool,
    /// Longest time to wait, after which the exit code is 2
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = duration)]
    wait_limit: Duration,
    /// Interval between query rounds while waiting
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = seconds)]
    wait_every: Duration,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection to Prometheus")]
struct Connection {
    /// Timeout for one query
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = positive)]
    timeout: Duration,
    /// File with a bearer token; it is read again before each query round
    #[arg(
        long,
        value_name = "FILE",
        env = "LIVEPATCH_MONITOR_BEARER_TOKEN_FILE",
        conflicts_with = "user"
    )]
    bearer_token_file: Option<PathBuf>,
    /// User name for basic authentication
    #[arg(
        long,
        value_name = "NAME",
        env = "LIVEPATCH_MONITOR_USER",
        requires = "password_file",
        value_parser = user
    )]
    user: Option<String>,
    /// File with the password for basic authentication
    #[arg(
        long,
        value_name = "FILE",
        env = "LIVEPATCH_MONITOR_PASSWORD_FILE",
        requires = "user"
    )]
    password_file: Option<PathBuf>,
    /// PEM file with the CAs to trust, instead of the system's
    #[arg(long, value_name = "FILE", env = "LIVEPATCH_MONITOR_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// Tenant of Mimir, sent as header X-Scope-OrgID
    #[arg(long, value_name = "ID", env = "LIVEPATCH_MONITOR_TENANT", value_parser = tenant)]
    tenant: Option<String>,
}

/// The report as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report<'a> {
    patch: &'a str,
    /// The label matchers that select the hosts.
    selector: &'a str,
    /// When the queries were evaluated, in seconds since 1970.
    evaluated_at: Option<f64>,
    soak_seconds: f64,
    exit_code: u8,
    #[serde(flatten)]
    decision: &'a Decision,
}

/// One evaluation of the fleet, and the time in Prometheus when it was made.
struct Evaluation {
    time: Option<f64>,
    decision: Decision,
}

impl Gate {
    pub(super) fn run(&self, _: &Cli) -> anyhow::Result<ExitCode> {
        let expected = self.expect_hosts.as_deref().map(expected::read);
        let expected = expected.transpose()?;
        // Scrapes around the moment at which the patch came into force do not count against it.
        let slack = self.stale_after.min(self.soak / 2);
        let scope = Scope {
            job: self.job.clone(),
            selector: self.selector.clone(),
            patch: self.patch.clone(),
            lookback: self.lookback,
            seen_before: self.soak.saturating_sub(slack),
            blip: Duration::ZERO,
        };
        let began = Instant::now();
        let mut reported: Option<(String, Instant)> = None;
        let evaluation = loop {
            let evaluation = self.evaluate(&scope, expected.as_ref())?;
            // After this time every host has been scraped since the patch was loaded.
            let soon = began.elapsed() < self.stale_after;
            if !self.wait || !evaluation.decision.may_pass(soon) {
                break evaluation;
            }
            let left = self.wait_limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                complain(&format!(
                    "gave up after waiting {} (--wait-limit)",
                    humantime::format_duration(self.wait_limit)
                ));
                break evaluation;
            }
            let line = render::progress(&evaluation.decision);
            let report_due = reported.as_ref().is_none_or(|(last, when)| {
                *last != line && when.elapsed() >= self.wait_every.min(REPORT_EVERY)
                    || when.elapsed() >= REPORT_EVERY
            });
            if report_due {
                complain(&format!("waiting: {line}"));
                reported = Some((line, Instant::now()));
            }
            thread::sleep(self.wait_every.min(left));
        };
        let selector = scope.hosts();
        let report = Report {
            patch: &self.patch,
            selector: &selector,
            evaluated_at: evaluation.time,
            soak_seconds: self.soak.as_secs_f64(),
            exit_code: evaluation.decision.verdict.exit_code(),
            decision: &evaluation.decision,
        };
        print(&if self.json {
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            render::report(&report)
        })?;
        Ok(ExitCode::from(report.exit_code))
    }

    /// Queries Prometheus once and decides.
    fn evaluate(&self, scope: &Scope, expected: Option<&Expected>) -> anyhow::Result<Evaluation> {
        let client = Client::new(&self.access())?;
        let mut time = None;
        let decision = match self.ask(scope, expected, &client, &mut time) {
            Ok(decision) => decision,
            Err(failure) => {
                let passes = if failure.transient {
                    Passes::InTime
                } else {
                    Passes::No
                };
                Decision::no_answer(failure.text, passes)
            }
        };
        if let (Some(since), Some(time)) = (self.since, time)
            && since > time
        {
            bail!(
                "--since is in the future, so no crash would count; give the time the rollout began"
            );
        }
        Ok(Evaluation { time, decision })
    }

    fn ask(
        &self,
        scope: &Scope,
        expected: Option<&Expected>,
        client: &Client,
        time: &mut Option<f64>,
    ) -> Result<Decision, Failure> {
        let now = client.time()?;
        *time = Some(now);
        let mut answers = BTreeMap::new();
        let mut warnings = Vec::new();
        let mut put = |scope: &Scope, questions: &[Question], silent: &[&Host]| {
            let queries: Vec<String> = questions
                .iter()
                .map(|question| question.query(scope, silent))
                .collect();
            for (question, vector) in questions.iter().zip(client.vectors(&queries, now)?) {
                warnings.extend(vector.warnings);
                answers.insert(*question, vector.samples);
            }
            let blip = hosts::blip(&answers, self.stale_after);
            Ok((hosts::silent(&answers), blip))
        };
        let (silent, blip) = put(scope, &Question::FIRST, &[])?;
        if !silent.is_empty() {
            let silent: Vec<&Host> = silent.iter().collect();
            let scope = Scope {
                blip,
                ..scope.clone()
            };
            // An empty range is not valid; without a measured scrape interval no failed scrape
            // counts as a blip.
            let questions = match blip {
                Duration::ZERO => &Question::SILENT[1..],
                _ => &Question::SILENT[..],
            };
            put(&scope, questions, &silent)?;
        }
        let terms = Terms {
            time: now,
            soak: self.soak,
            since: self.since,
            stale_after: self.stale_after,
        };
        let limits = Limits {
            max_crashed: self.max_crashed,
            max_stuck_ratio: self.max_stuck_ratio,
            min_hosts: self.min_hosts,
            max_missing: self.max_missing,
            next: self.next,
            max_risk: self.max_risk,
        };
        let fleet = hosts::read(&answers, &terms, expected);
        let mut decide = |known_patches: &[String]| {
            warnings.sort();
            warnings.dedup();
            let asked = Asked {
                patch: &self.patch,
                hosts: &scope.hosts(),
                warnings: &warnings,
                known_patches,
                expected,
            };
            decide(&fleet, &limits, &asked)
        };
        let decision = decide(&[]);
        let unknown = |decision: &Decision| {
            let mut reasons = decision.reasons.iter();
            reasons.any(|reason| reason.kind == Kind::UnknownPatch)
        };
        if !unknown(&decision) {
            return Ok(decision);
        }
        let query = Question::KnownPatches.query(scope, &[]);
        let known = client.vectors(&[query], now)?;
        let name = |sample: &Sample| sample.labels.get("patch").cloned();
        let known: Vec<String> = known
            .iter()
            .flat_map(|vector| vector.samples.iter().filter_map(name))
            .collect();
        Ok(decide(&known))
    }

    fn access(&self) -> Access {
        let way = &self.connection;
        let login = match (&way.bearer_token_file, &way.user, &way.password_file) {
            (Some(file), ..) => Login::Token(file.clone()),
            (None, Some(user), Some(file)) => Login::Password {
                user: user.clone(),
                file: file.clone(),
            },
            _ => Login::Open,
        };
        Access {
            url: self.prometheus.clone(),
            login,
            ca_file: way.ca_file.clone(),
            tenant: way.tenant.clone(),
            timeout: way.timeout,
        }
    }
}

/// While waiting, report progress at least this often.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Checks a user name for basic authentication, which must not hold a colon (RFC 7617).
fn user(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains([':', '\n', '\r', '\0']) {
        return Err(
            "must not be empty or contain a colon; the password goes into --password-file".into(),
        );
    }
    Ok(text.to_owned())
}

/// Checks a value that is sent in an HTTP header.
fn tenant(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err(
            "must not be empty or contain characters that are not allowed in an HTTP header; write tenant-1"
                .into(),
        );
    }
    Ok(text.to_owned())
}

fn selector(text: &str) -> Result<Selector, String> {
    Selector::parse(text).map_err(|error| error.to_string())
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("not a number from 0 to 1; write 0.02 for 2 %".to_owned()),
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration < Duration::from_millis(1) {
        return Err("too short; write 10s".to_owned());
    }
    Ok(duration)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.as_secs() == 0 {
        return Err("less than a second; write 10s".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use crate::cli::Cli;

    #[test]
    fn the_reference_has_every_flag() {
        let text = include_str!("../../../../docs/gate.md");
        let cli = Cli::command();
        let gate = cli.find_subcommand("gate").unwrap();
        let flags: Vec<_> = gate
            .get_arguments()
            .filter_map(|flag| flag.get_long())
            .collect();
        assert!(flags.len() > 10, "{flags:?}");
        for flag in flags.into_iter().filter(|flag| *flag != "help") {
            assert!(
                text.contains(&format!("`--{flag}`")) || text.contains(&format!("`--{flag} ")),
                "docs/gate.md lacks --{flag}"
            );
        }
    }
}
