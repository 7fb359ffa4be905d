//! Kernel lockdown, which restricts even root (security/lockdown/lockdown.c, 5.4 to 7.2).

use std::path::Path;

use crate::bounded_read;
use livepatch_core::degradation::Degradation;

/// The level at which BPF programs may not read kernel memory (`LOCKDOWN_BPF_READ_KERNEL`) and no
/// kprobe may be set (`LOCKDOWN_KPROBES`).
const CONFIDENTIALITY: &str = "confidentiality";

/// The reason given for probes that this level forbids.
pub const REASON: &str = "kernel lockdown is at confidentiality";

/// The current level: `none`, `integrity` or `confidentiality`. `None` if the kernel has no
/// lockdown or securityfs is not mounted.
#[must_use]
pub fn level(sysfs: &Path) -> Option<String> {
    let text =
        bounded_read::read_text(&sysfs.join("kernel/security/lockdown"), bounded_read::VALUE)
            .ok()?;
    chosen(&text).map(str::to_owned)
}

/// The bracketed one of `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

/// The limitation caused by lockdown, if any.
#[must_use]
pub fn degradation(level: Option<&str>) -> Option<Degradation> {
    (level == Some(CONFIDENTIALITY)).then(|| Degradation {
        what: format!(
            "{REASON}: no BPF program may read the kernel's memory and no kprobe may be set; \
            transitions are detected by reading sysfs every second, tasks by walking /proc, and \
            attempts, signals and load failures are not seen"
        ),
        remedy:
            "boot with lockdown=integrity, which does not restrict the monitor; lockdown cannot \
        be lowered without a reboot"
                .into(),
    })
}

/// Whether lockdown explains this error: at this level programs may not use the helpers
/// (check_helper_call, kernel/bpf/verifier.c; "unknown func" before 6.10), and no kprobes may be
/// set.
#[must_use]
pub fn explains(problem: &str) -> bool {
    ["cannot use helper", "unknown func", "(os error 1)"]
        .iter()
        .any(|part| problem.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_the_bracketed_one() {
        for (text, level) in [
            ("[none] integrity confidentiality\n", Some("none")),
            ("none [integrity] confidentiality\n", Some("integrity")),
            ("none integrity [confidentiality]\n", Some(CONFIDENTIALITY)),
            ("none integrity", None),
            ("][", None),
            ("", None),
        ] {
            assert_eq!(chosen(text), level, "{text:?}");
        }
        assert_eq!(level(Path::new("/nowhere")), None);
    }

    #[test]
    fn only_confidentiality_costs_something() {
        assert!(degradation(Some(CONFIDENTIALITY)).is_some());
        for level in [None, Some("none"), Some("integrity")] {
            assert_eq!(degradation(level), None);
        }
    }

    #[test]
    fn only_its_own_refusals_are_explained() {
        for problem in [
            "the kernel refuses the program: Invalid argument (os error 22) (program of this type cannot use helper bpf_probe_read#4)",
            "the kernel refuses the program: Invalid argument (os error 22) (unknown func bpf_probe_read#4)",
            "kprobe: panic: `perf_event_open` failed: Operation not permitted (os error 1)",
        ] {
            assert!(explains(problem), "{problem}");
        }
        for problem in ["needs the kernel's BTF", "no symbol (os error 17)", ""] {
            assert!(!explains(problem), "{problem}");
        }
    }
}
