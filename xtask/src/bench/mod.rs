//! `cargo xtask bench`: what the monitor costs, counted in a VM.

mod bounds;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use livepatch_monitor_tests::protocol::Message;

use crate::{
    build::guest_binaries,
    host::{packages, paths, process, prometheus_tools},
    lab::{artifacts, host_files, initramfs::Extras, kernels, machine, vm::Machine},
};

const MEMORY: u32 = 2048;
const SILENCE: Duration = Duration::from_secs(300);
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// Programs with which the guest makes load.
const BORROWED: &[&str] = &["sh", "cat", "ls", "sleep", "true"];

/// The exporter that the monitor is compared with.
const PEER: &str = "prometheus-node-exporter";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The kernel to measure on
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// Tables to make, instead of `counts`: latency, scan, functions, patches, cost, start,
    /// size, transition; or `all`
    #[arg(long, value_delimiter = ',', default_value = "counts")]
    table: Vec<String>,
    /// counts.json of an earlier run to compare with
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

/// Runs the measurements, prints their tables and stores the numbers.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let line = kernels::lines(std::slice::from_ref(&arguments.kernel))?
        .into_iter()
        .next()
        .context("no kernel to boot")?;
    prometheus_tools::prepare()?;
    packages::install_vm_packages()?;
    let programs = guest_binaries::build_all()?;
    let mut extra = host_files::programs(BORROWED)?;
    let peer = host_files::program(&prometheus_tools::path(PEER)?, "/bin/node_exporter")?;
    host_files::merge(&mut extra, peer);
    let extras = Extras {
        files: &extra,
        ..Extras::default()
    };
    let prepared = machine::prepare(line, &programs, "bench", extras)?;
    let run = arguments.table.join(",");
    let earlier = arguments.against.as_ref().map(|path| {
        let text = fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        bounds::Counts::parse(&text).with_context(|| format!("{}", path.display()))
    });
    let earlier = earlier.transpose()?;
    let mut counts = None;
    let machine = Machine {
        kernel: &prepared.kernel.image,
        initramfs: &prepared.initramfs,
        mode: "bench",
        run: &run,
        command_line: &["quiet"],
        memory: MEMORY,
        counted: true,
        forwards: &[],
        persistent: None,
        console: prepared.console(),
        silence: SILENCE,
        limit: LIMIT,
    };
    let results = paths::target()?.join("bench");
    let mut tables = 0;
    process::step(&format!("measure on kernel {}", prepared.kernel), || {
        machine.run(|message| {
            match message {
                Message::Note { text } => println!("    {text}"),
                Message::File { name, content } => {
                    // Guests name them `bench/…`; so is the folder here.
                    let short = name.strip_prefix("bench/").unwrap_or(&name);
                    artifacts::store(&results, short, &content)?;
                    if short == "counts.json" {
                        counts = Some(bounds::Counts::parse(&content)?);
                    }
                    if short.ends_with(".txt") {
                        tables += 1;
                        println!("\n{content}");
                    }
                }
                Message::ScenarioFailed { scenario, reason } => bail!("{scenario}: {reason}"),
                Message::Booted { .. }
                | Message::ScenarioStarted { .. }
                | Message::ScenarioPassed { .. }
                | Message::Serving { .. }
                | Message::GoingDown
                | Message::Inject { .. }
                | Message::Done => {}
            }
            Ok(())
        })
    })?;
    if tables == 0 {
        bail!("the guest measured nothing");
    }
    println!("results: {}", results.display());
    let Some(counts) = counts else {
        return Ok(());
    };
    if let Some(earlier) = &earlier {
        print!("{}", counts.compared(earlier));
    }
    counts.check()
}
