//! Kernel lockdown: what not even root may do (security/lockdown/lockdown.c, 5.4 to
//! 7.2).

use std::{fs, path::Path};

use super::probes::Degradation;
use crate::preflight::host::CONFIDENTIALITY;

/// The level in force: `none`, `integrity` or `confidentiality`; `None` where the kernel
/// has no lockdown, or securityfs is not mounted.
#[must_use]
pub fn level(sysfs: &Path) -> Option<String> {
    let text = fs::read_to_string(sysfs.join("kernel/security/lockdown")).ok()?;
    chosen(&text).map(str::to_owned)
}

/// The bracketed one of `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

/// What lockdown costs the monitor, if anything.
#[must_use]
pub fn degradation(level: Option<&str>) -> Option<Degradation> {
    (level == Some(CONFIDENTIALITY)).then(|| Degradation {
        what: "kernel lockdown is at confidentiality: no BPF program may read the kernel's \
               memory and no kprobe may be set; transitions are seen by reading sysfs every \
               second, tasks by walking /proc, and attempts, signals and load failures are not \
               seen"
            .into(),
        remedy: "boot with lockdown=integrity, which costs the monitor nothing; no lockdown can \
                 be lowered before a reboot"
            .into(),
    })
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
}
