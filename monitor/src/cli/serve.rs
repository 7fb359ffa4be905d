//! `livepatch-monitor serve`

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, ValueEnum, builder::ArgPredicate};
use rustix::fs::Mode;
use tracing::warn;

use super::{Cli, Level, check, values};
use crate::exporter::{self, Options, resources};

#[derive(Debug, Args)]
#[command(next_help_heading = "Web")]
pub(super) struct Serve {
    /// Address to listen on; may be given several times
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9969",
        default_value_if("textfile", ArgPredicate::IsPresent, None),
        value_parser = values::listen_address
    )]
    listen: Vec<SocketAddr>,
    /// Listen on the sockets passed by systemd instead of opening any
    #[arg(long = "web.systemd-socket")]
    systemd_socket: bool,
    /// TLS, users and headers, in the format of Prometheus's web configuration file;
    /// reloaded when it changes
    #[arg(long = "web.config.file", value_name = "FILE")]
    web_config: Option<PathBuf>,
    /// URL path that serves the metrics
    #[arg(long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics", value_parser = values::telemetry_path)]
    telemetry_path: String,
    /// Directory of node_exporter's textfile collector: the metrics are written there to
    /// livepatch_monitor.prom, and no port is opened unless --web.listen-address is
    /// given too
    #[arg(long, value_name = "DIR")]
    textfile: Option<PathBuf>,
    /// Write the text file once and exit, for a timer instead of a service: no probe is
    /// attached and nothing is recorded, so what is counted over time is left out
    #[arg(long, requires = "textfile", conflicts_with_all = ["listen", "systemd_socket"])]
    once: bool,
    /// Export a drill that makes the alert LivepatchDrill of this severity fire, to test
    /// the alerting; repeatable. Nothing else changes
    #[arg(long, value_name = "SEVERITY", help_heading = "Drill")]
    drill: Vec<Drill>,
    /// Check the flags and the files they name, and exit: 0 valid, 2 invalid
    #[arg(long = "config.check", help_heading = "Configuration")]
    config_check: bool,
    /// Age of a transition from which its pending tasks count as stuck; the kernel
    /// itself sends its first signals at 15s
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = values::duration, help_heading = "Transitions")]
    stuck_after: Duration,
    /// How long after a transition a crash is still attributed to it
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = values::duration, help_heading = "Crashes")]
    soak: Duration,
    /// Directory of livepatch modules that should be in force on this kernel, in addition
    /// to those that kpatch has installed; it may hold one directory per kernel release
    #[arg(long, value_name = "DIR", help_heading = "Expected livepatches")]
    expect_dir: Vec<PathBuf>,
    /// Name of a livepatch that should be in force
    #[arg(long, value_name = "NAME", value_parser = values::patch_name, help_heading = "Expected livepatches")]
    expect: Vec<String>,
}

/// The severity of a drill's alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Drill {
    Critical,
    Warning,
    Info,
}

impl Drill {
    const fn severity(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl Serve {
    pub(super) fn run(&self, cli: &Cli) -> anyhow::Result<ExitCode> {
        let options = Options {
            listen: self.listen.clone(),
            systemd_socket: self.systemd_socket,
            web_config: self.web_config.clone(),
            telemetry_path: self.telemetry_path.clone(),
            stuck_after: self.stuck_after,
            state_dir: cli.paths.state_dir.clone(),
            procfs: cli.paths.procfs.clone(),
            sysfs: cli.paths.sysfs.clone(),
            kmsg: cli.paths.kmsg.clone(),
            kernel_log: cli.log.level == Level::Debug,
            soak: self.soak,
            sources: cli.paths.sources(),
            rootfs: cli.paths.rootfs.clone(),
            expected_directories: self.expect_dir.clone(),
            expected_patches: self.expect.clone(),
            textfile: self.textfile.clone(),
            once: self.once,
            drill: self.drill.iter().map(|drill| drill.severity()).collect(),
        };
        if self.config_check {
            return check::run(&options);
        }
        let expected = self.expect_dir.iter();
        let expected = expected.filter_map(|path| super::not_a_directory("--expect-dir", path));
        for problem in cli.paths.problems().into_iter().chain(expected) {
            warn!("{problem}");
        }
        // Files that it creates are for no other user; the text file's mode is set separately.
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        let runtime = resources::main_runtime()?;
        let result = match self.once {
            true => runtime.block_on(exporter::run_once(options)),
            false => runtime.block_on(exporter::run(options)),
        };
        // A write in progress is completed, but a read of the kernel or of another file system that
        // hangs does not keep the process from exiting.
        runtime.shutdown_timeout(resources::LAST_WORK);
        result?;
        Ok(ExitCode::SUCCESS)
    }
}
