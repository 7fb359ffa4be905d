//! What an rpm transaction left half done.
//!
//! Tried with dnf 4.14 and 4.23, dnf5 5.4 and zypper 1.14 (rpm 4.18, 4.20, 6.1), killed at each
//! step; the recorded databases are in tests/fixtures/updates.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    history::{Item, Transaction},
    rpmdb::Installed,
};

/// A package that is not as the transaction meant it to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HalfDone {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub arch: String,
    /// Epoch, version and release of the one that is half done: the new one, or the one that was
    /// to be removed.
    pub evr: String,
    /// Several versions of it may be installed at the same time, as of a kernel.
    pub install_only: bool,
    /// What is left half done.
    pub state: State,
}

impl HalfDone {
    /// Its name with the architecture, `NAME.ARCH`.
    #[must_use]
    pub fn package(&self) -> String {
        format!("{}.{}", self.name, self.arch)
    }

    /// What is left half done, as the report shows it. Of a package with several versions it says
    /// which one.
    #[must_use]
    pub fn text(&self) -> String {
        let text = self.state.text();
        let names_version = matches!(self.state, State::NotInstalled | State::NotRemoved);
        match names_version || self.install_only {
            true => format!("{text}: {}", self.evr),
            false => text,
        }
    }
}

/// What is wrong with a package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The new version is unpacked and the old one was not removed.
    BothInstalled {
        /// The versions, oldest transaction first.
        versions: Vec<String>,
    },
    /// The transaction did not get to it: the old version is installed.
    StillOld {
        /// The version that is installed.
        version: String,
    },
    /// It was to be installed and is not.
    NotInstalled,
    /// It was to be removed and is still installed.
    NotRemoved,
    /// It is installed as it should be, but the transaction was not closed: the script for its
    /// end may not have run.
    PosttransUnknown,
    /// It is installed as it should be, and zypper kept its script for the end of the
    /// transaction, which it removes when all have run.
    PosttransLeft {
        /// Where the script lies.
        folder: String,
    },
    /// It is installed as it should be, and has no script for the end of the transaction, but
    /// the transaction was not closed.
    NotClosed,
    /// The transaction was not closed, and what is installed cannot be read.
    Unreadable {
        /// Why.
        why: String,
    },
}

impl State {
    fn text(&self) -> String {
        match self {
            Self::BothInstalled { versions } => {
                format!(
                    "old and new version both installed: {}",
                    versions.join(", ")
                )
            }
            Self::StillOld { version } => format!("still at the old version {version}"),
            Self::NotInstalled => "not installed".to_owned(),
            Self::NotRemoved => "not removed".to_owned(),
            Self::PosttransUnknown => {
                "installed, but its %posttrans script may not have run".to_owned()
            }
            Self::PosttransLeft { folder } => {
                format!(
                    "installed, but its %posttrans script may not have run and lies in {folder}"
                )
            }
            Self::NotClosed => "installed, but the transaction was never closed".to_owned(),
            Self::Unreadable { why } => {
                format!("in a transaction that was never closed; {why}")
            }
        }
    }
}

/// What the last transaction came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is half done.
    Clean,
    /// It was never closed, and changed nothing: it ended before the first package.
    ChangedNothing,
    /// Packages are half done.
    HalfDone(Vec<HalfDone>),
    /// All its packages are as they should be, but it was never closed: scripts at its end may
    /// not have run. Named are the packages that have one. Where none has, triggers of other
    /// packages may be missing.
    NotClosed(Vec<HalfDone>),
}

/// Decides from the last transaction of the history, if there is one that was never closed, and
/// from what is installed: the packages of that transaction, and all that are there twice.
#[must_use]
pub fn judge(unclosed: Option<&Transaction>, installed: &[Installed]) -> Outcome {
    let mut half_done = twice(installed);
    let Some(transaction) = unclosed else {
        return match half_done.is_empty() {
            true => Outcome::Clean,
            false => Outcome::HalfDone(half_done),
        };
    };
    // A transaction may be of all packages of a host: nothing is searched for one by one.
    let there: BTreeSet<(&str, &str, String)> = installed
        .iter()
        .map(|one| (one.name.as_str(), one.arch.as_str(), one.evr()))
        .collect();
    let is_there =
        |item: &Item| there.contains(&(item.name.as_str(), item.arch.as_str(), item.evr.clone()));
    let install_only: BTreeSet<&str> = installed
        .iter()
        .filter(|one| one.install_only)
        .map(|one| one.name.as_str())
        .collect();
    let mut partners: BTreeMap<(&str, &str, bool), &Item> = BTreeMap::new();
    for item in &transaction.items {
        partners
            .entry((item.name.as_str(), item.arch.as_str(), item.comes))
            .or_insert(item);
    }
    // Where several versions are installed, a new one does not take the place of an old one: each
    // is judged by itself.
    let partner = |item: &Item| {
        let key = (item.name.as_str(), item.arch.as_str(), !item.comes);
        let found = partners.get(&key).copied();
        found.filter(|_| !install_only.contains(item.name.as_str()))
    };
    let mut untouched = true;
    let there_twice: BTreeSet<String> = half_done.iter().map(HalfDone::package).collect();
    for item in &transaction.items {
        let there = is_there(item);
        untouched &= there != item.comes;
        let mut one = HalfDone {
            name: item.name.clone(),
            arch: item.arch.clone(),
            evr: item.evr.clone(),
            install_only: install_only.contains(item.name.as_str()),
            state: State::NotInstalled,
        };
        if there_twice.contains(&one.package()) {
            continue;
        }
        one.state = match (item.comes, partner(item)) {
            // Two transactions in one second have the same number: the history distinguishes them.
            (true, Some(old)) if there && is_there(old) => State::BothInstalled {
                versions: vec![old.evr.clone(), item.evr.clone()],
            },
            _ if there == item.comes => continue,
            // The one that goes is reported by the one that comes.
            (false, Some(_)) => continue,
            (false, None) => State::NotRemoved,
            (true, Some(old)) if is_there(old) => State::StillOld {
                version: old.evr.clone(),
            },
            (true, _) => State::NotInstalled,
        };
        half_done.push(one);
    }
    if untouched && there_twice.is_empty() {
        return Outcome::ChangedNothing;
    }
    let incoming: BTreeSet<(&str, &str, &str)> = transaction
        .items
        .iter()
        .filter(|item| item.comes)
        .map(|item| (item.name.as_str(), item.arch.as_str(), item.evr.as_str()))
        .collect();
    let comes = |one: &&Installed| {
        incoming.contains(&(one.name.as_str(), one.arch.as_str(), one.evr().as_str()))
    };
    let is_named: BTreeSet<(String, String)> = half_done
        .iter()
        .map(|one| (one.package(), one.evr.clone()))
        .collect();
    let scripts = installed.iter().filter(|one| one.posttrans).filter(comes);
    let scripts: Vec<HalfDone> = scripts
        .map(|one| HalfDone {
            name: one.name.clone(),
            arch: one.arch.clone(),
            evr: one.evr(),
            install_only: one.install_only,
            state: State::PosttransUnknown,
        })
        .filter(|one| {
            let package = one.package();
            !there_twice.contains(&package) && !is_named.contains(&(package, one.evr.clone()))
        })
        .collect();
    if !half_done.is_empty() {
        half_done.extend(scripts);
        half_done.sort();
        half_done.dedup();
        return Outcome::HalfDone(half_done);
    }
    // rpm removes a package's header behind all of its scripts (lib/psm.c, 4.18): of packages
    // that only went nothing is missing.
    if incoming.is_empty() {
        return Outcome::Clean;
    }
    Outcome::NotClosed(scripts)
}

/// Packages of which an old and a new version are installed, but for those that are meant to
/// be. One transaction may install two versions on purpose; two transactions do not.
fn twice(installed: &[Installed]) -> Vec<HalfDone> {
    let mut sorted: Vec<&Installed> = installed.iter().filter(|one| !one.install_only).collect();
    sorted.sort_by(|one, other| {
        (&one.name, &one.arch, one.transaction).cmp(&(&other.name, &other.arch, other.transaction))
    });
    let groups = sorted.chunk_by(|one, other| one.name == other.name && one.arch == other.arch);
    groups
        .filter(|group| {
            let transactions: BTreeSet<_> = group.iter().map(|one| one.transaction).collect();
            transactions.len() > 1
        })
        .filter_map(|group| {
            let newest = group.last()?;
            Some(HalfDone {
                name: newest.name.clone(),
                arch: newest.arch.clone(),
                evr: newest.evr(),
                install_only: false,
                state: State::BothInstalled {
                    versions: group.iter().map(|one| one.evr()).collect(),
                },
            })
        })
        .collect()
}
