//! The layouts of `dashboards/prometheus/layouts`, run with real engines: shards and agents that
//! write to a global Prometheus or VictoriaMetrics, in which the shipped rules are evaluated.
//!
//! All layouts scrape the same simulated hosts at the same time, so that one rollout serves them
//! all: a site stops sending, comes back, and two hosts crash in transition.

mod engines;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use self::engines::Layout;
use super::{
    gate::Gate,
    hosts::instance,
    simulation::{Fleet, JOB},
};
use crate::{
    host::{engines as programs, paths, process, prometheus_tools},
    monitoring::wait_for,
};

const HOSTS: usize = 40;
const PATCH: &str = "livepatch_2026_11_fix";
/// The hosts that are patched without trouble.
const GOOD: std::ops::Range<usize> = 0..20;
/// For what takes a few scrapes.
const SOON: Duration = Duration::from_secs(150);
/// For a host that nobody scrapes any more: two minutes until it is lost, one until the rule
/// runs, two of `for`, and the delays of the engine.
const LOST: Duration = Duration::from_secs(480);
/// Gate terms that can be met within a minute.
const TERMS: &[&str] = &["--soak", "2s", "--min-hosts", "2"];

/// Runs every layout; `monitor` is the program whose gate is used. Prints each answer.
pub(crate) fn run(monitor: &Path) -> Result<()> {
    prometheus_tools::prepare()?;
    programs::prepare()?;
    process::step("layouts of Prometheus and VictoriaMetrics", || {
        let fleet = Fleet::start(HOSTS, PATCH)?;
        let folder = paths::target()?.join("fleet/layouts");
        let mut layouts = engines::start_all(&folder, &fleet)?;
        play(&fleet, &mut layouts, monitor)
    })
}

fn play(fleet: &Fleet, layouts: &mut [Layout], monitor: &Path) -> Result<()> {
    for layout in &*layouts {
        let all = format!("count(up{{job=\"{JOB}\"}} == 1) == {}", layout.hosts.len());
        wait_for_series(layout, &all, SOON)?;
    }
    for host in GOOD {
        fleet.patch(host, 0.5)?;
    }
    for layout in &*layouts {
        let patched = GOOD.filter(|host| layout.hosts.contains(host)).count();
        let query =
            format!("patch:livepatch_hosts_patched:count{{patch=\"{PATCH}\"}} == {patched}");
        wait_for_series(layout, &query, SOON)?;
        wait_for_gate(layout, monitor, 0, "the hosts are patched and have soaked")?;
    }
    a_site_stops_sending(layouts, monitor)?;
    hosts_crash(fleet, layouts, monitor)
}

/// Half of the hosts are no longer sent: the gate cannot determine, an alert says so, and nobody is
/// paged.
fn a_site_stops_sending(layouts: &mut [Layout], monitor: &Path) -> Result<()> {
    for layout in &mut *layouts {
        layout.stop_site();
    }
    for layout in &*layouts {
        wait_for_gate(layout, monitor, 2, "a site has stopped sending")?;
    }
    for layout in &*layouts {
        wait_for_series(layout, &firing("LivepatchHostsLost", ""), LOST)?;
    }
    for layout in &*layouts {
        expect_no_page(layout)?;
        gate(layout, monitor, 2, "a site is lost")?;
    }
    for layout in &mut *layouts {
        layout.start_site()?;
    }
    for layout in &*layouts {
        let all = format!("count(up{{job=\"{JOB}\"}} == 1) == {}", layout.hosts.len());
        wait_for_series(layout, &all, SOON)?;
        expect_no_page(layout)?;
    }
    Ok(())
}

/// One host of each site crashes in its transition: two pages for hosts, and one to stop the
/// rollout, although no site has two.
fn hosts_crash(fleet: &Fleet, layouts: &mut [Layout], monitor: &Path) -> Result<()> {
    let victims = engines::VICTIMS;
    for host in victims {
        fleet.patch(host, f64::INFINITY)?;
    }
    for layout in &*layouts {
        for host in victims {
            let at_risk = format!(
                "instance:livepatch_at_risk:since{{instance=\"{}\",phase=\"transition\"}}",
                instance(host)
            );
            wait_for_series(layout, &at_risk, SOON)?;
        }
    }
    for host in victims {
        fleet.crash(host)?;
        for layout in &mut *layouts {
            layout.crash(host);
        }
    }
    for layout in &*layouts {
        for host in victims {
            let of_host = format!(",instance=\"{}\"", instance(host));
            let alert = firing("LivepatchHostSilentInTransition", &of_host);
            wait_for_series(layout, &alert, LOST)?;
        }
        let stop = firing("LivepatchStopRollout", &format!(",patch=\"{PATCH}\""));
        wait_for_series(layout, &stop, SOON)?;
        let pages = layout
            .store
            .value("count(ALERTS{alertstate=\"firing\",severity=\"critical\"})")?;
        ensure!(
            (pages - 3.0).abs() < 0.5,
            "{}: {pages} critical alerts, not 3",
            layout.name
        );
        gate(
            layout,
            monitor,
            1,
            "two hosts are silent since their transition",
        )?;
    }
    Ok(())
}

fn firing(alert: &str, labels: &str) -> String {
    format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"{labels}}}")
}

fn expect_no_page(layout: &Layout) -> Result<()> {
    let pages = layout
        .store
        .query("count_over_time(ALERTS{alertstate=\"firing\",severity=\"critical\"}[1h])")?;
    ensure!(pages.is_empty(), "{}: {pages:?}", layout.name);
    Ok(())
}

fn wait_for_series(layout: &Layout, query: &str, patience: Duration) -> Result<()> {
    wait_for(&format!("`{query}`"), patience, || {
        ensure!(!layout.store.query(query)?.is_empty(), "it is empty");
        Ok(())
    })
    .with_context(|| layout.name)
}

fn gate(layout: &Layout, monitor: &Path, code: i32, when: &'static str) -> Result<()> {
    let answer = Gate::new(monitor, layout.store.url(), PATCH).ask(when, TERMS)?;
    ensure!(
        answer.code == code,
        "{}: the gate must say {code} when {when}, and says {}:\n{}",
        layout.name,
        answer.code,
        answer.text
    );
    ensure!(
        code != 2 || is_for_lost_hosts(&answer.text),
        "{}: the gate cannot determine when {when}, but not because hosts are no longer scraped:\n{}",
        layout.name,
        answer.text
    );
    Ok(())
}

/// Whether the gate says "cannot determine" because hosts are not scraped, and not, for example,
/// because Prometheus does not answer or a query fails.
fn is_for_lost_hosts(text: &str) -> bool {
    text.starts_with("cannot determine")
        && text.contains(" cannot be judged; ")
        && (text.contains("  stale: last scraped ") || text.contains("  gone: "))
}

fn wait_for_gate(layout: &Layout, monitor: &Path, code: i32, when: &'static str) -> Result<()> {
    wait_for(&format!("{code} of the gate when {when}"), SOON, || {
        gate(layout, monitor, code, when)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cannot_determine_must_be_for_lost_hosts() {
        let lost = "cannot determine: whether fix may go to more hosts\n  \
            unknown: 2 hosts cannot be judged; none allowed (--max-missing): …\n    \
            web-10:9969  gone: Prometheus scraped it within --lookback but no longer does";
        assert!(is_for_lost_hosts(lost));
        assert!(is_for_lost_hosts(
            &lost.replace("gone: Prometheus", "stale: last scraped 40 s ago")
        ));
        for other in [
            "cannot determine: whether fix may go to more hosts\n  unknown: connection refused",
            "cannot determine: whether fix may go to more hosts\n  \
             unknown: 2 hosts cannot be judged; none allowed (--max-missing): …\n    \
             web-10:9969  clock: the host's clock is 3m behind that of Prometheus",
            "cannot determine: whether fix may go to more hosts\n  \
             unknown: 1 host has soaked; 2 required (--min-hosts)",
        ] {
            assert!(!is_for_lost_hosts(other), "{other}");
        }
    }
}
