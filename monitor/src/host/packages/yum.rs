//! yum 3, of RHEL 7 and its like: /var/lib/yum/transaction-all.* with the transaction-done.*
//! beside it (yum 3.4, yum-complete-transaction(8)).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    Found, Interrupted, MAX_PACKAGES, Manager, Package, PackagesError, failed, inside,
    lock::is_of_live_process, rpm::has_succeeded_yum,
};
use crate::{bounded_read, host::stamp::Cached};

pub(super) const YUM: &str = "var/lib/yum";
/// Bytes of a file of yum's.
const MAX_YUM: u64 = 16 << 20;

/// Held while yum works; /var/run is /run, and not a link everywhere.
const LOCKS: [&str; 2] = ["run/yum.pid", "var/run/yum.pid"];
/// Files in the directory that are looked at.
const MAX_ENTRIES: usize = 4096;

/// Reads yum's state.
#[derive(Debug, Default)]
pub(super) struct Yum {
    read: Cached<Vec<Package>>,
    /// yum was at work at the last look.
    pub(super) at_work: bool,
    /// What yum had left when it was last not at work.
    before: Option<Interrupted>,
}

impl Yum {
    /// What is half done; while yum is at work, what was before. `None` where this is no host of
    /// yum 3.
    pub(super) fn read(&mut self, root: &Path, procfs: &Path) -> Found {
        let directory = root.join(YUM);
        if !directory.is_dir() {
            return Ok(None);
        }
        inside(root, &directory)?;
        self.at_work = is_at_work(root, procfs)?;
        if self.at_work {
            return Ok(self.before.clone());
        }
        let transactions = transactions(&directory).map_err(|error| error.to_string())?;
        let files = transactions.iter().map(|(path, _)| path.as_path());
        let read = self.read.try_get(files, || half_done(&transactions));
        let packages = read.map_err(|error| error.to_string())?.clone();
        // It may have begun while the files were read.
        self.at_work = is_at_work(root, procfs)?;
        if self.at_work {
            self.read = Cached::default();
        } else {
            self.before = Some(Interrupted {
                manager: Manager::Yum,
                commands: match packages.is_empty() {
                    true => Vec::new(),
                    false => vec!["yum-complete-transaction".to_owned()],
                },
                packages,
                run: None,
            });
        }
        Ok(self.before.clone())
    }
}

/// The lock files that appear only when yum is at work, on a host of yum 3.
pub(super) fn appearing(root: &Path) -> impl Iterator<Item = PathBuf> {
    let is_here = root.join(YUM).is_dir() && !has_succeeded_yum(root);
    let locks = LOCKS.map(|path| root.join(path));
    locks.into_iter().filter(move |_| is_here)
}

fn is_at_work(root: &Path, procfs: &Path) -> Result<bool, String> {
    for path in LOCKS {
        let is_held = is_of_live_process(procfs, &root.join(path));
        if is_held
            .map_err(|error| format!("{error}; whether an update is half done is not known"))?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The files of transactions, each with whether it is a plan.
fn transactions(directory: &Path) -> Result<Vec<(PathBuf, bool)>, PackagesError> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).map_err(failed(directory))?;
    for entry in entries.take(MAX_ENTRIES) {
        let path = entry.map_err(failed(directory))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy());
        let name = name.unwrap_or_default();
        // What was left aside by an operator ends in .disabled.
        let is = |kind: &str| name.starts_with(kind) && !name.ends_with(".disabled");
        let all = is("transaction-all.");
        if all || is("transaction-done.") {
            found.push((path, all));
        }
    }
    found.sort();
    Ok(found)
}

/// The steps of the last transaction that have not been taken.
fn half_done(transactions: &[(PathBuf, bool)]) -> Result<Vec<Package>, PackagesError> {
    let (mut planned, mut done) = (String::new(), String::new());
    for (path, all) in transactions {
        let text = bounded_read::read_text(path, MAX_YUM).map_err(failed(path))?;
        if *all { &mut planned } else { &mut done }.push_str(&text);
    }
    Ok(not_done(&planned, &done))
}

/// The steps of a transaction's plan that are not among those done.
#[must_use]
pub fn not_done(planned: &str, done: &str) -> Vec<Package> {
    let lines = planned.lines().filter(|line| !line.trim().is_empty());
    let mut steps: BTreeMap<&str, &str> = lines
        .map(|line| (line, line.split_whitespace().next().unwrap_or_default()))
        .collect();
    for line in done.lines() {
        steps.remove(line);
    }
    let left = steps.into_iter().map(|(line, step)| Package {
        name: line
            .split_once(' ')
            .map_or(line, |(_, name)| name)
            .to_owned(),
        state: format!("{step} not done"),
    });
    left.take(MAX_PACKAGES).collect()
}
