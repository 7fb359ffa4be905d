//! What the DaemonSet mounts from the host into the container.

use std::path::{Path, PathBuf};

use livepatch_monitor::host::packages::Packages;

const MANIFEST: &str = include_str!("../../packaging/kubernetes/daemonset.yaml");

/// Values of a key in the manifest, also where they are commented out.
fn values(key: &str) -> Vec<&'static str> {
    let lines = MANIFEST
        .lines()
        .map(|line| line.trim_start_matches(['#', ' ', '-']));
    lines
        .filter_map(|line| line.strip_prefix(key))
        .map(str::trim)
        .collect()
}

#[test]
fn the_daemon_set_mounts_only_what_is_read() {
    let mut read: Vec<PathBuf> = Packages::directories(Path::new("/"));
    // Locks of rpm's managers in a directory that contains the sockets of all daemons.
    read.retain(|path| !path.starts_with("/run"));
    read.extend(
        [
            "/proc",
            "/sys",
            "/var/lib/systemd/pstore",
            "/var/crash",
            "/var/lib/kpatch",
            "/usr/lib/kpatch",
            "/var/lib/livepatch-monitor",
        ]
        .map(PathBuf::from),
    );
    let mut mounted: Vec<PathBuf> = values("path: /")
        .into_iter()
        .filter(|path| !path.starts_with("-/"))
        .map(|path| Path::new("/").join(path))
        .collect();
    mounted.sort();
    read.sort();
    // The path of the health check.
    mounted.retain(|path| path != Path::new("/-/healthy"));
    assert_eq!(mounted, read);
}

#[test]
fn the_daemon_set_writes_only_its_state_and_creates_nothing_else() {
    let mounts = MANIFEST
        .split("- name: ")
        .filter(|part| part.contains("mountPath:"));
    for mount in mounts {
        let name = mount.lines().next().unwrap();
        let is_state = name == "state";
        let end = mount.find("volumes:").unwrap_or(mount.len());
        assert_eq!(mount[..end].contains("readOnly: true"), !is_state, "{name}");
    }
    let kinds = values("type: ");
    let creates = kinds.iter().filter(|kind| **kind == "DirectoryOrCreate");
    assert_eq!(creates.count(), 1, "{kinds:?}");
    for socket in [
        "containerd.sock",
        "docker.sock",
        "crio.sock",
        "hostNetwork",
        "hostIPC",
    ] {
        assert!(!MANIFEST.contains(socket), "{socket}");
    }
}
