//! The commands that repair what an rpm transaction left, in order.
//!
//! `cargo xtask test` runs them with the real managers, in each state.

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

/// The commands for these packages, in the order in which they are run.
#[must_use]
pub fn commands(tool: Tool, half_done: &[HalfDone]) -> Vec<String> {
    let of = |wanted: fn(&State) -> bool| {
        let packages = half_done
            .iter()
            .filter(|one| wanted(&one.state) && is_plain(&one.name));
        let mut names: Vec<&str> = packages.map(|one| name(&one.name)).collect();
        names.dedup();
        names.join(" ")
    };
    let both = of(|state| matches!(state, State::BothInstalled { .. }));
    let old = of(|state| matches!(state, State::StillOld { .. }));
    let absent = of(|state| matches!(state, State::NotInstalled));
    let left = of(|state| matches!(state, State::NotRemoved));
    let unclosed = of(|state| {
        matches!(
            state,
            State::PosttransUnknown
                | State::PosttransLeft { .. }
                | State::NotClosed
                | State::Unreadable { .. }
        )
    });
    let unreadable = half_done
        .iter()
        .any(|one| matches!(one.state, State::Unreadable { .. }));
    let program = match tool {
        Tool::Dnf => "dnf",
        Tool::Dnf5 => "dnf5",
        Tool::Zypper => "zypper",
        Tool::Rpm => return rpm_commands(half_done),
    };
    if half_done.is_empty() {
        return Vec::new();
    }
    let mut commands = Vec::new();
    let mut add = |verb: &str, names: &str| {
        if !names.is_empty() {
            commands.push(format!("{program} {verb} {names}").trim_end().to_owned());
        }
    };
    match tool {
        Tool::Zypper => {
            let again = [both.as_str(), unclosed.as_str()].join(" ");
            add("install --force", again.trim());
            // Its history does not say what was still to come.
            add("update", " ");
        }
        _ => {
            if !both.is_empty() || unreadable {
                add("remove", "--duplicates");
            }
            add("upgrade", &old);
            add("reinstall", &unclosed);
        }
    }
    add("install", &absent);
    add("remove", &left);
    commands
}

/// rpm has no packages at hand: they are installed again from their files.
fn rpm_commands(half_done: &[HalfDone]) -> Vec<String> {
    let file = |one: &HalfDone| {
        let (name, arch) = one.name.rsplit_once('.').unwrap_or((&one.name, ""));
        let State::BothInstalled { versions } = &one.state else {
            return None;
        };
        let evr = versions.last()?;
        // A file's name is without the epoch.
        let version = evr.split_once(':').map_or(evr.as_str(), |(_, rest)| rest);
        Some(format!("{name}-{version}.{arch}.rpm"))
    };
    let files = half_done.iter().filter_map(file);
    let files: Vec<String> = files.filter(|file| is_plain(file)).collect();
    match files.is_empty() {
        true => Vec::new(),
        false => vec![format!("rpm --upgrade --replacepkgs {}", files.join(" "))],
    }
}

/// Whether a name may stand in a command that somebody copies into a shell: databases are foreign
/// text.
#[must_use]
pub fn is_plain(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"+._:~^-".contains(&byte);
    !name.is_empty() && !name.starts_with('-') && name.bytes().all(is_word)
}

/// The name without its architecture.
fn name(package: &str) -> &str {
    package.rsplit_once('.').map_or(package, |(name, _)| name)
}
