//! The children of PID 1 other than the monitor: this program again, as `/init helper WHAT …`. The
//! machine has no shell.

use std::{
    ffi::CString,
    fs,
    hint::black_box,
    os::unix::{fs::chown, process::CommandExt as _},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    mount::{MountPropagationFlags, mount_bind, mount_change},
    process::{Gid, Resource, Rlimit, Uid, setrlimit},
    thread::{
        CapabilitySet, CapabilitySets, UnshareFlags, capabilities,
        configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
        set_keep_capabilities, set_name, set_thread_gid, set_thread_groups, set_thread_uid,
        unshare_unsafe,
    },
};
use serde::{Deserialize, Serialize};

use crate::{files, modules, monitor, target};

/// The first argument of a helper.
pub(crate) const ARGUMENT: &str = "helper";

/// The program of PID 1, and of every helper.
const SELF: &str = "/init";

/// Small, because there may be 10,000 threads.
const STACK: usize = 32 * 1024;

/// Iterations of an empty loop: some milliseconds of an emulated processor.
const SPINS: u32 = 2_000_000;

/// The capabilities that BPF needs on any kernel (capabilities(7)).
const BPF_CAPABILITIES: [CapabilitySet; 3] = [
    CapabilitySet::BPF,
    CapabilitySet::PERFMON,
    CapabilitySet::SYS_ADMIN,
];

/// The capabilities that the systemd unit gives the monitor
/// (monitor/packaging/livepatch-monitor.service).
const UNIT_CAPABILITIES: [CapabilitySet; 4] = [
    CapabilitySet::BPF,
    CapabilitySet::PERFMON,
    CapabilitySet::SYSLOG,
    CapabilitySet::DAC_READ_SEARCH,
];
/// A user id from the range of `DynamicUser`.
const UNIT_USER: u32 = 61_184;

/// The cgroup of [`Confinement::Surrounded`].
pub(crate) const GROUP: &str = "/sys/fs/cgroup/surrounded";
/// The named pipe that is its log.
pub(crate) const LOG_PIPE: &str = "/tmp/log.pipe";

/// The task of a helper, passed to it as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Threads stay in `lpm_hold` until it lets them go.
    Hold(Hold),
    /// Threads that keep the machine busy, in user space and in the kernel, and
    /// processes that come and go.
    Busy {
        /// Number of threads.
        threads: u32,
    },
    /// Exits at once.
    Nothing,
    Read {
        path: String,
    },
    /// Loads a module of the scenarios.
    Load {
        module: String,
        parameters: String,
    },
    /// Reads [`LOG_PIPE`] and appends it to the monitor's log.
    ReadLog,
    /// Replaces itself with a confined program.
    Confined {
        /// How it is confined.
        confinement: Confinement,
        /// The program and its arguments.
        command: Vec<String>,
    },
}

/// Threads that hold a transition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hold {
    /// The cgroup under /sys/fs/cgroup/system.slice to be in.
    pub(crate) unit: Option<String>,
    pub(crate) comm: Option<Vec<u8>>,
    /// Threads in `lpm_hold`, the main thread included.
    pub(crate) threads: u32,
    /// Threads that sleep elsewhere and hold nothing.
    pub(crate) idle_threads: u32,
}

impl Hold {
    /// One holding task.
    pub(crate) const ONE: Self = Self {
        unit: None,
        comm: None,
        threads: 1,
        idle_threads: 0,
    };

    /// One holding task, named `holder`, of the unit `holder.service`.
    pub(crate) fn of_a_service() -> Self {
        Self {
            unit: Some("holder.service".to_owned()),
            comm: Some(b"holder".to_vec()),
            ..Self::ONE
        }
    }
}

/// How a program is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Confinement {
    None,
    /// Without the capabilities that BPF needs.
    NoBpf,
    /// Without the kernel's BTF.
    NoBtf,
    /// With only the capabilities of the systemd unit, and as its own user.
    Unit,
    /// The same with the unit's drop-in for kernels on which kprobes are needed.
    UnitForKprobes,
    /// In [`GROUP`], with [`LOG_PIPE`] as its log.
    Surrounded,
}

/// The command that runs a helper.
pub(crate) fn command(task: &Task) -> Result<Command> {
    let json = serde_json::to_string(task).context("cannot encode a helper's task")?;
    let mut command = Command::new(SELF);
    command.args([ARGUMENT, &json]);
    Ok(command)
}

/// Runs as the helper that the arguments describe.
pub(crate) fn run(arguments: Vec<String>) -> Result<()> {
    let [json] = arguments.as_slice() else {
        bail!("a helper takes one argument");
    };
    match serde_json::from_str(json).context("not a helper's task")? {
        Task::Hold(hold) => run_hold(&hold),
        Task::Busy { threads } => run_busy(threads),
        Task::Nothing => Ok(()),
        Task::Read { path } => files::read(&path).map(drop),
        Task::Load { module, parameters } => {
            modules::load_with(&format!("/modules/{module}.ko"), &parameters)
        }
        Task::ReadLog => read_log(),
        Task::Confined {
            confinement,
            command,
        } => run_confined(confinement, &command),
    }
}

fn run_hold(hold: &Hold) -> Result<()> {
    if let Some(unit) = &hold.unit {
        let folder = format!("/sys/fs/cgroup/system.slice/{unit}");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {folder}"))?;
        files::write(&format!("{folder}/cgroup.procs"), "0")?;
    }
    if let Some(comm) = &hold.comm {
        let comm = CString::new(comm.as_slice()).context("a comm with a NUL")?;
        set_name(&comm).context("cannot take the name")?;
    }
    for number in 0..hold.idle_threads {
        spawn(number, || {
            loop {
                thread::park();
            }
        })?;
    }
    let others = (1..hold.threads)
        .map(|number| spawn(number, stay))
        .collect::<Result<Vec<_>>>()?;
    stay()?;
    for other in others {
        match other.join() {
            Ok(result) => result?,
            Err(_) => bail!("a thread panicked"),
        }
    }
    Ok(())
}

fn stay() -> Result<()> {
    files::read(target::HOLD).map(drop)
}

fn spawn<T: Send + 'static>(
    number: u32,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>> {
    // They have no name of their own, but inherit this one's, hostile or not.
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(work)
        .with_context(|| format!("cannot start thread {number}"))
}

fn run_busy(threads: u32) -> Result<()> {
    let children = spawn(0, || -> Result<()> {
        loop {
            command(&Task::Nothing)?
                .status()
                .context("cannot start a child")?;
            thread::sleep(Duration::from_millis(20));
        }
    })?;
    for number in 1..=threads {
        spawn(number, || {
            loop {
                // Counted, not timed: reading the clock may be a slow system call that would
                // dominate.
                for number in 0..SPINS {
                    black_box(number);
                }
                for _ in 0..20 {
                    black_box(fs::read("/proc/self/status").ok());
                }
                // Long calls: the kernel finds the task on a CPU, inside.
                black_box(fs::read("/proc/kallsyms").ok());
                thread::sleep(Duration::from_millis(2));
            }
        })?;
    }
    match children.join() {
        Ok(result) => result,
        Err(_) => bail!("the thread that starts children panicked"),
    }
}

fn run_confined(confinement: Confinement, command: &[String]) -> Result<()> {
    match confinement {
        Confinement::None | Confinement::Surrounded => {}
        Confinement::NoBpf => drop_capabilities()?,
        Confinement::NoBtf => hide_btf()?,
        Confinement::Unit => become_unit(&UNIT_CAPABILITIES)?,
        Confinement::UnitForKprobes => {
            become_unit(&[&UNIT_CAPABILITIES[..], &[CapabilitySet::SYS_ADMIN]].concat())?;
        }
    }
    let (program, arguments) = command.split_first().context("no program to run")?;
    let mut command = Command::new(program);
    if confinement == Confinement::Surrounded {
        surround(&mut command)?;
    }
    let error = command.args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {program}"))
}

/// Joins the cgroup, and logs to the pipe.
fn surround(command: &mut Command) -> Result<()> {
    files::write(&format!("{GROUP}/cgroup.procs"), "0")?;
    let pipe = fs::File::options()
        .write(true)
        .open(LOG_PIPE)
        .with_context(|| format!("cannot open {LOG_PIPE}"))?;
    command
        .stdout(pipe.try_clone().context("cannot share the pipe")?)
        .stderr(pipe);
    Ok(())
}

fn read_log() -> Result<()> {
    let mut pipe = fs::File::open(LOG_PIPE).with_context(|| format!("cannot open {LOG_PIPE}"))?;
    let mut log = fs::File::options()
        .create(true)
        .append(true)
        .open(monitor::LOG)
        .with_context(|| format!("cannot open {}", monitor::LOG))?;
    std::io::copy(&mut pipe, &mut log).context("cannot copy the log")?;
    Ok(())
}

fn drop_capabilities() -> Result<()> {
    // Root regains on exec whatever is still in the bounding set.
    for capability in BPF_CAPABILITIES {
        remove_capability_from_bounding_set(capability)
            .context("cannot shrink the bounding set")?;
    }
    let mut sets = capabilities(None).context("cannot read the capabilities")?;
    for capability in BPF_CAPABILITIES {
        sets.effective -= capability;
        sets.permitted -= capability;
        sets.inheritable -= capability;
    }
    set_capabilities(None, sets).context("cannot drop capabilities")
}

/// As systemd does for a unit with `DynamicUser` and `AmbientCapabilities`.
fn become_unit(capabilities: &[CapabilitySet]) -> Result<()> {
    chown(monitor::STATE, Some(UNIT_USER), Some(UNIT_USER))
        .with_context(|| format!("cannot give {} away", monitor::STATE))?;
    // LimitMEMLOCK=: before 5.11 BPF maps count as locked memory.
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    setrlimit(Resource::Memlock, unlimited).context("cannot lift the limit of locked memory")?;
    let (user, group) = (Uid::from_raw(UNIT_USER), Gid::from_raw(UNIT_USER));
    set_keep_capabilities(true).context("cannot keep capabilities")?;
    set_thread_groups(&[]).context("cannot leave the groups")?;
    set_thread_gid(group).context("cannot change the group")?;
    set_thread_uid(user).context("cannot change the user")?;
    let kept = capabilities.iter().copied().collect();
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: kept,
    };
    set_capabilities(None, sets).context("cannot drop capabilities")?;
    for &capability in capabilities {
        configure_capability_in_ambient_set(capability, true)
            .context("cannot make a capability ambient")?;
    }
    Ok(())
}

fn hide_btf() -> Result<()> {
    const EMPTY: &str = "/tmp/empty";
    // SAFETY: a separate mount namespace does not affect this process's file descriptors or memory,
    // and the process has one thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("cannot get a mount namespace")?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .context("cannot make the mounts private")?;
    fs::create_dir_all(EMPTY).with_context(|| format!("cannot make {EMPTY}"))?;
    mount_bind(EMPTY, "/sys/kernel/btf").context("cannot hide /sys/kernel/btf")
}
