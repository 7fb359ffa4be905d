//! The logs of apt, dpkg and zypper: command lines, who asked for them, and when.
//!
//! apt 2.6: /var/log/apt/history.log (apt-pkg/deb/dpkgpm.cc, `OpenLog` and `CloseLog`): a
//! stanza has its end only when apt ended. dpkg 1.21: /var/log/dpkg.log, dpkg(1) `--log`. libzypp
//! 17: /var/log/zypp/history (zypp-logic/zypp/HistoryLog.cc). dpkg and libzypp log no end. All
//! dates are local times.

use jiff::civil::DateTime;

pub use jiff::tz::TimeZone;

use super::run::{MAX_PACKAGES, UpdateRun, kept};

/// The time zone in a file of zoneinfo.
///
/// # Errors
/// It is not in the format TZif (RFC 9636), or damaged.
pub fn zone(zoneinfo: &[u8]) -> Result<TimeZone, jiff::Error> {
    TimeZone::tzif("local", zoneinfo)
}

/// A local time, in seconds since 1970.
fn seconds(date: &str, zone: &TimeZone) -> Option<i64> {
    let date: DateTime = DateTime::strptime("%Y-%m-%d %H:%M:%S", date).ok()?;
    Some(zone.to_timestamp(date).ok()?.as_second())
}

/// The runs in apt's history.
#[must_use]
pub fn apt(text: &str, zone: &TimeZone) -> Vec<UpdateRun> {
    let mut runs: Vec<UpdateRun> = Vec::new();
    // The date has two spaces: 2026-11-29  07:12:00.
    let date = |value: &str| {
        let words: Vec<&str> = value.split_whitespace().collect();
        seconds(&words.join(" "), zone)
    };
    let mut open = false;
    for line in text.lines() {
        let Some((field, value)) = line.split_once(':') else {
            continue;
        };
        if field == "Start-Date" {
            open = false;
            if let Some(begin) = date(value) {
                open = true;
                runs.push(UpdateRun {
                    manager: "dpkg".to_owned(),
                    begin_unix_seconds: begin,
                    ..UpdateRun::default()
                });
            }
        }
        let Some(run) = runs.last_mut().filter(|_| open) else {
            continue;
        };
        match field {
            "Commandline" => run.command = kept(value),
            "Requested-By" => run.user = kept(value),
            "End-Date" => run.end_unix_seconds = date(value),
            "Install" | "Reinstall" | "Upgrade" | "Downgrade" | "Remove" | "Purge" => {
                let left = MAX_PACKAGES.saturating_sub(run.packages.len());
                run.packages.extend(apt_names(value).take(left));
            }
            _ => {}
        }
    }
    runs
}

/// The names in `a:amd64 (1, 2), b:amd64 (3, automatic)`.
fn apt_names(value: &str) -> impl Iterator<Item = String> + '_ {
    value.split("), ").filter_map(|package| {
        let name = package.split_whitespace().next()?;
        kept(name)
    })
}

/// The runs in dpkg's log. It has no command lines, and a run's end is not in it.
#[must_use]
pub fn dpkg(text: &str, zone: &TimeZone) -> Vec<UpdateRun> {
    let mut runs: Vec<UpdateRun> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [day, time, what, rest @ ..] = words.as_slice() else {
            continue;
        };
        match (*what, rest) {
            ("startup", rest) => {
                if let Some(begin) = seconds(&format!("{day} {time}"), zone) {
                    runs.push(UpdateRun {
                        manager: "dpkg".to_owned(),
                        begin_unix_seconds: begin,
                        command: kept(&format!("dpkg ({})", rest.join(" "))),
                        ..UpdateRun::default()
                    });
                }
            }
            ("install" | "upgrade" | "remove" | "purge" | "configure", [package, ..]) => {
                if let Some(run) = runs.last_mut() {
                    add(run, package);
                }
            }
            _ => {}
        }
    }
    runs
}

fn add(run: &mut UpdateRun, package: &str) {
    let known = run.packages.iter().any(|name| name == package);
    if run.packages.len() < MAX_PACKAGES && !known {
        run.packages.extend(kept(package));
    }
}

/// The runs in zypper's history. A run's end is not in it, and a package is in it only when it
/// was done.
#[must_use]
pub fn zypper(text: &str, zone: &TimeZone) -> Vec<UpdateRun> {
    let mut runs: Vec<UpdateRun> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        match fields.as_slice() {
            [date, "command", user, command, ..] => {
                if let Some(begin) = seconds(date, zone) {
                    runs.push(UpdateRun {
                        manager: "zypper".to_owned(),
                        begin_unix_seconds: begin,
                        command: kept(&command.replace('\'', "")),
                        user: kept(user),
                        ..UpdateRun::default()
                    });
                }
            }
            [_, "install" | "remove", package, ..] => {
                if let Some(run) = runs.last_mut() {
                    add(run, package);
                }
            }
            _ => {}
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    const APT: &str = "\nStart-Date: 2026-11-28  06:12:00\nCommandline: /usr/bin/unattended-upgrade\nUpgrade: openssl:amd64 (3.0.1, 3.0.2), libssl3:amd64 (3.0.1, 3.0.2)\nEnd-Date: 2026-11-28  06:12:09\n\nStart-Date: 2026-11-29  07:12:00\nCommandline: apt-get -y dist-upgrade\nRequested-By: admin (1000)\nInstall: linux-image-6.1:amd64 (6.1.2, automatic)\nUpgrade: bash:amd64 (5.1, 5.2)\n";

    #[test]
    fn an_apt_that_did_not_end_has_no_end() {
        let runs = apt(APT, &TimeZone::UTC);
        let [closed, open] = runs.as_slice() else {
            panic!("{runs:?}");
        };
        assert_eq!(closed.end_unix_seconds, Some(closed.begin_unix_seconds + 9));
        assert_eq!(closed.packages, ["openssl:amd64", "libssl3:amd64"]);
        assert_eq!(open.end_unix_seconds, None);
        assert_eq!(open.command.as_deref(), Some("apt-get -y dist-upgrade"));
        assert_eq!(open.user.as_deref(), Some("admin (1000)"));
        assert_eq!(open.packages, ["linux-image-6.1:amd64", "bash:amd64"]);
        assert_eq!(open.begin_unix_seconds, 1_795_936_320);
    }

    #[test]
    fn dates_are_local_times() {
        let east = TimeZone::fixed(jiff::tz::offset(2));
        let (here, there) = (apt(APT, &TimeZone::UTC), apt(APT, &east));
        let begin = |runs: &[UpdateRun]| runs[0].begin_unix_seconds;
        assert_eq!(begin(&here) - begin(&there), 2 * 3600);
    }

    #[test]
    fn a_log_of_dpkg_names_runs_and_packages() {
        let text = "2026-11-29 07:12:00 startup archives unpack\n2026-11-29 07:12:00 upgrade bash:amd64 5.1 5.2\n2026-11-29 07:12:01 status half-installed bash:amd64 5.1\n";
        let runs = dpkg(text, &TimeZone::UTC);
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].packages, ["bash:amd64"]);
    }

    #[test]
    fn a_history_of_zypper_names_the_command_and_who_ran_it() {
        let text = "2026-11-29 07:14:07|command|root@host|'zypper' '-q' 'up'|\n# 2026-11-29 07:14:07 a-2-1.noarch.rpm installed ok\n2026-11-29 07:14:07|install|a|2-1|noarch||r2|0123|\n";
        let runs = zypper(text, &TimeZone::UTC);
        assert_eq!(runs[0].command.as_deref(), Some("zypper -q up"));
        assert_eq!(runs[0].user.as_deref(), Some("root@host"));
        assert_eq!(runs[0].packages, ["a"]);
    }

    #[test]
    fn what_is_no_log_has_no_runs() {
        for text in [
            "",
            "Start-Date: yesterday\nUpgrade: a\n",
            "x|command|y|z|\n",
        ] {
            assert!(apt(text, &TimeZone::UTC).is_empty());
            assert!(dpkg(text, &TimeZone::UTC).is_empty());
            assert!(zypper(text, &TimeZone::UTC).is_empty());
        }
    }
}
