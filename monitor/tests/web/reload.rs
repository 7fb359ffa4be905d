//! Changes of the configuration are applied without a restart; broken ones are not.

use std::{fs, thread, time::Duration};

use crate::{
    exporter::{Host, start},
    pki::{self, Authority, TLS},
    tls::Client,
};

const HASH_OF_SECRET: &str = "$2b$04$SVD9pY3o2cUAFL/gtIY7KuYTyHa.7o/WohDkGABBMb44MvjscP0Xq";

#[test]
fn a_new_certificate_is_shown_to_the_next_client() {
    let (host, authority) = pki::host();
    host.write_settled("web.yml", TLS);
    let mut exporter = start(&host);
    let before = Client::trusting(&authority.pem());
    assert_eq!(before.get(&exporter.address(), "/metrics").unwrap().0, 200);

    let other = Authority::new();
    other.server().write(&host, "server.pem", "server.key");
    let after = Client::trusting(&other.pem());
    assert_eq!(after.get(&exporter.address(), "/metrics").unwrap().0, 200);
    assert!(before.get(&exporter.address(), "/metrics").is_err());
    exporter.wait_for_line("web configuration reloaded");
}

#[test]
fn an_invalid_file_changes_nothing_and_is_logged_once() {
    let host = Host::default();
    host.write_settled(
        "web.yml",
        format!("basic_auth_users:\n  a: {HASH_OF_SECRET}\n"),
    );
    let mut exporter = start(&host);
    assert_eq!(exporter.get("/metrics", &[]).status, 401);
    host.write_settled("web.yml", "basic_auth_users: [\n");
    for _ in 0..5 {
        assert_eq!(exporter.get("/metrics", &[]).status, 401);
    }
    exporter.wait_for_line("the previous configuration stays in force");
    assert_eq!(
        exporter
            .text()
            .matches("the previous configuration stays in force")
            .count(),
        1
    );
    // Once it is valid again, it is read.
    host.write_settled(
        "web.yml",
        format!("basic_auth_users:\n  b: {HASH_OF_SECRET}\n"),
    );
    assert_eq!(exporter.get("/metrics", &[]).status, 401);
    exporter.wait_for_line("web configuration reloaded");
}

#[test]
fn a_missing_file_is_read_when_it_appears() {
    let (host, authority) = pki::host();
    host.write_settled("web.yml", TLS);
    let mut exporter = start(&host);
    let text = TLS
        .replace("server.pem", "new.pem")
        .replace("server.key", "new.key");
    host.write_settled("web.yml", text);
    let client = Client::trusting(&authority.pem());
    assert_eq!(client.get(&exporter.address(), "/metrics").unwrap().0, 200);
    exporter.wait_for_line("new.pem");
    let other = Authority::new();
    other.server().write(&host, "new.pem", "new.key");
    let after = Client::trusting(&other.pem());
    assert_eq!(after.get(&exporter.address(), "/metrics").unwrap().0, 200);
}

#[test]
fn an_emptied_file_lets_nobody_in() {
    let host = Host::default();
    host.write_settled(
        "web.yml",
        format!("basic_auth_users:\n  a: {HASH_OF_SECRET}\n"),
    );
    let mut exporter = start(&host);
    // As an editor does before it writes.
    fs::write(host.path("web.yml"), "").unwrap();
    assert_eq!(exporter.get("/metrics", &[]).status, 401);
    host.settle("web.yml");
    assert_eq!(exporter.get("/metrics", &[]).status, 401);
    exporter.wait_for_line("basic_auth_users");
}

#[test]
fn a_change_is_in_force_once_it_can_be_whole() {
    let host = Host::default();
    host.write("web.yml", "");
    let exporter = start(&host);
    assert_eq!(exporter.get("/metrics", &[]).status, 200);
    host.write(
        "web.yml",
        format!("basic_auth_users:\n  a: {HASH_OF_SECRET}\n"),
    );
    // A file that was changed within the last second may still be being written. An answer is
    // by one of the two configurations, and after the new one the old never comes back.
    let is_old = || match exporter.get("/metrics", &[]).status {
        200 => true,
        status => {
            assert_eq!(status, 401);
            false
        }
    };
    while is_old() {
        thread::sleep(Duration::from_millis(50));
    }
    assert!(!is_old());
}
