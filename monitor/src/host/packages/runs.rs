//! Which runs of package managers began in a boot: from dnf's histories and the logs of apt, dpkg
//! and zypper.

use std::path::Path;

use livepatch_core::updates::{
    logs,
    run::{MAX_PACKAGES, UpdateRun},
};

use super::{
    Interrupted, Manager, inside,
    log_files::{ZYPP_LOG, end_of, zone},
    rpm,
};

const APT_LOG: &str = "var/log/apt/history.log";
const DPKG_LOG: &str = "var/log/dpkg.log";

/// All that is read and no other module names, below the root.
pub(super) const PATHS: [&str; 2] = ["var/log/apt", DPKG_LOG];

/// The logs without an end of a run, or whose runs have others in them.
pub(super) const LOGS: [&str; 3] = [APT_LOG, DPKG_LOG, ZYPP_LOG];

/// When the last run of dpkg, of apt's, and of zypper's began, in seconds since 1970, where the
/// logs say it.
///
/// # Errors
/// A log cannot be read, or the host's time zone.
pub(super) fn last_begins(root: &Path) -> Result<Vec<(Manager, i64)>, String> {
    let zone = zone(root)?;
    let runs = [
        (Manager::Dpkg, logs::apt(&read(root, APT_LOG)?, &zone)),
        (Manager::Dpkg, logs::dpkg(&read(root, DPKG_LOG)?, &zone)),
        (Manager::Zypper, logs::zypper(&read(root, ZYPP_LOG)?, &zone)),
    ];
    let last = runs.into_iter().filter_map(|(manager, runs)| {
        let begins = runs.iter().map(|run| run.begin_unix_seconds);
        Some((manager, begins.max()?))
    });
    Ok(last.collect())
}

/// The end of a log; empty where there is none.
fn read(root: &Path, path: &str) -> Result<String, String> {
    let path = root.join(path);
    inside(root, &path)?;
    end_of(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// The runs that began at or after a moment, in seconds since 1970, and what could not be read.
/// Runs of dpkg and zypper, whose logs have no end, are among them only if they left something
/// half done: then they did not end.
#[must_use]
pub fn runs_since(
    root: &Path,
    since: i64,
    half_done: &[Interrupted],
) -> (Vec<UpdateRun>, Vec<String>) {
    let mut problems = Vec::new();
    let mut runs = rpm::runs_since(root, since).unwrap_or_else(|problem| {
        problems.push(problem);
        Vec::new()
    });
    let zone = match zone(root) {
        Ok(zone) => zone,
        Err(problem) => {
            problems.push(problem);
            return (runs, problems);
        }
    };
    let mut log = |path: &str| {
        read(root, path).unwrap_or_else(|problem| {
            problems.push(problem);
            String::new()
        })
    };
    let of_apt = logs::apt(&log(APT_LOG), &zone);
    let of = |manager: Manager| {
        let found = half_done.iter().find(|found| found.manager == manager);
        found.filter(|found| !found.packages.is_empty())
    };
    if let Some(found) = of(Manager::Dpkg) {
        let open = of_apt
            .last()
            .is_some_and(|run| run.end_unix_seconds.is_none());
        // apt calls dpkg, which ended with it.
        let is_of_apt = |run: &UpdateRun| {
            let begin = run.begin_unix_seconds;
            let mut closed = of_apt.iter().filter_map(|apt| {
                let end = apt.end_unix_seconds?;
                Some(apt.begin_unix_seconds..=end)
            });
            closed.any(|span| span.contains(&begin))
        };
        let last = logs::dpkg(&log(DPKG_LOG), &zone).into_iter().last();
        let last = last.filter(|run| !open && !is_of_apt(run));
        runs.extend(last.map(|run| with(run, found)));
    }
    if let Some(found) = of(Manager::Zypper) {
        let of_zypper = logs::zypper(&log(ZYPP_LOG), &zone);
        runs.extend(of_zypper.into_iter().last().map(|run| with(run, found)));
    }
    runs.extend(of_apt);
    runs.retain(|run| run.begin_unix_seconds >= since);
    (runs, problems)
}

/// The run, with the packages that it left half done.
fn with(mut run: UpdateRun, found: &Interrupted) -> UpdateRun {
    for package in &found.packages {
        if run.packages.len() < MAX_PACKAGES && !names(&run, &package.name) {
            run.packages.push(package.name.clone());
        }
    }
    run
}

/// Whether a run was to change the package, whatever its architecture.
#[must_use]
pub fn names(run: &UpdateRun, package: &str) -> bool {
    // `NAME:ARCH` with dpkg, `NAME.ARCH` with rpm.
    let plain = |name: &str| match run.manager.as_str() {
        "dpkg" => name.split(':').next().unwrap_or(name).to_owned(),
        _ => name
            .rsplit_once('.')
            .map_or_else(|| name.to_owned(), |(name, _)| name.to_owned()),
    };
    let package_name = plain(package);
    run.packages
        .iter()
        .any(|name| name == package || *name == package_name || plain(name) == package_name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::packages::{Package, log_files::LOCALTIME};

    fn half_done(manager: Manager, name: &str) -> Interrupted {
        Interrupted {
            manager,
            packages: vec![Package {
                name: name.to_owned(),
                state: "half-configured".to_owned(),
            }],
            commands: Vec::new(),
            run: None,
        }
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn apt_says_who_asked_and_dpkg_is_read_where_apt_was_not_used() {
        let root = tempfile::tempdir().unwrap();
        let found = [half_done(Manager::Dpkg, "bash")];
        let by_dpkg = "2026-11-29 07:12:01 startup archives unpack\n2026-11-29 07:12:01 upgrade bash:amd64 5.1 5.2\n";
        write(root.path(), DPKG_LOG, by_dpkg);
        let (runs, problems) = runs_since(root.path(), 0, &found);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].command.as_deref(), Some("dpkg (archives unpack)"));
        assert_eq!(runs[0].packages, ["bash:amd64"]);

        let by_apt = "Start-Date: 2026-11-29  07:12:00\nCommandline: apt upgrade\nRequested-By: admin (1000)\nUpgrade: bash:amd64 (5.1, 5.2)\n";
        write(root.path(), APT_LOG, by_apt);
        let (runs, _) = runs_since(root.path(), 0, &found);
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].command.as_deref(), Some("apt upgrade"));
        assert!(names(&runs[0], "bash"));
        // Nothing is half done: the log has no end of dpkg's run, and it ended.
        fs::remove_file(root.path().join(APT_LOG)).unwrap();
        assert_eq!(runs_since(root.path(), 0, &[]).0, []);
    }

    #[test]
    fn a_run_of_zypper_gets_the_packages_that_it_left() {
        let root = tempfile::tempdir().unwrap();
        let history = "2026-11-29 07:14:07|command|root@host|'zypper' 'up'|\n2026-11-29 07:14:07|install|lp-a|2-1|noarch||r2|0|\n";
        write(root.path(), "var/log/zypp/history", history);
        let (runs, _) = runs_since(root.path(), 0, &[half_done(Manager::Zypper, "lp-b.noarch")]);
        assert_eq!(runs[0].packages, ["lp-a", "lp-b.noarch"]);
        assert!(names(&runs[0], "lp-a.noarch") && !names(&runs[0], "lp-c.noarch"));
    }

    /// A file of zoneinfo with one time, this far from UTC (RFC 9636): a first block without any,
    /// the second with one type of local time, and the rule for all times.
    fn east_of_utc(seconds: i32) -> Vec<u8> {
        let head = |counts: [u32; 6]| {
            let mut head = b"TZif2".to_vec();
            head.extend([0; 15]);
            head.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
            head
        };
        let block = || {
            let mut block = head([0, 0, 0, 0, 1, 4]);
            block.extend(seconds.to_be_bytes());
            block.extend([0, 0]);
            block.extend(b"LMT\0");
            block
        };
        let hours = -seconds / 3600;
        let mut file = block();
        file.extend(block());
        file.extend(format!("\n<+09>{hours}\n").bytes());
        file
    }

    #[test]
    fn a_run_of_dpkg_in_one_of_apt_that_ended_has_ended() {
        let root = tempfile::tempdir().unwrap();
        let found = [half_done(Manager::Dpkg, "bash")];
        let by_apt = "Start-Date: 2026-11-29  07:12:00\nCommandline: apt upgrade\nEnd-Date: 2026-11-29  07:12:05\n";
        write(root.path(), APT_LOG, by_apt);
        let startup = |second| format!("2026-11-29 07:12:{second} startup packages configure\n");
        write(root.path(), DPKG_LOG, &startup("01"));
        let begins = || last_begins(root.path()).unwrap();
        let commands = || {
            let (runs, _) = runs_since(root.path(), 0, &found);
            let commands = runs.into_iter().filter_map(|run| run.command);
            commands.collect::<Vec<_>>()
        };
        assert_eq!(commands(), ["apt upgrade"]);
        let [(Manager::Dpkg, apt), (Manager::Dpkg, dpkg)] = begins()[..] else {
            panic!("{:?}", begins());
        };
        assert_eq!(dpkg - apt, 1);
        write(root.path(), DPKG_LOG, &startup("31"));
        assert_eq!(commands(), ["dpkg (packages configure)", "apt upgrade"]);
    }

    #[test]
    fn dates_are_read_in_the_zone_of_the_host() {
        let root = tempfile::tempdir().unwrap();
        let zone = Path::new("/usr/share/zoneinfo/Asia/Tokyo");
        let log = "Start-Date: 2026-11-29  07:12:00\nCommandline: apt upgrade\n";
        write(root.path(), APT_LOG, log);
        let begin = || runs_since(root.path(), 0, &[]).0[0].begin_unix_seconds;
        let utc = begin();
        fs::create_dir_all(root.path().join("usr/share/zoneinfo/Asia")).unwrap();
        let file = root.path().join("usr/share/zoneinfo/Asia/Tokyo");
        fs::write(&file, east_of_utc(9 * 3600)).unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink(zone, root.path().join(LOCALTIME)).unwrap();
        assert_eq!(utc - begin(), 9 * 3600);
        // Where the zone is not known, the dates are not.
        fs::write(&file, "no zone").unwrap();
        let (runs, problems) = runs_since(root.path(), 0, &[]);
        assert_eq!(runs, []);
        assert!(problems[0].contains("time zone"), "{problems:?}");
        assert!(last_begins(root.path()).is_err());
    }
}
