use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::file::parse;

#[test]
fn relative_paths_start_at_the_file() {
    let text = "tls_server_config:\n  cert_file: a/c.pem\n  key_file: /k.pem\n";
    let cert = |path: &str| {
        let tls = parse(Path::new(path), text).unwrap().tls.unwrap();
        (tls.cert.path().unwrap(), tls.key.path().unwrap())
    };
    let key = PathBuf::from("/k.pem");
    assert_eq!(
        cert("/etc/x/web.yml"),
        ("/etc/x/a/c.pem".into(), key.clone())
    );
    assert_eq!(cert("web.yml"), ("a/c.pem".into(), key));
}

#[test]
fn secrets_are_in_no_debug_text() {
    let text = "tls_server_config:\n  cert: CERT\n  key: SECRET\n\
                basic_auth_users:\n  a: $2y$04$SVD9pY3o2cUAFL/gtIY7KuYTyHa.7o/WohDkGABBMb44MvjscP0Xq\n";
    let file = format!("{:?}", parse(Path::new("web.yml"), text).unwrap());
    assert!(!file.contains("SECRET") && !file.contains("2y"), "{file}");
}

const PIECES: &[&str] = &[
    "tls_server_config",
    "http_server_config",
    "basic_auth_users",
    "rate_limit",
    "cert_file",
    "key_file",
    "headers",
    "http2",
    "X-Frame-Options",
    ":",
    ": ",
    "\n",
    "\n  ",
    "\n    ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "'",
    "\"",
    "&a ",
    "*a",
    "<<: ",
    "---\n",
    "|\n",
    "true",
    "TLS12",
    "# ",
    "\t",
    "$2y$04$",
    "~",
    "!!str ",
    "\u{feff}",
    "é",
];

proptest! {
    #[test]
    fn any_text_is_survived(text: String) {
        survives(&text)?;
    }

    #[test]
    fn any_yaml_is_survived(pieces in proptest::collection::vec(0..PIECES.len(), 0..40)) {
        let text: String = pieces.iter().map(|piece| PIECES[*piece]).collect();
        survives(&text)?;
    }
}

/// The text is accepted, or refused at a line that exists.
fn survives(text: &str) -> Result<(), TestCaseError> {
    if let Err(error) = parse(Path::new("web.yml"), text)
        && let Some(line) = error.place.line
    {
        // Counts every kind of line ending; the end of the text is a line too.
        let lines = text
            .split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'])
            .count() as u64;
        prop_assert!(
            (1..=lines + 1).contains(&line),
            "line {} of {:?}",
            line,
            text
        );
    }
    Ok(())
}
