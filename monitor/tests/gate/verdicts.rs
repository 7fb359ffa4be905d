//! The three answers, and the output for each.

use std::fs;

use livepatch_monitor_test_support::prometheus::{Fleet, NOW};

use super::gate;

const PATCHING: &str = r#","direction":"patch""#;

#[test]
fn go_on() {
    let fleet = (0..60).fold(Fleet::default(), |fleet, host| {
        fleet.in_force(&format!("h{host}"), 1800.0)
    });
    let fleet = (0..940).fold(fleet, |fleet, host| fleet.up(&format!("n{host}")));
    let server = fleet.serve();
    let answer = gate(&server.url, &["--min-hosts", "60"]);
    // 1 - 0.05^(1/60) = 4.87 %.
    answer.says(
        0,
        &["60  soaked", "940  without", "4.9 %", "up to 46 of the 940"],
    );
    assert!(answer.out.starts_with("continue: fix "), "{}", answer.out);
    let json = gate(&server.url, &["--json"]).json();
    assert_eq!(json["verdict"], "go_on");
    assert_eq!(json["counts"]["soaked"], 60);
    assert_eq!(json["risk"]["failed"], 0);
    assert_eq!(json["evaluated_at"], NOW);
}

#[test]
fn every_query_is_a_post_with_job_and_selector() {
    let server = Fleet::default().in_force("a", 4000.0).down("b").serve();
    let prefixed = format!("{}/prometheus/", server.url);
    gate(&prefixed, &["--selector", r#"{ env = "prod" }"#]);
    let seen = server.seen();
    // The query for the time, a check that it is the time of evaluation, 19 questions, and 5 about
    // the host that is down.
    assert_eq!(seen.len(), 26);
    for request in seen {
        assert_eq!(request.method, "POST");
        assert_eq!(request.path, "/prometheus/api/v1/query");
        let query = &request.form["query"];
        let whose = r#"{job="livepatch-monitor",env="prod""#;
        let time = query == "time()" || query == "vector(time())";
        assert!(time || query.contains(whose), "{query}");
        // Without it VictoriaMetrics hides the newest samples.
        assert_eq!(request.form["latency_offset"], "1ms");
        assert_eq!(request.form["nocache"], "1");
    }
}

#[test]
fn an_agent_that_stopped_sending_is_seen_within_two_scrape_intervals() {
    let fleet = Fleet::default().in_force("a", 4000.0).in_force("b", 4000.0);
    let fleet = fleet.every_15_s("a", 5.0).every_15_s("b", 31.0);
    let answer = gate(&fleet.serve().url, &[]);
    answer.says(2, &["b:9969", "stale", "31 s ago", "scraped every 15 s"]);
}

#[test]
fn expected_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hosts");
    fs::write(&file, "# the fleet\na\n\nb:9969\nc\n").unwrap();
    let server = Fleet::default()
        .in_force("a", 4000.0)
        .in_force("b", 4000.0)
        .serve();
    let file = file.to_str().unwrap();
    gate(&server.url, &["--expect-hosts", file]).says(2, &["    c", "unseen", "--expect-hosts"]);
    gate(&server.url, &["--expect-hosts", file, "--max-missing", "1"]).says(0, &["note", "    c"]);
    gate(&server.url, &["--expect-hosts", "2"]).says(0, &[]);
    let three = gate(&server.url, &["--expect-hosts", "3"]);
    three.says(2, &["2 hosts of the 3 expected"]);
}

#[test]
fn the_risk_of_the_next_wave() {
    let fleet = (0..60).fold(Fleet::default(), |fleet, host| {
        fleet.in_force(&format!("h{host}"), 1800.0)
    });
    let server = fleet.up("n").serve();
    let next = |next, risk| gate(&server.url, &["--next", next, "--max-risk", risk]);
    next("60", "3").says(0, &["of the next 60"]);
    next("100", "5%").says(0, &[]);
    next("100", "1%").says(1, &["hold", "--max-risk", "239 more must soak"]);
    let json = gate(&server.url, &["--max-risk", "1%", "--next", "9", "--json"]).json();
    assert_eq!(json["reasons"][0]["kind"], "risk");
    assert_eq!(json["risk"]["next"], 9);
    assert_eq!(json["risk"]["more_to_soak"], 239);
}

#[test]
fn a_wrong_clock_is_not_soaked() {
    let fleet = Fleet::default()
        .in_force("a", 9000.0)
        .with("up before", "a", "", "1");
    gate(&fleet.clone().serve().url, &[]).says(2, &["a:9969", "clock", "timedatectl"]);
    let seen = fleet.with("livepatch_patch_enabled before", "a", "", "1");
    gate(&seen.serve().url, &[]).says(0, &[]);
}

#[test]
fn a_crash_holds() {
    let server = Fleet::default()
        .in_force("a", 4000.0)
        .in_force("b", 4000.0)
        .with("livepatch_patch_crashes_total", "b", "", "2")
        .with(
            "livepatch_patch_last_crash_timestamp_seconds",
            "b",
            "",
            &(NOW - 100.0).to_string(),
        )
        .serve();
    let answer = gate(&server.url, &[]);
    answer.says(
        1,
        &["b:9969", "crashed 2 times", "2026-11-23T", "1 crashed"],
    );
    assert!(answer.out.starts_with("hold: fix "), "{}", answer.out);
    let json = gate(&server.url, &["--json"]).json();
    assert_eq!(json["verdict"], "hold");
    assert_eq!(json["reasons"][0]["hosts"][0]["instance"], "b:9969");
    let since = (NOW - 99.0).to_string();
    gate(&server.url, &["--since", &since]).says(0, &[]);
    gate(&server.url, &["--max-crashed", "1"]).says(0, &["note", "b:9969"]);
}

#[test]
fn a_crash_signal_that_implicates_the_patch_holds() {
    let server = Fleet::default()
        .in_force("a", 4000.0)
        .with(
            "livepatch_crash_signals_implicating_total",
            "a",
            r#","signal":"oops""#,
            "1",
        )
        .serve();
    gate(&server.url, &[]).says(1, &["a:9969", "oops"]);
}

#[test]
fn silence_holds() {
    let down = Fleet::default().in_force("a", 4000.0).down("b");
    let moving = down
        .clone()
        .with("last livepatch_transition_active", "b", PATCHING, "1");
    gate(&moving.serve().url, &[]).says(1, &["b:9969", "silent", "in transition (patch)"]);
    let patched = down
        .clone()
        .with("last livepatch_patch_enabled", "b", "", "1");
    gate(&patched.serve().url, &[]).says(1, &["b:9969", "silent", "enabled"]);
    let server = down.serve();
    gate(&server.url, &[]).says(2, &["b:9969", "down", "--max-missing"]);
    gate(&server.url, &["--max-missing", "1"]).says(0, &["b:9969"]);
}

#[test]
fn stuck_hosts_hold() {
    let stuck = |fleet: Fleet| {
        fleet
            .moving("s")
            .with("livepatch_stuck_tasks", "s", "", "3")
    };
    let few = stuck(Fleet::default().in_force("a", 4000.0)).serve();
    gate(&few.url, &[]).says(1, &["s:9969", "3 tasks", "50.0 %", "blockers"]);
    gate(&few.url, &["--max-stuck-ratio", "0.5"]).says(0, &["note", "s:9969"]);
}

#[test]
fn what_cannot_be_determined() {
    let soaking = Fleet::default().in_force("a", 1700.0).serve();
    gate(&soaking.url, &[]).says(2, &["cannot determine", "1 soaking", "1m 40s"]);
    gate(&soaking.url, &["--soak", "20m"]).says(0, &[]);
    let moving = Fleet::default().moving("a").serve();
    gate(&moving.url, &[]).says(
        2,
        &["cannot determine", "1  in transition, 0 of them stuck"],
    );
    let stale = Fleet::default()
        .in_force("a", 4000.0)
        .up("b")
        .with("scraped", "b", "", &(NOW - 181.0).to_string())
        .serve();
    gate(&stale.url, &[]).says(2, &["b:9969", "181 s ago", "--stale-after"]);
    gate(&stale.url, &["--stale-after", "4m"]).says(0, &[]);
    let gone = Fleet::default()
        .in_force("a", 4000.0)
        .with("gone", "b", "", "1")
        .serve();
    gate(&gone.url, &[]).says(2, &["b:9969", "gone"]);
    let mute = Fleet::default()
        .in_force("a", 4000.0)
        .without("livepatch_patch_crashes_total")
        .serve();
    gate(&mute.url, &[]).says(2, &["a:9969", "livepatch_patch_crashes_total"]);
    let container = Fleet::default().in_force("a", 4000.0).up("b").with(
        "livepatch_monitor_collector_success",
        "b",
        "",
        "0",
    );
    gate(&container.serve().url, &[]).says(2, &["b:9969", "cannot read which livepatches"]);
    let other = Fleet::default()
        .in_force("a", 4000.0)
        .up("b")
        .without("livepatch_monitor_collector_success")
        .serve();
    gate(&other.url, &[]).says(2, &["b:9969", "no livepatch-monitor runs there"]);
    gate(&other.url, &["--max-missing", "1"]).says(0, &["note", "b:9969"]);
    let few = Fleet::default().in_force("a", 4000.0).serve();
    gate(&few.url, &["--min-hosts", "2"]).says(2, &["1 host soaked, 2 needed"]);
}

#[test]
fn a_hold_lists_the_unknown_too() {
    let server = Fleet::default()
        .in_force("a", 4000.0)
        .with("livepatch_patch_crashes_total", "a", "", "1")
        .down("b")
        .serve();
    gate(&server.url, &[]).says(1, &["a:9969", "b:9969", "unknown", "--min-hosts"]);
}

#[test]
fn many_hosts_are_cut_in_text_only() {
    let fleet = (0..25).fold(Fleet::default().in_force("a", 4000.0), |fleet, host| {
        fleet.down(&format!("d{host:02}"))
    });
    let server = fleet.serve();
    let answer = gate(&server.url, &[]);
    answer.says(2, &["d19:9969", "and 5 more"]);
    assert!(!answer.out.contains("d20:9969"), "{}", answer.out);
    let json = gate(&server.url, &["--json"]).json();
    assert_eq!(json["reasons"][0]["hosts"].as_array().unwrap().len(), 25);
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let server = Fleet::default()
        .in_force("a", 4000.0)
        .down("\\u001b[2Jb")
        .serve();
    let answer = gate(&server.url, &[]);
    answer.says(2, &["\\x1b[2Jb:9969"]);
    assert!(!answer.out.contains('\u{1b}'));
}

#[test]
fn credentials_are_sent_and_never_printed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, "open-sesame\n").unwrap();
    let file = path.to_str().unwrap();
    let server = Fleet::default().in_force("a", 4000.0).serve();
    let token = gate(
        &server.url,
        &["--bearer-token-file", file, "--tenant", "team-a"],
    );
    token.says(0, &[]);
    let seen = server.seen();
    assert_eq!(seen[0].headers["authorization"], "Bearer open-sesame");
    assert_eq!(seen[0].headers["x-scope-orgid"], "team-a");
    let server = Fleet::default().in_force("a", 4000.0).serve();
    gate(&server.url, &["--user", "me", "--password-file", file]).says(0, &[]);
    let basic = &server.seen()[0].headers["authorization"];
    assert_eq!(basic, "Basic bWU6b3Blbi1zZXNhbWU=");
}
