//! Web configurations, good and bad, and what `promtool check web-config` of
//! Prometheus 2.42 answers for the same files.
//!
//! The answers of promtool are recorded here and this program is compared with them; if promtool is
//! on PATH (`cargo xtask test` installs it), the record is checked as well.

mod cases;

use std::{path::PathBuf, process::Command};

use livepatch_monitor::exporter::web::Source;
use livepatch_monitor_test_support::process::promtool;

use self::cases::{
    HASH, NEWER_AND_WRONG, TABLE,
    Verdict::{Bad, Good, Newer, OnlyHere},
};
use crate::pki::{self, TLS};

struct Cases {
    host: crate::exporter::Host,
}

impl Cases {
    fn new() -> Self {
        let (host, authority) = pki::host();
        host.write("other.key", authority.server().key);
        host.write("empty", "");
        host.write("folder/file", "");
        host.write(
            "damaged.pem",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        );
        host.write(
            "encrypted.key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
        );
        Self { host }
    }

    fn write(&self, text: &str) -> PathBuf {
        let indented = |name: &str| {
            let text = std::fs::read_to_string(self.host.path(name)).unwrap();
            text.lines()
                .map(|line| format!("    {line}\n"))
                .collect::<String>()
        };
        let text = match text.strip_prefix("TLS") {
            // Only at the beginning: suite names start with it as well.
            Some(rest) if !rest.starts_with('_') => format!("{TLS}{rest}"),
            _ => text
                .replace("CERT", &indented("server.pem"))
                .replace("KEY", &indented("server.key")),
        };
        self.host.write("web.yml", text.replace("HASH", HASH));
        self.host.path("web.yml")
    }
}

#[track_caller]
fn refused(name: &str, path: &std::path::Path, words: &[&str]) {
    let refusal = Source::open(Some(path)).err();
    let message = refusal.map_or_else(|| "taken".to_owned(), |error| error.to_string());
    for word in words {
        assert!(message.contains(word), "{name}: no {word:?} in: {message}");
    }
    assert!(
        message.starts_with(path.to_str().unwrap()),
        "{name}: {message}"
    );
    assert!(!message.contains("$2y$04"), "{name}: a hash in: {message}");
}

#[test]
fn every_file_has_the_verdict_of_the_table() {
    let cases = Cases::new();
    for (name, text, verdict) in TABLE {
        let path = cases.write(text);
        match verdict {
            Good | Newer => {
                let refusal = Source::open(Some(&path)).err();
                assert!(refusal.is_none(), "{name}: {refusal:?}");
            }
            Bad(words) | OnlyHere(words) => refused(name, &path, words),
        }
    }
    for (name, text, words) in NEWER_AND_WRONG {
        refused(name, &cases.write(text), words);
    }
}

#[test]
fn promtool_says_what_the_table_says() {
    let Some(promtool) = promtool("promtool's own answers") else {
        return;
    };
    let cases = Cases::new();
    for (name, text, verdict) in TABLE {
        let path = cases.write(text);
        let output = Command::new(&promtool)
            .args(["check", "web-config"])
            .arg(&path)
            .output()
            .unwrap();
        let taken = matches!(verdict, Good | OnlyHere(_));
        assert_eq!(output.status.success(), taken, "{name}: {output:?}");
    }
}
