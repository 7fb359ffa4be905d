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
        Packages::new(self.0.path(), &self.path("proc")).read()
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
        "dnf remove --duplicates; dnf upgrade lp-a.noarch"
    );
    assert_eq!(
        remedy("dnf-bookworm-postun-b-9"),
        "dnf remove --duplicates; dnf reinstall lp-c-2-1.noarch"
    );
    assert_eq!(remedy("dnf-bookworm-pretrans-a-9"), "");
    assert_eq!(
        remedy("dnf-bookworm-posttrans-a-9"),
        "dnf reinstall lp-a-2-1.noarch lp-b-2-1.noarch lp-c-2-1.noarch"
    );
    assert_eq!(
        remedy("zypper-bookworm-post-b-9"),
        "zypper install --force lp-b.noarch; zypper update"
    );
    assert_eq!(
        remedy("zypper-bookworm-posttrans-a-9"),
        "zypper install --force lp-a.noarch lp-b.noarch lp-c.noarch; zypper update"
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
fn what_is_too_large_or_of_another_schema_is_named_and_left_out() {
    let root = Root::new("dnf-bookworm-post-b-9");
    let history = root.path("var/lib/dnf/history.sqlite");
    let file = fs::OpenOptions::new().write(true).open(&history).unwrap();
    file.set_len(100 << 20).unwrap();
    let (found, problems) = root.read();
    assert_eq!(found, []);
    assert!(
        problems[0].contains("history.sqlite has 100 MiB"),
        "{problems:?}"
    );

    let root = Root::new("dnf-bookworm-post-b-9");
    let rpmdb = "usr/lib/sysimage/rpm/rpmdb.sqlite";
    for suffix in ["", "-wal"] {
        let from = root.path(&format!("{rpmdb}{suffix}"));
        fs::copy(
            from,
            root.path(&format!("var/lib/dnf/history.sqlite{suffix}")),
        )
        .unwrap();
    }
    let (found, problems) = root.read();
    assert_eq!(found, []);
    assert!(problems[0].contains("no table trans"), "{problems:?}");
}

#[test]
fn a_damaged_page_is_named_and_left_out() {
    let root = Root::new("dnf-bookworm-post-b-9");
    let path = root.path("usr/lib/sysimage/rpm/rpmdb.sqlite");
    fs::remove_file(root.path("usr/lib/sysimage/rpm/rpmdb.sqlite-wal")).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096..].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let (found, problems) = root.read();
    assert_eq!(found, []);
    assert!(problems[0].contains("damaged"), "{problems:?}");
}

#[test]
fn a_link_out_of_the_root_is_named_and_left_out() {
    let elsewhere = Root::new("dnf-bookworm-post-b-9");
    let root = Root::new("dnf-bookworm-none-x-9");
    let folder = root.path("usr/lib/sysimage/rpm");
    fs::remove_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(elsewhere.path("usr/lib/sysimage/rpm"), &folder).unwrap();
    let (found, problems) = root.read();
    assert_eq!(found, []);
    assert!(
        problems[0].contains("outside of --path.rootfs"),
        "{problems:?}"
    );
}

/// RHEL 8: rpm's database is not read, and dnf's history is. That a transaction was never closed
/// is known; that nothing is half done is not.
#[test]
fn without_rpms_database_only_an_unclosed_transaction_is_known() {
    let berkeley = |archive| {
        let root = Root::new(archive);
        let folder = root.path("usr/lib/sysimage/rpm");
        fs::remove_file(folder.join("rpmdb.sqlite")).unwrap();
        fs::write(folder.join("Packages"), b"").unwrap();
        root
    };
    let (found, problems) = berkeley("dnf-bookworm-none-x-9").read();
    assert_eq!(found, []);
    assert!(problems[0].contains("Berkeley DB"), "{problems:?}");
    let found = berkeley("dnf-bookworm-post-b-9").only();
    assert_eq!(found.packages.len(), 3);
    assert!(
        found.packages[0].state.contains("never closed"),
        "{found:?}"
    );
    let all = "lp-a-2-1.noarch lp-b-2-1.noarch lp-c-2-1.noarch";
    assert_eq!(
        found.remedy(),
        format!("dnf remove --duplicates; dnf install {all}; dnf reinstall {all}")
    );
}

/// The lock file of a manager that was killed names a process, and a later one has its number.
#[test]
fn a_later_process_with_the_number_in_a_lock_file_is_not_at_work() {
    let root = Root::new("dnf-bookworm-post-b-9");
    let lock = root.path(DNF_LOCKS[1]);
    fs::write(&lock, format!("{}\n", std::process::id())).unwrap();
    std::os::unix::fs::symlink("/proc", root.path("proc")).unwrap();
    assert_eq!(root.read(), (Vec::new(), Vec::new()));
    let long_ago =
        std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let file = fs::OpenOptions::new().write(true).open(&lock).unwrap();
    file.set_modified(long_ago).unwrap();
    assert_eq!(root.only().packages.len(), 3);
}

#[test]
fn a_removal_that_was_not_closed_leaves_nothing_undone() {
    let item = |comes| livepatch_core::updates::history::Item {
        name: "lp-a".to_owned(),
        arch: "noarch".to_owned(),
        evr: "1-1".to_owned(),
        comes,
    };
    let transaction = Transaction {
        id: 1,
        begin: 0,
        end: None,
        command: None,
        user: None,
        items: vec![item(false)],
    };
    assert_eq!(judge(Some(&transaction), &[]), Outcome::Clean);
    // Where it cannot be seen whether they went, nothing is claimed.
    let why = || "not read".to_owned();
    assert_eq!(
        not_readable(Manager::Dnf, Some(&transaction), why()),
        Err(why())
    );
    assert_eq!(not_readable(Manager::Dnf, None, why()), Err(why()));
    let install = Transaction {
        items: vec![item(true)],
        ..transaction
    };
    let found = not_readable(Manager::Dnf, Some(&install), why()).unwrap();
    assert_eq!(found.packages.len(), 1);
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
    let mut packages = Packages::new(root.0.path(), &root.path("proc"));
    fs::create_dir_all(root.path("run/dnf")).unwrap();
    let lock = root.path(DNF_LOCKS[0]);
    // A process that lives as long as this test.
    let mut process = Command::new("sleep").arg("600").spawn().unwrap();
    fs::create_dir_all(root.path(&format!("proc/{}", process.id()))).unwrap();
    fs::write(&lock, format!("{}\n", process.id())).unwrap();
    assert_eq!(packages.read(), (Vec::new(), Vec::new()));
    assert_eq!(packages.at_work(), [Manager::Dnf]);
    process.kill().unwrap();
    process.wait().unwrap();
    fs::remove_dir(root.path(&format!("proc/{}", process.id()))).unwrap();
    let (found, _) = packages.read();
    assert_eq!(found[0].packages.len(), 3);
}
