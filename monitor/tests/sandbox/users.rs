//! Root without Landlock.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
};

use livepatch_monitor::sandbox::{self, Allowed, Sandbox};
use livepatch_monitor_test_support::left_out;

use crate::{Places, aside, is_root, status};

/// As on a kernel without Landlock, with a state directory that has a record.
fn enter_without_landlock(places: &Places, read: Vec<std::path::PathBuf>) -> Sandbox {
    fs::create_dir_all(places.at("state/crashes")).unwrap();
    fs::write(places.at("state/crashes/one.json"), "{}").unwrap();
    sandbox::enter(&Allowed {
        read,
        write: vec![places.at("state")],
        state_dir: Some(places.at("state")),
        without_landlock: Some("a test"),
        ..Allowed::default()
    })
}

#[test]
fn without_landlock_root_becomes_another_user() {
    if !is_root() {
        left_out("root becomes another user", "it takes root");
        return;
    }
    let places = Places::new();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(places.at(""), open).unwrap();
    fs::write(places.at("elsewhere/secret"), "root's").unwrap();
    let secret = places.at("elsewhere/secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    aside(|| {
        let sandbox = enter_without_landlock(&places, vec![places.at("read"), "/proc".into()]);
        let user = status("Uid");
        assert!(
            !user.split_whitespace().any(|id| id == "0"),
            "{user} {sandbox:?}"
        );
        assert_eq!(status("Groups"), "");
        assert_eq!(status("CapPrm"), "0000000000000000");
        // It can no longer use root's files, but everything that it still needs.
        assert!(File::open(&secret).is_err());
        assert!(
            File::options()
                .append(true)
                .open(places.at("read/file"))
                .is_err()
        );
        assert_eq!(fs::read(places.at("read/file")).unwrap(), b"text");
        fs::write(places.at("state/crashes/one.json"), "own").unwrap();
        fs::write(places.at("state/transition.json"), "own").unwrap();
    });
}

#[test]
fn root_stays_where_another_user_could_not_read() {
    if !is_root() {
        left_out("root stays root", "it takes root");
        return;
    }
    let places = Places::new();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(places.at(""), open).unwrap();
    let key = places.at("read/file");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    aside(|| {
        let sandbox = enter_without_landlock(&places, vec![places.at("read"), key.clone()]);
        assert!(status("Uid").starts_with('0'));
        let key = key.display().to_string();
        let named = sandbox
            .degradations
            .iter()
            .any(|one| one.what.contains(&key));
        assert!(named, "{sandbox:?}");
        fs::write(places.at("state/transition.json"), "own").unwrap();
    });
}
