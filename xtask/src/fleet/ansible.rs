//! Runs the playbook of docs/gate.md, which patches in waves, on simulated hosts with the real gate
//! and a real Prometheus.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::{hosts::instance, simulation::Fleet};
use crate::{
    host::{http, packages, paths, process, prometheus_tools},
    monitoring::wait_for,
};

const PATCH: &str = "livepatch_2026_11_fix";
/// The interval of scrapes and rules, in seconds.
const INTERVAL: u32 = 2;
const HOSTS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(60);
const PATCHES: &str = "curl -fsS -X POST $url/patch";
/// A wave waits for the soak and some scrapes.
const TERMS: &str = "--soak 2s --wait --wait-limit 2m";

/// The host of the third wave, which is this one alone.
const THIRD: usize = 2;

/// Runs the playbook. With a good patch it must reach all hosts; with one that crashes its host it
/// must stop at the first wave; if a host is unreachable, at that host's wave.
pub(crate) fn check(monitor: &Path) -> Result<()> {
    prometheus_tools::prepare()?;
    packages::install(
        &["ansible-core", "openssh-client"],
        "to run the play that docs/gate.md shows",
    )?;
    let folder = paths::target()?.join("ansible");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let play = folder.join("rollout.yml");
    fs::write(&play, documented_play()?)
        .with_context(|| format!("cannot write {}", play.display()))?;
    process::step("rollout play, with a patch that is good", || {
        let (ended_well, patched, said) = rollout(&folder, &play, monitor, PATCHES, None)?;
        ensure!(
            ended_well && patched == HOSTS,
            "the play must patch {HOSTS} hosts, and patched {patched}:\n{said}"
        );
        Ok(())
    })?;
    process::step("rollout play, with a patch that kills its host", || {
        // The host is seen in transition before it dies.
        let kills = "curl -fsS -X POST \"$url/patch?seconds=inf\"; sleep 6; \
                     curl -fsS -X POST $url/crash";
        let (ended_well, patched, said) = rollout(&folder, &play, monitor, kills, None)?;
        ensure!(
            !ended_well && patched == 1,
            "the play must end with its first host, and reached {patched}:\n{said}"
        );
        ensure!(
            said.contains("hold") && said.contains(&instance(0)),
            "the play does not say why it ended:\n{said}"
        );
        Ok(())
    })?;
    // An unreachable host, as a patch may leave it. By default Ansible would continue to the next
    // wave.
    process::step("rollout play, with a host that cannot be reached", || {
        let (ended_well, patched, said) = rollout(&folder, &play, monitor, PATCHES, Some(THIRD))?;
        ensure!(
            !ended_well && patched == THIRD && said.contains("UNREACHABLE"),
            "the play must end with the third wave, and reached {patched} hosts:\n{said}"
        );
        Ok(())
    })
}

/// Whether the playbook succeeded, how many hosts it touched, and its output.
fn rollout(
    folder: &Path,
    play: &Path,
    monitor: &Path,
    install: &str,
    unreachable: Option<usize>,
) -> Result<(bool, usize, String)> {
    let fleet = Fleet::start(HOSTS, PATCH)?;
    let prometheus = fleet.prometheus(folder, INTERVAL)?;
    let all = format!("count(up == 1) == {HOSTS}");
    wait_for("the first scrape of all hosts", PATIENCE, || {
        prometheus.value(&all)
    })?;
    let url = fleet.url();
    let inventory = folder.join("hosts");
    let mut hosts = String::from("[livepatch]\n");
    for host in 0..HOSTS {
        let way = match unreachable == Some(host) {
            // Nothing listens on that port.
            true => "ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1",
            false => "ansible_connection=local ansible_python_interpreter=/usr/bin/python3",
        };
        let _ = writeln!(hosts, "{} {way}", instance(host));
    }
    fs::write(&inventory, hosts)
        .with_context(|| format!("cannot write {}", inventory.display()))?;
    let install = format!("url={url}/host/{{{{ inventory_hostname }}}}; {install}");
    let variables = json!({
        "patch": PATCH,
        "install": install,
        // A simulated host has no kernel to wait for.
        "wait": "true",
        "prometheus": prometheus.url(),
        "gate": monitor,
        "terms": TERMS,
    });
    let output = Command::new("ansible-playbook")
        .arg("--inventory")
        .arg(&inventory)
        .arg("--extra-vars")
        .arg(variables.to_string())
        .arg(play)
        .env("ANSIBLE_NOCOLOR", "1")
        .env("ANSIBLE_LOCALHOST_WARNING", "False")
        // Ansible needs a UTF-8 locale.
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .context("cannot start ansible-playbook")?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), touched(&url)?, said))
}

/// The number of hosts that are no longer in their initial state.
fn touched(url: &str) -> Result<usize> {
    let port = url.rsplit_once(':').context("a URL without a port")?.1;
    let port = port.parse().context("the port is not a number")?;
    let hosts: serde_json::Value =
        serde_json::from_str(&http::get(port, "/hosts")?).context("/hosts")?;
    let hosts = hosts.as_array().context("/hosts is not a list")?;
    let touched = hosts.iter().filter(|host| host["state"] != "unpatched");
    Ok(touched.count())
}

/// The playbook in docs/gate.md.
fn documented_play() -> Result<String> {
    let path: PathBuf = paths::root()?.join("docs/gate.md");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    match play(&text) {
        Some(play) => Ok(play.to_owned()),
        None => bail!("{} shows no play", path.display()),
    }
}

fn play(text: &str) -> Option<&str> {
    let mut blocks = text.split("```yaml\n").skip(1);
    let ended = |block: &'_ str| block.split_once("```").map(|(block, _)| block.len());
    blocks.find_map(|block| {
        let block = &block[..ended(block)?];
        block.contains("serial:").then_some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_play_is_found_among_other_blocks() {
        let text = "```yaml\na: 1\n```\nx\n```yaml\n- serial: [1]\n```\n```\nserial:\n```\n";
        assert_eq!(play(text), Some("- serial: [1]\n"));
        assert_eq!(play("no play"), None);
        documented_play().unwrap();
    }
}
