//! The configuration file itself: missing, unreadable or of the wrong kind.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::Command,
};

use crate::{
    exporter::{Host, command},
    pki::{self, TLS},
};

/// Standard error of a start that fails.
#[track_caller]
fn refusal(mut command: Command) -> String {
    let output = command
        .args(["--web.listen-address", "127.0.0.1:0"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

#[track_caller]
fn refuses(host: &Host, file: &str, words: &[&str]) {
    let mut command = command(host);
    command.arg("--web.config.file").arg(host.path(file));
    let text = refusal(command);
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

#[test]
fn an_unusable_configuration_file_is_named() {
    let host = Host::default();
    refuses(&host, "none.yml", &["none.yml", "No such file"]);
    host.write("folder/file", "");
    refuses(&host, "folder", &["folder", "not a regular file"]);
    host.write("binary.yml", [0xff, 0xfe, 0x00]);
    refuses(&host, "binary.yml", &["binary.yml", "UTF-8"]);
    host.write("large.yml", "# \n".repeat(400_000));
    refuses(&host, "large.yml", &["large.yml", "1048576 bytes"]);
    host.write("deep.yml", "[".repeat(100_000));
    refuses(&host, "deep.yml", &["deep.yml"]);
    refuses(
        &host,
        "../../../../../dev/zero",
        &["/dev/zero", "not a regular file"],
    );
    host.write("wrong.yml", "tls_server_confg:\n");
    refuses(&host, "wrong.yml", &["wrong.yml:1: tls_server_confg"]);
}

#[test]
fn a_pipe_is_not_waited_for() {
    let host = Host::default();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        host.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    refuses(&host, "pipe", &["pipe", "not a regular file"]);
}

#[test]
fn an_unreadable_file_is_named() {
    let (host, _) = pki::host();
    host.write("web.yml", TLS);
    fs::set_permissions(host.path("server.key"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::set_permissions(host.root(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = command(&host);
    command.arg("--web.config.file").arg(host.path("web.yml"));
    if rustix::process::geteuid().is_root() {
        // Root may read everything: run as `nobody`.
        command.uid(65534).gid(65534);
    }
    let text = refusal(command);
    for word in [
        "web.yml:3: tls_server_config.key_file:",
        "server.key",
        "Permission denied",
    ] {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}
