//! What the DaemonSet mounts from the host into the container.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use livepatch_monitor::{
    crash::kdump_config::Targets,
    host::{expected::Expectations, packages::Packages},
};

use crate::BINARY;

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

/// The path on the host of a path in the container.
fn of_host(path: &str) -> PathBuf {
    let below = path
        .strip_prefix("/host/root")
        .or_else(|| path.strip_prefix("/host"));
    PathBuf::from(below.unwrap())
}

/// Where the monitor keeps its state unless it is told otherwise.
fn state_dir() -> PathBuf {
    let help = Command::new(BINARY).args(["serve", "--help"]).output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    let (_, help) = help.split_once("--state-dir").unwrap();
    let (_, default) = help.split_once("[default: ").unwrap();
    PathBuf::from(default.split(']').next().unwrap())
}

/// What the monitor's own code reads below the host's root, and what the manifest's
/// arguments name.
#[test]
fn the_daemon_set_mounts_only_what_is_read() {
    const RELEASE: &str = "RELEASE";
    let root = Path::new("/");
    let mut read: Vec<PathBuf> = Packages::directories(root);
    // Locks of rpm's managers that live in a directory of all daemons' sockets.
    read.retain(|path| !path.starts_with("/run"));
    let livepatches = Expectations::new(root, RELEASE, &[], &[]);
    for directory in livepatches.directories() {
        let above = directory.ancestors().find(|path| path.ends_with(RELEASE));
        read.push(above.unwrap().parent().unwrap().to_owned());
    }
    read.extend(Targets::FILES.map(|file| root.join(file)));
    let arguments = values("path.");
    assert!(arguments.len() > 5, "{arguments:?}");
    let arguments = arguments.iter().map(|argument| {
        let (_, path) = argument.split_once('=').unwrap();
        of_host(path)
    });
    read.extend(arguments.filter(|path| path.parent().is_some()));
    read.push(state_dir());
    // What lies below another directory comes with it.
    let all = read.clone();
    read.retain(|path| {
        !path
            .ancestors()
            .skip(1)
            .any(|above| all.contains(&above.to_owned()))
    });
    let mut mounted: Vec<PathBuf> = values("path: /")
        .into_iter()
        .map(|path| root.join(path))
        // The path of the health check.
        .filter(|path| path != Path::new("/-/healthy"))
        .collect();
    mounted.sort();
    read.sort();
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
