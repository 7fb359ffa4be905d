//! Livepatch's messages in the kernel's log. The texts are those of
//! kernel/livepatch/{core,transition,patch}.c, the same from 6.1 to 7.2.

use crate::transition::Direction;

#[cfg(test)]
mod tests;

/// A message of livepatch. Names are the kernel's, of modules, objects and functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LivepatchMessage {
    /// A patch is about to be enabled.
    Enabling {
        /// The patch that is being enabled.
        patch: String,
    },
    /// A transition starts; also after a reversal, in the new direction.
    Starting {
        /// The patch whose transition starts.
        patch: String,
        /// Whether it patches or unpatches.
        direction: Direction,
    },
    /// Remaining tasks are sent a fake signal; printed at the 15th attempt only.
    Signaling,
    /// An operator forces the remaining tasks; printed in both directions.
    Forcing,
    /// A transition is complete; `Unpatch` also ends a cancelled start.
    Complete {
        /// The patch whose transition is complete.
        patch: String,
        /// Whether it patched or unpatched.
        direction: Direction,
    },
    /// Debug: a transition is reversed. `direction` is the old one.
    Reversing {
        /// The patch whose transition is reversed.
        patch: String,
        /// The direction before the reversal.
        direction: Direction,
    },
    /// Debug: enabling failed before any task was checked.
    Canceling {
        /// The patch that could not be enabled.
        patch: String,
    },
    /// A patch could not be enabled.
    FailedToEnable {
        /// The patch that the kernel refused.
        patch: String,
    },
    /// A target module is being loaded and gets patched.
    ApplyingToModule {
        /// The patch that also replaces functions of the module.
        patch: String,
        /// The module that is being loaded and patched.
        module: String,
    },
    /// A target module is being unloaded.
    RevertingOnModule {
        /// The patch whose functions are removed with the module.
        patch: String,
        /// The module that is being unloaded.
        module: String,
    },
    /// A target module could not be patched, so it is not loaded.
    RefusingModule {
        /// The patch that could not be applied to the module.
        patch: String,
        /// The module that is refused.
        module: String,
    },
    /// A patch's own callback refused.
    PreCallbackFailed {
        /// The object it was called for.
        object: String,
    },
    /// An object could not be patched.
    FailedToPatchObject {
        /// What could not be patched: `vmlinux` or a module.
        object: String,
    },
    /// The patch does not contain everything that is loaded (it is not cumulative).
    NotCompatible {
        /// The livepatch that is refused.
        patch: String,
    },
    /// ftrace refused a function, for instance because another tracer has it.
    FtraceRefused {
        /// The kernel function that the patch replaces.
        function: String,
        /// The negative error number.
        error: i32,
    },
    /// The module loader handles a livepatch.
    Tainting {
        /// The livepatch module whose load taints the kernel.
        module: String,
    },
}

impl LivepatchMessage {
    /// Parses the text of a record. Names are everything between the fixed parts, with quotes if
    /// they have any.
    #[must_use]
    pub fn recognise(text: &str) -> Option<Self> {
        if let Some(module) = text.strip_suffix(": tainting kernel with TAINT_LIVEPATCH") {
            return Some(Self::Tainting {
                module: module.to_owned(),
            });
        }
        let text = text.strip_prefix("livepatch: ")?;
        match text {
            "signaling remaining tasks" => return Some(Self::Signaling),
            "forcing remaining tasks to the patched state" => return Some(Self::Forcing),
            _ => {}
        }
        about_transition(text)
            .or_else(|| about_module(text))
            .or_else(|| about_failure(text))
    }
}

fn between(text: &str, start: &str, end: &str) -> Option<String> {
    Some(text.strip_prefix(start)?.strip_suffix(end)?.to_owned())
}

/// Parses `'PATCH': …`, and the announcement before it.
fn about_transition(text: &str) -> Option<LivepatchMessage> {
    use Direction::{Patch, Unpatch};
    use LivepatchMessage as Message;
    let patch = |end: &str| between(text, "'", end);
    for (direction, name) in [(Unpatch, "unpatching"), (Patch, "patching")] {
        if let Some(patch) = patch(&format!("': starting {name} transition")) {
            return Some(Message::Starting { patch, direction });
        }
        if let Some(patch) = patch(&format!("': {name} complete")) {
            return Some(Message::Complete { patch, direction });
        }
    }
    if let Some(patch) = patch("': reversing transition from patching to unpatching") {
        return Some(Message::Reversing {
            patch,
            direction: Patch,
        });
    }
    if let Some(patch) = patch("': reversing transition from unpatching to patching") {
        return Some(Message::Reversing {
            patch,
            direction: Unpatch,
        });
    }
    if let Some(patch) = patch("': canceling patching transition, going to unpatch") {
        return Some(Message::Canceling { patch });
    }
    between(text, "enabling patch '", "'").map(|patch| Message::Enabling { patch })
}

/// Parses messages that name a patch and a target module.
fn about_module(text: &str) -> Option<LivepatchMessage> {
    use LivepatchMessage as Message;
    let names = |start, middle: &str, end| {
        let names = between(text, start, end)?;
        names
            .split_once(middle)
            .map(|(patch, module)| (patch.to_owned(), module.to_owned()))
    };
    if let Some((patch, module)) = names("applying patch '", "' to loading module '", "'") {
        return Some(Message::ApplyingToModule { patch, module });
    }
    if let Some((patch, module)) = names("reverting patch '", "' on unloading module '", "'") {
        return Some(Message::RevertingOnModule { patch, module });
    }
    let refusing = between(text, "patch '", "'")?;
    let (patch, rest) = refusing.split_once("' failed for module '")?;
    let (module, again) = rest.split_once("', refusing to load module '")?;
    (module == again).then(|| Message::RefusingModule {
        patch: patch.to_owned(),
        module: module.to_owned(),
    })
}

fn about_failure(text: &str) -> Option<LivepatchMessage> {
    use LivepatchMessage as Message;
    const NOT_COMPATIBLE: &str = ") is not compatible with the already installed livepatches.";
    if let Some(patch) = between(text, "failed to enable patch '", "'") {
        return Some(Message::FailedToEnable { patch });
    }
    if let Some(object) = between(text, "pre-patch callback failed for object '", "'") {
        return Some(Message::PreCallbackFailed { object });
    }
    if let Some(object) = between(text, "failed to patch object '", "'") {
        return Some(Message::FailedToPatchObject { object });
    }
    if let Some(patch) = between(text, "Livepatch patch (", NOT_COMPATIBLE) {
        return Some(Message::NotCompatible { patch });
    }
    let refused = between(
        text,
        "failed to register ftrace handler for function '",
        ")",
    )?;
    let (function, error) = refused.rsplit_once("' (")?;
    Some(Message::FtraceRefused {
        function: function.to_owned(),
        error: error.parse().ok()?,
    })
}
