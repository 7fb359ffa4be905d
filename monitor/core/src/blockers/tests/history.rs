//! What the earlier scans add: attempts, time, and tasks that have exited.

use super::*;

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
    // In the meantime it was blocking.
    assert_eq!(at(6, vec![in_hold()]).0, Reason::Sleeping);
    assert_eq!(at(9, clean()).0, Reason::Unvisited);
    // The attempts count from 0 after a reversal and its reversal.
    assert_eq!(at(11, clean()).0, Reason::Unknown);
    assert_eq!(at(2, clean()).0, Reason::Unvisited);
    assert_eq!(at(4, clean()).0, Reason::Unknown);
}

#[test]
fn without_attempts_time_decides() {
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
    // The transition back is another transition.
    let back = Scan {
        direction: Direction::Unpatch,
        ..at(20, 2)
    };
    assert_eq!(analyse(&back, &mut history)[0].reason, Reason::Unvisited);
}
