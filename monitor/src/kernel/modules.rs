//! Reads the loaded modules, which modules the kernel accepts, and the addresses of the
//! symbols that a module needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    kallsyms::{self, Kallsyms, KallsymsError},
    lockdown,
};
use crate::bounded_read;
use livepatch_core::preflight::host::{Known, Place, Policy, Symbols};

/// Most bytes read of the list of modules.
const MAX_LIST: u64 = 16 << 20;

/// The release of the running kernel, `uname -r`.
///
/// # Errors
/// The reason why it is unknown.
pub fn release(procfs: &Path) -> Known<String> {
    let path = procfs.join("sys/kernel/osrelease");
    match bounded_read::read_text(&path, bounded_read::VALUE) {
        Ok(release) => Ok(release.trim().to_owned()),
        Err(error) => Err(format!(
            "cannot determine which kernel is running: cannot read {}: {error}",
            path.display()
        )),
    }
}

/// The loaded modules, each with its srcversion if it has one.
///
/// # Errors
/// The reason why they are unknown.
pub fn loaded(procfs: &Path, sysfs: &Path) -> Known<BTreeMap<String, Option<String>>> {
    let text = list(procfs)?;
    let names = text.lines().filter_map(|line| line.split(' ').next());
    Ok(names
        .map(|name| {
            let srcversion = sysfs.join("module").join(name).join("srcversion");
            let srcversion = bounded_read::read_text(&srcversion, bounded_read::VALUE).ok();
            (
                name.to_owned(),
                srcversion.map(|text| text.trim().to_owned()),
            )
        })
        .collect())
}

/// The loaded modules, the newest first: the kernel adds each at the head of its list
/// (add_unformed_module, kernel/module/main.c, 5.10 to 7.2).
///
/// # Errors
/// A message that says why they are unknown.
pub fn newest_first(procfs: &Path) -> Known<Vec<String>> {
    let text = list(procfs)?;
    let names = text.lines().filter_map(|line| line.split(' ').next());
    Ok(names.map(str::to_owned).collect())
}

/// Whether the init of some module has not returned yet: state `Loading` in /proc/modules
/// (m_show, kernel/module/procfs.c, formerly kernel/module.c).
///
/// # Errors
/// The reason why that is unknown.
pub fn one_is_loading(procfs: &Path) -> Known<bool> {
    let text = list(procfs)?;
    // name size users dependencies state address
    Ok(text
        .lines()
        .any(|line| line.split(' ').nth(4) == Some("Loading")))
}

fn list(procfs: &Path) -> Known<String> {
    let path = procfs.join("modules");
    bounded_read::read_text(&path, MAX_LIST).map_err(|error| {
        format!(
            "cannot determine which modules are loaded: cannot read {}: {error}",
            path.display()
        )
    })
}

/// Whether `kernel.ftrace_enabled` is not 0; `None` if it cannot be read.
#[must_use]
pub fn ftrace_enabled(procfs: &Path) -> Option<bool> {
    let path = procfs.join("sys/kernel/ftrace_enabled");
    let text = bounded_read::read_text(&path, bounded_read::VALUE).ok()?;
    Some(text.trim() != "0")
}

/// Which modules the kernel accepts (kernel/module/main.c, signing.c;
/// security/lockdown/lockdown.c; 5.10 to 7.2).
#[must_use]
pub fn policy(procfs: &Path, sysfs: &Path) -> Policy {
    let read = |path: &Path| bounded_read::read_text(path, bounded_read::VALUE).ok();
    Policy {
        signatures_enforced: read(&sysfs.join("module/module/parameters/sig_enforce"))
            .map(|text| text.trim() == "Y"),
        lockdown: lockdown::level(sysfs),
        ftrace_enabled: ftrace_enabled(procfs),
        modules_disabled: read(&procfs.join("sys/kernel/modules_disabled"))
            .map(|text| text.trim() == "1"),
    }
}

/// Finds all addresses of these symbols, with their lengths in bytes.
///
/// # Errors
/// [`KallsymsError`].
pub fn symbols(procfs: &Path, names: &BTreeSet<&str>) -> Result<Symbols, KallsymsError> {
    let names: Vec<&str> = names.iter().copied().collect();
    let found = kallsyms::find(procfs, &names)?;
    let addresses = found.iter().map(|(_, symbol)| symbol.address).collect();
    let resolved = kallsyms::resolve(&mut Kallsyms::open(procfs)?, &addresses)?;
    let mut symbols = Symbols::default();
    for (name, symbol) in found.iter() {
        let size = resolved.get(&symbol.address).and_then(|at| at.size);
        let place = Place {
            address: symbol.address,
            size,
        };
        symbols.add(symbol.module.as_deref(), name, place);
    }
    Ok(symbols)
}

/// The number of threads: the second number of the fourth field of /proc/loadavg.
///
/// # Errors
/// The reason why it is unknown.
pub fn threads(procfs: &Path) -> Known<usize> {
    let path = procfs.join("loadavg");
    let text = bounded_read::read_text(&path, bounded_read::VALUE)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let threads = text.split(' ').nth(3).and_then(|field| {
        let (_, threads) = field.split_once('/')?;
        threads.parse().ok()
    });
    threads.ok_or_else(|| format!("{} does not hold a load average", path.display()))
}

/// Number of CPUs online; `None` if it is unknown.
#[must_use]
pub fn cpus(sysfs: &Path) -> Option<usize> {
    let list = bounded_read::read_text(
        &sysfs.join("devices/system/cpu/online"),
        bounded_read::VALUE,
    )
    .ok()?;
    // `0-3,8`
    list.trim().split(',').try_fold(0_usize, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn put(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn reads_the_host() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert!(release(root).unwrap_err().contains("osrelease"));
        assert!(loaded(root, root).unwrap_err().contains("modules"));
        assert_eq!(policy(root, root), Policy::default());
        assert_eq!(cpus(root), None);
        put(root, "sys/kernel/osrelease", "6.12.95\n");
        put(
            root,
            "modules",
            "lpm_target 16384 0 - Live 0x0 (OE)\nzstd 1 0 - Live 0x0\n",
        );
        put(root, "module/lpm_target/srcversion", "ABC\n");
        put(root, "module/module/parameters/sig_enforce", "N\n");
        put(
            root,
            "kernel/security/lockdown",
            "none [integrity] confidentiality\n",
        );
        put(root, "sys/kernel/modules_disabled", "1\n");
        put(root, "devices/system/cpu/online", "0-3,8\n");
        put(root, "loadavg", "0.00 0.01 0.05 1/95 1234\n");
        assert_eq!(release(root).unwrap(), "6.12.95");
        let modules = loaded(root, root).unwrap();
        assert_eq!(modules["lpm_target"].as_deref(), Some("ABC"));
        assert_eq!(modules["zstd"], None);
        let policy = policy(root, root);
        assert_eq!(policy.signatures_enforced, Some(false));
        assert_eq!(policy.lockdown.as_deref(), Some("integrity"));
        assert_eq!(policy.modules_disabled, Some(true));
        assert_eq!((cpus(root), threads(root)), (Some(5), Ok(95)));
    }

    #[test]
    fn places_and_lengths() {
        let root = tempfile::tempdir().unwrap();
        put(
            root.path(),
            "kallsyms",
            "ffffffff81000000 T first\nffffffff81000100 t same\nffffffff81000140 t next\n\
             ffffffff81000200 t same\nffffffff81000210 T last\nffffffff81001000 T _end\n\
             ffffffffc0000000 t same\t[m]\nffffffffc0000040 t other\t[m]\n",
        );
        let symbols = symbols(root.path(), &BTreeSet::from(["same", "missing"])).unwrap();
        let sizes: Vec<_> = symbols
            .places("vmlinux", "same")
            .iter()
            .map(|place| place.size)
            .collect();
        assert_eq!(sizes, [Some(0x40), Some(0x10)]);
        assert_eq!(symbols.places("m", "same")[0].size, Some(0x40));
        assert_eq!(symbols.places("vmlinux", "missing"), []);
    }
}
