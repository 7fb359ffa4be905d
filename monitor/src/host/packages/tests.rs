use std::fs;

use proptest::prelude::*;

use super::*;

struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self) -> Vec<Interrupted> {
        let (found, problems) = Packages::new(self.0.path(), Path::new("/proc")).read();
        assert!(problems.is_empty(), "{problems:?}");
        found
    }
}

fn stanza(name: &str, status: &str) -> String {
    format!(
        "Package: {name}\nStatus: {status}\nPriority: optional\nArchitecture: amd64\nMulti-Arch: foreign\nDescription: x\n Status: install ok unpacked\n .\n\n"
    )
}

fn named(found: &[Interrupted]) -> Vec<(&str, &str)> {
    let packages = found.iter().flat_map(|found| &found.packages);
    packages
        .map(|package| (package.name.as_str(), package.state.as_str()))
        .collect()
}

#[test]
fn a_host_without_package_managers_says_nothing() {
    assert_eq!(Root::new().read(), []);
}

#[test]
fn packages_between_states_are_named() {
    let root = Root::new();
    let status = [
        stanza("good", "install ok installed"),
        stanza("gone", "deinstall ok config-files"),
        stanza("torn", "install reinstreq half-installed"),
        stanza("new", "install ok unpacked"),
        stanza("half", "install ok half-configured"),
        stanza("waits", "install ok triggers-awaited"),
        stanza("will", "install ok triggers-pending"),
    ];
    root.write("var/lib/dpkg/status", status.concat());
    let expected = [
        ("half", "half-configured"),
        ("new", "unpacked, not configured"),
        ("torn", "half-installed, must be reinstalled"),
        ("waits", "triggers-awaited"),
        ("will", "triggers-pending"),
    ];
    assert_eq!(named(&root.read()), expected);
}

#[test]
fn the_journal_counts_and_its_drafts_do_not() {
    let root = Root::new();
    let text = stanza("a", "install ok installed") + &stanza("b", "install ok unpacked");
    root.write("var/lib/dpkg/status", text);
    let journal = |name: &str, status: &str, number: &str| {
        let path = format!("var/lib/dpkg/updates/{number}");
        root.write(&path, stanza(name, status));
    };
    journal("a", "install ok half-configured", "0000");
    journal("b", "install ok installed", "0001");
    journal("a", "install reinstreq half-installed", "tmp.i");
    // dpkg empties its journal before it ends, so all that is left there was interrupted.
    let installed = "installed, in dpkg's journal only";
    assert_eq!(
        named(&root.read()),
        [("a", "half-configured"), ("b", installed)]
    );
    journal("a", "install ok installed", "0002");
    assert_eq!(named(&root.read()), [("a", installed), ("b", installed)]);
    // Killed in the postrm of a purge: apt refuses to work (dpkg 1.22).
    journal("c", "purge ok config-files", "0003");
    assert_eq!(named(&root.read()).len(), 3);
}

#[test]
fn the_same_package_of_two_architectures_is_two() {
    let root = Root::new();
    let of = |architecture: &str, state: &str| {
        format!(
            "Package: libc6\nStatus: install ok {state}\nArchitecture: {architecture}\nMulti-Arch: same\n\n"
        )
    };
    root.write(
        "var/lib/dpkg/status",
        of("i386", "unpacked") + &of("amd64", "installed"),
    );
    assert_eq!(
        named(&root.read()),
        [("libc6:i386", "unpacked, not configured")]
    );
}

#[test]
fn a_file_is_read_again_when_it_has_changed() {
    let root = Root::new();
    root.write("var/lib/dpkg/status", stanza("a", "install ok unpacked"));
    let mut packages = Packages::new(root.0.path(), Path::new("/proc"));
    assert_eq!(packages.read().0[0].packages.len(), 1);
    assert_eq!(packages.read().0[0].packages.len(), 1);
    root.write("var/lib/dpkg/status", stanza("a", "install ok installed"));
    assert_eq!(packages.read().0[0].packages.len(), 0);
}

#[test]
fn an_unfinished_yum_transaction_is_named() {
    let root = Root::new();
    let all = "i:kernel-3.10.0-1.el7\nu:bash-4.2.46-34.el7\ne:bash-4.2.46-33.el7\n";
    root.write("var/lib/yum/transaction-all.2026-11-23.12:48.09", all);
    root.write(
        "var/lib/yum/transaction-done.2026-11-23.12:48.09",
        "i:kernel-3.10.0-1.el7\n",
    );
    root.write(
        "var/lib/yum/transaction-all.2025-01-01.00:00.00.disabled",
        all,
    );
    let found = root.read();
    assert_eq!(found[0].manager, Manager::Yum);
    assert_eq!(found[0].packages.len(), 2);
    // While a yum runs, its transaction is as it should be.
    root.write("run/yum.pid", std::process::id().to_string());
    let mut packages = Packages::new(root.0.path(), Path::new("/proc"));
    assert_eq!(packages.read(), (Vec::new(), Vec::new()));
    assert_eq!(packages.at_work(), [Manager::Yum]);
    fs::remove_file(root.0.path().join("run/yum.pid")).unwrap();
    assert_eq!(packages.read().0, found);
    // A step is taken.
    let done = "i:kernel-3.10.0-1.el7
u:bash-4.2.46-34.el7
";
    root.write("var/lib/yum/transaction-done.2026-11-23.12:48.09", done);
    assert_eq!(packages.read().0[0].packages.len(), 1);
}

#[test]
fn locks_that_appear_later_are_those_of_this_host_s_managers() {
    let root = Root::new();
    let appearing = || Packages::appearing(root.0.path());
    assert_eq!(appearing(), Vec::<PathBuf>::new());
    fs::create_dir_all(root.0.path().join("var/lib/yum")).unwrap();
    assert_eq!(appearing().len(), 2);
    root.write("var/lib/rpm/rpmdb.sqlite", "");
    assert!(appearing().contains(&root.0.path().join("run/zypp.pid")));
}

#[test]
fn an_unreadable_file_is_named() {
    let root = Root::new();
    fs::create_dir_all(root.0.path().join("var/lib/dpkg/status")).unwrap();
    let (found, problems) = Packages::new(root.0.path(), Path::new("/proc")).read();
    assert!(found.is_empty());
    assert!(problems[0].contains("var/lib/dpkg/status"), "{problems:?}");
}

#[test]
fn a_status_of_50_mb_is_named_and_left_out() {
    let root = Root::new();
    root.write("var/lib/dpkg/status", "");
    let path = root.0.path().join("var/lib/dpkg/status");
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(50 << 20).unwrap();
    let (found, problems) = Packages::new(root.0.path(), Path::new("/proc")).read();
    assert_eq!(found, []);
    assert!(problems[0].contains("more than 32 MiB"), "{problems:?}");
}

proptest! {
    #[test]
    fn any_status_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let root = Root::new();
        let text = [stanza("a", "install ok unpacked").into_bytes(), b"\n".to_vec(), bytes].concat();
        root.write("var/lib/dpkg/status", text);
        prop_assert!(!root.read().is_empty());
    }
}

#[test]
fn the_commands_fit_what_dpkg_left() {
    let remedy = |status: &str| {
        let root = Root::new();
        root.write("var/lib/dpkg/status", stanza("a", status));
        root.read()[0].remedy()
    };
    assert_eq!(remedy("install ok installed"), "");
    assert_eq!(
        remedy("install ok unpacked"),
        "dpkg --configure -a; apt-get -f install"
    );
    assert_eq!(
        remedy("install reinstreq half-installed"),
        "dpkg --configure -a; apt-get install --reinstall a; apt-get -f install"
    );
    assert_eq!(
        remedy("deinstall ok half-configured"),
        "dpkg --configure -a; dpkg --remove a; apt-get -f install"
    );
}
