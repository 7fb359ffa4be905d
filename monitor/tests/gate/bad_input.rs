//! Errors are named with the remedy, and the answer is never "continue".

use std::{fs, net::TcpListener};

use livepatch_monitor_test_support::prometheus::{Fleet, Reply, Server, Then, broken};

use super::{gate, run};

#[test]
fn invalid_arguments() {
    let url = "http://127.0.0.1:9";
    let says = |arguments: &[&str], words: &[&str]| {
        gate(url, arguments).says(2, words);
    };
    says(&["--max-stuck-ratio", "2"], &["--max-stuck-ratio", "0.02"]);
    says(&["--max-stuck-ratio", "NaN"], &["--max-stuck-ratio"]);
    says(&["--soak", "soon"], &["--soak", "15s"]);
    says(&["--lookback", "0s"], &["--lookback"]);
    says(&["--timeout", "0s"], &["--timeout"]);
    says(&["--since", "yesterday"], &["--since", "1970"]);
    says(&["--job", ""], &["--job", "empty"]);
    says(&["--next", "5"], &["--max-risk"]);
    says(&["--max-risk", "0.01"], &["--max-risk", "write 1% or 3"]);
    says(&["--max-risk", "0%"], &["--max-risk", "write 1% or 3"]);
    says(&["--expect-hosts", ""], &["--expect-hosts", "empty"]);
    says(
        &["--expect-hosts", "/absent"],
        &["--expect-hosts", "/absent", "a number or a file"],
    );
    says(
        &["--selector", "env=prod"],
        &["character 5", "env=\"prod\""],
    );
    says(&["--selector", "job=\"x\""], &["\"job\"", "--job"]);
    says(&["--selector", "env=\"p\"} or vector(1)"], &["--selector"]);
    says(&["--user", "me"], &["--password-file"]);
    run(&["--prometheus", url, "--patch", ""]).says(2, &["--patch", "empty"]);
    run(&["--prometheus", url]).says(2, &["--patch"]);
    run(&["--patch", "fix"]).says(2, &["--prometheus"]);
}

#[test]
fn unusable_lists_of_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts");
    let name = path.to_str().unwrap();
    for (bytes, word) in [
        (&b""[..], "names no host"),
        (b"# nobody\n", "names no host"),
        (b"a\nb c\n", "line 2"),
        (b"\xff\n", "UTF-8"),
    ] {
        fs::write(&path, bytes).unwrap();
        let answer = gate("http://127.0.0.1:9", &["--expect-hosts", name]);
        answer.says(2, &["--expect-hosts", name, word]);
    }
}

#[test]
fn an_engine_that_hides_the_newest_samples_is_refused() {
    let server = Fleet::default().in_force("a", 4000.0).shifted(30.0).serve();
    gate(&server.url, &[]).says(2, &["30 s before", "-search.latencyOffset=1ms"]);
}

#[test]
fn a_partial_answer_of_victoriametrics_is_never_go_on() {
    let server = Fleet::default().in_force("a", 4000.0).partial().serve();
    gate(&server.url, &[]).says(2, &["cannot determine", "isPartial"]);
}

#[test]
fn invalid_urls() {
    for (url, word) in [
        ("prometheus:9090", "http://"),
        ("ftp://prometheus", "http://"),
        ("http://me:secret@prometheus", "--password-file"),
    ] {
        gate(url, &[]).says(2, &["--prometheus", word]);
    }
}

#[test]
fn unusable_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let url = "http://127.0.0.1:9";
    let says = |arguments: &[&str], words: &[&str]| {
        gate(url, arguments).says(2, words);
    };
    let absent = dir.path().join("absent");
    let absent = absent.to_str().unwrap();
    says(
        &["--bearer-token-file", absent],
        &["--bearer-token-file", absent, "No such file"],
    );
    let binary = file("binary", b"\xff\xfe\x00");
    says(&["--bearer-token-file", &binary], &[&binary, "UTF-8"]);
    let empty = file("empty", b"\n");
    says(
        &["--user", "me", "--password-file", &empty],
        &["password", &empty, "empty"],
    );
    let lines = file("lines", b"one\ntwo\n");
    says(&["--bearer-token-file", &lines], &[&lines, "several lines"]);
    says(&["--ca-file", absent], &["--ca-file", absent]);
    says(&["--ca-file", &lines], &[&lines, "BEGIN CERTIFICATE"]);
    let torn = file(
        "torn",
        b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
    );
    says(&["--ca-file", &torn], &[&torn, "damaged"]);
}

#[test]
fn nobody_listens() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap());
    drop(taken);
    gate(&url, &[]).says(2, &["cannot determine", &url, "refused", "--prometheus"]);
    let json = gate(&url, &["--json"]);
    let json = json.says(2, &[]).json();
    assert_eq!(json["verdict"], "cannot_tell");
    assert_eq!(json["exit_code"], 2);
    assert_eq!(json["reasons"][0]["kind"], "prometheus");
}

#[test]
fn slow_answers_and_slow_bodies() {
    let beginning = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"status\":";
    for bytes in [&b""[..], &b"HTTP/1.1 200"[..], &beginning[..]] {
        let url = broken(bytes, Then::Hang);
        gate(&url, &["--timeout", "300ms"]).says(2, &["cannot determine", "300ms", "--timeout"]);
    }
}

#[test]
fn truncated_answers() {
    let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"status\":\"succ";
    gate(&broken(bytes, Then::Close), &[]).says(2, &["cannot determine", "ended early"]);
    for bytes in [&b""[..], b"SSH-2.0-OpenSSH\r\n"] {
        let url = broken(bytes, Then::Close);
        gate(&url, &[]).says(2, &["cannot determine", &url]);
    }
}

#[test]
fn a_web_page() {
    let page = Reply::new(200, "<!doctype html><title>Log in</title>");
    let server = Server::always(page.with("content-type", "text/html"));
    gate(&server.url, &[]).says(2, &["cannot determine", "HTML", "login page"]);
}

#[test]
fn a_redirect_is_named_and_not_followed() {
    for status in [301, 302, 307, 308] {
        let reply = Reply::new(status, "");
        let server = Server::always(reply.with("location", "https://login.example/?to=prom"));
        gate(&server.url, &[]).says(
            2,
            &[
                "cannot determine",
                "redirect",
                "https://login.example/?to=prom",
            ],
        );
        assert_eq!(server.seen().len(), 1);
    }
}

#[test]
fn statuses() {
    let error = r#"{"status":"error","errorType":"bad_data","error":"parse error at 1:3"}"#;
    for (status, body, words) in [
        (401, "", &["401", "--bearer-token-file"][..]),
        (403, "no", &["403", "\"no\"", "--password-file"]),
        (404, "<html>", &["404", "path prefix"]),
        (400, error, &["400", "parse error at 1:3"]),
        (422, error, &["422", "bad_data", "limit"]),
        (503, "starting", &["503", "starting"]),
        (418, "", &["418", "check that it is Prometheus"]),
    ] {
        let server = Server::always(Reply::new(status, body));
        gate(&server.url, &[]).says(2, &["cannot determine", &server.url]);
        gate(&server.url, &[]).says(2, words);
    }
}

#[test]
fn answers_of_another_shape() {
    for body in [
        "",
        "[]",
        r#"{"status":"success"}"#,
        r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
        r#"{"status":"success","data":{"resultType":"scalar","result":[1,"NaN"]}}"#,
    ] {
        let server = Server::always(Reply::new(200, body));
        gate(&server.url, &[]).says(2, &["cannot determine", "/api/v1/query"]);
    }
}

#[test]
fn the_query_after_a_good_one_fails() {
    let server = Server::start(|request| {
        if request.form["query"].contains("livepatch_patch_crashes_total") {
            Reply::new(500, "storage")
        } else {
            Fleet::default().up("a").answer(request)
        }
    });
    gate(&server.url, &[]).says(2, &["cannot determine", "500", "storage"]);
}

#[test]
fn invalid_numbers_are_an_error() {
    let server = Fleet::default()
        .in_force("a", 4000.0)
        .with("livepatch_patch_forced", "a", "", "NaN")
        .serve();
    gate(&server.url, &[]).says(2, &["cannot determine", "livepatch_patch_forced", "NaN"]);
}

#[test]
fn duplicate_hosts_are_an_error() {
    let server = Fleet::default()
        .in_force("a", 4000.0)
        .in_force("b", 4000.0)
        .with("up", "a", r#","replica":"b""#, "1")
        .serve();
    gate(&server.url, &[]).says(2, &["cannot determine", "a:9969", "deduplicate"]);
}

#[test]
fn a_selector_without_a_match() {
    let server = Fleet::default().serve();
    gate(&server.url, &["--selector", r#"env="prd""#]).says(
        2,
        &[
            "cannot determine",
            r#"up{job="livepatch-monitor",env="prd"}"#,
            "--selector",
        ],
    );
}

#[test]
fn an_unknown_patch() {
    let server = Fleet::default()
        .up("a")
        .with("known", "a", r#","patch":"fix_2""#, "1")
        .serve();
    gate(&server.url, &[]).says(2, &["cannot determine", "fix_2"]);
}

#[test]
fn a_partial_answer() {
    let server = Fleet::default()
        .in_force("a", 4000.0)
        .warned("store b: context deadline exceeded")
        .serve();
    gate(&server.url, &[]).says(2, &["cannot determine", "partial", "store b"]);
}

#[test]
fn since_in_the_future() {
    let server = Fleet::default().in_force("a", 4000.0).serve();
    gate(&server.url, &["--since", "2100-01-01T00:00:00Z"]).says(2, &["--since", "future"]);
}

#[test]
fn a_hostile_patch_name_stays_a_value() {
    let server = Fleet::default().in_force("a", 4000.0).serve();
    let name = "a\"} or up{x=\"\\.*\n";
    run(&["--prometheus", &server.url, "--patch", name]).says(0, &[]);
    let quoted = r#"patch="a\"} or up{x=\"\\.*\n""#;
    let of_patch = |query: &&String| query.contains("patch=");
    let seen = server.seen();
    let queries = seen.iter().map(|request| &request.form["query"]);
    let queries: Vec<&String> = queries.filter(of_patch).collect();
    assert!(queries.len() > 5);
    for query in queries {
        assert!(query.contains(quoted), "{query}");
        assert!(!query.replace(quoted, "").contains(".*"), "{query}");
    }
}
