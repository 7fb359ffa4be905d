//! Embeds the BPF programs that `cargo xtask build` made; without them the
//! monitor still builds and runs, on sysfs and /proc alone, and says so.

use std::{env, fs, path::PathBuf, process::Command};

const OBJECT: &str = "LIVEPATCH_MONITOR_BPF";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(bpf_programs)");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let target = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("programs.bpf");
    let bpf_build = match env::var_os(OBJECT) {
        Some(object) => {
            println!("cargo::rerun-if-changed={}", object.display());
            if let Err(error) = fs::copy(&object, &target) {
                println!(
                    "cargo::error={OBJECT}={}: {error}; run `cargo xtask build`",
                    object.display()
                );
            }
            println!("cargo::rustc-cfg=bpf_programs");
            let programs = fs::read(&target).unwrap_or_default();
            format!(
                "crc32 {:08x}, {} bytes",
                crc32fast::hash(&programs),
                programs.len()
            )
        }
        None => {
            println!(
                "cargo::warning=built without the BPF programs (sysfs and /proc only); `cargo xtask build` makes the whole monitor"
            );
            "none, built by plain cargo".to_owned()
        }
    };
    println!("cargo::rustc-env=LIVEPATCH_MONITOR_BPF_BUILD={bpf_build}");
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
