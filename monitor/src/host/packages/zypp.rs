//! What zypper leaves: libzypp runs rpm once a package and keeps the %posttrans scripts for the
//! end, as files in /var/adm/update-scripts/posttrans* named `NAME-VERSION-RELEASE.ARCH.rpm` and six
//! random characters (libzypp 17, zypp/target/RpmPostTransCollector.cc; tried with zypper 1.14).

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use livepatch_core::updates::{
    rpm::{HalfDone, State},
    rpmdb::Installed,
};

pub(super) const ZYPP: &str = "var/log/zypp";
pub(super) const SCRIPTS: &str = "var/adm/update-scripts";
/// Held while zypper works.
pub(super) const ZYPP_LOCK: &str = "run/zypp.pid";

/// All that is read, below the root.
pub(super) const PATHS: [&str; 5] = [
    ZYPP,
    SCRIPTS,
    ZYPP_LOCK,
    super::log_files::LOCALTIME,
    "usr/share/zoneinfo",
];
/// What changes when something is left or repaired.
pub(super) const CHANGING: [&str; 2] = ["var/log/zypp/history", SCRIPTS];

/// Folders and scripts that are looked at.
const MAX_ENTRIES: usize = 4096;

/// Whether zypper is this host's package manager.
pub(super) fn is_here(root: &Path) -> bool {
    root.join(ZYPP).join("history").exists()
}

/// A script of a transaction that did not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Script {
    /// `NAME-VERSION-RELEASE.ARCH`.
    package: String,
    /// Where it lies, seen from the host.
    folder: String,
    /// When it was put there, in seconds since 1970.
    written: i64,
}

impl Script {
    /// The name of its package.
    pub(super) fn name(&self) -> &str {
        let mut parts = self.package.rsplitn(3, '-');
        parts.nth(2).unwrap_or(&self.package)
    }
}

/// The scripts that were kept for the end of a transaction that did not end.
pub(super) fn left_scripts(root: &Path) -> Result<Vec<Script>, String> {
    let folder = root.join(SCRIPTS);
    let failed = |error: io::Error| format!("cannot read {}: {error}", folder.display());
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut scripts = Vec::new();
    for entry in entries.take(MAX_ENTRIES) {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_folder || !name.starts_with("posttrans") {
            continue;
        }
        for script in fs::read_dir(entry.path())
            .map_err(failed)?
            .take(MAX_ENTRIES)
        {
            let script = script.map_err(failed)?;
            let file = script.file_name().to_string_lossy().into_owned();
            let Some((package, _)) = file.rsplit_once(".rpm") else {
                continue;
            };
            scripts.push(Script {
                package: package.to_owned(),
                folder: format!("/{SCRIPTS}/{name}"),
                written: script.metadata().map_err(failed)?.mtime(),
            });
        }
    }
    Ok(scripts)
}

/// The packages whose script may not have run. One that a later run of zypper installed again is
/// repaired, although the script stays where it is: `runs` are the beginnings of zypper's runs, in
/// seconds since 1970. Where the log begins after the script was put aside, nothing is claimed:
/// the run that repaired it may have been rotated away with the one that left it.
pub(super) fn unclosed(scripts: &[Script], installed: &[Installed], runs: &[i64]) -> Vec<HalfDone> {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for script in scripts {
        let written = last.entry(script.folder.as_str()).or_insert(script.written);
        *written = script.written.max(*written);
    }
    let left = scripts.iter().filter_map(|script| {
        let one = installed.iter().find(|one| {
            let name = format!("{}-{}-{}.{}", one.name, one.version, one.release, one.arch);
            name == script.package
        })?;
        // A script is put aside before its package is installed, so that package's own
        // transaction may be the later one of the two.
        let put_aside = last.get(script.folder.as_str())?;
        if runs.iter().min()? > put_aside {
            return None;
        }
        let next_run = runs.iter().filter(|begin| *begin > put_aside).min();
        let transaction = i64::from(one.transaction?);
        let is_repaired = next_run.is_some_and(|begin| transaction >= *begin);
        (!is_repaired).then(|| HalfDone {
            name: one.name.clone(),
            arch: one.arch.clone(),
            evr: one.evr(),
            install_only: one.install_only,
            state: State::PosttransLeft {
                folder: script.folder.clone(),
            },
        })
    });
    left.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(package: &str, written: i64) -> Script {
        Script {
            package: package.to_owned(),
            folder: "/var/adm/update-scripts/posttransX".to_owned(),
            written,
        }
    }

    fn installed(name: &str, transaction: u32) -> Installed {
        Installed {
            name: name.to_owned(),
            arch: "noarch".to_owned(),
            epoch: 0,
            version: "2".to_owned(),
            release: "1".to_owned(),
            transaction: Some(transaction),
            install_only: false,
            posttrans: true,
        }
    }

    #[test]
    fn a_script_that_stayed_counts_until_its_package_is_installed_again() {
        // Put aside before its package is installed, so the last transaction may be later.
        let scripts = [
            script("lp-a-2-1.noarch", 100),
            script("lp-b-2-1.noarch", 101),
        ];
        let left = |a, b, runs: &[i64]| {
            let packages = [installed("lp-a", a), installed("lp-b", b)];
            let left = unclosed(&scripts, &packages, runs);
            left.into_iter()
                .map(|one| one.package())
                .collect::<Vec<_>>()
        };
        assert_eq!(left(100, 102, &[99]), ["lp-a.noarch", "lp-b.noarch"]);
        // A later run that installed something else repairs nothing.
        assert_eq!(left(100, 102, &[99, 200]), ["lp-a.noarch", "lp-b.noarch"]);
        assert_eq!(left(201, 102, &[99, 200]), ["lp-b.noarch"]);
        assert_eq!(left(201, 300, &[99, 200]), Vec::<String>::new());
        // The log was rotated since.
        assert_eq!(left(100, 102, &[200]), Vec::<String>::new());
        assert_eq!(left(100, 102, &[]), Vec::<String>::new());
        // Of a package that is not there nothing is missing.
        assert_eq!(unclosed(&scripts, &[], &[99]), []);
    }
}
