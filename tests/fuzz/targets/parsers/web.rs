//! The web configuration, and the credentials of clients.

use std::{fs, path::PathBuf, sync::LazyLock};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use livepatch_monitor::exporter::web::{Credentials, Source};

pub fn parse(bytes: &[u8]) {
    crate::pick(bytes, [configuration, configuration, credentials]);
}

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = crate::ROOT.join("web");
    fs::create_dir_all(&folder).unwrap();
    folder
});

/// A problem names the file.
fn configuration(bytes: &[u8]) {
    let path = FOLDER.join("web.yml");
    fs::write(&path, bytes).unwrap();
    match Source::open(Some(&path)) {
        Ok(source) => assert!(source.files().contains(&path)),
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with(&path.display().to_string()), "{text}");
        }
    }
}

/// The scheme's case and spaces do not matter; without a colon there is no user name.
fn credentials(bytes: &[u8]) {
    let _ = Credentials::parse(bytes);
    let encoded = BASE64_STANDARD.encode(bytes);
    let read = Credentials::parse(format!("Basic {encoded}").as_bytes());
    assert_eq!(read.is_some(), bytes.contains(&b':'));
    let other = Credentials::parse(format!("bASIC   {encoded} \t").as_bytes());
    assert!(read == other);
}
