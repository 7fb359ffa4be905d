//! Too few threads, too little memory.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use livepatch_monitor_test_support::{host::FakeHost, http, left_out};

use crate::{BINARY, Monitor};

/// It exits with an error that names what is missing, instead of giving no answer.
#[track_caller]
fn refuses(host: &FakeHost, limits: &str, words: &[&str]) {
    let path = host.path("stderr");
    let stderr = fs::File::create(&path).unwrap();
    let mut monitor = Monitor::start(host, limits, Stdio::from(stderr));
    let code = monitor.code();
    let text = fs::read_to_string(path).unwrap();
    assert_ne!(code, Some(0), "{text}");
    assert!(
        words.iter().any(|word| text.contains(word)),
        "{limits}: {text}"
    );
    assert!(!text.contains("listening"), "{limits}: {text}");
}

/// Virtual memory of a monitor that has answered, in KiB.
fn virtual_memory(host: &FakeHost) -> u64 {
    let monitor = Monitor::start(host, "", Stdio::null());
    monitor.metrics();
    let status = fs::read_to_string(format!("/proc/{}/status", monitor.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kibibytes.unwrap().parse().unwrap()
}

/// Whether the program starts at all within these limits: the kernel kills one that it has
/// no room to load.
fn starts(limits: &str) -> bool {
    let script = format!("{limits} exec \"$0\" --version");
    let status = Command::new("sh").args(["-c", &script, BINARY]).output();
    status.unwrap().status.success()
}

/// Whatever memory it has: it answers, or it ends and says why.
#[test]
fn with_little_memory_it_says_so_and_ends() {
    const STEPS: u64 = 24;
    let host = FakeHost::default();
    let all = virtual_memory(&host);
    let (mut answered, mut said) = (0, 0);
    for step in 1..=STEPS {
        let path = host.path("stderr");
        let stderr = fs::File::create(&path).unwrap();
        // Up to twice the amount that it needed, which varies by some pages.
        let limits = format!("ulimit -v {};", all * 2 * step / STEPS);
        let mut monitor = Monitor::start(&host, &limits, Stdio::from(stderr));
        if let Ok(metrics) = http::body(&monitor.address, "/metrics") {
            assert!(metrics.contains("livepatch_supported 0"), "{metrics}");
            assert_eq!(monitor.stop(), Some(0));
            answered += 1;
            continue;
        }
        let code = monitor.code();
        let text = fs::read_to_string(&path).unwrap();
        match code {
            Some(2) => {
                let words = ["MiB of memory", "threads"];
                assert!(
                    words.iter().any(|word| text.contains(word)),
                    "{limits} {text}"
                );
                said += 1;
            }
            // The last words of Rust's allocator, for what is not asked for beforehand.
            None if text.contains("memory allocation of ") => {}
            _ => assert!(!starts(&limits), "{limits} {code:?} {text}"),
        }
    }
    assert!(
        answered > 0 && said > 0,
        "{answered} answered, {said} said so"
    );
}

/// Root is exempt from this limit (kernel/fork.c, copy_process()).
#[test]
fn with_too_few_threads_it_says_so_and_ends() {
    let host = FakeHost::default();
    if !rustix::process::geteuid().is_root() {
        // This test's own processes count, and there may be any number of them.
        left_out(
            "too few threads",
            "it takes root to be a user without processes",
        );
        return;
    }
    // A user without processes.
    const NOBODY_ELSE: u32 = 61_181;
    for path in [host.root().to_owned(), host.path("")] {
        std::os::unix::fs::chown(&path, Some(NOBODY_ELSE), None).unwrap();
    }
    let limits = format!(
        "command -v setpriv >/dev/null || exit 77; ulimit -u 3 2>/dev/null || ulimit -p 3; set -- \"$0\" \"$@\"; \
         LISTEN_PID=$$ LISTEN_FDS=1 exec setpriv --reuid {NOBODY_ELSE} --clear-groups \"$@\" 3<&0 0</dev/null;"
    );
    refuses(&host, &limits, &["threads"]);
}

/// With any umask, and however the directory was created before.
#[test]
fn the_state_directory_is_closed_to_others() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for before in [None, Some(0o755), Some(0o777)] {
        let host = FakeHost::default();
        let state = host.path("state");
        if let Some(before) = before {
            host.create_dir("state/crashes");
            for path in [&state, &state.join("crashes")] {
                fs::set_permissions(path, Permissions::from_mode(before)).unwrap();
            }
        }
        let monitor = Monitor::start(&host, "umask 0;", Stdio::null());
        monitor.metrics();
        assert_eq!(monitor.stop(), Some(0));
        let mut paths = vec![state];
        while let Some(path) = paths.pop() {
            let is_directory = path.is_dir();
            let expected = if is_directory { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "{} from {before:?}", path.display());
            if is_directory {
                let entries = fs::read_dir(&path).unwrap();
                paths.extend(entries.map(|entry| entry.unwrap().path()));
            }
        }
    }
}

/// All threads that it may ever need exist from the start, so none is missing later.
#[test]
fn there_are_never_more_threads_than_at_the_start() {
    let host = FakeHost::held();
    let monitor = Monitor::start(&host, "", Stdio::null());
    monitor.metrics();
    let threads = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", monitor.child.id())).unwrap();
        tasks.count()
    };
    let before = threads();
    thread::scope(|scope| {
        for number in 0..40 {
            let path = ["/metrics", "/", "/?refresh=off"][number % 3];
            let address = &monitor.address;
            scope.spawn(move || http::body(address, path).unwrap());
        }
    });
    assert_eq!(threads(), before);
}
