//! Determines which tasks are visible from this PID namespace.
//!
//! A task iterator shows the tasks of its reader's PID namespace (`init_seq_pidns`,
//! kernel/bpf/task_iter.c, 5.8 to 7.2), a procfs those of the namespace in which it was mounted. A
//! transition waits for all tasks of the host.

use std::{fs, path::Path};

/// The number of the first PID namespace (`PROC_PID_INIT_INO`,
/// include/linux/proc_ns.h; 3.8 to 7.2).
const FIRST: &str = "pid:[4026531836]";

/// Flag of kernel threads: `PF_KTHREAD` (include/linux/sched.h, 5.10 to 7.2).
const PF_KTHREAD: u32 = 0x0020_0000;

/// Which of the host's tasks this process can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidNsVisibility {
    /// All: this is the host's namespace, or nothing indicates otherwise.
    Whole,
    /// All through procfs, which is the host's; only some through a task iterator.
    ByProcfs,
    /// Only the tasks of this namespace.
    Part,
}

/// Determines which tasks are visible, using the procfs mounted at this path.
#[must_use]
pub fn visibility(procfs: &Path) -> PidNsVisibility {
    let own = fs::read_link(procfs.join("self/ns/pid"));
    let own = own.as_deref().ok().and_then(Path::to_str);
    let second = fs::read_to_string(procfs.join("2/stat")).ok();
    judge(own, second.as_deref())
}

/// `own` is the name of this process's namespace, `second` the status line of the task with pid 2.
/// In the first namespace that is kthreadd (`rest_init`, init/main.c); no other namespace has
/// kernel threads.
fn judge(own: Option<&str>, second: Option<&str>) -> PidNsVisibility {
    match own {
        Some(own) if own != FIRST => match second.and_then(is_kthread) {
            Some(true) => PidNsVisibility::ByProcfs,
            _ => PidNsVisibility::Part,
        },
        _ => PidNsVisibility::Whole,
    }
}

/// The flags are the ninth field of the status line, the seventh after the name.
fn is_kthread(stat: &str) -> Option<bool> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let flags: u32 = rest.split(' ').nth(6)?.parse().ok()?;
    Some(flags & PF_KTHREAD != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KTHREADD: &str = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0";
    const SHELL: &str = "2 (a) (b) S 1 2 2 0 -1 4194560 0 0 0";

    #[test]
    fn the_first_namespace_sees_all() {
        assert_eq!(judge(Some(FIRST), Some(KTHREADD)), PidNsVisibility::Whole);
        // Not mounted, or not a procfs: nothing indicates that tasks are missing.
        assert_eq!(judge(None, None), PidNsVisibility::Whole);
        assert_eq!(visibility(Path::new("/nowhere")), PidNsVisibility::Whole);
    }

    #[test]
    fn another_namespace_sees_what_its_procfs_shows() {
        let own = Some("pid:[4026532201]");
        assert_eq!(judge(own, Some(KTHREADD)), PidNsVisibility::ByProcfs);
        for second in [None, Some(SHELL), Some(""), Some("2 (kthreadd) S 0 0")] {
            assert_eq!(judge(own, second), PidNsVisibility::Part, "{second:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_taken_for_more(own in "\\PC*", second in "\\PC*") {
            let _ = judge(Some(&own), Some(&second));
        }
    }
}
