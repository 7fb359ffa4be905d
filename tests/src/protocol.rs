//! The guest's messages to the host: one JSON object per line on the second serial port. The first
//! port has only the kernel's log.

use serde::{Deserialize, Serialize};

/// The guest's second serial port, seen from inside.
pub const GUEST_PORT: &str = "/dev/ttyS1";

/// A line from the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// PID 1 runs; the kernel it runs on.
    Booted {
        /// The kernel's release (`uname -r`).
        release: String,
    },
    /// The guest starts a scenario.
    ScenarioStarted {
        /// The scenario's name, as in [`SCENARIOS`].
        scenario: String,
    },
    /// Something worth showing while a scenario runs.
    Note {
        /// One line of text, which the host prints.
        text: String,
    },
    /// The scenario's checks all held.
    ScenarioPassed {
        /// The scenario's name.
        scenario: String,
        /// Guest milliseconds it took.
        milliseconds: u64,
    },
    /// A check of the scenario failed, or it could not be run.
    ScenarioFailed {
        /// The scenario's name.
        scenario: String,
        /// What was expected and what was seen.
        reason: String,
    },
    /// A file for the host: a scrape to check with promtool, a golden file, a table.
    File {
        /// A path relative to the run's artifact folder.
        name: String,
        /// The file's content.
        #[serde(with = "packed")]
        content: String,
    },
    /// The demo's or the tests' network is up and the exporter answers in the guest.
    Serving {
        /// The port in the guest.
        port: u16,
    },
    /// The machine is about to go down, and continues in its next boot.
    GoingDown,
    /// An action that only the host can perform on the machine.
    Inject {
        /// The action.
        what: Injection,
        /// When, in milliseconds from now.
        after_milliseconds: u64,
    },
    /// Everything is done; the machine powers off.
    Done,
}

/// An action of the host on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Injection {
    /// A non-maskable interrupt without a known source.
    Nmi,
    /// Cut the power: nothing that is only in memory reaches the disk.
    PowerCut,
}

/// An order for a machine of mode `rollout`, one JSON object per line, over TCP to [`ORDERS_PORT`].
/// It answers each with a line: `ok`, or the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Load a livepatch that nothing holds up, and wait until its transition completes.
    Complete,
    /// Put a task to sleep in the function that [`Order::Patch`] replaces.
    Hold,
    /// Load that livepatch; its transition has started when the answer comes.
    Patch,
    /// Release the task, and wait until the transition completes.
    Release,
    /// Print the output of `livepatch-monitor status` as notes.
    Status,
    /// The same for `blockers`.
    Blockers,
    /// The same for `crashes`.
    Crashes,
    /// Panic at once, after the answer.
    Crash,
    /// Power off: everything is done.
    Finish,
}

/// The port on which a machine of mode `rollout` receives orders.
pub const ORDERS_PORT: u16 = 9970;

/// Where its exporter, and that of the demo, listens.
pub const EXPORTER_PORT: u16 = 9969;

/// The livepatch of [`Order::Complete`].
pub const COMPLETING_PATCH: &str = "lpm_vmlinux";
/// The livepatch of [`Order::Patch`].
pub const HELD_PATCH: &str = "lpm_patch_a";

/// The scenarios of mode `test`, in the order of a full run.
pub const SCENARIOS: [&str; 41] = [
    "held_transition_is_real",
    "kthreads_hold_too",
    "stack_and_replace",
    "late_modules_are_patched",
    "refusals",
    "clean_patch_and_unpatch",
    "atomic_replace_of_two",
    "target_module_loaded_later",
    "held_by_user_task",
    "held_by_sleeping_kthread",
    "held_by_running_kthread",
    "held_by_stacked_patch",
    "held_during_unpatch",
    "reversed",
    "forced",
    "cancelled",
    "refused",
    "target_module_refused",
    "joined_in_mid_transition",
    "killed_in_mid_transition",
    "names_break_nothing",
    "without_bpf",
    "without_btf",
    "privileges_are_given_up",
    "a_dynamic_user_is_enough",
    "ten_thousand_threads",
    "forecast_comes_true",
    "unfit_modules_are_refused",
    "tracers_are_named",
    "waited_for_and_in_force",
    "runbooks_are_followed",
    "without_ftrace",
    "events_then_livepatch",
    "tracers_then_livepatch",
    "programs_then_livepatch",
    "livepatch_then_others",
    "livepatch_then_overriders",
    "redirections_and_livepatch",
    "probed_function_can_be_patched",
    "first_attempts_succeed",
    "transitions_take_no_longer",
];

/// The scenarios of mode `crash`, in the order of a full run: each takes the machine
/// down at least once.
pub const CRASH_SCENARIOS: [&str; 21] = [
    "oops_in_patch_is_survived",
    "oops_in_patch",
    "oops_elsewhere",
    "warning_is_survived",
    "warning_without_bpf",
    "soft_lockup_is_survived",
    "soft_lockup",
    "hung_task",
    "rcu_stall_is_survived",
    "nmi",
    "sysrq_without_patch",
    "lockup_while_loading",
    "sysrq_in_transition",
    "sysrq_after_transition",
    "power_cut_in_transition",
    "power_cuts",
    "clean_reboot",
    "full_disks",
    "read_only_crash",
    "failing_disk",
    "stopped_and_starved",
];

/// The scenarios of mode `interop`, in the order of a full run. The last one cannot be undone
/// before the boot ends.
pub const INTEROP_SCENARIOS: [&str; 5] = [
    "kpatch_drives",
    "bpftrace_traces_too",
    "addresses_are_hidden",
    "inside_a_container",
    "locked_down",
];

/// The scenarios of a monitor that runs for long or under a storm of events, in the order of a full
/// run. They have a machine of one CPU, where a transition takes one attempt.
pub const ENDURANCE_SCENARIOS: [&str; 5] = [
    "quiet",
    "livepatch_storm",
    "report_storm",
    "stopped_monitor",
    "long_run",
];

/// Text as base64 of zlib: the serial port is the slowest part of the machine,
/// and an exposition shrinks to a tenth.
mod packed {
    use std::io::Read as _;

    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use flate2::{
        Compression,
        read::{ZlibDecoder, ZlibEncoder},
    };
    use serde::{Deserialize as _, Deserializer, Serializer, de, ser};

    pub(super) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        ZlibEncoder::new(text.as_bytes(), Compression::fast())
            .read_to_end(&mut bytes)
            .map_err(ser::Error::custom)?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<String, D::Error> {
        let packed = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(packed).map_err(de::Error::custom)?;
        let mut text = String::new();
        ZlibDecoder::new(bytes.as_slice())
            .read_to_string(&mut text)
            .map_err(de::Error::custom)?;
        Ok(text)
    }
}

/// The task of PID 1, from the kernel command line.
pub mod command_line {
    /// `lpm.run=name,name,…`: scenarios or tables to run, in this order; `all` for every one.
    pub const RUN: &str = "lpm.run";
    /// What the guest does: `lpm.mode=test`, `demo`, `bench`, `crash` or `rollout`.
    pub const MODE: &str = "lpm.mode";
    /// `lpm.cuts=N`: how often the power is cut.
    pub const CUTS: &str = "lpm.cuts";
    /// `lpm.memory=erst|ramoops|none`: which pstore backend keeps the kernel's log.
    pub const MEMORY: &str = "lpm.memory";
    /// `lpm.transitions=N`: of the long run.
    pub const TRANSITIONS: &str = "lpm.transitions";
    /// `lpm.scrapes=N`: of the long run.
    pub const SCRAPES: &str = "lpm.scrapes";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_through_smaller() {
        let content = "livepatch_supported 1\n".repeat(500);
        let message = Message::File {
            name: "a.prom".into(),
            content: content.clone(),
        };
        let line = serde_json::to_string(&message).unwrap();
        assert!(
            line.len() * 10 < content.len() && !line.contains('\n'),
            "{line}"
        );
        assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), message);
    }
}
