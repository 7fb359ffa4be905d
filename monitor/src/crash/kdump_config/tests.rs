use std::fs;

use super::*;

fn read(file: &str, text: &str) -> Targets {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    Targets::read(root.path())
}

fn local(path: &str) -> Targets {
    Targets {
        local: vec![path.into()],
        ..Targets::default()
    }
}

fn elsewhere(place: &str) -> Targets {
    Targets {
        elsewhere: vec![place.into()],
        ..Targets::default()
    }
}

#[test]
fn each_tool_in_each_way() {
    let rhel = |text| read(KDUMP_CONF, text);
    assert_eq!(
        rhel("#path /x\ncore_collector makedumpfile -l\n"),
        local("/var/crash")
    );
    assert_eq!(rhel("path /srv/crash # large\n"), local("/srv/crash"));
    assert_eq!(
        rhel("path /dumps\nnfs store.example:/export\n"),
        elsewhere("nfs store.example:/export, directory /dumps (/etc/kdump.conf)")
    );
    assert_eq!(
        rhel("ssh kdump@store.example\nsshkey /root/.ssh/x\n"),
        elsewhere("ssh kdump@store.example, directory /var/crash (/etc/kdump.conf)")
    );
    assert_eq!(
        rhel("ext4 UUID=0d1c"),
        elsewhere("ext4 UUID=0d1c, directory /var/crash (/etc/kdump.conf)")
    );
    assert!(rhel("raw /dev/vdb1").elsewhere[0].starts_with("the raw device /dev/vdb1 "));

    let debian = |text| read(KDUMP_TOOLS, text);
    assert_eq!(debian("USE_KDUMP=1\n#NFS=\"x\"\n"), local("/var/crash"));
    assert_eq!(
        debian("KDUMP_COREDIR='/srv/crash'\nNFS=\"\""),
        local("/srv/crash")
    );
    assert_eq!(
        debian("KDUMP_COREDIR=\"/var/crash\"\nNFS=\"store.example:/export\"  # NFS\n"),
        elsewhere("nfs store.example:/export (/etc/default/kdump-tools)")
    );
    assert_eq!(
        debian("SSH=kdump@store.example"),
        elsewhere("ssh kdump@store.example, directory /var/crash (/etc/default/kdump-tools)")
    );

    let suse = |text| read(SYSCONFIG, text);
    assert_eq!(
        suse("KDUMP_SAVEDIR=\"file:///srv/crash\""),
        local("/srv/crash")
    );
    assert_eq!(suse("KDUMP_SAVEDIR=/srv/crash"), local("/srv/crash"));
    assert_eq!(
        suse("KDUMP_SAVEDIR=\"ftp://kdump:secret@store.example/x\""),
        elsewhere("ftp://kdump@store.example/x (/etc/sysconfig/kdump)")
    );
    // RHEL has a file of this name, too.
    assert_eq!(suse("KDUMP_KERNELVER=\"\"\n"), Targets::default());
}

#[test]
fn systemd_pstore_may_keep_no_files() {
    let pstore = |text| read(PSTORE_CONF, text).pstore;
    assert_eq!(pstore("[PStore]\n#Storage=journal\nUnlink=yes\n"), None);
    assert_eq!(pstore("[PStore]\nStorage=external\n"), None);
    let said = pstore("[PStore]\nStorage=journal\n").unwrap();
    assert!(said.contains("journalctl -u systemd-pstore"), "{said}");
}

#[test]
fn what_cannot_be_used_is_named() {
    let problem = |targets: Targets| targets.problems.join("");
    let relative = problem(read(KDUMP_CONF, "path crash"));
    assert!(
        relative.contains("/etc/kdump.conf: \"crash\" is not an absolute path"),
        "{relative}"
    );
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join(KDUMP_TOOLS)).unwrap();
    let unread = problem(Targets::read(root.path()));
    assert!(unread.contains("kdump-tools: a directory"), "{unread}");
    assert_eq!(Targets::read(Path::new("/nowhere")), Targets::default());
}
