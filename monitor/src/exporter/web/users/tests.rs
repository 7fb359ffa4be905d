use std::time::Duration;

use super::*;
use crate::kernel::clock::thread_cpu_time;

// Made by libxcrypt.
const SECRET: &str = "$2y$04$SVD9pY3o2cUAFL/gtIY7KuYTyHa.7o/WohDkGABBMb44MvjscP0Xq";
const GEHEIM: &str = "$2y$06$RFpXnaQjxwFxUhqYd3HHO.44Q4/YQUU1g2cb6SPOalTLkDpkV/xIy";
/// The hash of 80 letters x, of which only 72 count.
const LONG: &str = "$2y$04$RFpXnaQjxwFxUhqYd3HHO.5iH7hKuhiTZlnAGyZaZmKa9eZkaNJRW";
/// The hash of günter in UTF-8.
const UMLAUT: &str = "$2y$04$RFpXnaQjxwFxUhqYd3HHO.tTirFAV91Ef6kqpzOH.iqvS501f9s0y";

fn credentials(name: &str, password: &str) -> Credentials {
    Credentials {
        name: name.to_owned(),
        password: password.as_bytes().to_vec(),
    }
}

fn users(hashes: &[(&str, &str)]) -> Users {
    let mut users = Users::default();
    for (name, hash) in hashes {
        users.add((*name).to_owned(), hash).unwrap();
    }
    users
}

#[test]
fn hashes_of_another_library_are_understood() {
    let users = users(&[("a", SECRET), ("b", GEHEIM), ("c", LONG), ("d", UMLAUT)]);
    assert!(users.check(&credentials("a", "secret")));
    assert!(users.check(&credentials("b", "geheim")));
    assert!(users.check(&credentials("c", &"x".repeat(90))));
    assert!(users.check(&credentials("d", "günter")));
    assert!(!users.check(&credentials("a", "geheim")));
    assert!(!users.check(&credentials("a", "")));
    assert!(!users.check(&credentials("e", "secret")));
}

/// The median of several runs in CPU time, which leaves out waiting.
fn time(users: &Users, credentials: &Credentials) -> Duration {
    let mut times: Vec<_> = (0..7)
        .map(|_| {
            let start = thread_cpu_time();
            users.check(credentials);
            thread_cpu_time() - start
        })
        .collect();
    times.sort();
    times[3]
}

#[test]
fn every_name_costs_the_same() {
    let cheap = bcrypt::hash("cheap", 5).unwrap();
    let costly = bcrypt::hash("costly", 8).unwrap();
    let users = users(&[("cheap", &cheap), ("costly", &costly)]);
    let unknown = time(&users, &credentials("unknown", "x"));
    for (name, password) in [
        ("cheap", "x"),
        ("costly", "x"),
        ("cheap", "cheap"),
        ("costly", "costly"),
    ] {
        let known = time(&users, &credentials(name, password));
        // The cheap hash alone would take an eighth. The bounds are wide for the
        // sake of busy machines.
        let ratio = known.as_secs_f64() / unknown.as_secs_f64();
        assert!(
            (0.6..1.7).contains(&ratio),
            "{name}: {known:?}, unknown: {unknown:?}"
        );
    }
}

#[test]
fn what_was_right_is_remembered_until_the_hash_changes() {
    let remembered = Remembered::new().unwrap();
    let before = users(&[("a", SECRET)]);
    let right = credentials("a", "secret");
    assert!(!remembered.holds(&before, &right));
    remembered.keep(&before, &right);
    assert!(remembered.holds(&before, &right));
    assert!(!remembered.holds(&before, &credentials("a", "Secret")));
    assert!(!remembered.holds(&before, &credentials("b", "secret")));
    assert!(!remembered.holds(&users(&[("a", GEHEIM)]), &right));
    assert!(!remembered.holds(&users(&[("b", SECRET)]), &right));
    assert!(!remembered.holds(&Users::default(), &right));
}

#[test]
fn no_more_is_remembered_than_there_are_users() {
    let remembered = Remembered::new().unwrap();
    for number in 0..10 {
        let name = number.to_string();
        let users = users(&[(&name, SECRET)]);
        remembered.keep(&users, &credentials(&name, "secret"));
    }
    assert_eq!(lock(&remembered.digests).len(), 1);
}

#[test]
fn credentials_are_read_from_their_header() {
    let read = |text: &str| Credentials::parse(text.as_bytes()).map(|c| (c.name, c.password));
    assert_eq!(read("Basic YTpi"), Some(("a".into(), b"b".to_vec())));
    assert_eq!(read("bASIC  YTpi "), Some(("a".into(), b"b".to_vec())));
    assert_eq!(read("Basic YTpiOmM="), Some(("a".into(), b"b:c".to_vec())));
    assert_eq!(read("Basic Og=="), Some((String::new(), Vec::new())));
    for text in [
        "",
        "Basic",
        "Basic ",
        "Basic YQ==",
        "Basic %",
        "Digest YTpi",
        "BasicYTpi",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn any_header_is_survived(bytes: Vec<u8>) {
        let _ = Credentials::parse(&bytes);
        let mut basic = b"Basic ".to_vec();
        basic.extend_from_slice(BASE64_STANDARD.encode(&bytes).as_bytes());
        let read = Credentials::parse(&basic);
        proptest::prop_assert_eq!(read.is_some(), bytes.contains(&b':'));
    }
}
