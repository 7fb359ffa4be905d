use super::*;

struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(host.at("root/etc")).unwrap();
        host
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn is(&self, id: &str) {
        fs::write(self.at("root/etc/machine-id"), format!("{id}\n")).unwrap();
    }

    fn adopt(&self) -> Adopted {
        adopt(&self.at("state"), &self.at("root")).unwrap()
    }

    fn record(&self, crash: &str) {
        fs::create_dir_all(self.at("state/crashes")).unwrap();
        fs::write(self.at("state/crashes").join(crash), "x").unwrap();
    }
}

#[test]
fn a_clone_starts_anew_and_nothing_is_lost() {
    let host = Host::new();
    let (first, second) = ("a".repeat(32), "b".repeat(32));
    host.is(&first);
    assert_eq!(host.adopt(), Adopted::Own);
    host.record("1.json");
    assert_eq!(host.adopt(), Adopted::Own);
    assert!(!is_of_another(&host.at("state"), &host.at("root")));
    // The machine's id is nobody else's business.
    let kept = fs::read_to_string(host.at("state/machine")).unwrap();
    assert!(!kept.contains(&first), "{kept}");

    host.is(&second);
    assert!(is_of_another(&host.at("state"), &host.at("root")));
    let Adopted::SetAside(aside) = host.adopt() else {
        panic!("not noticed");
    };
    assert!(aside.join("crashes/1.json").exists() && !host.at("state/crashes").exists());
    assert_eq!(host.adopt(), Adopted::Own);
    // And back again, with what the clone had recorded.
    host.record("2.json");
    host.is(&first);
    let Adopted::SetAside(other) = host.adopt() else {
        panic!("not noticed");
    };
    assert!(other.join("crashes/2.json").exists() && aside.join("crashes/1.json").exists());
}

#[test]
fn without_an_id_nothing_is_moved() {
    let host = Host::new();
    host.is(&"a".repeat(32));
    host.adopt();
    host.record("1.json");
    for id in ["uninitialized", "", "x"] {
        host.is(id);
        assert_eq!(host.adopt(), Adopted::Own, "{id:?}");
    }
    fs::remove_file(host.at("root/etc/machine-id")).unwrap();
    assert_eq!(host.adopt(), Adopted::Own);
    // A state directory of an earlier version has no owner.
    host.is(&"a".repeat(32));
    fs::remove_file(host.at("state/machine")).unwrap();
    assert_eq!(host.adopt(), Adopted::Own);
    assert!(host.at("state/crashes/1.json").exists());
}

#[test]
fn a_crash_kernel_and_a_container_are_no_hosts() {
    let host = Host::new();
    let (procfs, sysfs) = (host.at("proc"), host.at("sys"));
    assert!(crash_kernel(&procfs).is_none());
    fs::create_dir_all(procfs.join("self/ns")).unwrap();
    std::os::unix::fs::symlink("pid:[4026532201]", procfs.join("self/ns/pid")).unwrap();
    // Without the host's sysfs it does not look like one.
    assert!(container(&procfs, &sysfs).is_none());
    fs::create_dir_all(sysfs.join("kernel/livepatch")).unwrap();
    let container = container(&procfs, &sysfs).unwrap();
    assert!(container.what.contains("not a host"), "{}", container.what);
    fs::write(procfs.join("vmcore"), "").unwrap();
    assert!(
        crash_kernel(&procfs)
            .unwrap()
            .what
            .contains("nothing is recorded")
    );
}
