//! Scans of /proc: names without addresses.

use super::*;
use crate::patch::VMLINUX;

fn by_name(direction: Direction, stack: &[(&str, Option<&str>)]) -> Scan {
    let func = |object: &str, function: &str| CheckedFunc {
        function: FunctionRef {
            object: object.to_owned(),
            function: function.to_owned(),
        },
        range: None,
    };
    Scan {
        direction,
        source: ScanSource::Proc,
        attempts: None,
        funcs: Some(vec![
            func("lpm_target", "lpm_hold"),
            func(VMLINUX, "vfs_read"),
        ]),
        patches: vec!["lpm_patch".to_owned(), "older".to_owned()],
        ..scan([PendingTask {
            on_cpu: None,
            ..task(
                stack
                    .iter()
                    .map(|(name, module)| frame(None, name, *module)),
            )
        }])
    }
}

#[test]
fn names_alone() {
    use Direction::{Patch, Unpatch};
    use Reason::{Sleeping, Unknown, UnreliableStack, Unvisited};
    type Names<'a> = &'a [(&'a str, Option<&'a str>)];
    type Case<'a> = (Direction, Names<'a>, Reason, Option<(&'a str, &'a str)>);
    let cases: [Case<'_>; 12] = [
        (
            Patch,
            &[("lpm_hold", Some("lpm_target"))],
            Sleeping,
            Some(("lpm_target", "lpm_hold")),
        ),
        (
            Patch,
            &[("vfs_read", None)],
            Sleeping,
            Some((VMLINUX, "vfs_read")),
        ),
        // A function with that name, but elsewhere.
        (Patch, &[("lpm_hold", None)], Unvisited, None),
        (Patch, &[("lpm_hold", Some("other"))], Unvisited, None),
        (Patch, &[("vfs_read.cold", None)], Unvisited, None),
        // Patched before: the older patch's code is in force.
        (
            Patch,
            &[("lpm_hold", Some("older"))],
            Sleeping,
            Some(("lpm_target", "lpm_hold")),
        ),
        (Patch, &[("lpm_helper", Some("older"))], Unknown, None),
        (
            Patch,
            &[("lpm_helper", Some("older")), ("lpm_hold", Some("older"))],
            Sleeping,
            Some(("lpm_target", "lpm_hold")),
        ),
        // Unpatching: this patch's code must be left, the original need not.
        (
            Unpatch,
            &[("lpm_hold", Some("lpm_patch"))],
            Sleeping,
            Some(("lpm_target", "lpm_hold")),
        ),
        (
            Unpatch,
            &[("lpm_hold", Some("lpm_target"))],
            Unvisited,
            None,
        ),
        (Unpatch, &[("new_code", Some("lpm_patch"))], Unknown, None),
        (Patch, &[("bpf_trampoline_1", None)], UnreliableStack, None),
    ];
    for (direction, stack, reason, function) in cases {
        let blocker = one(&by_name(direction, stack));
        assert_eq!(blocker.reason, reason, "{direction:?} {stack:?}");
        assert_eq!(named(&blocker), function, "{direction:?} {stack:?}");
    }
    let blocker = one(&by_name(Unpatch, &[("new_code", Some("lpm_patch"))]));
    assert_eq!(
        blocker.detail,
        "in code of the livepatch module lpm_patch, which is being removed; \
         /proc does not show to which patched function that belongs"
    );
}
