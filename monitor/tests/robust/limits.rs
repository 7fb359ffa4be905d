//! Too few threads, too little memory.

use std::{fs, process::Stdio};

use livepatch_monitor_test_support::{host::FakeHost, left_out};

use crate::Monitor;

/// It ends with an error that names what is missing, rather than answer nothing.
#[track_caller]
fn refuses(host: &FakeHost, limits: &str, words: &[&str]) {
    let path = host.path("stderr");
    let stderr = fs::File::create(&path).unwrap();
    let mut monitor = Monitor::start(host, limits, Stdio::from(stderr));
    let code = monitor.code();
    let text = fs::read_to_string(path).unwrap();
    assert_ne!(code, Some(0), "{text}");
    assert!(words.iter().any(|word| text.contains(word)), "{limits}: {text}");
    assert!(!text.contains("listening"), "{limits}: {text}");
}

#[test]
fn with_little_memory_it_says_so_and_ends() {
    let host = FakeHost::default();
    // Enough to start, too little for its threads' stacks or a scrape.
    for kibibytes in [20_000, 24_000, 28_000] {
        let limits = format!("ulimit -v {kibibytes};");
        refuses(&host, &limits, &["memory", "threads"]);
    }
}

/// Root is exempt from this limit (kernel/fork.c, copy_process()).
#[test]
fn with_too_few_threads_it_says_so_and_ends() {
    let host = FakeHost::default();
    if !rustix::process::geteuid().is_root() {
        // This test's own processes count, and there may be any number of them.
        left_out("too few threads", "it takes root to be a user without processes");
        return;
    }
    // A user that has no process.
    const NOBODY_ELSE: u32 = 61_181;
    for path in [host.root().to_owned(), host.path("")] {
        std::os::unix::fs::chown(&path, Some(NOBODY_ELSE), None).unwrap();
    }
    let limits = format!(
        "command -v setpriv >/dev/null || exit 77; ulimit -u 3; set -- \"$0\" \"$@\"; \
         LISTEN_PID=$$ LISTEN_FDS=1 exec setpriv --reuid {NOBODY_ELSE} --clear-groups \"$@\" 3<&0 0</dev/null;"
    );
    refuses(&host, &limits, &["threads"]);
}
