//! The monitor's own files, as a crash, a full disk or an editor may damage them.

use std::{fs, path::PathBuf, sync::LazyLock};

use livepatch_core::journal::frame::{HEADER, decode, encode};
use livepatch_monitor::{
    crash::store::Store,
    exporter::journal::{file::JournalFile, saved},
};

const BOOT: &str = "3f1c4a52-0000-4000-8000-000000000001";

pub fn parse(bytes: &[u8]) {
    crate::pick(bytes, [entries, entries, transition, crash]);
}

/// Everything that was read can be written, and gives the same when it is read again.
fn entries(bytes: &[u8]) {
    let _ = decode(bytes);
    let file = [HEADER.as_slice(), bytes].concat();
    let Ok(decoded) = decode(&file) else { return };
    assert_eq!(decoded.good + decoded.torn, file.len());
    let mut written = HEADER.to_vec();
    for recorded in &decoded.entries {
        written.extend(encode(recorded).unwrap());
    }
    let again = decode(&written).unwrap();
    assert_eq!(format!("{:?}", again.entries), format!("{:?}", decoded.entries));
    assert_eq!((again.torn, again.damaged), (0, 0));
}

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = crate::ROOT.join("state");
    fs::create_dir_all(folder.join("crashes")).unwrap();
    folder
});

/// What version 0.1.0 left is taken over, and gives the same when it is read again.
fn transition(bytes: &[u8]) {
    let _ = fs::remove_dir_all(FOLDER.join("recorder"));
    fs::write(FOLDER.join("transition.json"), bytes).unwrap();
    let Ok(Some(saved)) = saved::read(&FOLDER, BOOT) else {
        return;
    };
    let opened = JournalFile::open(&FOLDER, BOOT).unwrap();
    // A state that is too long for an entry is left in its file.
    assert_eq!(FOLDER.join("transition.json").exists(), !opened.problems.is_empty());
    drop(opened);
    let again = saved::read(&FOLDER, BOOT).unwrap().unwrap();
    assert_eq!(format!("{again:?}"), format!("{saved:?}"));
}

/// Nothing from an unreadable file is shown.
fn crash(bytes: &[u8]) {
    for file in [
        "crashes/20261123T124809Z-oops-deadbeef.json",
        "crashes/counts.json",
    ] {
        fs::write(FOLDER.join(file), bytes).unwrap();
    }
    if let Ok(opened) = Store::open(&FOLDER) {
        assert!(opened.store.crashes().len() + opened.problems.len() <= 2);
        let _ = opened.store.totals();
    }
}
