//! Drops privileges and access to the rest of the host once the probes are attached.
//!
//! The restrictions apply to the calling thread and those it starts later, so they must be
//! set before any other thread starts.

mod capabilities;
mod landlock;
mod seccomp;
mod user;

use std::{fs, io, path::PathBuf};

pub use capctl::caps::{Cap, CapSet};

pub use self::capabilities::needed;
use livepatch_core::degradation::Degradation;

/// What stays permitted. Everything else is dropped permanently.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Files, and directories with everything below them, that are read.
    pub read: Vec<PathBuf>,
    /// Directories in which files are created, written, renamed and removed.
    pub write: Vec<PathBuf>,
    /// The writable directory to chown when root switches to another user without Landlock; `None`:
    /// the user is kept.
    pub state_dir: Option<PathBuf>,
    /// Capabilities that are kept if they are there.
    pub capabilities: CapSet,
    /// Why the kernel's Landlock is not used, if it would forbid what is needed.
    pub without_landlock: Option<&'static str>,
}

/// One restriction of the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// It has no capability.
    Capabilities,
    /// No program that it executes could gain a privilege.
    NoNewPrivs,
    /// It opens only the permitted files, and executes no program.
    Files,
    /// It truncates no other file.
    Truncation,
    /// It opens no TCP port and connects to none.
    Tcp,
    /// It sends no command to a device (ioctl).
    Devices,
    /// It signals no process.
    Signals,
    /// It makes no system call that it can do without: it opens no socket, executes no program,
    /// loads no BPF program, touches no other process.
    SystemCalls,
}

impl Part {
    /// All parts, in the order in which they are reported.
    pub const ALL: [Self; 8] = [
        Self::Capabilities,
        Self::NoNewPrivs,
        Self::Files,
        Self::Truncation,
        Self::Tcp,
        Self::Devices,
        Self::Signals,
        Self::SystemCalls,
    ];

    /// The part's name on the status page.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Capabilities => "capabilities",
            Self::NoNewPrivs => "no_new_privs",
            Self::Files => "files",
            Self::Truncation => "truncation",
            Self::Tcp => "tcp",
            Self::Devices => "devices",
            Self::Signals => "signals",
            Self::SystemCalls => "system_calls",
        }
    }
}

/// The restrictions in force.
#[derive(Clone, Debug, Default)]
pub struct Sandbox {
    /// The capabilities that were kept.
    pub kept: CapSet,
    /// The parts that are enforced.
    pub holds: Vec<Part>,
    /// What is not enforced, and the reason.
    pub degradations: Vec<Degradation>,
}

impl Sandbox {
    fn lacks(&mut self, what: String, remedy: &str) {
        self.degradations.push(Degradation {
            what,
            remedy: remedy.into(),
        });
    }
}

/// Drops everything that is not permitted, for this thread and those it will start. Parts that the
/// kernel does not support are left out and reported.
#[must_use]
pub fn enter(allowed: &Allowed) -> Sandbox {
    let mut sandbox = Sandbox::default();
    match other_threads() {
        Ok(0) => {}
        Ok(others) => sandbox.lacks(
            format!("{others} threads started before the sandbox and are outside of it"),
            "report it to the project",
        ),
        Err(error) => sandbox.lacks(
            format!(
                "/proc/self/task: {error}; cannot determine whether all threads are in the sandbox"
            ),
            "mount procfs on /proc",
        ),
    }
    match capctl::prctl::set_no_new_privs() {
        Ok(()) => sandbox.holds.push(Part::NoNewPrivs),
        Err(error) => sandbox.lacks(
            format!("privileges could be gained by running a program: {error}"),
            "report the kernel version to the project",
        ),
    }
    // Before the capabilities are dropped, which may be what gives access to a directory.
    landlock::enter(allowed, &mut sandbox);
    capabilities::empty_bounding_set(&mut sandbox);
    user::enter(allowed, &mut sandbox);
    capabilities::enter(allowed.capabilities, &mut sandbox);
    // Last, because it refuses what the steps before it need.
    seccomp::enter(&mut sandbox);
    sandbox.holds.sort_unstable();
    sandbox
}

/// Threads of this process other than the calling one.
fn other_threads() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count().saturating_sub(1))
}
