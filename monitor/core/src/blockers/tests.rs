//! Tasks as real kernels show them.

mod history;
mod names;
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
    // A task that is ready to run counts as running; its function is named too.
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

    // Both: the kernel rejects the stack before it looks for functions.
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

    // Unless the kernel can walk such frames.
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
fn an_unknown_reason_says_why() {
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
    // A function that was found is still found.
    let found = Scan {
        funcs_truncated: true,
        ..scan([task([in_hold()])])
    };
    assert_eq!(one(&found).reason, Reason::Sleeping);
    // Dead tasks have no stack.
    let zombie = PendingTask {
        state: TaskState::Zombie,
        ..task([])
    };
    assert_eq!(one(&scan([zombie])).reason, Reason::Unvisited);
}
