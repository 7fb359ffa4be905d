//! Attaches the BPF programs, each by the best method this kernel allows, and reports how.

use std::path::Path;

use aya::{Btf as AyaBtf, Ebpf, Endianness};
use livepatch_core::degradation::Degradation;
use livepatch_monitor_ebpf::{EventKind, Site};
use tracing::debug;

use self::missing::{incomplete_layout, no_btf, pid_namespace};
use super::{
    btf::Btf,
    kmsg,
    layout::{Layout, trampolines_share},
    lockdown, namespace,
};
use crate::bounded_read;

pub use self::error::ProbesError;

mod attach;
mod error;
mod fallback;
mod loader;
mod maps;
mod missing;
mod verifier;

/// Name of the task iterator among the probes.
pub const TASK_SCAN: &str = "task_scan";

/// The function whose number identifies the iterator over tasks
/// (`DEFINE_BPF_ITER_FUNC`, kernel/bpf/task_iter.c).
const ITERATOR_TARGET: &str = "bpf_iter_task";

/// The method by which a probe gets its signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// A BPF trampoline at the function's entry (the cheapest method).
    Fentry,
    /// A kprobe at the function's entry.
    Kprobe,
    /// A tracepoint of the kernel.
    Tracepoint,
    /// A BPF iterator over tasks.
    Iterator,
    /// No probe: sysfs is read instead.
    Sysfs,
    /// No probe: its line in the kernel log, which [`EventKind::Printk`] sees.
    Log,
    /// The signal is not available.
    None,
}

impl Method {
    /// The method as label `method`.
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

    /// Whether this method delivers events itself.
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
    /// What the probes cannot see on this host, and the remedies.
    pub degradations: Vec<Degradation>,
    /// Whether the unwinder walks BPF frames reliably (see [`Layout`]).
    pub bpf_frames_reliable: bool,
}

impl Probes {
    /// Loads and attaches what this kernel allows. If a probe cannot be attached, only its
    /// own signal is lost.
    ///
    /// # Errors
    /// The kernel has no livepatch support, or it loads none of the programs.
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
        let mut degradations = Vec::new();
        let btf = match Btf::from_sysfs(sysfs) {
            Ok(btf) => Some(btf),
            Err(error) => {
                degradations.push(no_btf(&error));
                None
            }
        };
        let layout = Layout::find(btf.as_ref(), procfs, sysfs);
        degradations.extend(incomplete_layout(&layout, btf.is_some()));
        let visibility = namespace::visibility(procfs);
        degradations.extend(pid_namespace(visibility));
        let shares_functions = btf.as_ref().is_some_and(trampolines_share);
        // What aya's own reader gets, which resolves the functions to attach to.
        let functions = btf.map(|btf| btf.functions_alone(&attached_to(wanted)));
        let aya_btf = functions.and_then(|blob| AyaBtf::parse(&blob, Endianness::default()).ok());

        let ebpf = loader::load(&layout, kernel_log)?;
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
}

/// The functions to attach to by their numbers in the kernel's type information.
fn attached_to(wanted: Wanted) -> Vec<&'static str> {
    let hooks = EventKind::HOOKS.iter().filter_map(|hook| match hook.site {
        Site::Function { symbols, .. } => Some(symbols),
        Site::Tracepoint { .. } => None,
    });
    let hooks = hooks.filter(|_| wanted == Wanted::Everything).flatten();
    hooks.copied().chain([ITERATOR_TARGET]).collect()
}
