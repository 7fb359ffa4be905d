//! The power goes, without a word.

use std::collections::BTreeSet;

use anyhow::ensure;
use livepatch_monitor_tests::protocol::{Injection, Message};

use super::*;
use crate::{helpers::Hold, livepatch::PATCH_A, target};
use expected::{Expected, expect_one};

fn cut(guest: &Guest, after_milliseconds: u64) -> Result<()> {
    guest.send(&Message::Inject {
        what: Injection::PowerCut,
        after_milliseconds,
    })?;
    guest.drain()
}

pub(super) mod power_cut_in_transition {
    use super::*;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        guest.start_monitor(&[])?;
        fatal::held(guest)?;
        cut(guest, 0)?;
        expect_end()
    }

    pub(in super::super) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
        expect_one(
            guest,
            memo,
            &Expected {
                implicated: "unknown",
                transition: Some("lpm_patch_a"),
                patch: Some("lpm_patch_a"),
                ..Expected::new("reset", "transition")
            },
        )
    }
}

/// Again and again, at any moment around a transition: a record each.
pub(super) mod power_cuts {
    use super::*;

    /// From before the load of the patch to after the kernel's second attempt.
    const LATEST: u64 = 3000;

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        guest.start_monitor(&[])?;
        target::load()?;
        guest.hold(&Hold::ONE)?;
        let after = random()? % LATEST;
        guest.note(format!("the power goes {after} ms from now"))?;
        cut(guest, after)?;
        PATCH_A.load()?;
        expect_end()
    }

    pub(in super::super) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
        guest.start_monitor(&[])?;
        let crashes = expected::list(memo.boot_ids.len())?;
        let ids: BTreeSet<_> = crashes.iter().map(|crash| &crash.id).collect();
        let boots: BTreeSet<_> = crashes
            .iter()
            .filter_map(|crash| crash.boot_id.as_ref())
            .collect();
        ensure!(
            ids.len() == crashes.len() && boots == memo.boot_ids.iter().collect(),
            "each of the boots {:?} should have one record: {crashes:?}",
            memo.boot_ids
        );
        for crash in &crashes {
            let known = ["unpatched", "load", "transition"].contains(&crash.phase.as_str());
            let running = crash.transition.as_ref();
            let right = running.is_none_or(|running| running.patch == "lpm_patch_a");
            ensure!(
                crash.kind == "reset" && known && right,
                "a reset around a transition of lpm_patch_a, and not {crash:?}"
            );
        }
        let phases: Vec<_> = crashes.iter().map(|crash| crash.phase.as_str()).collect();
        guest.note(format!("phases: {}", phases.join(", ")))?;
        guest.kill_monitor()?;
        guest.start_monitor(&[])?;
        let again = expected::list(memo.boot_ids.len())?;
        ensure!(
            again == crashes,
            "another start changes {crashes:?} to {again:?}"
        );
        guest.metrics(seconds(10), |metrics| {
            let all = u32::try_from(memo.boot_ids.len()).map_or(f64::NAN, f64::from);
            metrics.expect_sum("livepatch_crashes_total", all)
        })?;
        Ok(())
    }

    fn random() -> Result<u64> {
        let mut bytes = [0; 8];
        let mut source = fs::File::open("/dev/urandom").context("no /dev/urandom")?;
        std::io::Read::read_exact(&mut source, &mut bytes).context("no random bytes")?;
        Ok(u64::from_le_bytes(bytes))
    }
}
