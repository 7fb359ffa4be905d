//! The BPF programs: one ELF file, which is kept in the tree as `monitor/bpf/programs.bpf`
//! so that only a change of the programs needs their compiler and linker.

#[path = "../../../monitor/bpf/source_hash.rs"]
mod source_hash;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::toolchain::{self, Toolchain},
    host::{paths, process},
};

/// What the compiler is for.
const PURPOSE: &str = "to compile the BPF programs";

const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "bpf";
const BINARY: &str = "livepatch-monitor-bpf";

/// The object in the tree, and the file that records its sources and toolchain.
const OBJECT: &str = "monitor/bpf/programs.bpf";
const BUILT_FROM: &str = "monitor/bpf/built-from";

/// Separates the flags (Cargo's CARGO_ENCODED_RUSTFLAGS), because a path may contain spaces.
const SEPARATOR: &str = "\u{1f}";

/// Builds the programs if the object in the tree was made from other sources.
pub(crate) fn refresh_if_old() -> Result<()> {
    let line = format!("sources crc32 {}", sources()?);
    let built_from = fs::read_to_string(paths::root()?.join(BUILT_FROM)).unwrap_or_default();
    if built_from.lines().any(|known| known == line) {
        return Ok(());
    }
    process::step("the BPF programs have changed: build them", refresh)
}

/// Builds the programs and replaces the object in the tree.
pub(crate) fn refresh() -> Result<()> {
    let root = paths::root()?;
    let toolchain = Toolchain::choose(PURPOSE)?;
    let built = build(toolchain)?;
    let object = root.join(OBJECT);
    fs::copy(&built, &object).with_context(|| format!("cannot write {}", object.display()))?;
    let text = format!(
        "sources crc32 {}\n{}\n",
        sources()?,
        described(toolchain)?.join("\n")
    );
    let path = root.join(BUILT_FROM);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Builds the programs and compares the object in the tree with them, byte for byte.
///
/// Another compiler gives other bytes. If the object was made by another one, the programs are
/// still built and the sources must be those of the object; the returned text says what was not
/// compared.
///
/// # Errors
///
/// The object differs, or its sources are not those in the tree.
pub(crate) fn check() -> Result<Option<String>> {
    let root = paths::root()?;
    let path = root.join(BUILT_FROM);
    let built_from =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (made_of, made_with) = built_from.split_once('\n').unwrap_or((&built_from, ""));
    if made_of != format!("sources crc32 {}", sources()?) {
        bail!("{OBJECT} is not made of the sources in the tree; run `cargo xtask build --bpf`");
    }
    let toolchain = Toolchain::choose(PURPOSE)?;
    let built = build(toolchain)?;
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    if read(&built)? == read(&root.join(OBJECT))? {
        return Ok(None);
    }
    let here = described(toolchain)?;
    if made_with.lines().eq(here.iter().map(String::as_str)) {
        bail!(
            "{OBJECT} differs from what its sources give, {}; run `cargo xtask build --bpf`",
            built.display()
        );
    }
    Ok(Some(format!(
        "{OBJECT} is not compared with its sources byte for byte: it was made with {}, and \
         here is {}",
        made_with.lines().collect::<Vec<_>>().join(", "),
        here.join(", ")
    )))
}

fn sources() -> Result<String> {
    let package = paths::root()?.join("monitor-ebpf");
    source_hash::source_hash(&package)
        .with_context(|| format!("cannot read the sources in {}", package.display()))
}

/// The versions of the compiler and the linker, one line each.
fn described(toolchain: Toolchain) -> Result<[String; 2]> {
    let compiler = process::output(toolchain.rustc().arg("--version"))?;
    let linker = toolchain::linker_folder(toolchain)?.join("bpf-linker");
    let linker = process::output(Command::new(linker).arg("--version"))?;
    Ok([compiler, linker].map(|text| text.lines().next().unwrap_or_default().to_owned()))
}

/// Builds the programs and returns the path of their ELF file, which has BTF but no debug
/// information. The same sources, compiler and linker give the same bytes in every checkout.
fn build(toolchain: Toolchain) -> Result<PathBuf> {
    let linker = toolchain::linker_folder(toolchain)?;
    // Not the workspace's folder: another compiler would rebuild everything there.
    let target = paths::target()?.join("bpf-build");
    let mut folders = vec![linker];
    if let Some(path) = std::env::var_os("PATH") {
        folders.extend(std::env::split_paths(&path));
    }
    let mut command = toolchain.cargo();
    command
        .current_dir(paths::root()?)
        .args(["build", "--quiet", "-Z", "build-std=core"])
        .args(["--package", "livepatch-monitor-ebpf", "--bin", BINARY])
        .args(["--features", "programs"])
        .args(["--target", TARGET, "--profile", PROFILE])
        .arg("--target-dir")
        .arg(&target)
        .env("PATH", std::env::join_paths(folders).context("PATH")?)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain)?);
    process::run(&mut command)?;
    let binary = target.join(TARGET).join(PROFILE).join(BINARY);
    if !binary.is_file() {
        bail!("cargo did not build {}", binary.display());
    }
    let stripped = binary.with_extension("stripped");
    process::run(
        Command::new(toolchain.strip()?)
            .arg("--strip-debug")
            .arg("-o")
            .args([&stripped, &binary]),
    )?;
    Ok(stripped)
}

/// Flags for BTF, and for source paths that are the same on every machine, because BTF contains
/// them.
fn flags(toolchain: Toolchain) -> Result<OsString> {
    let mut flags = OsString::from(["-C", "debuginfo=2", "-C", "link-arg=--btf"].join(SEPARATOR));
    let registry = toolchain::cargo_home()?.join("registry/src");
    let mut remapped = vec![
        (paths::root()?, "/livepatch-monitor"),
        (toolchain.library()?, "/rust"),
    ];
    // One folder per index, named with a hash of the index's address. It exists, because this
    // program was built from it.
    if registry.is_dir() {
        let indexes = paths::listed(&registry)?.into_iter();
        remapped.extend(indexes.map(|index| (index, "/cargo")));
    }
    for (from, to) in remapped {
        flags.push(SEPARATOR);
        flags.push("--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    Ok(flags)
}
