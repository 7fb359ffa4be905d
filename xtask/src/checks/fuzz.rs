//! `cargo xtask fuzz`: runs the parsers of untrusted bytes under libFuzzer. Recorded files start
//! each corpus. All parsers are one program, so that there is only one build; an environment
//! variable selects the group of parsers.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::toolchain,
    host::{packages, paths, process},
};

/// Groups of parsers, with the test fixtures that start their corpus.
const TARGETS: &[(&str, Option<&str>)] = &[
    ("crash", Some("crash")),
    ("gate", None),
    ("host", None),
    ("kernel", Some("btf")),
    ("module", Some("preflight")),
    ("state", None),
    ("web", None),
];

const PROGRAM: &str = "parsers";

/// Seconds that each target runs in a test run.
const IN_A_TEST: u32 = 6;

/// A parser that needs more memory than this for inputs of a few KiB is unbounded.
const LIMITS: &[&str] = &["-rss_limit_mb=1024", "-malloc_limit_mb=256", "-timeout=10"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Fuzz only this group of parsers
    #[arg(long)]
    target: Option<String>,
}

/// Runs the requested targets.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let wanted = |name: &str| arguments.target.as_deref().is_none_or(|only| only == name);
    let targets: Vec<_> = TARGETS.iter().filter(|(name, _)| wanted(name)).collect();
    if targets.is_empty() {
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        bail!("unknown fuzz target; choose one of {}", names.join(", "));
    }
    fuzz(&targets, arguments.seconds)
}

/// Runs every target briefly.
pub(crate) fn run_briefly() -> Result<()> {
    fuzz(&TARGETS.iter().collect::<Vec<_>>(), IN_A_TEST)
}

fn fuzz(targets: &[&(&str, Option<&str>)], seconds: u32) -> Result<()> {
    packages::install(&["g++"], "to build the fuzzer")?;
    let tools = toolchain::cargo_fuzz_folder()?;
    process::step("build the fuzz targets", || {
        process::run(cargo_fuzz(&tools, "build")?.args([PROGRAM, "--"]))
    })?;
    for (target, fixtures) in targets {
        process::step(&format!("fuzz {target}"), || {
            one(&tools, target, *fixtures, seconds)
        })?;
    }
    Ok(())
}

fn one(tools: &Path, target: &str, fixtures: Option<&str>, seconds: u32) -> Result<()> {
    let corpus = paths::target()?.join("fuzz-corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let mut command = cargo_fuzz(tools, "run")?;
    command
        .env("PARSERS", target)
        .arg(PROGRAM)
        // libFuzzer writes new inputs to the first folder and only reads the others.
        .arg(&corpus);
    let root = paths::root()?;
    let seeds = root.join("tests/fuzz/seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    if let Some(fixtures) = fixtures {
        for folder in folders(&root.join("tests/fixtures").join(fixtures))? {
            command.arg(folder);
        }
    }
    command
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .args(LIMITS);
    // In memory, because a parser reads its files some thousand times a second.
    let folder = format!("/dev/shm/livepatch-monitor-fuzz-{}", std::process::id());
    command.env("PARSERS_ROOT", &folder);
    let log = paths::target()?.join(format!("fuzz-{target}.log"));
    let result = process::run_logged(&mut command, &log);
    if Path::new(&folder).exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {folder}"))?;
    }
    result
}

/// A folder and its subfolders.
fn folders(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = vec![folder.to_owned()];
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry
            .with_context(|| format!("{}", folder.display()))?
            .path();
        if path.is_dir() {
            found.append(&mut folders(&path)?);
        }
    }
    Ok(found)
}

fn cargo_fuzz(tools: &Path, action: &str) -> Result<Command> {
    let mut command = Command::new(tools.join("cargo-fuzz"));
    command
        .current_dir(paths::root()?)
        .args(["fuzz", action, "--fuzz-dir", "tests/fuzz"])
        .arg("--target-dir")
        .arg(paths::target()?.join("fuzz"))
        // libFuzzer needs unstable compiler flags.
        .env("RUSTC_BOOTSTRAP", "1");
    toolchain::forget_build_flags(&mut command);
    Ok(command)
}
