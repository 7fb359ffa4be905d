use super::*;
use proptest::prelude::*;

#[test]
fn every_message_is_recognised() {
    use Direction::{Patch, Unpatch};
    use LivepatchMessage as Message;
    let patch = || "klp_one".to_owned();
    let module = || "nf_tables".to_owned();
    for (text, message) in [
        (
            "enabling patch 'klp_one'",
            Message::Enabling { patch: patch() },
        ),
        (
            "'klp_one': starting patching transition",
            Message::Starting {
                patch: patch(),
                direction: Patch,
            },
        ),
        (
            "'klp_one': starting unpatching transition",
            Message::Starting {
                patch: patch(),
                direction: Unpatch,
            },
        ),
        ("signaling remaining tasks", Message::Signaling),
        (
            "forcing remaining tasks to the patched state",
            Message::Forcing,
        ),
        (
            "'klp_one': patching complete",
            Message::Complete {
                patch: patch(),
                direction: Patch,
            },
        ),
        (
            "'klp_one': unpatching complete",
            Message::Complete {
                patch: patch(),
                direction: Unpatch,
            },
        ),
        (
            "'klp_one': reversing transition from patching to unpatching",
            Message::Reversing {
                patch: patch(),
                direction: Patch,
            },
        ),
        (
            "'klp_one': reversing transition from unpatching to patching",
            Message::Reversing {
                patch: patch(),
                direction: Unpatch,
            },
        ),
        (
            "'klp_one': canceling patching transition, going to unpatch",
            Message::Canceling { patch: patch() },
        ),
        (
            "failed to enable patch 'klp_one'",
            Message::FailedToEnable { patch: patch() },
        ),
        (
            "applying patch 'klp_one' to loading module 'nf_tables'",
            Message::ApplyingToModule {
                patch: patch(),
                module: module(),
            },
        ),
        (
            "reverting patch 'klp_one' on unloading module 'nf_tables'",
            Message::RevertingOnModule {
                patch: patch(),
                module: module(),
            },
        ),
        (
            "patch 'klp_one' failed for module 'nf_tables', refusing to load module 'nf_tables'",
            Message::RefusingModule {
                patch: patch(),
                module: module(),
            },
        ),
        (
            "pre-patch callback failed for object 'vmlinux'",
            Message::PreCallbackFailed {
                object: "vmlinux".to_owned(),
            },
        ),
        (
            "failed to patch object 'nf_tables'",
            Message::FailedToPatchObject { object: module() },
        ),
        (
            "Livepatch patch (klp_one) is not compatible with the already installed livepatches.",
            Message::NotCompatible { patch: patch() },
        ),
        (
            "failed to register ftrace handler for function 'do_exit' (-16)",
            Message::FtraceRefused {
                function: "do_exit".to_owned(),
                error: -16,
            },
        ),
    ] {
        assert_eq!(
            LivepatchMessage::recognise(&format!("livepatch: {text}")),
            Some(message),
            "{text}"
        );
        assert_eq!(
            LivepatchMessage::recognise(text),
            None,
            "without the prefix: {text}"
        );
    }
    let tainting = LivepatchMessage::recognise("klp_one: tainting kernel with TAINT_LIVEPATCH");
    assert_eq!(tainting, Some(Message::Tainting { module: patch() }));
    for other in [
        "livepatch: ",
        "livepatch: enabling patch klp_one",
        "livepatch: 'klp_one': patching",
        "x",
    ] {
        assert_eq!(LivepatchMessage::recognise(other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn never_panics(text in ".*") {
        let _ = LivepatchMessage::recognise(&format!("livepatch: {text}"));
        let _ = LivepatchMessage::recognise(&text);
    }
}
