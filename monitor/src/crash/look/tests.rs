use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
};

use super::*;

fn own() -> u32 {
    rustix::process::getuid().as_raw()
}

fn is_dump(name: &str) -> bool {
    name.starts_with("dmesg")
}

struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        rustix::process::umask(Mode::WGRP | Mode::WOTH);
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir(host.at("crash")).unwrap();
        host
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn dump(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at("crash").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), Permissions::from_mode(mode)).unwrap();
    }

    /// The files that are read, and what is not believed and why.
    fn look(&self, owner: u32, limits: Limits) -> (Vec<String>, Vec<String>, Look) {
        let mut look = Look::new(owner, limits);
        let base = self.at("crash");
        let below = |path: &Path| {
            let path = path.strip_prefix(&base).unwrap();
            path.to_string_lossy().into_owned()
        };
        let mut read = Vec::new();
        for found in look.find(&base, is_dump) {
            if look.read(&found).is_some() {
                read.push(below(&found.path));
            }
        }
        read.sort();
        let untrusted = look.untrusted.iter();
        let mut untrusted: Vec<_> = untrusted
            .map(|it| format!("{}: {}", below(&it.path), it.reason))
            .collect();
        untrusted.sort();
        (read, untrusted, look)
    }
}

#[test]
fn what_is_roots_alone_is_read() {
    let host = Host::new();
    host.dump("202611231248/dmesg.202611231248", "x");
    host.dump("web1/2026-11-23-12:48/dmesg.txt", "x");
    host.dump("web1/2026-11-23-12:48/vmcore", "x");
    host.dump("a/b/c/d/dmesg", "too deep");
    let (read, untrusted, _) = host.look(own(), Limits::default());
    assert_eq!(
        read,
        [
            "202611231248/dmesg.202611231248",
            "web1/2026-11-23-12:48/dmesg.txt"
        ]
    );
    assert_eq!(untrusted, [""; 0]);
}

#[test]
fn what_others_could_have_made_is_named() {
    let host = Host::new();
    let real = host.dump("1/dmesg.1", "x");
    host.dump("2/dmesg.2", "x");
    host.dump("3/dmesg.3", "x");
    host.dump("4/dmesg.4", "x");
    fs::hard_link(&real, host.at("crash/4/dmesg.twin")).unwrap();
    symlink(host.at("crash/4"), host.at("crash/5")).unwrap();
    symlink("/etc/passwd", host.at("crash/4/dmesg.link")).unwrap();
    host.mode("crash/2", 0o775);
    host.mode("crash/3/dmesg.3", 0o666);
    let (read, untrusted, _) = host.look(own(), Limits::default());
    assert_eq!(read, ["4/dmesg.4"]);
    let second = "it has a second name (a hard link)";
    let open = "users other than root may write to it";
    assert_eq!(
        untrusted,
        [
            format!("1/dmesg.1: {second}"),
            format!("2: {open}"),
            format!("3/dmesg.3: {open}"),
            "4/dmesg.link: a symbolic link".to_owned(),
            format!("4/dmesg.twin: {second}"),
            "5: a symbolic link".to_owned(),
        ]
    );
    // And nothing where all of it is another user's.
    let (read, untrusted, _) = host.look(own() + 1, Limits::default());
    assert_eq!(read, [""; 0]);
    assert_eq!(untrusted, [format!(": it belongs to user {}", own())]);
}

/// As on Ubuntu: everybody may put something there, nobody can replace root's.
#[test]
fn a_sticky_directory_keeps_what_is_roots() {
    let host = Host::new();
    host.dump("202611231248/dmesg.202611231248", "x");
    host.dump("dmesg.planted", "x");
    host.mode("crash", 0o1777);
    let (read, untrusted, _) = host.look(own(), Limits::default());
    assert_eq!(read, ["202611231248/dmesg.202611231248"]);
    assert_eq!(
        untrusted,
        ["dmesg.planted: its directory: users other than root may write to it"]
    );
    host.mode("crash", 0o777);
    let (read, untrusted, _) = host.look(own(), Limits::default());
    assert_eq!(read, [""; 0]);
    assert_eq!(untrusted, [": users other than root may write to it"]);
}

#[test]
fn a_file_that_is_replaced_is_not_read() {
    let host = Host::new();
    let path = host.dump("1/dmesg.1", "x");
    let mut look = Look::new(own(), Limits::default());
    let found = look.find(&host.at("crash"), is_dump);
    fs::rename(host.dump("2", "y"), &path).unwrap();
    assert!(look.read(found.first().unwrap()).is_none());
    assert!(look.untrusted.first().unwrap().reason.contains("replaced"));
    // Nor is a link in its place followed.
    fs::remove_file(&path).unwrap();
    symlink("/etc/passwd", &path).unwrap();
    assert!(look.read(found.first().unwrap()).is_none());
}

#[test]
fn each_bound_is_kept_and_said() {
    let host = Host::new();
    for file in 0..10 {
        host.dump(&format!("{file}/dmesg"), [b'x'; 100]);
    }
    for (limits, expected) in [
        (
            Limits {
                files: 3,
                ..Limits::default()
            },
            3,
        ),
        (
            Limits {
                bytes: 450,
                ..Limits::default()
            },
            4,
        ),
        (
            Limits {
                bytes: 450,
                file_bytes: 50,
                ..Limits::default()
            },
            9,
        ),
    ] {
        let (read, _, look) = host.look(own(), limits);
        assert_eq!(
            (read.len(), look.left_out),
            (expected, 10 - expected),
            "{limits:?}"
        );
    }
    for limits in [
        Limits {
            entries: 5,
            ..Limits::default()
        },
        Limits {
            open_time: Duration::ZERO,
            ..Limits::default()
        },
        Limits {
            time: Duration::ZERO,
            open_time: Duration::MAX,
            ..Limits::default()
        },
    ] {
        host.mode("crash", 0o1777);
        let (read, _, look) = host.look(own(), limits);
        assert!(read.len() < 5, "{read:?}");
        let at = look.cut_short.clone().unwrap();
        assert!(at.starts_with(host.at("crash")));
        let said = look.limits_reached().join("\n");
        assert!(
            said.contains(&format!("ended at {}", at.display())),
            "{said}"
        );
    }
    // Found in time, and read too late.
    let mut look = Look::new(own(), Limits::default());
    let found = look.find(&host.at("crash"), is_dump);
    look.limits.time = Duration::ZERO;
    assert!(look.read(found.first().unwrap()).is_none());
    assert_eq!((found.len(), look.left_out), (10, 1));
    assert!(
        look.limits_reached()
            .concat()
            .contains("1 dumps were left out")
    );
}

/// Whether the directory lists them before root's dumps or after: some of root's are made
/// first, some in between, some last.
#[test]
fn what_others_put_beside_a_dump_does_not_hide_it() {
    let host = Host::new();
    let plant = |group: usize| {
        for number in 0..100 {
            let name = format!("{group}-{number}");
            symlink("/etc/passwd", host.at(&format!("crash/link-{name}"))).unwrap();
            host.dump(&format!("dmesg.{name}"), "x");
            fs::create_dir(host.at(&format!("crash/open-{name}"))).unwrap();
            host.mode(&format!("crash/open-{name}"), 0o777);
        }
    };
    host.dump("1/dmesg.1", "x");
    plant(1);
    host.dump("2/dmesg.2", "x");
    plant(2);
    host.dump("3/dmesg.3", "x");
    host.mode("crash", 0o1777);
    // A directory and a file for each.
    let limits = Limits {
        entries: 6,
        ..Limits::default()
    };
    let (read, untrusted, look) = host.look(own(), limits);
    assert_eq!(read, ["1/dmesg.1", "2/dmesg.2", "3/dmesg.3"]);
    assert_eq!(untrusted.len() + look.more_untrusted, 600);
    assert_eq!((look.left_out, look.cut_short), (0, None));
}

#[test]
fn of_a_long_file_the_end_is_read() {
    let host = Host::new();
    host.dump("1/dmesg", "0123456789");
    let mut look = Look::new(
        own(),
        Limits {
            file_bytes: 4,
            ..Limits::default()
        },
    );
    let found = look.find(&host.at("crash"), is_dump);
    let content = look.read(found.first().unwrap()).unwrap();
    assert_eq!(
        (content.bytes.as_slice(), content.whole),
        (&b"6789"[..], false)
    );
}

#[test]
fn a_directory_that_is_not_there_is_no_trouble() {
    let mut look = Look::new(own(), Limits::default());
    assert!(look.find(Path::new("/nowhere/at/all"), is_dump).is_empty());
    assert!(look.problems.is_empty());
}
