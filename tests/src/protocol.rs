//! What the guest tells the host: one JSON object a line on the second serial
//! port. The kernel's log stays alone on the first.

use serde::{Deserialize, Serialize};

/// The guest's second serial port, seen from inside.
pub const GUEST_PORT: &str = "/dev/ttyS1";

/// A line from the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// PID 1 runs; the kernel it runs on.
    Booted {
        /// `uname -r`.
        release: String,
    },
    /// A scenario begins.
    ScenarioStarted {
        /// Its name.
        scenario: String,
    },
    /// Something worth showing while a scenario runs.
    Note {
        /// One line.
        text: String,
    },
    /// A scenario held.
    ScenarioPassed {
        /// Its name.
        scenario: String,
        /// Guest milliseconds it took.
        milliseconds: u64,
    },
    /// A scenario did not hold.
    ScenarioFailed {
        /// Its name.
        scenario: String,
        /// What was expected and what was seen.
        reason: String,
    },
    /// A file for the host: a scrape to check with promtool, a golden file, a table.
    File {
        /// A path relative to the run's artifact folder.
        name: String,
        /// Its text.
        content: String,
    },
    /// The demo's or the tests' network is up and the exporter answers in the guest.
    Serving {
        /// The port in the guest.
        port: u16,
    },
    /// All asked for is done; the machine powers off.
    Done,
}

/// What PID 1 is asked to do, from the kernel command line.
pub mod command_line {
    /// `lpm.run=name,name,…`: scenarios to run, in this order; `all` for every one.
    pub const RUN: &str = "lpm.run";
    /// `lpm.mode=test|demo|bench`.
    pub const MODE: &str = "lpm.mode";
}
