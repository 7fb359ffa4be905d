//! The rights that the exporter still needs once everything is open.

use std::path::{Path, PathBuf};

use tracing::info;

use super::{Exporter, Options, lock, log_lines};
use crate::{
    host::packages::Packages,
    sandbox::{self, Allowed, Cap, CapSet},
};
use livepatch_core::blockers::ScanSource;

/// What reading through open BPF descriptors may need: before 5.19, every bpf() call needs one of
/// them if unprivileged BPF is disabled (kernel/bpf/syscall.c).
const FOR_BPF: [Cap; 2] = [Cap::BPF, Cap::SYS_ADMIN];

/// What a walk of /proc needs: `patch_state` is readable only by its owner, `stack` needs
/// CAP_SYS_ADMIN, `wchan` and hidden processes need CAP_SYS_PTRACE (fs/proc/base.c).
const FOR_WALK: [Cap; 3] = [Cap::DAC_READ_SEARCH, Cap::SYS_PTRACE, Cap::SYS_ADMIN];

/// Gives up the rights that are no longer needed, then starts the first other thread. `web` lists
/// the files of the web configuration.
pub(super) fn enter(exporter: &mut Exporter, web: &[PathBuf]) {
    let options = &exporter.options;
    let expected = exporter.collectors.expected.directories();
    let mut allowed = Allowed {
        read: readable(options, &expected, web),
        write: [&options.state_dir]
            .into_iter()
            .chain(&options.textfile)
            .cloned()
            .collect(),
        state_dir: Some(options.state_dir.clone()),
        ..Allowed::default()
    };
    {
        let mut scanner = exporter.collectors.tasks.scanner();
        if scanner.source() == ScanSource::Iterator {
            allowed.capabilities = sandbox::needed(&FOR_BPF, || scanner.may_look());
        } else if options.sysfs.join("kernel/livepatch").is_dir() {
            allowed.capabilities = CapSet::from_iter(FOR_WALK);
            allowed.without_landlock = Some(
                "it forbids reading the stacks of tasks in /proc, which replace the task iterator",
            );
        }
    }
    let entered = sandbox::enter(&allowed);
    let kept: Vec<_> = entered.kept.iter().map(|cap| cap.to_string()).collect();
    let from: Vec<_> = entered.holds.iter().map(|part| part.name()).collect();
    info!(from = from.join(","), kept = kept.join(","), "sandboxed");
    log_lines::degradations(&entered.degradations);
    exporter.degradations.extend(entered.degradations);
    exporter.collectors.monitor.sandbox = entered.holds;
    lock(&exporter.journal).start();
}

/// The paths that are read from now on.
fn readable(options: &Options, expected: &[PathBuf], web: &[PathBuf]) -> Vec<PathBuf> {
    let mut read = vec![
        options.procfs.clone(),
        options.sysfs.clone(),
        options.kmsg.clone(),
        // Read by libraries, independent of the flags.
        "/proc".into(),
        "/sys".into(),
    ];
    read.extend(Packages::directories(&options.rootfs));
    read.extend(web.iter().cloned());
    // A replaced file is a new file, so access is granted to its directory.
    let directories = web.iter().filter_map(|file| file.parent());
    read.extend(directories.map(|directory| Path::new(".").join(directory)));
    // The directory may not exist until the first livepatch's package is installed.
    read.extend(expected.iter().filter_map(|directory| nearest(directory)));
    let locks = Packages::appearing(&options.rootfs);
    read.extend(locks.iter().filter_map(|lock| nearest(lock.parent()?)));
    read
}

/// The path, or the nearest directory above it that exists; not the root.
fn nearest(path: &Path) -> Option<PathBuf> {
    let there = path.ancestors().find(|path| path.exists())?;
    there.parent().is_some().then(|| there.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_read_from_above() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("var/lib/kpatch");
        assert_eq!(nearest(&missing).as_deref(), Some(root.path()));
        std::fs::create_dir_all(&missing).unwrap();
        assert_eq!(nearest(&missing), Some(missing));
        assert_eq!(nearest(Path::new("/no-such-directory/patches")), None);
    }
}
