//! `livepatch-monitor preflight`

mod render;

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;

use super::{Cli, values};
use crate::{
    bounded_read,
    host::crash_capture,
    kernel::{
        btf::Btf,
        layout, modules,
        probes::{Probes, Wanted},
        procfs, sysfs,
        tasks::TaskScanner,
        tracers,
    },
};
use livepatch_core::{
    degradation::Degradation,
    preflight::{
        Finding, Severity, Verdict, findings,
        forecast::{self, Forecast, Forecaster},
        host::Host,
        module::{KlpLayout, Module},
        unpack::{MAX_MODULE, unpack},
    },
};

/// Pause between two samples: at least this long, and this many times as long as the last
/// sample took, so that sampling stays a small share of the host's load.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_TIMES: u32 = 4;

/// Most modules checked in one call; a host has a handful.
const MOST_FILES: usize = 64;

/// Exit code 0: clear; 1: warnings; 2: it will fail, or unknown.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 clear, 1 warnings, 2 it will fail or whether it will is unknown."
)]
pub(super) struct Preflight {
    /// Livepatch modules, plain or compressed (.ko, .ko.xz, .ko.zst, .ko.gz)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How long to sample the stacks of all tasks
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = sample)]
    sample: Duration,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Print at most this many tasks for each module
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = values::count)]
    limit: usize,
}

/// Longest time of sampling that `--sample` accepts.
const LONGEST: Duration = Duration::from_secs(3600);

fn sample(text: &str) -> Result<Duration, String> {
    let duration = values::duration(text)?;
    if duration > LONGEST {
        return Err("longer than an hour; write 3s or 1m".to_owned());
    }
    Ok(duration)
}

/// The report as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    kernel: Option<String>,
    threads: Option<usize>,
    cpus: Option<usize>,
    modules: Vec<Judged>,
}

/// A file and the result of checking it.
#[derive(Debug, Serialize)]
struct Judged {
    file: PathBuf,
    verdict: Verdict,
    findings: Vec<Finding>,
    module: Option<Module>,
    forecast: Option<Forecast>,
}

impl Preflight {
    pub(super) fn run(&self, cli: &Cli) -> anyhow::Result<ExitCode> {
        anyhow::ensure!(
            self.files.len() <= MOST_FILES,
            "{} files at once: check at most {MOST_FILES}, and load them one at a time",
            self.files.len()
        );
        let btf = Btf::from_sysfs(&cli.paths.sysfs).ok();
        let layout = btf
            .as_ref()
            .map_or(KlpLayout::KNOWN, layout::of_livepatches);
        let share = btf.as_ref().map(layout::trampolines_share);
        drop(btf);
        let read: Vec<(PathBuf, Result<Module, String>)> = self
            .files
            .iter()
            .map(|file| (file.clone(), read(file, &layout)))
            .collect();
        let host = look(
            cli,
            share,
            read.iter().filter_map(|(_, module)| module.as_ref().ok()),
        );
        let mut forecasts = self.sample(cli, &host, &read).into_iter();
        let modules: Vec<Judged> = read
            .into_iter()
            .map(|(file, module)| match module {
                Ok(module) => {
                    let forecast = forecasts.next();
                    judged(cli, &host, file, module, forecast)
                }
                Err(error) => {
                    let remedy = "check that this is the right file and that it is complete";
                    let finding = Finding::new(Severity::Failure, "file", error, remedy);
                    Judged {
                        file,
                        verdict: Verdict::of(std::slice::from_ref(&finding)),
                        findings: vec![finding],
                        module: None,
                        forecast: None,
                    }
                }
            })
            .collect();
        let verdict = modules.iter().map(|judged| judged.verdict).max();
        let report = Report {
            verdict: verdict.unwrap_or(Verdict::CannotTell),
            kernel: host.release.clone().ok(),
            threads: host.threads.clone().ok(),
            cpus: host.cpus,
            modules,
        };
        let text = if self.json {
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            render::write(&report, self.limit)
        };
        super::print(&text)?;
        Ok(ExitCode::from(report.verdict.exit_code()))
    }

    /// One forecast for each module that was read, or why there is none.
    fn sample(
        &self,
        cli: &Cli,
        host: &Host,
        read: &[(PathBuf, Result<Module, String>)],
    ) -> Vec<Result<Forecast, Finding>> {
        let modules = read.iter().filter_map(|(_, module)| module.as_ref().ok());
        let mut forecasters: Vec<Forecaster> = modules
            .map(|module| Forecaster::new(module, host))
            .collect();
        let patches = host.patches.as_ref();
        if patches.is_ok_and(|set| set.in_transition().is_some()) {
            let what = "tasks that would block it were not sampled: another transition is running";
            let finding = Finding::new(Severity::Info, "blockers", what, "");
            return vec![Err(finding); forecasters.len()];
        }
        if forecasters.is_empty() {
            return Vec::new();
        }
        let probes = Probes::attach(Wanted::TaskScan, &cli.paths.procfs, &cli.paths.sysfs, false);
        let (probes, degradations) = match probes {
            Ok(mut probes) => {
                let degradations = std::mem::take(&mut probes.degradations);
                (Some(probes), degradations)
            }
            Err(error) => (None, vec![error.degradation()]),
        };
        for Degradation { what, remedy } in degradations {
            super::complain(&format!("{what}; {remedy}"));
        }
        let start = Instant::now();
        let mut scanner = TaskScanner::new(probes, &cli.paths.procfs);
        if let Err(error) = self.take_samples(&mut scanner, &mut forecasters, start) {
            let what = format!("cannot determine which tasks would block it: {error}");
            let finding = Finding::new(Severity::Unknown, "blockers", what, "run as root");
            return vec![Err(finding); forecasters.len()];
        }
        let took = start.elapsed();
        forecasters
            .into_iter()
            .map(|forecaster| Ok(forecaster.finish(took)))
            .collect()
    }

    fn take_samples(
        &self,
        scanner: &mut TaskScanner,
        forecasters: &mut [Forecaster],
        start: Instant,
    ) -> anyhow::Result<()> {
        loop {
            let started = Instant::now();
            let mut sample = forecast::empty_sample();
            scanner.survey(&mut sample)?;
            for forecaster in &mut *forecasters {
                forecaster.add(&mut sample);
            }
            let pause = PAUSE.max(started.elapsed() * PAUSE_TIMES);
            if start.elapsed() + pause > self.sample {
                return Ok(());
            }
            thread::sleep(pause);
        }
    }
}

fn read(file: &Path, layout: &KlpLayout) -> Result<Module, String> {
    let most = u64::try_from(MAX_MODULE).unwrap_or(u64::MAX);
    let bytes = bounded_read::read(file, most).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => format!("{error}: no module is that large"),
        _ => format!("cannot read it: {error}"),
    })?;
    let bytes = unpack(bytes).map_err(|error| error.to_string())?;
    Module::parse(&bytes, layout).map_err(|error| error.to_string())
}

/// Collects the facts about the host that matter to these modules.
fn look<'a>(cli: &Cli, share: Option<bool>, of: impl Iterator<Item = &'a Module>) -> Host {
    let (procfs, sysfs) = (&cli.paths.procfs, &cli.paths.sysfs);
    let (mut functions, mut names) = (BTreeSet::new(), BTreeSet::new());
    for module in of {
        functions.extend(
            module
                .functions()
                .map(|(_, function)| function.name.as_str()),
        );
        names.extend(module.needed.iter().map(|needed| needed.name.as_str()));
    }
    names.extend(&functions);
    Host {
        release: modules::release(procfs),
        patches: sysfs::read_patches(sysfs)
            .map(|(patches, _)| patches)
            .map_err(|error| format!("cannot determine which livepatches are loaded: {error}")),
        modules: modules::loaded(procfs, sysfs),
        symbols: modules::symbols(procfs, &names).map_err(|error| {
            format!("cannot determine whether its functions are in this kernel: {error}")
        }),
        tracers: tracers::read(procfs, sysfs, &functions),
        trampolines_share: share,
        policy: modules::policy(procfs, sysfs),
        evidence: crash_capture::read(procfs, sysfs),
        threads: modules::threads(procfs),
        cpus: modules::cpus(sysfs),
    }
}

fn judged(
    cli: &Cli,
    host: &Host,
    file: PathBuf,
    module: Module,
    forecast: Option<Result<Forecast, Finding>>,
) -> Judged {
    let mut findings = findings::judge(&module, host);
    let forecast = match forecast {
        Some(Ok(mut forecast)) => {
            for likely in &mut forecast.likely {
                let cgroup = procfs::cgroup_of(&cli.paths.procfs, likely.tid);
                likely.unit = cgroup.as_deref().and_then(procfs::unit_of);
            }
            findings.extend(forecast.findings());
            Some(forecast)
        }
        Some(Err(finding)) => {
            findings.push(finding);
            None
        }
        None => None,
    };
    // The worst first; findings of equal severity keep their order.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Judged {
        file,
        verdict: Verdict::of(&findings),
        findings,
        module: Some(module),
        forecast,
    }
}
