//! Landlock: restricts file access to the allowed paths, and forbids the rest of what
//! Landlock controls.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, LandlockStatus, RestrictionStatus, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope, path_beneath_rules,
};

use super::{Allowed, Part, Sandbox};

/// The last ABI version that restricts something the monitor can do without. The ninth would cut it
/// off from systemd's notification socket.
const WANTED: ABI = ABI::V6;

/// The ABI version that introduced each part (Documentation/userspace-api/landlock.rst).
const SINCE: [(Part, ABI, &str); 5] = [
    (Part::Files, ABI::V1, "opening files"),
    (Part::Truncation, ABI::V3, "truncating files"),
    (Part::Tcp, ABI::V4, "opening and connecting TCP ports"),
    (Part::Devices, ABI::V5, "ioctls on devices"),
    (Part::Signals, ABI::V6, "signalling processes"),
];

pub(super) fn enter(allowed: &Allowed, sandbox: &mut Sandbox) {
    if let Some(reason) = allowed.without_landlock {
        let what = format!("file access is not restricted: {reason}");
        return sandbox.lacks(what, "see the other degradation messages");
    }
    let abi = match restrict(allowed).map(|status| status.landlock) {
        Ok(LandlockStatus::Available { effective_abi, .. }) => effective_abi,
        Ok(LandlockStatus::NotEnabled) => {
            return sandbox.lacks(
                "file access is not restricted: Landlock is not enabled".into(),
                "add landlock to lsm= on the kernel's command line",
            );
        }
        Ok(LandlockStatus::NotImplemented) => {
            return sandbox.lacks(
                "file access is not restricted: this kernel has no Landlock".into(),
                "boot a kernel of version 5.13 or later with CONFIG_SECURITY_LANDLOCK=y",
            );
        }
        Err(error) => {
            return sandbox.lacks(
                format!("file access is not restricted: {error}"),
                "report it to the project",
            );
        }
    };
    let (holds, missing): (Vec<_>, Vec<_>) =
        SINCE.into_iter().partition(|(_, since, _)| *since <= abi);
    sandbox.holds.extend(holds.iter().map(|(part, ..)| *part));
    if !missing.is_empty() {
        let missing: Vec<_> = missing.iter().map(|(.., what)| *what).collect();
        sandbox.lacks(
            format!(
                "this kernel's Landlock does not restrict {}",
                missing.join(", ")
            ),
            "boot a kernel of version 6.12 or later, which supports all of it",
        );
    }
}

fn restrict(allowed: &Allowed) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        // Moving files between its own directories.
        | AccessFs::Refer;
    Ruleset::default()
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        // Not the abstract sockets: systemd's notification socket may be one.
        .scope(Scope::Signal)?
        .create()?
        // What does not exist needs no rule.
        .add_rules(path_beneath_rules(&allowed.read, read))?
        .add_rules(path_beneath_rules(&allowed.write, write))?
        .restrict_self()
}
