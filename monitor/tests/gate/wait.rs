//! `--wait`: conditions that time may cure are waited for, the others are not.

use std::sync::atomic::{AtomicUsize, Ordering};

use livepatch_monitor_test_support::prometheus::{Fleet, Reply, Server};

use super::gate;

const WAIT: [&str; 3] = ["--wait", "--wait-every", "1s"];

/// A server that gives these answers, one per check, and repeats the last. `None` is a Prometheus
/// that is still starting.
fn in_turn(looks: Vec<Option<Fleet>>) -> Server {
    let number = AtomicUsize::new(0);
    Server::start(move |request| {
        // Each check starts with a query for the time.
        let look = if request.form["query"] == "time()" {
            number.fetch_add(1, Ordering::SeqCst)
        } else {
            number.load(Ordering::SeqCst) - 1
        };
        match &looks[look.min(looks.len() - 1)] {
            Some(fleet) => fleet.answer(request),
            None => Reply::new(503, ""),
        }
    })
}

#[test]
fn until_hosts_have_soaked() {
    let server = in_turn(vec![
        Some(Fleet::default().up("a")),
        Some(Fleet::default().moving("a")),
        None,
        Some(Fleet::default().in_force("a", 1799.0)),
        Some(Fleet::default().in_force("a", 1801.0)),
    ]);
    let answer = gate(&server.url, &WAIT);
    answer.says(0, &["continue", "waiting: "]);
    assert!(answer.out.starts_with("continue"), "{}", answer.out);
}

#[test]
fn a_hold_ends_the_wait() {
    let crashed =
        Fleet::default()
            .in_force("a", 0.0)
            .with("livepatch_patch_crashes_total", "a", "", "1");
    let server = in_turn(vec![Some(Fleet::default().moving("a")), Some(crashed)]);
    gate(&server.url, &WAIT).says(1, &["hold", "a:9969"]);
}

#[test]
fn a_missed_scrape_is_waited_for() {
    let well = Fleet::default().in_force("a", 4000.0).in_force("b", 4000.0);
    let well = well.every_15_s("a", 1.0).every_15_s("b", 1.0);
    let missed =
        well.clone()
            .with("up", "b", "", "0")
            .with("last livepatch_patch_enabled", "b", "", "1");
    let blip = missed.clone().with("up recently", "b", "", "1");
    let server = in_turn(vec![Some(blip.clone()), Some(well)]);
    gate(&server.url, &WAIT).says(0, &["waiting: ", "continue"]);
    // It stays down.
    let server = in_turn(vec![Some(blip), Some(missed)]);
    gate(&server.url, &WAIT).says(1, &["waiting: ", "hold", "b:9969"]);
}

#[test]
fn a_wait_that_cannot_help_ends_at_once() {
    for server in [
        Fleet::default().moving("a").down("b").serve(),
        Fleet::default().serve(),
        Server::always(Reply::new(403, "")),
        Server::always(Reply::new(200, "<html>")),
    ] {
        gate(&server.url, &WAIT).says(2, &["cannot determine"]);
        // One check, which starts with the query for the time.
        let looks = server
            .seen()
            .into_iter()
            .filter(|request| request.form["query"] == "time()");
        assert_eq!(looks.count(), 1);
    }
}

#[test]
fn no_longer_than_the_limit() {
    let server = Fleet::default().moving("a").serve();
    let arguments = [&WAIT[..], &["--wait-limit", "2s"]].concat();
    gate(&server.url, &arguments).says(2, &["cannot determine", "--wait-limit"]);
}

#[test]
fn an_unknown_patch_is_waited_for_until_every_host_is_scraped_again() {
    let server = Fleet::default().up("a").serve();
    let arguments = [&WAIT[..], &["--stale-after", "5s"]].concat();
    gate(&server.url, &arguments).says(
        2,
        &["cannot determine", "waiting: ", "no host has the patch"],
    );
    assert!(server.seen().len() > 15, "it asked once");
}
