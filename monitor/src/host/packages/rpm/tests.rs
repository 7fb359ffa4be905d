//! The databases that real package managers left (tests/fixtures/updates/README.md), under a
//! root of their own.

use std::process::Command;

use super::*;
use crate::host::packages::Packages;

struct Root(tempfile::TempDir);

impl Root {
    fn new(archive: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/updates");
        let packed = fs::read(format!("{folder}/{archive}.tar.xz")).unwrap();
        let reader = lzma_rust2::XzReader::new(packed.as_slice(), false);
        tar::Archive::new(reader).unpack(root.path()).unwrap();
        Self(root)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn read(&self) -> (Vec<Interrupted>, Vec<String>) {
        Packages::new(self.0.path()).read()
    }

    fn only(&self) -> Interrupted {
        let (found, problems) = self.read();
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }
}

#[test]
fn each_manager_by_its_name() {
    for (archive, manager, half_done) in [
        ("dnf-bookworm-none-x-9", Manager::Dnf, 0),
        ("dnf-bookworm-pretrans-a-9", Manager::Dnf, 0),
        ("dnf-trixie-post-b-9", Manager::Dnf, 3),
        ("dnf-trixie-posttrans-a-9", Manager::Dnf, 3),
        ("dnf5-sid-none-x-9", Manager::Dnf5, 0),
        ("dnf5-sid-postun-b-9", Manager::Dnf5, 3),
        ("zypper-bookworm-none-x-9", Manager::Zypper, 0),
        ("zypper-bookworm-post-b-9", Manager::Zypper, 1),
        ("zypper-bookworm-posttrans-a-9", Manager::Zypper, 3),
        ("zypper-bookworm-pre-b-9", Manager::Zypper, 0),
    ] {
        let found = Root::new(archive).only();
        assert_eq!(found.manager, manager, "{archive}");
        assert_eq!(found.packages.len(), half_done, "{archive}: {found:?}");
    }
}

#[test]
fn the_remedy_fits_what_is_wrong() {
    let remedy = |archive| Root::new(archive).only().remedy();
    assert_eq!(
        remedy("dnf-bookworm-post-b-9"),
        "dnf remove --duplicates; dnf upgrade lp-a"
    );
    assert_eq!(
        remedy("dnf-bookworm-postun-b-9"),
        "dnf remove --duplicates; dnf reinstall lp-c"
    );
    assert_eq!(remedy("dnf-bookworm-pretrans-a-9"), "");
    assert_eq!(
        remedy("dnf-bookworm-posttrans-a-9"),
        "dnf reinstall lp-a lp-b lp-c"
    );
    assert_eq!(
        remedy("zypper-bookworm-post-b-9"),
        "zypper install --force lp-b; zypper update"
    );
    assert_eq!(
        remedy("zypper-bookworm-posttrans-a-9"),
        "zypper install --force lp-a lp-b lp-c; zypper update"
    );
}

#[test]
fn a_left_over_directory_of_yum_is_not_a_manager() {
    let root = Root::new("dnf-bookworm-post-b-9");
    fs::create_dir_all(root.path("var/lib/yum")).unwrap();
    assert_eq!(root.only().manager, Manager::Dnf);
}

#[test]
fn a_database_that_is_not_read_is_named_and_no_zero() {
    let root = Root::new("dnf-bookworm-none-x-9");
    fs::remove_file(root.path("usr/lib/sysimage/rpm/rpmdb.sqlite")).unwrap();
    fs::write(root.path("usr/lib/sysimage/rpm/Packages.db"), b"RpmP").unwrap();
    let (found, problems) = root.read();
    assert_eq!(found, []);
    assert!(problems[0].contains("ndb"), "{problems:?}");

    let root = Root::new("dnf-bookworm-none-x-9");
    fs::write(root.path("usr/lib/sysimage/rpm/rpmdb.sqlite"), b"nonsense").unwrap();
    fs::write(root.path("usr/lib/sysimage/rpm/rpmdb.sqlite-wal"), b"").unwrap();
    let (found, problems) = root.read();
    assert_eq!(found, []);
    assert!(problems[0].contains("is not known"), "{problems:?}");
}

#[test]
fn an_empty_database_is_of_no_host_of_rpm() {
    let root = Root::new("dnf-bookworm-none-x-9");
    let folder = root.path("usr/lib/sysimage/rpm");
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(root.read(), (Vec::new(), Vec::new()));
}

/// While a transaction runs, what was before it stands.
#[test]
fn a_transaction_at_work_is_not_interrupted() {
    let root = Root::new("dnf-bookworm-post-b-9");
    let mut packages = Packages::new(root.0.path());
    fs::create_dir_all(root.path("run/dnf")).unwrap();
    let lock = root.path(DNF_LOCKS[0]);
    // A process that lives as long as this test.
    let mut process = Command::new("sleep").arg("600").spawn().unwrap();
    fs::create_dir_all(root.path(&format!("proc/{}", process.id()))).unwrap();
    fs::write(&lock, format!("{}\n", process.id())).unwrap();
    assert_eq!(packages.read(), (Vec::new(), Vec::new()));
    process.kill().unwrap();
    process.wait().unwrap();
    fs::remove_dir(root.path(&format!("proc/{}", process.id()))).unwrap();
    let (found, _) = packages.read();
    assert_eq!(found[0].packages.len(), 3);
}
