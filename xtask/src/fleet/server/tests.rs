use super::super::simulation::Fleet;

/// Status and body of an answer.
fn ask(fleet: &Fleet, method: &str, path: &str) -> (u16, String) {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None);
    let agent = ureq::Agent::from(config.build());
    let url = format!("{}{path}", fleet.url());
    let mut answer = match method {
        "POST" => agent.post(url).send_empty(),
        _ => agent.get(url).call(),
    }
    .unwrap();
    let body = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), body)
}

#[test]
fn a_host_is_driven_by_http() {
    let fleet = Fleet::start(2, "fix").unwrap();
    let ask = |method, path| ask(&fleet, method, path);
    let (status, body) = ask("GET", "/host/00001/metrics");
    assert_eq!(status, 200);
    assert!(!body.contains("patch=\"fix\""), "{body}");

    assert_eq!(ask("POST", "/host/host-00001/patch?seconds=inf").0, 204);
    let (_, body) = ask("GET", "/host/host-00001/metrics");
    let active = "livepatch_transition_active{direction=\"patch\",patch=\"fix\"} 1";
    assert!(body.contains(active), "{body}");
    let (_, other) = ask("GET", "/host/host-00002/metrics");
    assert!(!other.contains(active), "{other}");

    assert_eq!(ask("POST", "/host/host-00001/crash").0, 204);
    assert_eq!(ask("GET", "/host/00001/metrics").0, 503);
    assert_eq!(
        ask("GET", "/hosts").1,
        "[{\"instance\":\"host-00001\",\"state\":\"down\"},\
         {\"instance\":\"host-00002\",\"state\":\"unpatched\"}]\n"
    );
    assert_eq!(ask("POST", "/host/host-00001/reboot").0, 204);
    let (_, body) = ask("GET", "/host/host-00001/metrics");
    assert!(
        body.contains("livepatch_patch_crashes_total{patch=\"fix\"} 1"),
        "{body}"
    );
}

#[test]
fn what_cannot_be_is_said() {
    let fleet = Fleet::start(1, "fix").unwrap();
    for (path, status, complaint) in [
        ("/host/host-00001/crash", 409, "the host is unpatched"),
        ("/host/host-00002/patch", 404, "no host `host-00002`"),
        ("/host/host-00000/patch", 404, "no host `host-00000`"),
        ("/host/host-00001/explode", 404, "`explode` is not an event"),
        (
            "/host/host-00001/patch?seconds=-1",
            400,
            "not a length of time",
        ),
        ("/host/host-00001/patch?seconds=x", 400, "seconds"),
    ] {
        let (got, text) = ask(&fleet, "POST", path);
        assert_eq!(got, status, "{path}: {text}");
        assert!(text.contains(complaint), "{path}: {text}");
    }
    assert!(ask(&fleet, "GET", "/").1.contains("POST /host/NAME/patch"));
}
