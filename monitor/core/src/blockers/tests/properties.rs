//! Properties that hold for any scan, however unusual.

use super::*;
use crate::{function_ref::CodePlace, patch::VMLINUX};
use proptest::prelude::*;

fn any_frame() -> impl Strategy<Value = Frame> {
    let symbol = (
        prop::sample::select(vec!["lpm_hold", "f", "bpf_trampoline_1", "\x1b[2J"]),
        any::<u64>(),
        any::<Option<u64>>(),
        prop::option::of(prop::sample::select(vec![
            "lpm_target",
            "lpm_patch",
            "older",
            "\n",
        ])),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(name, offset, size, module, generated)| Symbol {
            place: CodePlace {
                name: name.to_owned(),
                offset: Some(offset),
                size,
                module: module.map(str::to_owned),
            },
            generated,
        });
    let address = prop::option::of(prop_oneof![any::<u64>(), 0u64..100]);
    (address, prop::option::of(symbol)).prop_map(|(address, symbol)| Frame { address, symbol })
}

fn any_task() -> impl Strategy<Value = PendingTask> {
    (
        (
            0u32..5,
            prop::collection::vec(any::<u8>(), 0..16),
            any::<bool>(),
        ),
        (
            prop::option::weighted(0.2, any::<u32>()),
            any::<Option<bool>>(),
            any::<u32>(),
        ),
        (any::<i32>(), any::<Option<u64>>()),
        prop_oneof![
            9 => prop::collection::vec(any_frame(), 0..6),
            1 => prop::collection::vec(any_frame(), 60..110),
        ],
    )
        .prop_map(
            |((tid, comm, kthread), (idle_cpu, on_cpu, state), (patch_state, start_ns), stack)| {
                PendingTask {
                    tid,
                    tgid: tid,
                    comm,
                    kthread,
                    idle_cpu,
                    on_cpu,
                    state: TaskState::from_bits(state),
                    patch_state,
                    cgroup_id: None,
                    start_ns,
                    stack,
                }
            },
        )
}

fn any_scan() -> impl Strategy<Value = Scan> {
    // Ranges that end before they start too: the kernel's sizes are untrusted.
    let range = (0u64..100, prop_oneof![any::<u64>(), 0u64..100]).prop_map(|(a, b)| a..b);
    let func = (
        prop::sample::select(vec![VMLINUX, "lpm_target", "\u{202e}"]),
        prop::sample::select(vec!["lpm_hold", "f", "\x07"]),
        prop::option::of(range),
    )
        .prop_map(|(object, function, range)| CheckedFunc {
            function: FunctionRef {
                object: object.to_owned(),
                function: function.to_owned(),
            },
            range,
        });
    (
        (
            any::<u64>(),
            any::<bool>(),
            any::<Option<u32>>(),
            any::<bool>(),
            any::<bool>(),
        ),
        prop::option::weighted(0.8, prop::collection::vec(func, 0..5)),
        any::<bool>(),
        prop::collection::vec(any_task(), 0..8),
    )
        .prop_map(
            |((time, patching, attempts, truncated, proc), funcs, reliable, tasks)| Scan {
                time: BootTime::from_nanos(time),
                direction: if patching {
                    Direction::Patch
                } else {
                    Direction::Unpatch
                },
                attempts,
                funcs,
                funcs_truncated: truncated,
                source: if proc {
                    ScanSource::Proc
                } else {
                    ScanSource::Iterator
                },
                patches: vec!["lpm_patch".to_owned(), "older".to_owned()],
                bpf_frames_reliable: reliable,
                ..scan(tasks)
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_task_is_counted_once(scans in prop::collection::vec(any_scan(), 1..4)) {
        let mut history = History::new();
        for scan in scans {
            let blockers = analyse(&scan, &mut history);
            let counts = Counts::of(&blockers);
            prop_assert_eq!(counts.total(), scan.tasks.len() as u64);
            prop_assert_eq!(Reason::ALL.iter().map(|r| counts.reason(*r)).sum::<u64>(), counts.total());
            prop_assert!(counts.functions().values().sum::<u64>() <= counts.total());
            prop_assert!(history.len() <= scan.tasks.len());
            for (blocker, task) in blockers.iter().zip(&scan.tasks) {
                prop_assert_eq!(&blocker.task, task);
                prop_assert!(blocker.reason != Reason::Sleeping || blocker.function.is_some());
                prop_assert!(!blocker.detail.is_empty());
                prop_assert!(!blocker.detail.chars().any(|c| c.is_control() || c == '\u{202e}'), "{:?}", blocker.detail);
                if task.on_cpu == Some(true) {
                    prop_assert_eq!(blocker.reason, Reason::Running);
                }
            }
        }
    }

    /// The search over sorted ranges finds what klp_check_stack_func's loop does.
    #[test]
    fn ranges_are_searched_as_the_kernel_does(scan in any_scan(), address in 0u64..110) {
        let stack = [Frame { address: Some(address), symbol: None }];
        let found = Matcher::new(&scan).on_stack(&stack) != Match::Nothing;
        let held = scan.funcs.iter().flatten().filter_map(|func| func.range.as_ref())
            .any(|range| address >= range.start && address < range.end);
        prop_assert_eq!(found, held);
    }
}
