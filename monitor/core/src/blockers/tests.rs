//! Tasks as real kernels leave them.

mod properties;

use super::*;
use crate::{function_ref::CodePlace, patch::VMLINUX};

const HOLD: u64 = 0xffff_ffff_c010_0000;

fn hold() -> CheckedFunc {
    CheckedFunc {
        function: FunctionRef {
            object: "lpm_target".to_owned(),
            function: "lpm_hold".to_owned(),
        },
        range: Some(HOLD..HOLD + 0x40),
    }
}

fn frame(address: Option<u64>, name: &str, module: Option<&str>) -> Frame {
    let symbol = Symbol {
        place: CodePlace {
            name: name.to_owned(),
            offset: Some(0x1c),
            size: Some(0x40),
            module: module.map(str::to_owned),
        },
        generated: name.starts_with("bpf_"),
    };
    Frame {
        address,
        symbol: Some(symbol),
    }
}

fn kernel(name: &str) -> Frame {
    frame(Some(0xffff_ffff_8100_0000), name, None)
}

fn in_hold() -> Frame {
    frame(Some(HOLD + 0x1c), "lpm_hold", Some("lpm_target"))
}

fn trampoline() -> Frame {
    frame(Some(0xffff_ffff_c020_0010), "bpf_trampoline_6442536", None)
}

fn task(stack: impl IntoIterator<Item = Frame>) -> PendingTask {
    PendingTask {
        tid: 42,
        tgid: 42,
        comm: b"holder".to_vec(),
        kthread: false,
        idle_cpu: None,
        on_cpu: Some(false),
        state: TaskState::Sleeping,
        patch_state: 0,
        cgroup_id: None,
        start_ns: Some(7),
        stack: stack.into_iter().collect(),
    }
}

fn scan(tasks: impl IntoIterator<Item = PendingTask>) -> Scan {
    Scan {
        time: BootTime::from_nanos(0),
        patch: "lpm_patch".to_owned(),
        direction: Direction::Patch,
        attempts: Some(3),
        funcs: Some(vec![hold()]),
        funcs_truncated: false,
        idle_unknown: false,
        idle_truncated: false,
        source: ScanSource::Iterator,
        patches: Vec::new(),
        bpf_frames_reliable: false,
        tasks: tasks.into_iter().collect(),
    }
}

fn one(scan: &Scan) -> Blocker {
    let mut blockers = analyse(scan, &mut History::new());
    assert_eq!(blockers.len(), 1);
    blockers.remove(0)
}

fn named(blocker: &Blocker) -> Option<(&str, &str)> {
    let FunctionRef { object, function } = blocker.function.as_ref()?;
    Some((object, function))
}

#[test]
fn asleep_in_a_patched_function() {
    let blocker = one(&scan([task([
        kernel("schedule"),
        in_hold(),
        kernel("ksys_read"),
    ])]));
    assert_eq!(blocker.reason, Reason::Sleeping);
    assert_eq!(named(&blocker), Some(("lpm_target", "lpm_hold")));
    assert_eq!(
        blocker.detail,
        "asleep in lpm_hold (module lpm_target), which the patch replaces"
    );
    let deep = PendingTask {
        state: TaskState::Uninterruptible,
        ..task([in_hold()])
    };
    assert!(one(&scan([deep])).detail.ends_with("; no signal wakes it"));
    // Ready to run is running; where it was is told all the same.
    let ready = PendingTask {
        state: TaskState::Running,
        ..task([in_hold()])
    };
    let blocker = one(&scan([ready]));
    assert_eq!(blocker.reason, Reason::Running);
    assert_eq!(named(&blocker), Some(("lpm_target", "lpm_hold")));
    assert!(
        Counts::of(std::slice::from_ref(&blocker))
            .functions()
            .is_empty()
    );
    assert!(
        blocker.detail.starts_with("waiting for a CPU in lpm_hold"),
        "{}",
        blocker.detail
    );
}

#[test]
fn the_innermost_of_several() {
    let outer = CheckedFunc {
        function: FunctionRef {
            object: VMLINUX.to_owned(),
            function: "ksys_read".to_owned(),
        },
        range: Some(0x1000..0x1100),
    };
    let stack = [in_hold(), frame(Some(0x1010), "ksys_read", None)];
    let mut scan = scan([task(stack)]);
    scan.funcs = Some(vec![outer, hold()]);
    assert_eq!(named(&one(&scan)), Some(("lpm_target", "lpm_hold")));
}

#[test]
fn the_kernels_own_bounds() {
    for (address, reason) in [
        (HOLD - 1, Reason::Unvisited),
        (HOLD, Reason::Sleeping),
        (HOLD + 0x3f, Reason::Sleeping),
        (HOLD + 0x40, Reason::Unvisited),
    ] {
        let blocker = one(&scan([task([frame(Some(address), "x", None)])]));
        assert_eq!(blocker.reason, reason, "{address:#x}");
    }
}

#[test]
fn ranges_that_overlap() {
    let func = |function: &str, range| CheckedFunc {
        function: FunctionRef {
            object: VMLINUX.to_owned(),
            function: function.to_owned(),
        },
        range: Some(range),
    };
    let mut scan = scan([task([frame(Some(0x1800), "x", None)])]);
    scan.funcs = Some(vec![
        func("long", 0x1000..0x2000),
        func("short", 0x1010..0x1020),
        func("empty", 0x1800..0x1800),
        func(
            "backwards",
            Range {
                start: 0x17f0,
                end: 0x1000,
            },
        ),
    ]);
    assert_eq!(named(&one(&scan)), Some((VMLINUX, "long")));
}

#[test]
fn a_frame_that_the_kernel_cannot_walk() {
    let blocker = one(&scan([task([
        kernel("schedule"),
        trampoline(),
        kernel("ksys_read"),
    ])]));
    assert_eq!(blocker.reason, Reason::UnreliableStack);
    assert_eq!(named(&blocker), None);
    assert!(
        blocker.detail.contains("bpf_trampoline_6442536"),
        "{}",
        blocker.detail
    );

    // Both: the kernel gives up on the stack before it looks for functions.
    let mut both = scan([task([in_hold(), trampoline()])]);
    let blocker = one(&both);
    assert_eq!(blocker.reason, Reason::UnreliableStack);
    assert_eq!(named(&blocker), Some(("lpm_target", "lpm_hold")));
    assert!(
        blocker
            .detail
            .contains("; also in lpm_hold (module lpm_target)"),
        "{}",
        blocker.detail
    );

    // Unless it knows such frames.
    both.bpf_frames_reliable = true;
    assert_eq!(one(&both).reason, Reason::Sleeping);

    let blocker = one(&scan([task(
        (0..MAX_STACK_ENTRIES).map(|_| kernel("nest")),
    )]));
    assert_eq!(blocker.reason, Reason::UnreliableStack);
}

#[test]
fn on_a_cpu_the_stack_is_not_asked() {
    let running = PendingTask {
        on_cpu: Some(true),
        ..task([in_hold(), trampoline()])
    };
    assert_eq!(one(&scan([running])).reason, Reason::Running);
    let maybe = PendingTask {
        on_cpu: None,
        state: TaskState::Running,
        ..task([in_hold()])
    };
    assert_eq!(one(&scan([maybe])).reason, Reason::Running);
    let ready = PendingTask {
        state: TaskState::Running,
        ..task([kernel("schedule")])
    };
    let blocker = one(&scan([ready]));
    assert_eq!(blocker.reason, Reason::Running);
    assert!(
        blocker.detail.starts_with("ready to run"),
        "{}",
        blocker.detail
    );

    let idle = PendingTask {
        tid: 0,
        idle_cpu: Some(3),
        on_cpu: None,
        state: TaskState::Running,
        ..task([])
    };
    let blocker = one(&scan([idle.clone()]));
    assert_eq!(blocker.reason, Reason::Running);
    assert_eq!(
        blocker.detail,
        "idle task of CPU 3; it switches in its idle loop"
    );
    let set_aside = PendingTask {
        on_cpu: Some(false),
        ..idle.clone()
    };
    let blocker = one(&scan([set_aside]));
    assert_eq!(blocker.reason, Reason::Running);
    assert!(
        blocker.detail.contains("busy with another task"),
        "{}",
        blocker.detail
    );
    let held = PendingTask {
        on_cpu: Some(false),
        stack: vec![in_hold()],
        ..idle
    };
    assert_eq!(one(&scan([held])).reason, Reason::Running);
}

#[test]
fn a_clean_stack_is_unvisited_until_the_kernel_must_have_looked() {
    let mut history = History::new();
    let mut at = |attempts, stack: Vec<Frame>| {
        let scan = Scan {
            attempts: Some(attempts),
            ..scan([task(stack)])
        };
        let blockers = analyse(&scan, &mut history);
        (blockers[0].reason, blockers[0].detail.clone())
    };
    let clean = || vec![kernel("schedule")];
    assert_eq!(at(3, clean()).0, Reason::Unvisited);
    assert_eq!(
        at(4, clean()).0,
        Reason::Unvisited,
        "that attempt may have passed it before"
    );
    let (reason, detail) = at(5, clean());
    assert_eq!(reason, Reason::Unknown);
    assert_eq!(
        detail,
        "its stack looks clean, yet the kernel did not switch it in 2 attempts"
    );
    // Meanwhile it was in the way.
    assert_eq!(at(6, vec![in_hold()]).0, Reason::Sleeping);
    assert_eq!(at(9, clean()).0, Reason::Unvisited);
    // The attempts count from 0 after a reversal and its reversal.
    assert_eq!(at(11, clean()).0, Reason::Unknown);
    assert_eq!(at(2, clean()).0, Reason::Unvisited);
    assert_eq!(at(4, clean()).0, Reason::Unknown);
}

#[test]
fn without_attempts_time_tells() {
    let mut history = History::new();
    let mut at = |seconds: u64| {
        let time = BootTime::from_nanos(seconds * 1_000_000_000);
        let scan = Scan {
            attempts: None,
            time,
            ..scan([task([kernel("schedule")])])
        };
        analyse(&scan, &mut history)[0].reason
    };
    assert_eq!(at(10), Reason::Unvisited);
    assert_eq!(at(14), Reason::Unvisited);
    assert_eq!(at(15), Reason::Unknown);
    assert_eq!(at(3), Reason::Unvisited, "the clock went back");
}

#[test]
fn history_forgets() {
    let mut history = History::new();
    let many = |tids: Range<u32>| {
        scan(tids.map(|tid| PendingTask {
            tid,
            ..task([kernel("schedule")])
        }))
    };
    analyse(&many(0..100), &mut history);
    assert_eq!(history.len(), 100);
    analyse(&many(90..95), &mut history);
    assert_eq!(history.len(), 5);
    analyse(&scan([]), &mut history);
    assert!(history.is_empty());
    // The same thread id, another task.
    let at = |attempts, start| Scan {
        attempts: Some(attempts),
        ..scan([PendingTask {
            start_ns: Some(start),
            ..task([kernel("schedule")])
        }])
    };
    analyse(&at(3, 1), &mut history);
    assert_eq!(
        analyse(&at(9, 2), &mut history)[0].reason,
        Reason::Unvisited
    );
    // The way back is another transition.
    let back = Scan {
        direction: Direction::Unpatch,
        ..at(20, 2)
    };
    assert_eq!(analyse(&back, &mut history)[0].reason, Reason::Unvisited);
}

#[test]
fn what_cannot_be_told_says_why() {
    let clean = || task([kernel("schedule")]);
    for (scan, why) in [
        (scan([task([])]), "could not be read"),
        (
            Scan {
                funcs: None,
                ..scan([clean()])
            },
            "are not known",
        ),
        (
            Scan {
                funcs_truncated: true,
                ..scan([clean()])
            },
            "first 1 functions",
        ),
        (
            Scan {
                source: ScanSource::Proc,
                ..scan([task((0..PROC_STACK_ENTRIES).map(|_| kernel("nest")))])
            },
            "innermost 64 frames",
        ),
    ] {
        let blocker = one(&scan);
        assert_eq!(blocker.reason, Reason::Unknown);
        assert!(blocker.detail.contains(why), "{}", blocker.detail);
    }
    // A function that was found is found all the same.
    let found = Scan {
        funcs_truncated: true,
        ..scan([task([in_hold()])])
    };
    assert_eq!(one(&found).reason, Reason::Sleeping);
    // The dead have no stack.
    let zombie = PendingTask {
        state: TaskState::Zombie,
        ..task([])
    };
    assert_eq!(one(&scan([zombie])).reason, Reason::Unvisited);
}

/// A scan of /proc: names without addresses.
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
        // Of that name, but elsewhere.
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
        // Going back: this patch's code must be left, the original need not.
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
         /proc does not tell which patched function that belongs to"
    );
}
