//! yum 3, of RHEL 7 and its like: /var/lib/yum/transaction-all.* with the transaction-done.*
//! beside it (yum 3.4, yum-complete-transaction(8)).

use std::{collections::BTreeMap, fs, path::Path};

use super::{Found, Interrupted, MAX_PACKAGES, Manager, Package, PackagesError, failed, inside};
use crate::{bounded_read, host::stamp::Cached};

pub(super) const YUM: &str = "var/lib/yum";
/// Bytes of a file of yum's.
const MAX_YUM: u64 = 16 << 20;

/// Reads yum's state.
#[derive(Debug, Default)]
pub(super) struct Yum(Cached<Result<Vec<Package>, PackagesError>>);

impl Yum {
    /// What is half done; `None` where this is no host of yum 3.
    pub(super) fn read(&mut self, root: &Path) -> Found {
        let directory = root.join(YUM);
        if !directory.is_dir() {
            return Ok(None);
        }
        inside(root, &directory)?;
        match self.0.get([directory.as_path()], || half_done(&directory)) {
            Ok(packages) => Ok(Some(Interrupted {
                manager: Manager::Yum,
                packages: packages.clone(),
                commands: match packages.is_empty() {
                    true => Vec::new(),
                    false => vec!["yum-complete-transaction".to_owned()],
                },
                run: None,
            })),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The steps of the last transaction that have not been taken.
fn half_done(directory: &Path) -> Result<Vec<Package>, PackagesError> {
    let (mut planned, mut done) = (String::new(), String::new());
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy());
        let name = name.unwrap_or_default();
        // What was left aside by an operator ends in .disabled.
        let is = |kind: &str| name.starts_with(kind) && !name.ends_with(".disabled");
        let all = is("transaction-all.");
        if !all && !is("transaction-done.") {
            continue;
        }
        let text = bounded_read::read_text(&path, MAX_YUM).map_err(failed(&path))?;
        if all { &mut planned } else { &mut done }.push_str(&text);
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
