//! `kernel.kptr_restrict=2`: the kernel shows no address to anybody, root included.

use anyhow::{Result, ensure};

use crate::{
    counters::{ATTEMPT, Counters},
    eventually::seconds,
    files,
    guest::Guest,
    helpers::Hold,
    kernel,
    livepatch::{PATCH_A, VMLINUX},
    monitor,
    probes::Probes,
    target,
};

const KPTR_RESTRICT: &str = "/proc/sys/kernel/kptr_restrict";

pub(super) fn addresses_are_hidden(guest: &mut Guest) -> Result<()> {
    let before = files::read(KPTR_RESTRICT)?;
    files::write(KPTR_RESTRICT, "2")?;
    let result = hidden(guest);
    files::write(KPTR_RESTRICT, before.trim())?;
    result
}

fn hidden(guest: &mut Guest) -> Result<()> {
    let counters = Counters::of(&[ATTEMPT])?;
    guest.start_monitor(&["--stuck-after", "3s"])?;
    target::load()?;
    let holder = guest.hold(&Hold::ONE)?;
    PATCH_A.load()?;
    let metrics = guest.wait_for(seconds(40), "livepatch_stuck_tasks", 1.0)?;
    // Functions are hooked by name. Before 6.0 a trampoline would keep livepatches out.
    let method = match kernel::is_since(6, 0)? {
        true => "fentry",
        false => "kprobe",
    };
    let probes = Probes::read()?;
    for probe in ["klp_init_transition", "klp_try_complete_transition"] {
        probes.expect(probe, method)?;
    }
    metrics.expect(
        "livepatch_monitor_probe_attached{probe=task_scan,method=none}",
        0.0,
    )?;
    metrics.expect(
        "livepatch_transition_active{patch=lpm_patch_a,direction=patch}",
        1.0,
    )?;
    target::expect_blocker_named(&metrics)?;
    let blockers = monitor::blockers()?;
    let task = blockers.task(holder.pid)?;
    ensure!(
        task.object.as_deref() == Some("lpm_target")
            && task.function.as_deref() == Some("lpm_hold")
            && task.stack.iter().any(|line| line.starts_with("lpm_hold+")),
        "{task:?}"
    );
    let log = monitor::log();
    ensure!(
        log.contains("kernel.kptr_restrict"),
        "the log does not say why: {log}"
    );
    // Without addresses the functions cannot be checked, so nothing is called clear.
    let answer = monitor::command(&["preflight", "--sample", "0s", "/modules/lpm_vmlinux.ko"])?;
    let text = String::from_utf8_lossy(&answer.output);
    ensure!(
        answer.code == 2 && text.contains("kptr_restrict"),
        "preflight ended with {} and said {text}",
        answer.code
    );
    target::release()?;
    PATCH_A.wait_transition_done(seconds(30))?;
    VMLINUX.apply(seconds(30))?;
    VMLINUX.remove(seconds(30))?;
    let all = "livepatch_transitions_total";
    let metrics = guest.wait_for(seconds(10), all, 3.0)?;
    metrics.expect_at_rest("lpm_patch_a")?;
    Probes::read()?.expect_received("klp_init_transition", 3.0)?;
    metrics.expect(
        "livepatch_transition_attempts_total",
        counters.metric(ATTEMPT)?,
    )
}
