//! The kernels for the scenarios: Debian's images, each with a small tree of its suite in which
//! modules can be built for it.

use std::{
    fmt, fs,
    fs::File,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::host::{packages, paths, process};

/// A kernel line and its Debian suite. The point release is the current one of the suite's
/// meta-package, because older ones are removed from the archive.
#[derive(Debug)]
pub(crate) struct Line {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    suite: &'static str,
    /// The suite of the kernel packages, if it is not `suite` itself.
    kernel_suite: Option<&'static str>,
    /// The suffix of the image's and the headers' meta-packages.
    flavour: &'static str,
    /// The package with pahole.
    pahole: &'static str,
    /// The scenarios of a run without `--thorough`; none is all. Each is on two lines or
    /// more. One that is asked for by name runs on every line.
    pub(crate) normal_run: Option<&'static [&'static str]>,
}

/// Debian's kernel for virtual machines: smaller, and more is built in.
const CLOUD: &str = "cloud-amd64";
const GENERIC: &str = "amd64";

/// The kernels that can be booted, oldest first.
pub(crate) const LINES: &[Line] = &[
    Line {
        name: "5.10",
        suite: "bullseye",
        kernel_suite: None,
        flavour: CLOUD,
        pahole: "dwarves",
        // Where the monitor works differently than on later kernels: kprobes instead of missing
        // tracepoints, no OBJECT/patched, other capabilities for bpf(), the kernel log instead of
        // events, another module layout. And where the kernel does: it refuses a livepatch where a
        // BPF trampoline is, function_graph sees nothing of a replaced function, and a call trace
        // has a bare address.
        normal_run: Some(&[
            "clean_patch_and_unpatch",
            "atomic_replace_of_two",
            "target_module_loaded_later",
            "held_by_user_task",
            "held_by_running_kthread",
            "reversed",
            "forced",
            "refused",
            "joined_in_mid_transition",
            "without_bpf",
            "without_btf",
            "privileges_are_given_up",
            "a_dynamic_user_is_enough",
            "forecast_comes_true",
            "unfit_modules_are_refused",
            "tracers_are_named",
            "tracers_then_livepatch",
            "programs_then_livepatch",
            "probed_function_can_be_patched",
            "first_attempts_succeed",
            "oops_in_patch",
            "oops_elsewhere",
            "warning_is_survived",
            "warning_without_bpf",
            "soft_lockup_is_survived",
            "hung_task",
            "rcu_stall_is_survived",
            "sysrq_in_transition",
        ]),
    },
    Line {
        name: "6.1",
        suite: "bookworm",
        kernel_suite: None,
        flavour: CLOUD,
        pahole: "pahole",
        // What its sysfs and its events look like, on the way between 5.10 and 6.12.
        normal_run: Some(&[
            "clean_patch_and_unpatch",
            "target_module_loaded_later",
            "held_by_user_task",
            "reversed",
            "joined_in_mid_transition",
            "a_dynamic_user_is_enough",
            "forecast_comes_true",
            "warning_is_survived",
            "sysrq_in_transition",
        ]),
    },
    Line {
        name: "6.12",
        suite: "bookworm",
        kernel_suite: Some("bookworm-backports"),
        flavour: CLOUD,
        pahole: "pahole",
        // What 5.10 does not run: with 7.2, which runs all, each is on two lines. And what
        // a livepatch comes to when all goes well, and when it does not.
        normal_run: Some(&[
            "held_transition_is_real",
            "kthreads_hold_too",
            "stack_and_replace",
            "late_modules_are_patched",
            "refusals",
            "clean_patch_and_unpatch",
            "held_by_user_task",
            "held_by_sleeping_kthread",
            "held_by_stacked_patch",
            "held_during_unpatch",
            "cancelled",
            "target_module_refused",
            "killed_in_mid_transition",
            "names_break_nothing",
            "ten_thousand_threads",
            "waited_for_and_in_force",
            "runbooks_are_followed",
            "without_ftrace",
            "events_then_livepatch",
            "tracers_then_livepatch",
            "programs_then_livepatch",
            "livepatch_then_others",
            "livepatch_then_overriders",
            "redirections_and_livepatch",
            "transitions_take_no_longer",
            "oops_in_patch_is_survived",
            "oops_elsewhere",
            "soft_lockup",
            "nmi",
            "sysrq_without_patch",
            "lockup_while_loading",
            "sysrq_in_transition",
            "sysrq_after_transition",
            "power_cut_in_transition",
            "power_cuts",
            "full_disks",
            "read_only_crash",
            "failing_disk",
            "stopped_and_starved",
            "clean_reboot",
        ]),
    },
    Line {
        name: "7.2",
        suite: "sid",
        kernel_suite: None,
        flavour: CLOUD,
        pahole: "pahole",
        normal_run: None,
    },
    Line {
        name: "7.2-generic",
        suite: "sid",
        kernel_suite: None,
        flavour: GENERIC,
        pahole: "pahole",
        // The same source as the line above: only what the configuration could change.
        normal_run: Some(&[
            "clean_patch_and_unpatch",
            "held_by_user_task",
            "probed_function_can_be_patched",
        ]),
    },
];

/// The default of `--kernel`.
pub(crate) const ALL: &str = "5.10,6.1,6.12,7.2,7.2-generic";

/// The kernel to boot if one is enough and none is given.
const DEFAULT: &str = "6.12";

/// The packages needed to build a module, apart from the kernel's headers and pahole. They are only
/// unpacked, so that they trigger no initramfs and no boot loader.
const PACKAGES: &[&str] = &[
    "bash",
    "coreutils",
    "dash",
    "findutils",
    "gcc",
    "grep",
    "make",
    "mawk",
    "sed",
];

const LEFT_OUT: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
];

/// The version of the cache's layout: a folder with another version is rebuilt.
const LAYOUT: u32 = 1;

/// A kernel ready to boot.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    /// Where the cache has its files.
    pub(crate) folder: PathBuf,
    /// The root of the tree of its suite.
    pub(crate) tree: PathBuf,
}

/// Written last: if it exists, the folder is complete.
#[derive(Serialize, Deserialize)]
struct Stamp {
    layout: u32,
    release: String,
    /// The image's path inside the tree.
    image: PathBuf,
}

impl fmt::Display for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.name, self.release)
    }
}

/// The lines with these names.
pub(crate) fn lines(names: &[String]) -> Result<Vec<&'static Line>> {
    names
        .iter()
        .map(|name| {
            LINES
                .iter()
                .find(|line| line.name == name)
                .with_context(|| format!("there is no kernel `{name}`; the kernels are {ALL}"))
        })
        .collect()
}

/// The line with this name; without a name, 6.12 or a cached line.
pub(crate) fn one(name: Option<&str>) -> Result<&'static Line> {
    let name = match name {
        Some(name) => name,
        None => {
            let mut cached = Vec::new();
            for line in LINES {
                if is_cached(line)? {
                    cached.push(line.name);
                }
            }
            let first = cached.first().copied().unwrap_or(DEFAULT);
            if cached.contains(&DEFAULT) {
                DEFAULT
            } else {
                first
            }
        }
    };
    lines(&[name.to_owned()])?
        .into_iter()
        .next()
        .context("no kernel to boot")
}

/// The kernel of a line, downloaded if it is not cached.
pub(crate) fn prepare(line: &Line) -> Result<Kernel> {
    let folder = folder(line)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let _lock = lock(&folder)?;
    if let Some(kernel) = cached_in(line, &folder)? {
        return Ok(kernel);
    }
    process::step(
        &format!(
            "kernel {}: fetch Debian {}'s linux-image-{}, headers and compiler into {}",
            line.name,
            line.kernel_suite.unwrap_or(line.suite),
            line.flavour,
            folder.display()
        ),
        || fetch(line, &folder),
    )?;
    cached_in(line, &folder)?.with_context(|| {
        format!(
            "{} is not whole after it was made; remove it and try again",
            folder.display()
        )
    })
}

/// Whether a line's kernel is available without the network.
fn is_cached(line: &Line) -> Result<bool> {
    Ok(cached_in(line, &folder(line)?)?.is_some())
}

/// Locks a cache folder against other runs while it changes.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn folder(line: &Line) -> Result<PathBuf> {
    Ok(paths::cache()?.join("kernels").join(line.name))
}

fn cached_in(line: &Line, folder: &Path) -> Result<Option<Kernel>> {
    let path = folder.join("stamp.json");
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(None);
    };
    let stamp: Stamp = serde_json::from_str(&text)
        .with_context(|| format!("{} is damaged; remove it and try again", path.display()))?;
    let tree = folder.join("tree");
    let image = tree.join(&stamp.image);
    if stamp.layout != LAYOUT || !image.is_file() {
        return Ok(None);
    }
    Ok(Some(Kernel {
        name: line.name.to_owned(),
        release: stamp.release,
        image,
        folder: folder.to_path_buf(),
        tree,
    }))
}

fn fetch(line: &Line, folder: &Path) -> Result<()> {
    let tree = folder.join("tree");
    for path in [
        &tree,
        &folder.join("modules"),
        &folder.join("make-modules.log"),
    ] {
        remove(path)?;
    }
    remove(&folder.join("stamp.json"))?;
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--mode=root", "--variant=extract"])
        .args(["--architectures=amd64", "--components=main"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(format!(
            "--include=linux-image-{0},linux-headers-{0},{1}",
            line.flavour, line.pahole
        ))
        .arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr")
        // An outdated mirror is accepted; signatures are still checked.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    for pattern in LEFT_OUT {
        command.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    if let Some(suite) = line.kernel_suite {
        command.arg(format!("--aptopt=APT::Default-Release \"{suite}\""));
    }
    let mirror = packages::mirror()?;
    command.arg(line.suite).arg(&tree);
    command.arg(format!("deb {mirror} {} main", line.suite));
    if let Some(suite) = line.kernel_suite {
        command.arg(format!("deb {mirror} {suite} main"));
    }
    process::run_logged(&mut command, &folder.join("fetch.log"))?;

    // A maintainer script would make it; none ran.
    let awk = tree.join("usr/bin/awk");
    if !awk.exists() {
        symlink("mawk", &awk).with_context(|| format!("cannot make {}", awk.display()))?;
    }
    let release = only_release(&tree)?;
    let image = [
        PathBuf::from(format!("boot/vmlinuz-{release}")),
        // Where the package keeps it since a script copies it to /boot.
        PathBuf::from(format!("usr/lib/modules/{release}/vmlinuz")),
    ]
    .into_iter()
    .find(|path| tree.join(path).is_file())
    .with_context(|| format!("no image of {release} under {}", tree.display()))?;
    let stamp = Stamp {
        layout: LAYOUT,
        release,
        image,
    };
    let path = folder.join("stamp.json");
    fs::write(&path, serde_json::to_string_pretty(&stamp)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn only_release(tree: &Path) -> Result<String> {
    let folder = tree.join("usr/lib/modules");
    let mut releases = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        if entry.path().join("kernel").is_dir() {
            releases.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    match <[String; 1]>::try_from(releases) {
        Ok([release]) => Ok(release),
        Err(releases) => bail!(
            "{} should hold one kernel's modules, it holds {releases:?}",
            folder.display()
        ),
    }
}

fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    result.with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_list_names_every_line() {
        let names: Vec<String> = ALL.split(',').map(str::to_owned).collect();
        let found = lines(&names).unwrap();
        assert_eq!(found.len(), LINES.len());
    }

    #[test]
    fn an_unknown_line_is_refused_with_the_choice() {
        let error = lines(&["4.4".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("6.12"), "{error}");
    }
}
