//! The binary as a stranger meets it: bad input, hosts that lack everything, and
//! the fallback to sysfs and /proc on trees made by hand (a mock: it proves the
//! reading, the VM scenarios prove the behaviour).
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");

/// A host of our own making.
struct Host {
    root: TempDir,
}

impl Host {
    /// No livepatch support, no tasks.
    fn bare() -> Self {
        let host = Self {
            root: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(host.root.path().join("sys/kernel")).unwrap();
        host.write(
            "proc/sys/kernel/random/boot_id",
            "3f1c4a52-0000-4000-8000-000000000001\n",
        );
        host.write("kmsg", "");
        host
    }

    /// A transition of `fix`, held by pid 42 asleep in `hold` of module `target`.
    fn held() -> Self {
        let host = Self::bare();
        host.write("sys/kernel/livepatch/fix/enabled", "1\n");
        host.write("sys/kernel/livepatch/fix/transition", "1\n");
        fs::create_dir_all(
            host.root
                .path()
                .join("sys/kernel/livepatch/fix/target/hold,1"),
        )
        .unwrap();
        host.write("proc/42/task/42/patch_state", "0\n");
        host.write(
            "proc/42/task/42/stat",
            "42 (ho\"l d) D 1 42 42 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 500 0 0\n",
        );
        host.write(
            "proc/42/task/42/stack",
            "[<0>] hold+0x10/0x40 [target]\n[<0>] vfs_read+0x90/0x300\n",
        );
        host.write("proc/42/cgroup", "0::/system.slice/db.service\n");
        host.write("proc/42/task/42/cgroup", "0::/system.slice/db.service\n");
        host
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let path = |name: &str| self.root.path().join(name).into_os_string();
        let mut command = Command::new(BINARY);
        command
            .args(arguments)
            .arg("--path.sysfs")
            .arg(path("sys"))
            .arg("--path.procfs")
            .arg(path("proc"))
            .arg("--path.kmsg")
            .arg(path("kmsg"))
            .arg("--state-dir")
            .arg(path("state"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        Answer::of(self.command(arguments).output().unwrap())
    }
}

struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Answer {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Refused, with all of these words in the message.
    #[track_caller]
    fn refuses(&self, words: &[&str]) {
        assert_eq!(self.code, Some(2), "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in: {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}

/// An exporter, stopped when dropped.
struct Exporter {
    process: Child,
    address: String,
    log: String,
}

impl Exporter {
    fn start(host: &Host) -> Self {
        let mut process = host
            .command(&[
                "serve",
                "--web.listen-address",
                "127.0.0.1:0",
                "--stuck-after",
                "0s",
            ])
            .args(["--log.format", "json"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut log = String::new();
        let address = loop {
            let line = lines.next().expect("the exporter ended").unwrap();
            log.push_str(&line);
            log.push('\n');
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
            if entry["message"] == "listening" {
                break entry["address"].as_str().unwrap().to_owned();
            }
        };
        // The rest of the log must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            address,
            log,
        }
    }

    fn get(&self, path: &str) -> (u16, String) {
        let (head, body) = self.ask(path);
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, body)
    }

    /// The head of the answer, and its body.
    fn ask(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn words_that_mean_nothing_are_named() {
    let host = Host::bare();
    host.run(&["serve", "--web.listen-adress", "x"])
        .refuses(&["--web.listen-adress", "--web.listen-address"]);
    host.run(&["serve", "--web.listen-address", "here"])
        .refuses(&["here", "--web.listen-address"]);
    host.run(&["serve", "--stuck-after", "soon"])
        .refuses(&["soon", "--stuck-after", "15s"]);
    host.run(&["serve", "--web.telemetry-path", "metrics"])
        .refuses(&["metrics", "/metrics"]);
    host.run(&["serve", "--log.level", "loud"])
        .refuses(&["loud", "debug"]);
    host.run(&["blocker"]).refuses(&["blocker", "blockers"]);
}

#[test]
fn a_busy_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    Host::bare()
        .run(&["serve", "--web.listen-address", &address])
        .refuses(&[&address, "--web.listen-address", "in use"]);
}

#[test]
fn a_sysfs_that_is_not_there_is_named() {
    let host = Host::bare();
    fs::remove_dir_all(host.root.path().join("sys")).unwrap();
    for command in ["status", "blockers"] {
        host.run(&[command])
            .refuses(&[host.root.path().join("sys").to_str().unwrap()]);
    }
}

#[test]
fn a_kernel_without_livepatch_is_said() {
    let host = Host::bare();
    for command in ["status", "blockers"] {
        let answer = host.run(&[command]);
        assert_eq!(answer.code, Some(0));
        assert!(
            answer.out.contains("no livepatch support"),
            "{}",
            answer.out
        );
    }
    let exporter = Exporter::start(&host);
    assert!(
        exporter.log.contains("CONFIG_LIVEPATCH"),
        "{}",
        exporter.log
    );
    let (code, metrics) = exporter.get("/metrics");
    assert_eq!(code, 200);
    assert!(metrics.contains("\nlivepatch_supported 0\n"), "{metrics}");
    assert!(
        metrics.contains("probe=\"klp_init_transition\"} 0\n"),
        "{metrics}"
    );
    assert!(!metrics.contains("livepatch_pending_tasks"), "{metrics}");
}

#[test]
fn without_probes_a_blocker_is_named_all_the_same() {
    let host = Host::held();
    let answer = host.run(&["blockers", "--json"]);
    assert_eq!(answer.code, Some(1), "{}", answer.err);
    let report: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(
        (&report["patch"], &report["pending"]),
        (&"fix".into(), &1.into())
    );
    let task = &report["tasks"][0];
    assert_eq!(
        (&task["pid"], &task["comm"]),
        (&42.into(), &"ho\"l d".into())
    );
    assert_eq!(
        (&task["reason"], &task["unit"]),
        (&"sleeping".into(), &"db.service".into())
    );
    assert_eq!(
        (&task["function"], &task["object"]),
        (&"hold".into(), &"target".into())
    );
    assert_eq!(task["stack"][0], "hold+0x10/0x40 [target]");
    assert!(
        report["attempts"].is_null(),
        "not known without probes: {report}"
    );
}

#[test]
fn without_probes_the_metrics_say_what_can_be_known() {
    let host = Host::held();
    let exporter = Exporter::start(&host);
    let (_, metrics) = exporter.get("/metrics");
    for line in [
        "livepatch_transition_active{direction=\"patch\",patch=\"fix\"} 1",
        "livepatch_pending_tasks{patch=\"fix\",reason=\"sleeping\"} 1",
        "livepatch_stuck_tasks{patch=\"fix\",reason=\"sleeping\"} 1",
        "livepatch_blocking_tasks{function=\"hold\",object=\"target\",patch=\"fix\"} 1",
        "livepatch_monitor_probe_attached{method=\"sysfs\",probe=\"transition\"} 1",
    ] {
        assert!(
            metrics.contains(&format!("{line}\n")),
            "no {line} in:\n{metrics}"
        );
    }
    // Found under way, and the log does not reach back: no start is made up.
    assert!(
        !metrics.contains("livepatch_transition_start_timestamp_seconds"),
        "{metrics}"
    );
    assert!(!metrics.contains("livepatch_patch_forced"), "{metrics}");
}

#[test]
fn values_that_are_none_are_left_out() {
    let host = Host::held();
    host.write("sys/kernel/livepatch/fix/enabled", "");
    host.write("sys/kernel/livepatch/odd/enabled", "17\n");
    let exporter = Exporter::start(&host);
    let (code, metrics) = exporter.get("/metrics");
    assert_eq!(code, 200);
    assert!(!metrics.contains("livepatch_patch_enabled"), "{metrics}");
    assert!(
        metrics.contains("livepatch_patch_info{patch=\"odd\""),
        "{metrics}"
    );
    assert!(
        metrics.contains("livepatch_monitor_collector_success{collector=\"sysfs\"} 0\n"),
        "{metrics}"
    );
}

#[test]
fn tasks_that_cannot_be_told_are_not_zero() {
    let host = Host::held();
    fs::remove_dir_all(host.root.path().join("proc/42")).unwrap();
    // A process whose state is not there to be read.
    host.write("proc/43/task/43/stat", "43 (x) S 1\n");
    let exporter = Exporter::start(&host);
    let (_, metrics) = exporter.get("/metrics");
    assert!(
        !metrics.contains("livepatch_pending_tasks{patch=\"fix\""),
        "{metrics}"
    );
    assert!(
        metrics.contains("livepatch_monitor_collector_success{collector=\"tasks\"} 0\n"),
        "{metrics}"
    );
}

#[test]
fn a_state_file_of_somebody_else_is_left_alone() {
    let host = Host::held();
    host.write("state/transition.json", "{\"version\": 99}");
    let exporter = Exporter::start(&host);
    assert!(exporter.log.contains("transition.json"), "{}", exporter.log);
    assert_eq!(exporter.get("/metrics").0, 200);
    drop(exporter);
    let text = fs::read_to_string(host.root.path().join("state/transition.json")).unwrap();
    assert_eq!(text, "{\"version\": 99}");
}

#[test]
fn a_state_directory_that_cannot_be_written_costs_only_the_state() {
    let host = Host::held();
    fs::write(host.root.path().join("state"), "a file").unwrap();
    let exporter = Exporter::start(&host);
    assert!(exporter.log.contains("--state-dir"), "{}", exporter.log);
    assert_eq!(exporter.get("/metrics").0, 200);
}

#[test]
fn the_web_answers_what_is_there() {
    let exporter = Exporter::start(&Host::bare());
    assert_eq!(exporter.get("/nothing").0, 404);
    assert_eq!(exporter.get("/-/healthy"), (200, "ok\n".into()));
    let (code, page) = exporter.get("/");
    assert_eq!(code, 200);
    assert!(page.contains("href=\"/metrics\""), "{page}");
}

#[test]
fn the_status_page_names_the_blocker() {
    let host = Host::held();
    let exporter = Exporter::start(&host);
    let (head, page) = exporter.ask("/");
    for line in [
        "HTTP/1.1 200 ",
        "content-type: text/html; charset=utf-8\r\n",
        "cache-control: no-store\r\n",
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "x-content-type-options: nosniff\r\n",
    ] {
        assert!(head.contains(line), "no {line:?} in {head}");
    }
    for text in [
        "STUCK: the transition of fix, patching for an unknown time, 1 task pending.",
        "process 42 &quot;ho\\&quot;l d&quot;, unit db.service",
        "asleep in hold (module target), which the patch replaces",
        "vfs_read+0x90/0x300",
        "no kernel probes",
        "http-equiv=\"refresh\"",
    ] {
        assert!(page.contains(text), "no {text:?} in {page}");
    }
    let (_, page) = exporter.ask("/?refresh=off");
    assert!(!page.contains("http-equiv=\"refresh\""), "{page}");
}

#[test]
fn the_status_page_says_what_cannot_be_read() {
    let host = Host::held();
    fs::remove_dir_all(host.root.path().join("proc/42")).unwrap();
    host.write("proc/43/task/43/stat", "43 (x) S 1\n");
    fs::write(host.root.path().join("state"), "a file").unwrap();
    fs::remove_file(host.root.path().join("kmsg")).unwrap();
    let exporter = Exporter::start(&host);
    let (_, page) = exporter.ask("/");
    for text in [
        "an unknown number of tasks pending",
        "Which tasks are pending is unknown.",
        "collector tasks could not read all it needs: cannot determine the pending tasks",
        "journal entries that did not reach the disk",
        "kmsg cannot be read",
        "--state-dir",
        "probes not attached",
    ] {
        assert!(page.contains(text), "no {text:?} in {page}");
    }
}

#[test]
fn promtool_finds_no_fault() {
    let host = Host::held();
    let exporter = Exporter::start(&host);
    let (_, metrics) = exporter.get("/metrics");
    let Some(promtool) = promtool() else {
        eprintln!("left out: no promtool on PATH (`cargo xtask test` brings it)");
        return;
    };
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check
        .stdin
        .take()
        .unwrap()
        .write_all(metrics.as_bytes())
        .unwrap();
    let answer = Answer::of(check.wait_with_output().unwrap());
    assert_eq!(
        (answer.code, answer.out.as_str(), answer.err.as_str()),
        (Some(0), "", "")
    );
}

fn promtool() -> Option<std::path::PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join("promtool"))
        .find(|path| Path::is_file(path))
}
