//! A real dpkg, killed in a maintainer script, in a root of its own.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking too")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use livepatch_monitor::host::packages::{Manager, Packages};
use livepatch_monitor_test_support::{host::FakeHost, left_out, process::Process};
use rustix::process::{Pid, Signal, geteuid, kill_process_group};

/// dpkg refuses to work without those that it calls.
const PROGRAMS: &[&str] = &[
    "dpkg",
    "dpkg-deb",
    "dpkg-split",
    "start-stop-daemon",
    "ldconfig",
    "sh",
    "rm",
    "tar",
    "diff",
    "sleep",
    "touch",
];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const POSTINST: &str = "[ -e /calm ] && exit 0\ntouch /started\nsleep 100\n";

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':')
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
}

/// Why the test cannot run here.
fn obstacle() -> Option<String> {
    if !geteuid().is_root() {
        return Some("it makes a chroot, which takes root".to_owned());
    }
    let missing = PROGRAMS.iter().find(|program| find(program).is_none())?;
    Some(format!("there is no {missing}"))
}

/// This machine's dpkg and what it needs, copied.
fn make_root(root: &Path) {
    let mut files = BTreeSet::new();
    for program in PROGRAMS {
        let path = find(program).unwrap();
        // A script, as ldconfig is in some distributions, has no libraries.
        let libraries = Command::new("ldd").arg(&path).output().unwrap();
        for word in String::from_utf8_lossy(&libraries.stdout).split_whitespace() {
            if word.starts_with('/') {
                files.insert(Path::new(word).to_owned());
            }
        }
        files.insert(path);
    }
    for file in files {
        let copy = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(&file, &copy).unwrap();
    }
    for folder in ["dev", "tmp", "var/lib/dpkg/updates", "var/lib/dpkg/info"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for file in ["dev/null", "var/lib/dpkg/status"] {
        fs::write(root.join(file), "").unwrap();
    }
}

fn make_package(root: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("DEBIAN");
    fs::create_dir(&control).unwrap();
    let text = "Package: held-up\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: takes its time\n";
    fs::write(control.join("control"), text).unwrap();
    let script = control.join("postinst");
    let shell = find("sh").unwrap();
    fs::write(&script, format!("#!{}\n{POSTINST}", shell.display())).unwrap();
    for path in [&script, &control, &folder.path().to_owned()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    run(Command::new("dpkg-deb")
        .arg("--build")
        .arg(folder.path())
        .arg(root.join("held-up.deb")));
}

fn in_root(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("chroot");
    command.arg(root).args(arguments).env("PATH", PATH);
    command.stdin(Stdio::null());
    command
}

/// The half-done packages of dpkg; none while it is at work.
fn half_done(packages: &mut Packages) -> Option<Vec<(String, String)>> {
    let (found, problems) = packages.read();
    assert!(problems.is_empty(), "{problems:?}");
    let dpkg = found
        .into_iter()
        .find(|found| found.manager == Manager::Dpkg)?;
    let packages = dpkg.packages.into_iter();
    Some(packages.map(|one| (one.name, one.state)).collect())
}

#[test]
fn dpkg_killed_in_a_maintainer_script() {
    if let Some(obstacle) = obstacle() {
        left_out("dpkg killed in a maintainer script", &obstacle);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    make_root(root);
    make_package(root);

    let mut dpkg = in_root(root, &["dpkg", "--install", "/held-up.deb"])
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    while !root.join("started").exists() {
        assert_eq!(dpkg.try_wait().unwrap(), None, "dpkg has ended");
        thread::sleep(Duration::from_millis(20));
    }
    // At work: nothing is interrupted yet.
    let mut packages = Packages::new(root, Path::new("/proc"));
    assert_eq!(half_done(&mut packages), None);
    assert_eq!(packages.at_work(), [Manager::Dpkg]);

    let group = Pid::from_child(&dpkg);
    kill_process_group(group, Signal::KILL).unwrap();
    dpkg.wait().unwrap();
    let expected = ("held-up".to_owned(), "half-configured".to_owned());
    assert_eq!(half_done(&mut packages), Some(vec![expected]));

    fs::write(root.join("calm"), "").unwrap();
    run(&mut in_root(root, &["dpkg", "--configure", "--pending"]));
    assert_eq!(half_done(&mut packages), Some(vec![]));

    // An update that goes through is called interrupted at no moment.
    let mut dpkg = in_root(root, &["dpkg", "--install", "/held-up.deb"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while dpkg.try_wait().unwrap().is_none() {
        assert_eq!(half_done(&mut packages), Some(vec![]));
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(half_done(&mut packages), Some(vec![]));
}

/// dnf makes its lock, and the lock's folder, when it works. The monitor has given up access to
/// other files long before.
#[test]
fn a_lock_that_appears_after_the_start_is_read() {
    let host = FakeHost::default();
    let packed = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/fixtures/updates/dnf-bookworm-post-b-9.tar.xz"
    );
    let packed = fs::read(packed).unwrap();
    let reader = lzma_rust2::XzReader::new(packed.as_slice(), false);
    tar::Archive::new(reader)
        .unpack(host.path("rootfs"))
        .unwrap();
    let run = host.path("rootfs/run");
    if run.exists() {
        fs::remove_dir_all(&run).unwrap();
    }
    // Otherwise all of the root is read for livepatches that may be installed there.
    for folder in ["lib/modules", "usr/lib", "var/lib"] {
        host.create_dir(&format!("rootfs/{folder}"));
    }
    let binary = env!("CARGO_BIN_EXE_livepatch-monitor");
    let serve = ["serve", "--web.listen-address", "127.0.0.1:0"];
    let monitor = Process::serve(host.command(binary, &serve));
    let expected = [
        "livepatch_update_interrupted{manager=\"dnf\"} 3\n",
        "livepatch_monitor_collector_success{collector=\"host\"} 1\n",
    ];
    let check = || {
        let metrics = monitor.metrics();
        for line in expected {
            assert!(metrics.contains(line), "no {line} in {metrics}");
        }
    };
    check();
    // At work: what was before it stands, and nothing is unknown.
    host.create_dir("proc/4242");
    host.write("rootfs/run/dnf/rpmtransaction.lock", "4242");
    check();
}
