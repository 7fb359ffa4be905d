//! Pending tasks grouped by what holds them: tasks that hold up the transition first, then those
//! that the kernel has not checked yet.

use super::{Blocker, Reason};
use crate::function_ref::FunctionRef;

/// Pending tasks with one reason and one function.
#[derive(Clone, Debug, PartialEq)]
pub struct Group<'a> {
    /// Why they are pending.
    pub reason: Reason,
    /// The function that they must leave.
    pub function: Option<&'a FunctionRef>,
    /// The tasks, in the order of the scan.
    pub tasks: Vec<&'a Blocker>,
}

impl Reason {
    /// Whether tasks with this reason hold up the transition by themselves. The others switch at
    /// the kernel's next attempt, or when they next enter or leave the kernel.
    #[must_use]
    pub const fn holds(self) -> bool {
        match self {
            Self::Sleeping | Self::UnreliableStack | Self::Unknown => true,
            Self::Running | Self::Unvisited => false,
        }
    }

    /// What the reason means for these tasks, as `asleep in a function that must be left`.
    #[must_use]
    pub const fn described(self) -> &'static str {
        match self {
            Self::Sleeping => "asleep in",
            Self::Running => "on a CPU, or waiting for one",
            Self::UnreliableStack => "with a stack that the kernel cannot walk",
            Self::Unvisited => "not looked at yet: the kernel looks again about once a second",
            Self::Unknown => "pending for an unknown reason",
        }
    }
}

/// Groups the tasks. Those that hold up the transition come first, the largest group of them at the
/// top.
#[must_use]
pub fn groups(blockers: &[Blocker]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for blocker in blockers {
        let function = blocker.function.as_ref();
        let known = groups
            .iter_mut()
            .find(|group| group.reason == blocker.reason && group.function == function);
        match known {
            Some(group) => group.tasks.push(blocker),
            None => groups.push(Group {
                reason: blocker.reason,
                function,
                tasks: vec![blocker],
            }),
        }
    }
    groups.sort_by_key(|group| (!group.reason.holds(), std::cmp::Reverse(group.tasks.len())));
    groups
}

impl Group<'_> {
    /// As `2 tasks asleep in tcp_ack (vmlinux)`.
    #[must_use]
    pub fn headline(&self) -> String {
        let tasks = match self.tasks.len() {
            1 => "1 task".to_owned(),
            count => format!("{count} tasks"),
        };
        let described = self.reason.described();
        match (self.reason, self.function) {
            (Reason::Sleeping, Some(place)) => {
                format!("{tasks} {described} {} ({})", place.function, place.object)
            }
            (Reason::Sleeping, None) => format!("{tasks} {described} a function of unknown name"),
            (_, Some(place)) => {
                format!(
                    "{tasks} {described}, in {} ({})",
                    place.function, place.object
                )
            }
            (_, None) => format!("{tasks} {described}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blockers::{PendingTask, TaskState};

    fn blocker(tid: u32, reason: Reason, function: Option<&str>) -> Blocker {
        Blocker {
            task: PendingTask {
                tid,
                tgid: tid,
                comm: b"db".to_vec(),
                kthread: false,
                idle_cpu: None,
                on_cpu: None,
                state: TaskState::Sleeping,
                patch_state: 0,
                cgroup_id: None,
                start_ns: None,
                stack: Vec::new(),
            },
            reason,
            function: function.map(|function| FunctionRef {
                object: "vmlinux".to_owned(),
                function: function.to_owned(),
            }),
            detail: String::new(),
        }
    }

    #[test]
    fn the_few_that_hold_it_up_come_before_the_thousands() {
        let mut all: Vec<Blocker> = (0..3000)
            .map(|tid| blocker(tid, Reason::Unvisited, None))
            .collect();
        all.push(blocker(4000, Reason::Running, None));
        all.push(blocker(4001, Reason::Sleeping, Some("tcp_ack")));
        all.push(blocker(4002, Reason::Sleeping, Some("do_sys_poll")));
        all.push(blocker(4003, Reason::Sleeping, Some("tcp_ack")));
        all.push(blocker(4004, Reason::UnreliableStack, Some("tcp_ack")));
        let groups = groups(&all);
        let lines: Vec<String> = groups.iter().map(Group::headline).collect();
        assert_eq!(
            lines,
            [
                "2 tasks asleep in tcp_ack (vmlinux)",
                "1 task asleep in do_sys_poll (vmlinux)",
                "1 task with a stack that the kernel cannot walk, in tcp_ack (vmlinux)",
                "3000 tasks not looked at yet: the kernel looks again about once a second",
                "1 task on a CPU, or waiting for one",
            ]
        );
        let tids: Vec<u32> = groups[0].tasks.iter().map(|one| one.task.tid).collect();
        assert_eq!(tids, [4001, 4003]);
    }

    #[test]
    fn nothing_has_no_groups() {
        assert!(groups(&[]).is_empty());
    }
}
