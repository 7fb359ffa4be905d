//! The project's development tasks: `cargo xtask --help` lists them.
//!
//! `demo`, `test` and `bench` boot real kernels in QEMU. On a Debian machine they install what they
//! need, after announcing it.

mod bench;
mod build;
mod checks;
mod dashboards;
mod demo;
mod dist;
mod fleet;
mod host;
mod lab;
mod monitoring;
mod rollout;
mod status_page;
mod test;
mod updates;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    build::{bpf, guest_binaries},
    checks::{emulated, fuzz},
    host::process,
};

#[derive(Parser)]
#[command(name = "cargo xtask", about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the static monitor and the guest of the VM scenarios
    Build {
        /// Only rebuild the BPF programs, monitor/bpf/programs.bpf, from monitor-ebpf
        #[arg(long)]
        bpf: bool,
    },
    /// Show a livepatch that gets stuck in a VM, and what the monitor reports about it
    Demo(demo::Arguments),
    /// Boot a guest with a shell, or run one command in one
    Lab(lab::command::Arguments),
    /// Check the workspace, then run the scenarios on real kernels in VMs
    Test(test::Arguments),
    /// Build the packages and check them
    Dist(dist::Arguments),
    /// Fuzz the parsers of untrusted bytes
    Fuzz(fuzz::Arguments),
    /// Run the unit tests of the core on emulated processors: s390x, which is big-endian, and arm64
    Emulated,
    /// Measure in a VM what the monitor costs
    Bench(bench::Arguments),
    /// Measure a real Prometheus with the shipped rules and a fleet of simulated hosts
    Fleet(fleet::Arguments),
    /// Kill real package managers in the middle of an upgrade and compare the monitor's answer
    Updates(updates::Arguments),
    /// Check the dashboards, rules and runbooks
    Dashboards(dashboards::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Command::Build { bpf: true } => {
            process::step("build the BPF programs", bpf::refresh).map(|()| true)
        }
        Command::Build { bpf: false } => guest_binaries::build_all().map(|_| true),
        Command::Demo(arguments) => demo::run(arguments).map(|()| true),
        Command::Lab(arguments) => return lab::command::run(arguments),
        Command::Test(arguments) => test::run(arguments),
        Command::Dist(arguments) => dist::command(arguments).map(|()| true),
        Command::Fuzz(arguments) => fuzz::run(arguments).map(|()| true),
        Command::Emulated => emulated::run().map(|()| true),
        Command::Bench(arguments) => bench::run(arguments).map(|()| true),
        Command::Fleet(arguments) => fleet::run(arguments),
        Command::Updates(arguments) => updates::command(arguments).map(|()| true),
        Command::Dashboards(arguments) => dashboards::run(arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
