//! The text file in a directory of another user.

use std::{fs, os::unix::fs::symlink, path::Path, process::Stdio};

use livepatch_monitor_test_support::{host::FakeHost, process::Process};
use rustix::fs::{CWD, mkfifoat};

use crate::BINARY;

const NAME: &str = "livepatch_monitor.prom";

fn fifo(path: &Path) {
    mkfifoat(CWD, path, 0o666.into()).unwrap();
}

/// Writes into a directory that `prepare` has filled.
#[track_caller]
fn writes_despite(prepare: impl FnOnce(&Path, &Path)) {
    let host = FakeHost::default();
    host.create_dir("textfile");
    host.write("victim", "theirs");
    let (folder, victim) = (host.path("textfile"), host.path("victim"));
    prepare(&folder, &victim);
    let file = folder.join(NAME);
    let command = host.command(BINARY, &["serve", "--textfile", folder.to_str().unwrap()]);
    let mut monitor = Process::serve(command);
    let is_file = || fs::symlink_metadata(&file).is_ok_and(|metadata| metadata.is_file());
    let text = loop {
        assert!(monitor.runs(), "{}", monitor.text());
        match is_file().then(|| fs::read_to_string(&file).unwrap()) {
            Some(text) if text != "theirs" => break text,
            _ => {}
        }
    };
    assert!(text.contains("\nlivepatch_supported 0\n"), "{text}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "theirs");
    assert_eq!(monitor.stop().code, Some(0));
    assert!(!file.exists());
}

#[test]
fn links_are_replaced_and_not_followed() {
    writes_despite(|folder, victim| {
        for name in [NAME, "livepatch_monitor.new", ".livepatch_monitor.prom.new"] {
            symlink(victim, folder.join(name)).unwrap();
        }
    });
    writes_despite(|folder, victim| {
        fs::hard_link(victim, folder.join(NAME)).unwrap();
        fs::hard_link(victim, folder.join("livepatch_monitor.new")).unwrap();
    });
}

#[test]
fn pipes_are_not_waited_for() {
    writes_despite(|folder, _| {
        for name in [NAME, "livepatch_monitor.new", ".livepatch_monitor.prom.new"] {
            fifo(&folder.join(name));
        }
    });
}

/// The monitor does not remove a directory in the file's place; it is named, and the process exits
/// when it is ordered to.
#[test]
fn a_directory_in_its_place_is_named() {
    let host = FakeHost::default();
    host.create_dir(&format!("textfile/{NAME}/full"));
    let folder = host.path("textfile");
    let mut command = host.command(BINARY, &["serve", "--textfile", folder.to_str().unwrap()]);
    command.stdout(Stdio::null());
    let mut monitor = Process::serve(command);
    monitor.wait_for_line("see --textfile");
    assert_eq!(monitor.stop().code, Some(0));
    assert!(folder.join(NAME).join("full").is_dir());
    assert_eq!(
        fs::read_dir(&folder).unwrap().count(),
        1,
        "something is left"
    );
}

/// What a killed monitor left unfinished is gone after the next start.
#[test]
fn unfinished_files_do_not_pile_up() {
    writes_despite(|folder, _| {
        for number in 0..20 {
            fs::write(folder.join(format!(".{NAME}.{number}.new")), "").unwrap();
        }
    });
}

/// The once mode writes the current values, keeps the file, and records nothing.
#[test]
fn once_writes_the_file_and_ends() {
    let host = FakeHost::held();
    host.create_dir("textfile");
    let folder = host.path("textfile");
    let arguments = ["serve", "--once", "--textfile", folder.to_str().unwrap()];
    let answer = Process::run(host.command(BINARY, &arguments));
    answer.says(0, &["the metrics are written"]);
    let text = fs::read_to_string(folder.join(NAME)).unwrap();
    for line in [
        "livepatch_patch_enabled{patch=\"fix\"} 1\n",
        "livepatch_transition_active{direction=\"patch\",patch=\"fix\"} 1\n",
        "# TYPE livepatch_monitor_textfile_timestamp_seconds gauge\n",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    // What was not watched is not reported.
    for name in [
        "crash_signals",
        "recorder_errors",
        "probe_attached",
        "livepatch_transitions_total",
    ] {
        assert!(!text.contains(name), "{name} in {text}");
    }
    assert!(!host.path("state").exists(), "something is recorded");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    // Without a destination there is nothing to do.
    let answer = Process::run(host.command(BINARY, &["serve", "--once"]));
    answer.refuses(&["--textfile"]);
}
