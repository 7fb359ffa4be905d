//! What is really on disk, as the package manager's own tools say it and as the scripts noted it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use super::{
    manager::{Format, Manager, Moment},
    repository::NAMES,
    tree::Tree,
};

/// What is on disk.
#[derive(Debug)]
pub(super) struct OnDisk {
    /// The versions that are installed of each package, or with dpkg its version and the words of
    /// its state.
    installed: BTreeMap<String, BTreeSet<String>>,
    /// The scripts that have run.
    ran: Vec<String>,
    /// dpkg has left files in its journal.
    journal: bool,
}

pub(super) fn read(manager: &Manager, tree: &Tree) -> Result<OnDisk> {
    let query = match manager.format {
        Format::Rpm => "rpm -qa --queryformat '%{NAME} %{VERSION}\\n'",
        Format::Deb => "dpkg-query --show --showformat '${Package} ${Version} ${Status}\\n'",
    };
    let mut installed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in tree.output(query)?.lines() {
        let (name, state) = line.split_once(' ').unwrap_or((line, ""));
        if name.starts_with("lp-") && name != "lp-shell" {
            installed
                .entry(name.to_owned())
                .or_default()
                .insert(state.to_owned());
        }
    }
    let journal = match manager.format {
        Format::Rpm => false,
        Format::Deb => !tree.output("ls /var/lib/dpkg/updates")?.trim().is_empty(),
    };
    Ok(OnDisk {
        installed,
        ran: tree.ran()?,
        journal,
    })
}

/// What the monitor should say.
pub(super) fn half_done(
    manager: &Manager,
    moment: &Moment,
    before: &OnDisk,
    left: &OnDisk,
) -> BTreeMap<String, String> {
    match manager.format {
        Format::Deb => of_dpkg(before, left),
        Format::Rpm if moment.command.is_some() => of_removal(before, left),
        Format::Rpm => of_rpm(manager, before, left),
    }
}

fn of_rpm(manager: &Manager, before: &OnDisk, left: &OnDisk) -> BTreeMap<String, String> {
    let mut expected = BTreeMap::new();
    // It ended before the first package.
    if left.installed == before.installed {
        return expected;
    }
    for name in NAMES {
        let versions = left.installed.get(&format!("lp-{name}"));
        let versions: Vec<&str> = versions.into_iter().flatten().map(String::as_str).collect();
        let state = match versions.as_slice() {
            ["1", "2"] => "old and new version both installed: 1-1, 2-1",
            ["1"] if manager.has_history => "still at the old version 1-1",
            // Which of the scripts for the end of the transaction ran leaves no trace.
            ["2"] if manager.knows_posttrans => {
                "installed, but its %posttrans script may not have run"
            }
            _ => continue,
        };
        expected.insert(format!("lp-{name}.noarch"), state.to_owned());
    }
    expected
}

/// Of a removal of all packages: those that are still there, if one has gone.
fn of_removal(before: &OnDisk, left: &OnDisk) -> BTreeMap<String, String> {
    if left.installed == before.installed {
        return BTreeMap::new();
    }
    let names = left.installed.keys();
    names
        .map(|name| (format!("{name}.noarch"), "not removed: 1-1".to_owned()))
        .collect()
}

fn of_dpkg(before: &OnDisk, left: &OnDisk) -> BTreeMap<String, String> {
    let mut expected = BTreeMap::new();
    for (name, states) in &left.installed {
        for state in states {
            let words: Vec<&str> = state.split_whitespace().collect();
            let [_, want, flag, is] = words.as_slice() else {
                continue;
            };
            let is_between = !["installed", "not-installed", "config-files"].contains(is);
            let has_changed = before.installed.get(name) != Some(states);
            let mut text = match *is {
                "unpacked" => "unpacked, not configured".to_owned(),
                is => is.to_owned(),
            };
            match (is_between, *want, *flag) {
                (true, "deinstall" | "purge", _) => text.push_str(", being removed"),
                (true, _, "reinstreq") => text.push_str(", must be reinstalled"),
                (true, ..) => {}
                (false, ..) if left.journal && has_changed => {
                    text.push_str(", in dpkg's journal only");
                }
                (false, ..) => continue,
            }
            expected.insert(name.clone(), text);
        }
    }
    expected
}

/// All packages are at the new version once, or removed (with dpkg: or at the old one), and the scripts of the new versions
/// have run.
pub(super) fn is_whole(manager: &Manager, moment: &Moment, after: &OnDisk) -> Result<()> {
    for name in NAMES {
        let package = format!("lp-{name}");
        let found = after.installed.get(&package);
        let is_removed = moment.command.is_some() && name == "b";
        let expected: BTreeSet<String> = match (manager.format, is_removed) {
            (Format::Deb, true) => {
                let gone = found.is_none_or(|states| {
                    states.iter().all(|state| {
                        state.contains("config-files") || state.contains("not-installed")
                    })
                });
                ensure!(gone, "{package}: {found:?}");
                continue;
            }
            // A removal leaves the others as they were.
            (Format::Deb, false) if moment.command.is_some() => {
                [String::from("1 install ok installed")].into()
            }
            // What apt had not come to stays at the old version, and is whole.
            (Format::Deb, false)
                if found == Some(&[String::from("1 install ok installed")].into()) =>
            {
                continue;
            }
            (Format::Deb, false) => [String::from("2 install ok installed")].into(),
            (Format::Rpm, _) if moment.command.is_some() => {
                ensure!(found.is_none(), "{package}: {found:?}");
                continue;
            }
            // rpm alone keeps no list of what was to come.
            (Format::Rpm, _)
                if manager.name == "rpm" && found == Some(&[String::from("1")].into()) =>
            {
                continue;
            }
            (Format::Rpm, _) => [String::from("2")].into(),
        };
        ensure!(found == Some(&expected), "{package}: {found:?}");
        let scripts = match manager.format {
            Format::Deb if moment.command.is_none() => {
                vec![format!("postinst {name} 2 configure")]
            }
            Format::Deb => Vec::new(),
            Format::Rpm if manager.knows_posttrans => {
                vec![format!("post {name} 2"), format!("posttrans {name} 2")]
            }
            Format::Rpm => vec![format!("post {name} 2")],
        };
        for script in scripts {
            ensure!(after.ran.contains(&script), "%{script} has not run");
        }
    }
    Ok(())
}
