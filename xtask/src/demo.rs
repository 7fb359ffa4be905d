//! `cargo xtask demo`: a livepatch gets stuck in a VM, and the monitor says why.

use std::{
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use anyhow::{Context as _, Result};
use livepatch_monitor_tests::protocol::Message;

use crate::{
    artifacts, http,
    initramfs::{Extras, NETWORK_MODULES},
    kernels,
    kernels::Line,
    machine, process, setup, static_programs,
    vm::{Forward, Machine},
};

/// The exporter's port, in the guest and, when it is free, here.
const PORT: u16 = 9969;

const DEFAULT_KERNEL: &str = "6.12";

const MEMORY: u32 = 1024;
const SILENCE: Duration = Duration::from_secs(120);
const LIMIT: Duration = Duration::from_secs(15 * 60);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The kernel to boot [default: 6.12, or another one that is in the cache]
    #[arg(long)]
    kernel: Option<String>,
}

/// Runs the demonstration from set-up to power-off.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let line = choose(arguments.kernel.as_ref())?;
    setup::install_vm_packages()?;
    let programs = static_programs::build_all()?;
    let extras = Extras {
        modules: NETWORK_MODULES,
        files: &[],
        ..Extras::default()
    };
    let prepared = machine::prepare(line, &programs, "demo", extras)?;
    let port = free_port()?;
    if port != PORT {
        println!("    port {PORT} is taken here; using {port} instead");
    }
    let machine = Machine {
        kernel: &prepared.kernel.image,
        initramfs: &prepared.initramfs,
        mode: "demo",
        run: "all",
        command_line: &["quiet"],
        memory: MEMORY,
        forwards: &[Forward {
            host: port,
            guest: PORT,
        }],
        persistent: None,
        console: prepared.console(),
        silence: SILENCE,
        limit: LIMIT,
    };
    process::step(&format!("demo on kernel {}", prepared.kernel), || {
        machine.run(|message| {
            match message {
                Message::Booted { release } => {
                    println!("\n[a machine with Linux {release} is up]\n")
                }
                Message::Note { text } => println!("{text}"),
                Message::Serving { .. } => show_metrics(port)?,
                Message::File { name, content } => {
                    artifacts::store(&prepared.folder, &name, &content)?;
                }
                Message::ScenarioFailed { scenario, reason } => {
                    anyhow::bail!("{scenario}: {reason}");
                }
                Message::ScenarioStarted { .. }
                | Message::ScenarioPassed { .. }
                | Message::GoingDown
                | Message::Inject { .. }
                | Message::Done => {}
            }
            Ok(())
        })
    })
}

/// The asked-for kernel, else one that needs no download.
fn choose(asked: Option<&String>) -> Result<&'static Line> {
    let name = match asked {
        Some(name) => name.clone(),
        None => default_kernel()?.to_owned(),
    };
    kernels::lines(&[name])?
        .into_iter()
        .next()
        .context("no kernel to boot")
}

fn default_kernel() -> Result<&'static str> {
    let mut cached = Vec::new();
    for line in kernels::LINES {
        if kernels::is_cached(line)? {
            cached.push(line.name);
        }
    }
    Ok(if cached.contains(&DEFAULT_KERNEL) {
        DEFAULT_KERNEL
    } else {
        cached.first().copied().unwrap_or(DEFAULT_KERNEL)
    })
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr().context("the port's number")?.port())
}

/// Of some 250 series those that tell of the patch: without the zeros, the
/// histogram and the monitor's own.
fn tells_of_the_patch(line: &str) -> bool {
    line.starts_with("livepatch_")
        && !line.starts_with("livepatch_monitor_")
        && !line.starts_with("livepatch_transition_duration_seconds")
        && !line.ends_with(" 0")
}

fn show_metrics(port: u16) -> Result<()> {
    let exposition = http::get(port, "/metrics")?;
    println!("\n[of what Prometheus scrapes from http://127.0.0.1:{port}/metrics now]\n");
    for line in exposition.lines().filter(|line| tells_of_the_patch(line)) {
        println!("    {line}");
    }
    println!(
        "\n[while this runs: `curl http://127.0.0.1:{port}/metrics`, \
         or open http://127.0.0.1:{port}/ in a browser]\n"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::tells_of_the_patch;

    #[test]
    fn the_patch_is_told_apart_from_the_rest() {
        assert!(tells_of_the_patch(
            "livepatch_stuck_tasks{patch=\"a\",reason=\"sleeping\"} 1"
        ));
        for line in [
            "livepatch_stuck_tasks{patch=\"a\",reason=\"running\"} 0",
            "livepatch_monitor_build_info{version=\"1\"} 1",
            "livepatch_transition_duration_seconds_count{} 1",
            "process_open_fds 7",
            "# HELP livepatch_supported x",
        ] {
            assert!(!tells_of_the_patch(line), "{line}");
        }
    }
}
