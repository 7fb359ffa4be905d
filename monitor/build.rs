//! Embeds the BPF programs of `monitor/bpf`, which `cargo xtask build --bpf` makes of
//! `monitor-ebpf`, so that a plain `cargo build` gives the whole monitor.

#[path = "bpf/source_hash.rs"]
mod source_hash;

use std::{env, fs, path::PathBuf, process::Command};

const OBJECT: &str = "bpf/programs.bpf";
const BUILT_FROM: &str = "bpf/built-from";
const SOURCES: &str = "../monitor-ebpf";

fn main() {
    println!("cargo::rerun-if-changed={OBJECT}");
    println!("cargo::rerun-if-changed={BUILT_FROM}");
    let target = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("programs.bpf");
    if let Err(error) = fs::copy(OBJECT, &target) {
        println!(
            "cargo::error=cannot copy monitor/{OBJECT}: {error}; `cargo xtask build --bpf` makes it"
        );
    }
    warn_of_old_programs();
    let programs = fs::read(&target).unwrap_or_default();
    println!(
        "cargo::rustc-env=LIVEPATCH_MONITOR_BPF_BUILD=crc32 {:08x}, {} bytes",
        crc32fast::hash(&programs),
        programs.len()
    );
    let revision = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map_or_else(
            || "unknown".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        );
    println!("cargo::rustc-env=LIVEPATCH_MONITOR_REVISION={revision}");
    // The revision follows HEAD; a missing file would make cargo rebuild every time.
    for file in ["../.git/HEAD", "../.git/logs/HEAD"] {
        if PathBuf::from(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
}

/// The sources may be absent, as in a package of the monitor alone.
fn warn_of_old_programs() {
    let package = PathBuf::from(SOURCES);
    let (Ok(sources), Ok(hash)) = (
        source_hash::sources(&package),
        source_hash::source_hash(&package),
    ) else {
        return;
    };
    for source in sources {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    let built_from = fs::read_to_string(BUILT_FROM).unwrap_or_default();
    if !built_from
        .lines()
        .any(|line| line == format!("sources crc32 {hash}"))
    {
        println!(
            "cargo::warning=monitor/{OBJECT} is not built from the sources in monitor-ebpf; \
             run `cargo xtask build --bpf`"
        );
    }
}
