//! The status page in every state. Each is left in `target/tmp/page` as a file, for a
//! browser to be held against it.
#![expect(clippy::expect_used, reason = "a test may panic")]

use std::{fs, path::Path, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use livepatch_core::{
    blockers::{Frame, printable},
    crash::Function,
};
use livepatch_monitor::exporter::{
    collectors::transitions::Failure,
    status_page::{CONTENT_SECURITY_POLICY, Page, STAY, render},
};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

#[path = "status_page/states.rs"]
mod states;

/// A state: its name, how to make it, its title's first words, what must be on it.
type State = (
    &'static str,
    fn() -> Page,
    &'static str,
    &'static [&'static str],
);

const STATES: &[State] = &[
    (
        "quiet",
        states::quiet,
        "Quiet",
        &[
            "No transition runs, no livepatch is in force.",
            "No livepatch is loaded.",
            "No crash of this host is known.",
            "No update is half done.",
            "Nothing: every probe is attached",
        ],
    ),
    (
        "in_force",
        states::in_force,
        "Quiet",
        &[
            "1 livepatch is in force",
            "2026-11-22 14:49:43 UTC</time> (1day 2h ago), after a transition of 2.3s",
            "3 functions in <code>vmlinux</code>",
            "1 function in <code>nf_tables</code>, not patched at present",
        ],
    ),
    (
        "running",
        states::running,
        "In transition",
        &[
            "runs: patching for 4s, 4 attempts, 1 task pending",
            "1 running",
            "No stack is known.",
            "http-equiv=\"refresh\" content=\"5\"",
        ],
    ),
    (
        "stuck",
        states::stuck,
        "Stuck",
        &[
            "STUCK: the transition of livepatch_2026_11_net_fix, patching for 8m 3s, 483 attempts, 3 tasks pending.",
            "process 1500 &quot;postgres&quot;, unit postgresql@17-main.service",
            "thread 1501",
            "2 tasks asleep in tcp_rcv_established (vmlinux)",
            "signals them in its attempt 496, in about 13 s",
            "schedule_timeout+0x94/0xd0",
            "32 rounds sent by the kernel",
            "content=\"30\"",
        ],
    ),
    (
        "crowded",
        states::crowded,
        "Stuck",
        &[
            "<summary>And 75 more</summary>",
            "And 30 more: <code>livepatch-monitor blockers --all</code>",
            "Idle tasks (swapper) could not be checked",
        ],
    ),
    (
        "ten_thousand",
        states::ten_thousand,
        "In transition",
        &[
            "patching for 6s, 6 attempts, 10000 tasks pending",
            "2 sleeping",
            "9998 unvisited",
            "signals them in its attempt 16, in about 10 s",
            "<h4>2 tasks asleep in tcp_rcv_established (vmlinux)</h4>",
            "<summary>9998 tasks not looked at yet: the kernel looks again about once a second</summary>",
        ],
    ),
    (
        "crashed",
        states::crashed,
        "Crashed",
        &[
            "This host crashed 4h 3m ago: oops, phase soak; livepatch_2026_11_net_fix is implicated.",
            "<code>livepatch-monitor crashes show 20261123T124908Z-oops-20404707</code>",
            "the machine went down with it",
            "An update has left 2 packages half done.",
            "<code>dpkg --configure -a; apt-get -f install</code>",
            "should be in force and is not loaded",
        ],
    ),
    (
        "survived",
        states::survived,
        "Crashed",
        &[
            "This kernel crashed 4h 3m ago and kept running: oops",
            "1 oops in phase soak",
            "plan a reboot",
            "Enabling other_fix has failed 1h ago: it was refused.",
        ],
    ),
    (
        "degraded",
        states::degraded,
        "Degraded",
        &[
            "The monitor does not see everything here.",
            "To fix it: run as root",
            "2 probes not attached",
            "not ready",
        ],
    ),
    (
        "unknown",
        states::unknown,
        "Unknown",
        &[
            "Which livepatches are loaded is unknown.",
            "Whether a transition runs is unknown.",
            "the crash records cannot be read",
            "how it ended is unknown",
            "Whether an update was left half done is unknown.",
            "Whether any is missing is unknown.",
        ],
    ),
    (
        "nameless",
        states::nameless,
        "In transition",
        &[
            "A transition of a patch of unknown name runs: unpatching for an unknown time, an unknown number of tasks pending.",
            "Which tasks are pending is unknown.",
        ],
    ),
    (
        "unsupported",
        states::unsupported,
        "No livepatches",
        &["This kernel has no livepatch support."],
    ),
];

/// All tags of a page, in order, with their attributes.
fn tags(html: &str) -> Vec<&str> {
    let mut rest = html;
    let mut tags = Vec::new();
    while let Some((_, after)) = rest.split_once('<') {
        let (tag, after) = after.split_once('>').expect("a tag that does not end");
        tags.push(tag);
        rest = after;
    }
    tags
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

#[test]
fn every_state_says_what_it_must() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    fs::create_dir_all(&folder).unwrap();
    for (name, state, short, wanted) in STATES {
        let page = state();
        let html = render(&page);
        fs::write(folder.join(format!("{name}.html")), &html).unwrap();
        let title = format!("<title>{short}: db-0417.example.net – livepatch-monitor</title>");
        assert!(html.contains(&title), "{name}: no {title}");
        for text in *wanted {
            assert!(html.contains(text), "{name}: no {text:?} in\n{html}");
        }
        for section in [
            "verdict",
            "transition",
            "patches",
            "crash",
            "host",
            "evidence",
            "degraded",
        ] {
            assert!(
                html.contains(&format!("<section id=\"{section}\"")),
                "{name}: {section}"
            );
        }
        let tags = tags(&html);
        assert!(
            !tags
                .iter()
                .any(|tag| tag.starts_with("script") || tag.contains(" style=")),
            "{name}"
        );
        // Nothing is asked for while nothing happens.
        let renewed = html.contains("http-equiv=\"refresh\"");
        assert_eq!(
            renewed,
            page.collected.values.transitions.running.is_some(),
            "{name}"
        );
    }
}

/// The few that hold it up come first and open, whatever the order of the scan.
#[test]
fn thousands_that_hold_nothing_up_are_one_line() {
    let html = render(&states::ten_thousand());
    let holder = html.find("process 1500 &quot;worker&quot; thread 11498");
    let many = html.find("<summary>9998 tasks").expect("the many");
    assert!(holder.expect("the holder") < many);
    // Of the many no more are described than fit.
    assert_eq!(html.matches("<p><strong>process 1500").count(), 50);
    assert!(html.len() < 64 << 10, "{} bytes", html.len());
}

/// Neither the kernel's addresses nor the line of a log that the reader of the page may not
/// read.
#[test]
fn what_only_root_may_read_is_not_on_the_page() {
    let mut page = states::crashed();
    let last = &mut states::values(&mut page).crashes.last;
    let record = &mut last.as_mut().unwrap().record;
    record.headline = "BUG: unable to handle page fault for address: ffffc90000123000".into();
    record.function = Some(Function {
        name: "0xffffffffc0123456".into(),
        offset: None,
        size: None,
        module: None,
    });
    record.evidence.clear();
    record.unproven =
        vec!["0xffffffffc0123456 has no name: it may be in a livepatch that is gone".into()];
    let html = render(&page);
    assert!(!html.contains("unable to handle"), "{html}");
    assert!(html.contains("(address) has no name"), "{html}");
    assert!(
        !html.contains("ffffc9") && !html.contains("ffffffffc0"),
        "{html}"
    );

    let mut page = states::stuck();
    let frame = Frame {
        address: Some(0xffff_ffff_c012_3456),
        symbol: None,
    };
    let blocker = page.blockers.first_mut().unwrap();
    blocker.stack = vec![frame.to_string()];
    let html = render(&page);
    assert!(html.contains(">(address)\n"), "{html}");
    assert!(
        !html.contains("ffffc9") && !html.contains("ffffffffc0"),
        "{html}"
    );
}

#[test]
fn a_page_without_refresh_stays() {
    let page = Page {
        stay: true,
        ..states::stuck()
    };
    assert!(!render(&page).contains("http-equiv=\"refresh\""));
    assert!(render(&states::stuck()).contains(&format!("href=\"/?{STAY}\"")));
}

#[test]
fn a_failed_load_is_named_until_it_no_longer_matters() {
    let said = |failed: &str, age: f64, name: &str, transition: bool| {
        let mut page = states::in_force();
        let now = page.now_unix_seconds.unwrap();
        let known = states::values(&mut page);
        known.transitions.last_failure = Some(Failure {
            patch: Some(failed.to_owned()),
            unix_seconds: Some(now - age),
            cancelled: true,
        });
        for set in known.patches.set.iter_mut() {
            for patch in &mut Arc::make_mut(set).patches {
                patch.name = name.to_owned();
                patch.transition = Some(transition);
            }
        }
        let html = render(&page);
        html.contains(&format!(
            "Enabling {failed} has failed 1h ago: it was cancelled."
        ))
    };
    let hour = 3600.0;
    assert!(said("fix_v1", hour, "other", false));
    assert!(said("fix_v1", hour, "fix_v1", true));
    assert!(said("fix_v2", hour, "fix_v1", false));
    assert!(!said("fix_v1", hour, "fix_v1", false));
    assert!(!said("fix_v1", hour, "fix_v2", false));
    assert!(!said("fix_v1", 24.0 * hour, "other", false));
}

#[test]
fn an_old_crash_is_history() {
    let mut page = states::crashed();
    states::values(&mut page)
        .crashes
        .last
        .as_mut()
        .unwrap()
        .record
        .when
        .unix_seconds = Some(1_700_000_000.0);
    let html = render(&page);
    assert!(!html.contains("This host crashed") && html.contains("the machine went down with it"));
    // Of which it is not known when it was counts if it ended the boot before.
    states::values(&mut page)
        .crashes
        .last
        .as_mut()
        .unwrap()
        .record
        .when
        .unix_seconds = None;
    assert!(render(&page).contains("This host crashed"));
    states::values(&mut page).crashes.boot_unclean = Some(false);
    assert!(!render(&page).contains("This host crashed"));
}

#[test]
fn the_policy_has_the_hash_of_the_style() {
    let html = render(&states::quiet());
    let (_, after) = html.split_once("<style>").unwrap();
    let (style, _) = after.split_once("</style>").unwrap();
    let hash = BASE64_STANDARD.encode(Sha256::digest(style));
    assert!(
        CONTENT_SECURITY_POLICY.contains(&format!("'sha256-{hash}'")),
        "the style is sha256-{hash}"
    );
    let own = CONTENT_SECURITY_POLICY
        .strip_suffix("; frame-ancestors 'none'")
        .unwrap();
    assert!(html.contains(&format!("content=\"{own}\"")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn foreign_text_stays_text(text in "\\PC{1,24}|[<>\"'&/= a!\\-\\x00\\x1b\n\u{202e}]{1,24}|</?(script|title|style|pre|code)>") {
        let html = render(&states::foreign(&text));
        let plain = render(&states::foreign("x"));
        prop_assert_eq!(tags(&html), tags(&plain));
        prop_assert!(html.contains(&escaped(&printable(text.as_bytes()))));
        let unfit = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        prop_assert!(!html.contains(unfit), "{html:?}");
    }
}
