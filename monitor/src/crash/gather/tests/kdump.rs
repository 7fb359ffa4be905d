//! Where kdump's tools put their files, and which of them are read and believed.

use livepatch_core::crash::Precision;

use super::{
    scenarios::{only, oops, watched},
    *,
};

#[test]
fn each_distributions_directory_is_found() {
    for path in [
        "202611231249/dmesg.202611231249",
        "web1-202611231249/dmesg.202611231249",
        "127.0.0.1-2026-11-23-12:49:40/vmcore-dmesg.txt",
        "127.0.0.1-2026-11-23-12:49:40/vmcore-dmesg-incomplete.txt",
        "2026-11-23-12:49/dmesg.txt",
        "2026-11-23-12:49/dmesg",
        "web1/2026-11-23-12:49/dmesg.txt",
    ] {
        let host = Host::new();
        host.kdump_log(path, &oops(Some(BEGAN), 100.0));
        let folder = path.rsplit_once('/').unwrap().0;
        for other in ["vmcore", "README.txt", "kexec-dmesg.log"] {
            host.kdump_log(&format!("{folder}/{other}"), "KDUMP   ");
        }
        let (crashes, _) = host.gather_twice(&[]);
        assert_eq!(only(&crashes).ended_boot, Some(true), "{path}");
    }
}

#[test]
fn a_crash_without_a_log_is_one_too() {
    for files in [
        &["vmcore-dmesg-incomplete.txt", "vmcore"][..],
        &["vmcore-incomplete"],
        &["dump.202611231249"],
    ] {
        let host = Host::new();
        for file in files {
            host.kdump_log(&format!("x/{file}"), "");
        }
        let mut store = Store::open(host.root.path()).unwrap().store;
        for _ in 0..2 {
            let gathered = after_boot(&mut store, &[], &host.this(), &host.sources(), SOAK);
            let said = "kdump saved no log of this crash";
            assert!(
                gathered
                    .problems
                    .iter()
                    .any(|problem| problem.contains(said))
            );
            let crash = only(store.crashes());
            assert_eq!(
                (crash.record.kind, crash.ended_boot),
                (Kind::Panic, Some(true))
            );
            assert_eq!(crash.record.when.precision, Precision::File);
        }
    }
}

#[test]
fn a_file_that_was_read_is_not_read_again() {
    let host = Host::new();
    host.kdump_log("1/dmesg.1", &oops(Some(BEGAN), 100.0));
    host.gather(&[]);
    // Other text under the same size and date would show.
    let path = host.root.path().join("crash/1/dmesg.1");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, oops(Some(BEGAN), 200.0)).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(modified).unwrap();
    let (crashes, _) = host.gather(&[]);
    only(&crashes);
    file.set_modified(modified + Duration::from_secs(1))
        .unwrap();
    assert_eq!(host.gather(&[]).0.len(), 2);
}

/// The status page shows the problems to whoever may ask.
#[test]
fn what_is_not_understood_is_named_without_its_text() {
    let host = Host::new();
    host.kdump_log("1/dmesg.1", "a token: hunter2\nanother: hunter2\n");
    let mut store = Store::open(host.root.path()).unwrap().store;
    for _ in 0..2 {
        let gathered = after_boot(&mut store, &[], &host.this(), &host.sources(), SOAK);
        let said = gathered.problems.join("\n");
        assert!(
            said.contains("1/dmesg.1: some of it cannot be parsed"),
            "{said}"
        );
        assert!(!said.contains("hunter2"), "{said}");
        assert_eq!(only(store.crashes()).record.kind, Kind::Panic);
    }
}

/// What an operator who was not root could have put there.
#[test]
fn a_planted_dump_is_no_crash() {
    let host = Host::new();
    host.kdump_log("1/dmesg.1", &oops(Some(BEGAN), 100.0));
    let mut store = Store::open(host.root.path()).unwrap().store;
    let mut sources = host.sources();
    sources.owner += 1;
    let gathered = after_boot(&mut store, &[], &host.this(), &sources, SOAK);
    assert_eq!((store.crashes().len(), gathered.untrusted.len()), (0, 1));
    assert!(gathered.problems.is_empty());
}

#[test]
fn where_kdump_writes_is_looked_at_or_said() {
    let host = Host::new();
    let conf = host.root.path().join("root/etc/kdump.conf");
    fs::create_dir_all(conf.parent().unwrap()).unwrap();
    fs::write(&conf, "path /srv/crash\n").unwrap();
    let dump = host
        .root
        .path()
        .join("root/srv/crash/127.0.0.1-2026/vmcore-dmesg.txt");
    fs::create_dir_all(dump.parent().unwrap()).unwrap();
    fs::write(dump, oops(Some(BEGAN), 100.0)).unwrap();
    only(&host.gather_twice(&[]).0);

    let host = Host::new();
    let conf = host.root.path().join("root/etc/kdump.conf");
    fs::create_dir_all(conf.parent().unwrap()).unwrap();
    fs::write(&conf, "nfs store.example:/export\n").unwrap();
    let boots = [watched("b1", BEGAN, 40.0, Some(BEGAN + 600.0))];
    let (crashes, _) = host.gather_twice(&boots);
    let record = &only(&crashes).record;
    assert_eq!(record.kind, Kind::Reset);
    let said = record.unproven.join("");
    assert!(said.contains("nfs store.example:/export"), "{said}");
}
