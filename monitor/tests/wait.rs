//! `wait` and `blockers` on a fake host: outcomes, exit codes, output.

use std::fs;

use livepatch_monitor_test_support::{
    host::FakeHost,
    process::{Answer, Process},
};

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");
const ENABLED: &str = "sys/kernel/livepatch/fix/enabled";
const TRANSITION: &str = "sys/kernel/livepatch/fix/transition";

fn run(host: &FakeHost, arguments: &[&str]) -> Answer {
    Process::run(host.command(BINARY, arguments))
}

/// Starts `wait` in the transition of `fix`, and lets it see that before `change`.
fn wait_through(arguments: &[&str], change: impl FnOnce(&FakeHost)) -> Answer {
    let host = FakeHost::held();
    let words = [&["wait"], arguments].concat();
    let mut process = Process::start(host.command(BINARY, &words));
    process.wait_for_line("fix: patching");
    change(&host);
    process.finish()
}

#[test]
fn a_transition_that_completes_is_waited_for() {
    for arguments in [&[][..], &["--patch", "fix"]] {
        let answer = wait_through(arguments, |host| host.write(TRANSITION, "0\n"));
        answer.says(0, &["fix: completed after", "1 task pending"]);
    }
}

#[test]
fn a_reversal_is_no_completion() {
    let answer = wait_through(&["--patch", "fix"], |host| host.write(ENABLED, "0\n"));
    answer.says(3, &["fix was reversed and is being unpatched"]);
    let answer = wait_through(&[], |host| {
        fs::remove_dir_all(host.path("sys/kernel/livepatch/fix")).unwrap();
    });
    answer.says(3, &["fix is not loaded any more"]);
}

#[test]
fn the_timeout_prints_the_blockers() {
    let host = FakeHost::held();
    let answer = run(&host, &["wait", "--timeout", "0s"]);
    answer.says(
        1,
        &[
            "fix: still patching after 0s",
            "1 task asleep in hold (target)",
            "process 42 \"ho\\\"l d\", unit db.service",
            "idle tasks (swapper) could not be checked",
        ],
    );
    let answer = run(&host, &["wait", "--timeout", "0s", "--json"]);
    let report = answer.json();
    assert_eq!(answer.code, Some(1));
    assert_eq!(report["outcome"], "timed_out");
    assert_eq!(report["exit_code"], 1);
    assert_eq!(report["pending"], 1);
    assert_eq!(report["idle_tasks_unknown"], true);
    assert_eq!(report["groups"][0]["function"], "hold");
    assert_eq!(report["tasks"][0]["pid"], 42);
}

#[test]
fn what_cannot_be_determined_is_exit_code_2() {
    let host = FakeHost::held();
    run(&host, &["wait", "--patch", "other"]).says(2, &["other is not loaded"]);
    run(&host, &["wait", "--patch", "other", "--json"]).says(2, &["\"outcome\": \"unknown\""]);
    let bare = FakeHost::default();
    run(&bare, &["wait"]).says(2, &["no livepatch support"]);
    fs::remove_file(host.path(TRANSITION)).unwrap();
    run(&host, &["wait"]).says(2, &["cannot read `enabled` and `transition` of fix"]);
    fs::remove_dir_all(bare.path("sys")).unwrap();
    run(&bare, &["wait"]).refuses(&["--path.sysfs"]);
}

#[test]
fn without_a_transition_there_is_nothing_to_wait_for() {
    let host = FakeHost::held();
    host.write(TRANSITION, "0\n");
    run(&host, &["wait"]).says(0, &["no transition is running"]);
    run(&host, &["wait", "--patch", "fix"]).says(0, &["fix: completed"]);
}

#[test]
fn idle_tasks_that_could_not_be_checked_are_not_none() {
    let host = FakeHost::held();
    // The task has switched.
    host.write("proc/42/task/42/patch_state", "1\n");
    let answer = run(&host, &["blockers"]);
    answer.says(
        2,
        &[
            "0 tasks pending",
            "idle tasks (swapper) could not be checked",
        ],
    );
    let report = run(&host, &["blockers", "--json"]).json();
    assert_eq!(report["idle_tasks_unknown"], true);
}

#[test]
fn blockers_are_grouped_and_no_list_is_cut_silently() {
    let host = FakeHost::held();
    let id = "4f".repeat(32);
    for tid in 100..160 {
        let directory = format!("proc/{tid}/task/{tid}");
        host.write(&format!("{directory}/patch_state"), "0\n");
        let stat = format!("{tid} (web) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 500 0 0\n");
        host.write(&format!("{directory}/stat"), stat);
        host.write(
            &format!("{directory}/stack"),
            "[<0>] hold+0x10/0x40 [target]\n",
        );
        host.write(
            &format!("proc/{tid}/cgroup"),
            format!("0::/system.slice/docker-{id}.scope\n"),
        );
    }
    let answer = run(&host, &["blockers"]);
    answer.says(
        1,
        &[
            "61 tasks asleep in hold (target)",
            "process 100 \"web\", docker container 4f4f4f4f4f4f, ",
            "and 11 more tasks: --all names them",
        ],
    );
    assert!(!answer.out.contains("hold+0x10"), "{}", answer.out);
    let all = run(&host, &["blockers", "--all", "--stack"]);
    all.says(1, &["hold+0x10/0x40 [target]"]);
    assert!(!all.out.contains("more tasks"), "{}", all.out);
    assert_eq!(all.out.matches("process ").count(), 61, "{}", all.out);
    let report = run(&host, &["blockers", "--json"]).json();
    assert_eq!(report["tasks"].as_array().map(Vec::len), Some(61));
    assert_eq!(report["groups"][0]["tasks"], 61);
    let containers = report["tasks"].as_array().unwrap();
    let in_one = |task: &&serde_json::Value| task["container"]["runtime"] == "docker";
    assert_eq!(containers.iter().filter(in_one).count(), 60);
    run(&host, &["blockers", "--all", "--limit", "3"]).refuses(&["--all", "--limit"]);
}
