//! Describes a pending task, for people and as JSON.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;

use super::{Blocker, Container, Reason, printable};
use crate::transition::{BootTime, age};

/// A pending task, why it is pending, and who it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockerReport {
    /// Thread id; 0 for an idle task.
    pub tid: u32,
    /// Process id (`tgid` in the kernel): the same for all threads of a process.
    pub pid: u32,
    /// The thread's name, made safe to show.
    pub comm: String,
    /// Whether it is a kernel thread.
    pub kthread: bool,
    /// The systemd unit it belongs to.
    pub unit: Option<String>,
    /// Path of its cgroup in the unified hierarchy; `None` if unknown.
    pub cgroup: Option<String>,
    /// The container it runs in, by its cgroup's path.
    pub container: Option<Container>,
    /// Its state by the letter that ps(1) shows.
    pub state: String,
    /// Why it is pending.
    pub reason: Reason,
    /// The object of the function it must leave.
    pub object: Option<String>,
    /// The function it must leave; `None` if the reason is not a function.
    pub function: Option<String>,
    /// One plain sentence on the reason.
    pub detail: String,
    /// How long it has been running.
    pub age_seconds: Option<f64>,
    /// Its stack, the innermost frame first.
    pub stack: Vec<String>,
}

impl BlockerReport {
    /// Report of a blocker with this cgroup and unit, at this moment.
    #[must_use]
    pub fn new(
        blocker: &Blocker,
        cgroup: Option<String>,
        unit: Option<String>,
        now: BootTime,
    ) -> Self {
        let task = &blocker.task;
        let start = task.start_ns.map(BootTime::from_nanos);
        Self {
            tid: task.tid,
            pid: task.tgid,
            comm: printable(&task.comm),
            kthread: task.kthread,
            unit,
            container: cgroup.as_deref().and_then(Container::of),
            cgroup,
            state: task.state.to_string(),
            reason: blocker.reason,
            object: blocker.function.as_ref().map(|place| place.object.clone()),
            function: blocker
                .function
                .as_ref()
                .map(|place| place.function.clone()),
            detail: blocker.detail.clone(),
            age_seconds: start
                .and_then(|start| now.since(start))
                .map(|age| age.as_secs_f64()),
            stack: task.stack.iter().map(ToString::to_string).collect(),
        }
    }

    /// Identifies the task, as `process 154 "holder", unit holder.service, started 10s ago, state
    /// D`.
    #[must_use]
    pub fn who(&self) -> String {
        let kind = match self.kthread {
            true => "kernel thread",
            false => "process",
        };
        let mut text = format!("{kind} {} {:?}", self.pid, self.comm);
        if self.tid != self.pid {
            let _ = write!(text, " thread {}", self.tid);
        }
        if let Some(container) = &self.container {
            let _ = write!(text, ", {container}");
        } else if let Some(unit) = &self.unit {
            let _ = write!(text, ", unit {}", printable(unit.as_bytes()));
        }
        if let Some(seconds) = self.age_seconds {
            let lived = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            let _ = write!(text, ", started {} ago", age(lived));
        }
        let _ = write!(text, ", state {}", self.state);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blockers::{PendingTask, TaskState};

    #[test]
    fn who_names_what_is_known() {
        let task = PendingTask {
            tid: 155,
            tgid: 154,
            comm: b"hol\x1bder".to_vec(),
            kthread: false,
            idle_cpu: None,
            on_cpu: Some(false),
            state: TaskState::Uninterruptible,
            patch_state: 0,
            cgroup_id: None,
            start_ns: Some(5_000_000_000),
            stack: Vec::new(),
        };
        let blocker = Blocker {
            task,
            reason: Reason::Sleeping,
            function: None,
            detail: String::new(),
        };
        let unit = Some("a\nb.service".to_owned());
        let now = BootTime::from_nanos(15_900_000_000);
        assert_eq!(
            BlockerReport::new(&blocker, None, unit, now).who(),
            "process 154 \"hol\\\\x1bder\" thread 155, unit a\\nb.service, started 10s ago, state D"
        );
        let cgroup = Some(format!("/docker/{}", "ab".repeat(32)));
        let scope = Some("docker.scope".to_owned());
        assert_eq!(
            BlockerReport::new(&blocker, cgroup, scope, now).who(),
            "process 154 \"hol\\\\x1bder\" thread 155, docker container abababababab, started 10s ago, state D"
        );
        // If the clock has gone back, the age is unknown.
        let early = BootTime::from_nanos(1);
        assert_eq!(
            BlockerReport::new(&blocker, None, None, early).who(),
            "process 154 \"hol\\\\x1bder\" thread 155, state D"
        );
    }
}
