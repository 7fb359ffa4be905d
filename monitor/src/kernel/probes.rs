//! Attaches the BPF programs, each by the best method this kernel allows, and reports how.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, RingBuf},
    programs::{FEntry, Iter, KProbe, Program, ProgramError, RawTracePoint},
};
use livepatch_core::degradation::Degradation;
use livepatch_monitor_ebpf::{EventKind, Hook, ScanMode, Site};
use tracing::debug;

use self::missing::{no_addresses, no_btf, pid_namespace};
use super::{
    btf::Btf,
    kmsg,
    layout::{Layout, trampolines_share},
    lockdown,
    namespace::{self, PidNsVisibility},
};
use crate::bounded_read;

mod fallback;
mod missing;
mod verifier;

#[cfg(bpf_programs)]
static PROGRAMS: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(
    env!("OUT_DIR"),
    "/programs.bpf"
)));
#[cfg(not(bpf_programs))]
static PROGRAMS: Option<&[u8]> = None;

/// Name of the task iterator among the probes.
pub const TASK_SCAN: &str = "task_scan";

/// Whether this binary was built with the BPF programs.
#[must_use]
pub fn built_in() -> bool {
    PROGRAMS.is_some()
}

/// The method by which a probe gets its signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// A BPF trampoline at the function's entry (the cheapest method).
    Fentry,
    /// A kprobe at the function's entry.
    Kprobe,
    /// A tracepoint.
    Tracepoint,
    /// A BPF iterator.
    Iterator,
    /// No probe: sysfs is read instead.
    Sysfs,
    /// No probe: its line in the kernel log, which [`EventKind::Printk`] sees.
    Log,
    /// The signal is not available.
    None,
}

impl Method {
    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::Iterator => "iterator",
            Self::Sysfs => "sysfs",
            Self::Log => "log",
            Self::None => "none",
        }
    }

    /// Whether this method delivers events of its own.
    #[must_use]
    pub const fn is_probe(self) -> bool {
        !matches!(self, Self::Sysfs | Self::Log | Self::None)
    }
}

/// The state of one probe.
#[derive(Clone, Debug)]
pub struct ProbeStatus {
    /// The kernel function or tracepoint, as in [`EventKind::name`].
    pub probe: &'static str,
    /// Method by which it gets its signal.
    pub method: Method,
    /// Why no better method could be used, if so.
    pub problem: Option<String>,
}

/// No BPF program could be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbesError {
    /// The kernel has no livepatch support.
    #[error("this kernel has no {}", .0.display())]
    NoLivepatch(PathBuf),
    /// The binary was built by plain cargo.
    #[error("this binary was built without the BPF programs")]
    NotBuilt,
    /// The object could not be loaded.
    #[error("cannot load the BPF programs: {0}")]
    Load(String),
    /// A map of the object has another shape than expected.
    #[error("BPF map {0}: {1}")]
    Map(&'static str, String),
}

impl ProbesError {
    /// The consequence for the monitor, and the remedy.
    #[must_use]
    pub fn degradation(&self) -> Degradation {
        const COST: &str = "transitions are detected by reading sysfs every second, tasks by walking /proc; attempts, signals and load failures are not seen";
        let (cost, remedy) = match self {
            Self::NoLivepatch(_) => (
                "it cannot be livepatched, so there is nothing to monitor",
                "boot a kernel with CONFIG_LIVEPATCH=y, or check --path.sysfs",
            ),
            Self::NotBuilt => (COST, "build it with `cargo xtask build`"),
            Self::Load(_) | Self::Map(..) => (
                COST,
                "run as root or with CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before 5.8), on a kernel with CONFIG_BPF_SYSCALL=y",
            ),
        };
        Degradation {
            what: format!("no kernel probes ({self}): {cost}"),
            remedy: remedy.into(),
        }
    }
}

/// Which programs to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Probes and the task iterator: for the exporter.
    Everything,
    /// Only the task iterator: for one scan by a command.
    TaskScan,
}

/// The attached programs. Dropping this detaches them all.
#[derive(Debug)]
pub struct Probes {
    ebpf: Ebpf,
    /// The state of each probe, in a fixed order.
    pub status: Vec<ProbeStatus>,
    /// The limitations found.
    pub degradations: Vec<Degradation>,
    /// Whether the unwinder walks BPF frames reliably (see [`Layout`]).
    pub bpf_frames_reliable: bool,
}

impl Probes {
    /// Loads and attaches what this kernel allows. If a probe cannot be attached, only its
    /// own signal is lost.
    ///
    /// # Errors
    /// Nothing at all can be loaded: no permission, or no programs in the binary.
    pub fn attach(
        wanted: Wanted,
        procfs: &Path,
        sysfs: &Path,
        kernel_log: bool,
    ) -> Result<Self, ProbesError> {
        let livepatch = sysfs.join("kernel/livepatch");
        if !livepatch.is_dir() {
            return Err(ProbesError::NoLivepatch(livepatch));
        }
        let programs = PROGRAMS.ok_or(ProbesError::NotBuilt)?;
        let mut degradations = Vec::new();
        let btf = match Btf::from_sysfs(sysfs) {
            Ok(btf) => Some(btf),
            Err(error) => {
                degradations.push(no_btf(&error));
                None
            }
        };
        let layout = Layout::find(btf.as_ref(), procfs, sysfs);
        if btf.is_some() && !layout.missing_members.is_empty() {
            degradations.push(Degradation {
                what: format!(
                    "this kernel's BTF lacks {}: the values read from there are left out",
                    layout.missing_members.join(", ")
                ),
                remedy: "report the kernel version to the project".into(),
            });
        }
        if !layout.missing_variables.is_empty() {
            degradations.push(Degradation {
                what: format!(
                    "the kernel's symbol table lacks {}",
                    layout.missing_variables.join(", ")
                ),
                remedy: "use a kernel with CONFIG_KALLSYMS_ALL=y".into(),
            });
        }
        degradations.extend(layout.addresses_hidden.as_deref().map(no_addresses));
        let visibility = namespace::visibility(procfs);
        degradations.extend(pid_namespace(visibility));
        let shares_functions = btf.as_ref().is_some_and(trampolines_share);
        drop(btf);
        // aya's own reader, which resolves the functions to attach to.
        let aya_btf =
            AyaBtf::parse_file(sysfs.join("kernel/btf/vmlinux"), aya::Endianness::default()).ok();

        let log_level: u8 = if kernel_log {
            aya_log::Level::Debug as u8
        } else {
            0
        };
        let mut loader = EbpfLoader::new();
        loader
            .btf(aya_btf.as_ref())
            .override_global(aya_log::LEVEL, &log_level, false);
        for (global, offset) in &layout.offsets {
            loader.override_global(global, offset, true);
        }
        for (global, address) in &layout.addresses {
            loader.override_global(global, address, true);
        }
        loader.override_global("POSSIBLE_CPUS", &layout.possible_cpus, true);
        let ebpf = loader
            .load(programs)
            .map_err(|error| ProbesError::Load(chain(&error)))?;

        let mut probes = Self {
            ebpf,
            status: Vec::new(),
            degradations,
            bpf_frames_reliable: layout.bpf_frames_reliable,
        };
        if wanted == Wanted::Everything {
            let fentry_btf = aya_btf.as_ref().filter(|_| shares_functions);
            for hook in EventKind::HOOKS {
                probes.attach_probe(hook, fentry_btf);
            }
            probes.degradations.extend(probes.without_kprobes(procfs));
            fallback::by_the_log(&mut probes.status, kmsg::console_shows_errors(procfs));
        }
        probes.load_task_scan(aya_btf.as_ref(), &layout, visibility);
        probes.name_lockdown(sysfs);
        Ok(probes)
    }

    fn attach_probe(&mut self, hook: &Hook, btf: Option<&AyaBtf>) {
        debug!(probe = hook.kind.name(), "attaching");
        let mut problems = Vec::new();
        let mut attached = Method::None;
        let mut tried = |method: Method, result: Result<(), String>| match result {
            Ok(()) => attached = method,
            Err(error) => problems.push(format!("{}: {error}", method.name())),
        };
        match hook.site {
            Site::Function {
                symbols,
                fentry,
                kprobe,
            } => {
                let by_fentry = btf.map(|btf| self.attach_fentry(fentry, symbols, btf));
                let done = matches!(by_fentry, Some(Ok(())));
                if let Some(result) = by_fentry {
                    tried(Method::Fentry, result);
                }
                if !done {
                    tried(Method::Kprobe, self.attach_kprobe(kprobe, symbols));
                }
            }
            Site::Kprobe { program, symbols } => {
                tried(Method::Kprobe, self.attach_kprobe(program, symbols));
            }
            Site::Tracepoint { program, name } => {
                tried(Method::Tracepoint, self.attach_tracepoint(program, name));
            }
        }
        let problem = (!problems.is_empty()).then(|| problems.join("; "));
        self.status.push(ProbeStatus {
            probe: hook.kind.name(),
            method: attached,
            problem,
        });
    }

    /// Debian's kernels can keep kprobes to CAP_SYS_ADMIN (3 and above, and its default;
    /// `perf_paranoid_any` in its kernel/events/core.c).
    fn without_kprobes(&self, procfs: &Path) -> Option<Degradation> {
        let setting = bounded_read::read_text(
            &procfs.join("sys/kernel/perf_event_paranoid"),
            bounded_read::VALUE,
        )
        .ok()?;
        let setting: i32 = setting.trim().parse().ok()?;
        let missing: Vec<_> = EventKind::HOOKS
            .iter()
            .filter(|hook| !matches!(hook.site, Site::Tracepoint { .. }))
            .map(|hook| hook.kind.name())
            .filter(|name| !self.attached(name))
            .collect();
        (setting > 2 && !missing.is_empty()).then(|| Degradation {
            what: format!(
                "kernel.perf_event_paranoid is {setting}, with which kprobes require CAP_SYS_ADMIN: not seen {}",
                missing.join(", ")
            ),
            remedy: "give CAP_SYS_ADMIN, which is dropped after the start, or set kernel.perf_event_paranoid=2".into(),
        })
    }

    fn attach_fentry(&mut self, name: &str, symbols: &[&str], btf: &AyaBtf) -> Result<(), String> {
        let program: &mut FEntry = program(&mut self.ebpf, name)?;
        first_that_works(symbols, |symbol| {
            program.load(symbol, btf)?;
            program.attach().map(drop)
        })
    }

    fn attach_kprobe(&mut self, name: &str, symbols: &[&str]) -> Result<(), String> {
        let program: &mut KProbe = program(&mut self.ebpf, name)?;
        program.load().map_err(|error| brief(&error))?;
        first_that_works(symbols, |symbol| program.attach(symbol, 0).map(drop))
    }

    fn attach_tracepoint(&mut self, name: &str, tracepoint: &str) -> Result<(), String> {
        let program: &mut RawTracePoint = program(&mut self.ebpf, name)?;
        program.load().map_err(|error| brief(&error))?;
        match program.attach(tracepoint) {
            Ok(_) => Ok(()),
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::NotFound =>
            {
                Err(format!("this kernel has no tracepoint {tracepoint}"))
            }
            Err(error) => Err(brief(&error)),
        }
    }

    fn load_task_scan(
        &mut self,
        btf: Option<&AyaBtf>,
        layout: &Layout,
        visibility: PidNsVisibility,
    ) {
        let result = match btf {
            None => Err("needs the kernel's BTF".to_owned()),
            Some(_) if visibility != PidNsVisibility::Whole => {
                Err("would show only the tasks of this PID namespace".to_owned())
            }
            Some(_) if layout.addresses_hidden.is_some() => {
                Err("needs the addresses of the kernel's variables".to_owned())
            }
            Some(_) if !layout.can_scan() => {
                Err("cannot locate the kernel's task and transition state".to_owned())
            }
            Some(btf) => program::<Iter>(&mut self.ebpf, "scan_tasks")
                .and_then(|program| program.load("task", btf).map_err(|error| brief(&error))),
        };
        self.status.push(ProbeStatus {
            probe: TASK_SCAN,
            method: if result.is_ok() {
                Method::Iterator
            } else {
                Method::None
            },
            problem: result.err(),
        });
    }

    /// If lockdown is the cause of what is missing, reports it instead of its symptoms.
    fn name_lockdown(&mut self, sysfs: &Path) {
        let level = lockdown::level(sysfs);
        let Some(degradation) = lockdown::degradation(level.as_deref()) else {
            return;
        };
        let mut refused = false;
        for one in &mut self.status {
            if let Some(problem) = one.problem.take_if(|problem| lockdown::explains(problem)) {
                debug!(probe = one.probe, "{problem}");
                one.problem = Some(lockdown::REASON.to_owned());
                refused = true;
            }
        }
        self.degradations.extend(refused.then_some(degradation));
    }

    /// Whether the probe of this kind delivers its events.
    #[must_use]
    pub fn attached(&self, probe: &str) -> bool {
        self.status
            .iter()
            .any(|status| status.probe == probe && status.method.is_probe())
    }

    /// Whether the start and the end of transitions are seen. Without both probes, sysfs has
    /// to be polled.
    #[must_use]
    pub fn see_transitions(&self) -> bool {
        self.attached(EventKind::InitTransition.name())
            && self.attached(EventKind::CompleteTransition.name())
    }

    /// Takes the ring buffer of events; possible only once.
    ///
    /// # Errors
    /// The buffer was taken before or cannot be mapped.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, ProbesError> {
        let map = self
            .ebpf
            .take_map("EVENTS")
            .ok_or_else(|| ProbesError::Map("EVENTS", "does not exist".into()))?;
        RingBuf::try_from(map).map_err(|error| ProbesError::Map("EVENTS", chain(&error)))
    }

    /// Events lost since the start, by kind, in the order of [`EventKind::ALL`].
    ///
    /// # Errors
    /// The kernel refuses to read the map.
    pub fn lost_events(&self) -> Result<Vec<(EventKind, u64)>, ProbesError> {
        let failed = |error: String| ProbesError::Map("LOST", error);
        let map = self
            .ebpf
            .map("LOST")
            .ok_or_else(|| failed("does not exist".into()))?;
        let lost: PerCpuArray<_, u64> =
            PerCpuArray::try_from(map).map_err(|error| failed(chain(&error)))?;
        EventKind::ALL
            .into_iter()
            .map(|kind| {
                let values = lost
                    .get(&(kind as u32), 0)
                    .map_err(|error| failed(chain(&error)))?;
                Ok((kind, values.iter().sum()))
            })
            .collect()
    }

    /// Reads one scan of the task iterator: the raw records.
    ///
    /// # Errors
    /// The iterator is not loaded, or the kernel refuses it.
    pub fn scan(&mut self) -> io::Result<std::fs::File> {
        let program: &mut Iter = program(&mut self.ebpf, "scan_tasks").map_err(io::Error::other)?;
        // A file is read once; each scan needs a new one.
        let link = program.attach().map_err(io::Error::other)?;
        let link = program.take_link(link).map_err(io::Error::other)?;
        link.into_file().map_err(io::Error::other)
    }

    /// Sets what the next scan shows.
    ///
    /// # Errors
    /// The kernel refuses to write the map.
    pub fn set_scan_mode(&mut self, mode: ScanMode) -> Result<(), ProbesError> {
        let failed = |error: String| ProbesError::Map("SCAN_MODE", error);
        let map = self
            .ebpf
            .map_mut("SCAN_MODE")
            .ok_or_else(|| failed("does not exist".into()))?;
        let mut array: Array<_, u32> =
            Array::try_from(map).map_err(|error| failed(chain(&error)))?;
        array
            .set(0, mode as u32, 0)
            .map_err(|error| failed(chain(&error)))
    }

    /// The reader of the BPF programs' log; useful only if that log was requested in
    /// [`Probes::attach`].
    ///
    /// # Errors
    /// The log's buffer cannot be mapped.
    pub fn take_log(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, ProbesError> {
        aya_log::EbpfLogger::init(&mut self.ebpf)
            .map_err(|error| ProbesError::Map("AYA_LOGS", chain(&error)))
    }
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut T, String>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| format!("program {name} is not in the object"))?
        .try_into()
        .map_err(|error: ProgramError| brief(&error))
}

/// Tries each name of a function; the error is that of the last one.
fn first_that_works(
    symbols: &[&str],
    mut attach: impl FnMut(&str) -> Result<(), ProgramError>,
) -> Result<(), String> {
    let mut last = String::from("no symbol to attach to");
    for symbol in symbols {
        match attach(symbol) {
            Ok(()) => return Ok(()),
            Err(error) => last = format!("{symbol}: {}", brief(&error)),
        }
    }
    Err(last)
}

/// The error with its causes on one line, without the verifier's log.
fn brief(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            match verifier::reason(&log) {
                Some(line) => format!("the kernel refuses the program: {io_error} ({line})"),
                None => format!("the kernel refuses the program: {io_error}"),
            }
        }
        error => chain(error),
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
