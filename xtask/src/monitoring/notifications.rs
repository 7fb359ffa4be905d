//! Which notifications go out: the shipped routes, grouping and inhibition in a real
//! Alertmanager, with alerts as a bad rollout fires them.

use std::{collections::BTreeSet, path::Path, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{alertmanager::Alertmanager, wait_for, webhook::Webhook};
use crate::host::{process, prometheus_tools};

/// In place of the shipped `group_wait`: long enough for all alerts to arrive.
const GROUP_WAIT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(120);

const JOB: &str = "job=livepatch-monitor";

/// The alerts that fire, as amtool takes them.
const FIRING: [&[&str]; 13] = [
    // Two hosts went silent in the transition of `bad`.
    &[
        "LivepatchHostSilentInTransition",
        "severity=critical",
        JOB,
        "instance=a",
        "patch=bad",
    ],
    &[
        "LivepatchHostSilentInTransition",
        "severity=critical",
        JOB,
        "instance=b",
        "patch=bad",
    ],
    &["LivepatchStopRollout", "severity=critical", "patch=bad"],
    // What follows from that.
    &[
        "LivepatchMonitorDown",
        "severity=warning",
        JOB,
        "instance=a",
    ],
    &[
        "LivepatchTransitionStuck",
        "severity=warning",
        JOB,
        "instance=a",
        "patch=bad",
    ],
    &[
        "LivepatchPatchMissing",
        "severity=warning",
        JOB,
        "instance=c",
        "patch=bad",
    ],
    // Near to that: another host, another patch, no patch, and a critical alert of the patch.
    &[
        "LivepatchMonitorDown",
        "severity=warning",
        JOB,
        "instance=c",
    ],
    &[
        "LivepatchPatchMissing",
        "severity=warning",
        JOB,
        "instance=c",
        "patch=other",
    ],
    &["LivepatchLoadFailed", "severity=warning", JOB, "instance=a"],
    // The crash of `bad` left packages unfinished: the host needs a repair whatever the rollout
    // does.
    &[
        "LivepatchUpdateInterrupted",
        "severity=warning",
        JOB,
        "instance=a",
        "manager=dnf",
        "crashed_patch=bad",
        "implicated=yes",
    ],
    &[
        "LivepatchTransitionStuckLong",
        "severity=critical",
        JOB,
        "instance=d",
        "patch=bad",
    ],
    &[
        "LivepatchTransitionStuckLong",
        "severity=critical",
        JOB,
        "instance=d",
        "patch=other",
    ],
    &[
        "LivepatchDrill",
        "severity=info",
        "drill=true",
        JOB,
        "instance=c",
    ],
];

/// The notifications: receiver, and the alerts with their hosts.
const SENT: [(&str, &str); 7] = [
    (
        "pager",
        "LivepatchHostSilentInTransition a, LivepatchHostSilentInTransition b, \
         LivepatchStopRollout , LivepatchTransitionStuckLong d",
    ),
    ("pager", "LivepatchTransitionStuckLong d"),
    ("tickets", "LivepatchLoadFailed a"),
    ("tickets", "LivepatchMonitorDown c"),
    ("tickets", "LivepatchPatchMissing c"),
    ("tickets", "LivepatchUpdateInterrupted a"),
    ("log", "LivepatchDrill c"),
];

/// Fires the alerts, and fails unless they cause exactly these notifications. `config` is the
/// text of the shipped configuration, `folder` is for Alertmanager's files.
pub(crate) fn check(folder: &Path, config: &str) -> Result<()> {
    let webhook = Webhook::start()?;
    let alertmanager = Alertmanager::start(folder, &adapted(config, &webhook.url()))?;
    let amtool = prometheus_tools::path("amtool")?;
    for labels in FIRING {
        process::output(
            Command::new(&amtool)
                .arg(format!("--alertmanager.url={}", alertmanager.url()))
                .args(["alert", "add"])
                .args(labels),
        )?;
    }
    let expected: BTreeSet<(String, String)> = SENT
        .iter()
        .map(|(receiver, alerts)| ((*receiver).to_owned(), (*alerts).to_owned()))
        .collect();
    wait_for("the notifications", PATIENCE, || {
        let sent = sent(&webhook);
        ensure!(
            sent == expected,
            "{sent:#?} went out, and {expected:#?} should"
        );
        Ok(())
    })?;
    // Nothing more goes out afterwards. No event shows that: a group's next notification would be
    // out after its wait.
    thread::sleep(2 * GROUP_WAIT);
    let after = webhook.received();
    ensure!(
        after.len() == SENT.len(),
        "{} notifications went out, and {} should: {after:#?}",
        after.len(),
        SENT.len()
    );
    Ok(())
}

fn sent(webhook: &Webhook) -> BTreeSet<(String, String)> {
    let notifications = webhook.received().into_iter();
    notifications
        .map(|notification| {
            let alerts = notification.alerts.iter();
            let mut names: Vec<String> = alerts
                .map(|alert| format!("{} {}", alert.label("alertname"), alert.label("instance")))
                .collect();
            names.sort();
            (notification.receiver, names.join(", "))
        })
        .collect()
}

/// The shipped configuration with this receiver, and without long waits.
fn adapted(config: &str, url: &str) -> String {
    let lines = config.lines().map(|line| {
        let indent = &line[..line.len() - line.trim_start().len()];
        match line.trim_start() {
            word if word.starts_with("- url: ") => format!("{indent}- url: {url}\n"),
            word if word.starts_with("group_wait: ") => {
                format!("{indent}group_wait: {}s\n", GROUP_WAIT.as_secs())
            }
            _ => format!("{line}\n"),
        }
    });
    lines.collect()
}

/// The shipped configuration's text.
pub(crate) fn shipped(dashboards: &Path) -> Result<String> {
    let path = dashboards.join("alertmanager/alertmanager.yml");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}
