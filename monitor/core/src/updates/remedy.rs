//! The commands that repair what an rpm transaction left, in order.
//!
//! `cargo xtask test` runs them with the real managers, in the states that a killed upgrade leaves
//! and, with dnf and dnf5, a killed removal. That for packages that were only to be installed is not
//! among them.

use std::collections::BTreeSet;

use super::rpm::{HalfDone, State};

/// Who does the repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// dnf 4, and yum 4, which is the same.
    Dnf,
    /// dnf5.
    Dnf5,
    /// zypper.
    Zypper,
    /// rpm alone.
    Rpm,
}

/// The commands for these packages, in the order in which they are run. What is removed or
/// installed again is named with version and architecture: without them the manager takes every
/// version, such as all kernels, and every architecture.
#[must_use]
pub fn commands(tool: Tool, half_done: &[HalfDone]) -> Vec<String> {
    match tool {
        Tool::Dnf => of_dnf("dnf", "--noautoremove", half_done),
        Tool::Dnf5 => of_dnf("dnf5", "--no-autoremove", half_done),
        Tool::Zypper => of_zypper(half_done),
        Tool::Rpm => of_rpm(half_done),
    }
}

/// The packages in one of the wanted states, each as `word` names it.
fn words(
    half_done: &[HalfDone],
    wanted: fn(&State) -> bool,
    word: fn(&HalfDone) -> Option<String>,
) -> String {
    let packages = half_done.iter().filter(|one| wanted(&one.state));
    let words = packages.filter_map(word).filter(|word| is_plain(word));
    let words: BTreeSet<String> = words.collect();
    words.into_iter().collect::<Vec<_>>().join(" ")
}

fn of_dnf(program: &str, keep_unneeded: &str, half_done: &[HalfDone]) -> Vec<String> {
    let of = |wanted| words(half_done, wanted, exact);
    let both = of(|state| matches!(state, State::BothInstalled { .. }));
    let old = words(
        half_done,
        |state| matches!(state, State::StillOld { .. }),
        |one| Some(one.package()),
    );
    let unreadable = of(|state| matches!(state, State::Unreadable { .. }));
    let unclosed = of(|state| {
        matches!(
            state,
            State::PosttransUnknown
                | State::PosttransLeft { .. }
                | State::NotClosed
                | State::Unreadable { .. }
        )
    });
    let absent = of(|state| matches!(state, State::NotInstalled));
    let left = of(|state| matches!(state, State::NotRemoved));
    let mut commands = Vec::new();
    if !both.is_empty() || !unreadable.is_empty() {
        commands.push(format!("{program} remove --duplicates"));
    }
    let mut add = |verb: &str, names: &str| {
        if !names.is_empty() {
            commands.push(format!("{program} {verb} {names}"));
        }
    };
    add("upgrade", &old);
    // Not installed, or still at the old version: `install` does for both, and nothing where it is
    // there.
    add("install", &unreadable);
    add("reinstall", &unclosed);
    add("install", &absent);
    add(&format!("remove {keep_unneeded}"), &left);
    commands
}

fn of_zypper(half_done: &[HalfDone]) -> Vec<String> {
    let again = words(
        half_done,
        |state| !matches!(state, State::StillOld { .. } | State::NotRemoved),
        |one| match one.install_only {
            true => is_plain(&one.evr).then(|| format!("{}={}", one.package(), one.evr)),
            false => Some(one.package()),
        },
    );
    match again.is_empty() {
        true => Vec::new(),
        // Its history does not say what was still to come.
        false => vec![
            format!("zypper install --force {again}"),
            "zypper update".to_owned(),
        ],
    }
}

/// rpm has no packages at hand: they are installed again from their files.
fn of_rpm(half_done: &[HalfDone]) -> Vec<String> {
    let file = |one: &HalfDone| {
        // A file's name is without the epoch.
        let version = match one.evr.split_once(':') {
            Some((_, rest)) => rest,
            None => &one.evr,
        };
        Some(format!("{}-{version}.{}.rpm", one.name, one.arch))
    };
    let files = words(
        half_done,
        |state| matches!(state, State::BothInstalled { .. }),
        file,
    );
    match files.is_empty() {
        true => Vec::new(),
        false => vec![format!("rpm --upgrade --replacepkgs {files}")],
    }
}

/// `NAME-EVR.ARCH`, as dnf and dnf5 take it.
fn exact(one: &HalfDone) -> Option<String> {
    let is_known = !one.name.is_empty() && !one.evr.is_empty() && !one.arch.is_empty();
    is_known.then(|| format!("{}-{}.{}", one.name, one.evr, one.arch))
}

/// Whether a name may stand in a command that somebody copies into a shell: databases are foreign
/// text.
#[must_use]
pub fn is_plain(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"+._:~^=-".contains(&byte);
    !name.is_empty() && !name.starts_with('-') && name.bytes().all(is_word)
}
