//! The JSON of every command is what docs/json.md says: every value that is printed is listed
//! with its type, and every listed one is printed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use livepatch_monitor_test_support::{
    host::FakeHost,
    process::{Answer, Process},
    prometheus::Fleet,
};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");

/// A path such as `tasks[].pid`, and the types seen there.
type Schema = BTreeMap<String, BTreeSet<&'static str>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(host: &FakeHost, arguments: &[&str]) -> Value {
    Process::run(host.command(BINARY, arguments)).json()
}

fn walk(schema: &mut Schema, path: &str, value: &Value) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !path.is_empty() {
        schema.entry(path.to_owned()).or_default().insert(kind);
    }
    match value {
        Value::Array(values) => {
            for value in values {
                walk(schema, &format!("{path}[]"), value);
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                let dot = if path.is_empty() { "" } else { "." };
                walk(schema, &format!("{path}{dot}{name}"), value);
            }
        }
        _ => {}
    }
}

/// Kernel logs in which crashes have as much to say as possible.
const LOGS: [&str; 12] = [
    "6.12/oops.log",
    "6.12/hung.log",
    "6.12/pstore-oops",
    "7.2/transition.log",
    "kinds/non-fatal-reports.log",
    "kinds/kasan-panic.log",
    "kinds/x86-machine-check.log",
    "kinds/bare-address.log",
    "kinds/rcu-stall-interrupted.log",
    "kinds/lone-headline.log",
    "tools/journalctl-with-unit.log",
    "tools/rsyslog-file.log",
];

/// Listed, and on none of these hosts: CVEs are in the modinfo of a vendor's livepatch.
const NOT_PRINTED: [&str; 1] = ["status: expected[].cves[]"];

/// Puts a crash among those that the exporter has recorded.
fn record(host: &FakeHost, number: usize, crash: &Value) {
    let mut crash = crash.clone();
    crash["version"] = 1.into();
    crash["boot_id"] = "11111111-2222-4333-8444-555555555555".into();
    crash["ended_boot"] = true.into();
    crash["found_unix_seconds"] = 1_700_008_023.5.into();
    crash["update"] = serde_json::json!({
        "manager": "dnf",
        "begin_unix_seconds": 1,
        "end_unix_seconds": 2,
        "command": "upgrade",
        "user": "uid 0",
        "packages": ["bash.x86_64"],
    });
    let id = format!("20231115T002703Z-oops-{number:08x}");
    crash["id"] = id.clone().into();
    host.write(&format!("state/crashes/{id}.json"), crash.to_string());
}

/// What the commands print on hosts that have as much to say as possible.
fn printed() -> BTreeMap<&'static str, Schema> {
    let mut all = BTreeMap::<_, Schema>::new();
    let mut add = |command, value: Value| walk(all.entry(command).or_default(), "", &value);
    let held = FakeHost::held();
    let quiet = FakeHost::default();
    held.write("sys/module/old_fix/taint", "OEK\n");
    held.write("sys/module/old_fix/initstate", "live\n");
    held.write("sys/module/kcare/initstate", "live\n");
    held.write("sys/module/fix/srcversion", "ABCDEF\n");
    held.write("sys/module/fix/version", "1\n");
    held.write("sys/kernel/livepatch/fix/replace", "0\n");
    held.write("sys/kernel/livepatch/fix/target/patched", "1\n");
    for file in ["line-v1.ko", "line-v2.ko"] {
        held.write(&format!("rootfs/var/lib/kpatch/6.12/{file}"), "any bytes");
    }
    let id = "4f".repeat(32);
    held.write("proc/42/cgroup", format!("0::/docker/{id}\n"));
    let mut recorded = 0;
    for log in LOGS {
        let file = root().join("tests/fixtures/crash").join(log);
        let mut command = Command::new(BINARY);
        command.args(["crashes", "import", "--json"]).arg(file);
        let imported = Process::run(command).json();
        for crash in imported["crashes"].as_array().unwrap() {
            recorded += 1;
            record(&held, recorded, crash);
        }
        add("crashes import", imported);
    }
    half_done(&held);
    for host in [&held, &quiet] {
        add("status", run(host, &["status", "--json"]));
        add("blockers", run(host, &["blockers", "--json"]));
        add("doctor", run(host, &["doctor", "--json"]));
        add("crashes", run(host, &["crashes", "--json"]));
        add("wait", run(host, &["wait", "--timeout", "0s", "--json"]));
    }
    let listed = run(&held, &["crashes", "--json"]);
    for crash in listed["crashes"].as_array().unwrap() {
        let id = crash["id"].as_str().unwrap();
        add(
            "crashes show",
            run(&held, &["crashes", "show", id, "--json"]),
        );
    }
    // A record that cannot be read.
    held.write("state/crashes/20260101T000000Z-oops-00000000.json", "{");
    add("crashes", run(&held, &["crashes", "--json"]));
    // A package manager is at work.
    held.create_dir("proc/4242");
    held.write("rootfs/run/zypp.pid", "4242");
    add("crashes", run(&held, &["crashes", "--json"]));
    // Not trusted: others may write to its directory.
    held.write("crash/planted/dmesg.1", "any bytes");
    let planted = held.path("crash/planted");
    fs::set_permissions(&planted, Permissions::from_mode(0o777)).unwrap();
    let kdump = held.path("crash");
    let words = ["crashes", "--json", "--path.kdump", kdump.to_str().unwrap()];
    add("crashes", run(&held, &words));
    let module = root().join("tests/fixtures/preflight/lpm_replace.ko");
    let module = module.to_str().unwrap();
    let ready = FakeHost::ready_for_lpm_replace();
    ready.task("lpm_hold+0x4/0x40 [lpm_target]", -1);
    for host in [&ready, &quiet] {
        let words = ["preflight", "--json", "--sample", "0s", module, "/dev/null"];
        add("preflight", run(host, &words));
    }
    let good = Fleet::default()
        .in_force("a", 3600.0)
        .with("livepatch_patch_forced", "a", "", "1");
    let bad = Fleet::default().in_force("a", 60.0).down("b");
    for fleet in [good, bad] {
        let server = fleet.serve();
        let words = [
            "gate",
            "--prometheus",
            &server.url,
            "--patch",
            "fix",
            "--json",
        ];
        let mut command = Command::new(BINARY);
        command.args(words);
        FakeHost::shield(&mut command);
        let answer: Answer = Process::run(command);
        add("gate", answer.json());
    }
    all
}

/// Updates that were left half done, and an image that is staged.
fn half_done(host: &FakeHost) {
    let status = "Package: a\nStatus: install ok unpacked\nArchitecture: all\n\n";
    host.write("rootfs/var/lib/dpkg/status", status);
    host.write("rootfs/run/ostree/staged-deployment", "");
    let packed = root().join("tests/fixtures/updates/dnf-bookworm-post-b-9.tar.xz");
    let packed = fs::read(packed).unwrap();
    let reader = lzma_rust2::XzReader::new(packed.as_slice(), false);
    let root = host.path("rootfs");
    tar::Archive::new(reader).unpack(root).unwrap();
}

/// What the page lists for a command.
fn documented(page: &str, command: &str) -> BTreeMap<String, BTreeSet<String>> {
    let title = format!("\n## {command}\n");
    let Some((_, rest)) = page.split_once(&title) else {
        return BTreeMap::new();
    };
    let (_, rest) = rest.split_once("```\n").unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    let lines = block.lines().map(|line| line.split_once(": ").unwrap());
    lines
        .map(|(path, kinds)| {
            (
                path.to_owned(),
                kinds.split(" or ").map(str::to_owned).collect(),
            )
        })
        .collect()
}

#[test]
fn every_value_is_documented_and_every_documented_value_is_there() {
    let page = fs::read_to_string(root().join("docs/json.md")).unwrap();
    let mut wrong = Vec::new();
    let mut tables = String::new();
    for (command, schema) in printed() {
        let _ = write!(tables, "\n## {command}\n\n```\n");
        let documented = documented(&page, command);
        for (path, kinds) in &schema {
            let kinds: Vec<&str> = kinds.iter().copied().collect();
            let _ = writeln!(tables, "{path}: {}", kinds.join(" or "));
            let listed = documented.get(path);
            let is_listed = |kind: &str| listed.is_some_and(|listed| listed.contains(kind));
            if !kinds.iter().all(|kind| is_listed(kind)) {
                wrong.push(format!("{command}: not listed: {path}: {kinds:?}"));
            }
        }
        tables.push_str("```\n");
        let missing = documented
            .keys()
            .filter(|path| !schema.contains_key(*path))
            .map(|path| format!("{command}: {path}"))
            .filter(|path| !NOT_PRINTED.contains(&path.as_str()));
        wrong.extend(missing.map(|path| format!("listed and not printed: {path}")));
    }
    // What was printed, for whoever changes the page.
    let left = Path::new(env!("CARGO_TARGET_TMPDIR")).join("json.md");
    fs::write(&left, tables).unwrap();
    assert!(
        wrong.is_empty(),
        "docs/json.md (what was printed is in {}):\n{}",
        left.display(),
        wrong.join("\n")
    );
}
