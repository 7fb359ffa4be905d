//! The power fails without warning.

use std::{collections::BTreeSet, io::Write as _};

use anyhow::ensure;
use livepatch_monitor_tests::protocol::{Injection, Message};

use super::*;
use crate::{exposition::ended, helpers::Hold, livepatch::PATCH_A, probes::Probes, target};
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

/// Repeatedly, at each stage of a livepatch and at random moments between them: one record each,
/// with the stage in which the power failed.
pub(super) mod power_cuts {
    use super::*;

    /// The range from before the load of the patch to after the kernel's second attempt.
    const LATEST: u64 = 3000;

    /// What has happened, one line per boot and stage, on the disk before anything else happens.
    const STAGES: &str = "/var/lib/power-cuts";

    /// The stage that a boot has reached. The stages whose names begin with `To` have started, and
    /// the monitor may or may not have recorded their outcome.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    enum Stage {
        Unpatched,
        ToTransition,
        /// A task holds up the transition to the patch, and the monitor has recorded that.
        Transition,
        ToPatched,
        /// The patch is in force, and the monitor has recorded that.
        Patched,
        ToUnpatching,
        /// A task holds up the transition from the patch, and the monitor has recorded that.
        Unpatching,
    }
    use Stage::{
        Patched, ToPatched, ToTransition, ToUnpatching, Transition, Unpatched, Unpatching,
    };

    impl Stage {
        /// The phases that the record may have, each with the patch in transition.
        fn phases(self) -> &'static [(&'static str, Option<&'static str>)] {
            const RUNNING: Option<&str> = Some("lpm_patch_a");
            match self {
                Unpatched => &[("unpatched", None)],
                ToTransition => &[("unpatched", None), ("load", None), ("transition", RUNNING)],
                Transition | Unpatching => &[("transition", RUNNING)],
                ToPatched | ToUnpatching => &[("transition", RUNNING), ("soak", None)],
                Patched => &[("soak", None)],
            }
        }
    }

    /// When the power fails.
    #[derive(Clone, Copy, Debug)]
    enum Moment {
        /// When this stage is reached.
        At(Stage),
        /// Some time after the first.
        Random,
    }

    /// Each stage in turn, from boot to boot.
    const MOMENTS: [Moment; 5] = [
        Moment::At(Unpatched),
        Moment::At(Transition),
        Moment::At(Patched),
        Moment::At(Unpatching),
        Moment::Random,
    ];

    #[derive(Debug, Serialize, Deserialize)]
    struct Reached {
        boot_id: String,
        stage: Stage,
    }

    pub(in super::super) fn provoke(guest: &mut Guest) -> Result<()> {
        let boots: BTreeSet<String> = reached()?.into_iter().map(|one| one.boot_id).collect();
        let moment = MOMENTS
            .get(boots.len() % MOMENTS.len())
            .context("no moment")?;
        guest.note(format!("the power goes: {moment:?}"))?;
        guest.start_monitor(&[])?;
        target::load()?;
        guest.hold(&Hold::ONE)?;
        reach(guest, *moment, Unpatched)?;
        if let Moment::Random = moment {
            cut(guest, random()? % LATEST)?;
        }

        reach(guest, *moment, ToTransition)?;
        PATCH_A.load()?;
        guest.wait_start_noted(1.0)?.expect(
            "livepatch_transition_active{patch=lpm_patch_a,direction=patch}",
            1.0,
        )?;
        // A second attempt shows the monitor that the module's init has returned. Until then
        // the patch is being loaded.
        guest.wait_until(seconds(30), |_| {
            let attempts = Probes::read()?.received("klp_try_complete_transition")?;
            ensure!(attempts >= 2.0, "{attempts} attempts");
            Ok(())
        })?;
        guest.wait_idle()?;
        reach(guest, *moment, Transition)?;

        reach(guest, *moment, ToPatched)?;
        target::release()?;
        PATCH_A.wait_transition_done(seconds(30))?;
        guest.wait_for(seconds(20), &ended("patch", "completed"), 1.0)?;
        guest.wait_idle()?;
        reach(guest, *moment, Patched)?;

        target::hold()?;
        guest.hold(&Hold::ONE)?;
        reach(guest, *moment, ToUnpatching)?;
        PATCH_A.disable()?;
        guest.wait_start_noted(2.0)?.expect(
            "livepatch_transition_active{patch=lpm_patch_a,direction=unpatch}",
            1.0,
        )?;
        reach(guest, *moment, Unpatching)?;
        expect_end()
    }

    /// Records a stage on the disk; the power fails here if this is the moment.
    fn reach(guest: &Guest, moment: Moment, stage: Stage) -> Result<()> {
        let reached = Reached {
            boot_id: persistent::boot_id()?,
            stage,
        };
        let line = serde_json::to_string(&reached).context("cannot encode a stage")?;
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(STAGES)
            .with_context(|| format!("cannot open {STAGES}"))?;
        writeln!(file, "{line}").with_context(|| format!("cannot write {STAGES}"))?;
        file.sync_all()
            .with_context(|| format!("cannot sync {STAGES}"))?;
        match moment {
            Moment::At(here) if here == stage => {
                cut(guest, 0)?;
                expect_end()
            }
            _ => Ok(()),
        }
    }

    fn reached() -> Result<Vec<Reached>> {
        match fs::read_to_string(STAGES) {
            // The stage of a line that the power cut truncated was not reached yet.
            Ok(text) => Ok(text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("cannot read {STAGES}")),
        }
    }

    pub(in super::super) fn verify(guest: &mut Guest, memo: &Memo) -> Result<()> {
        guest.start_monitor(&[])?;
        let crashes = expected::list(memo.boot_ids.len())?;
        let ids: BTreeSet<_> = crashes.iter().map(|crash| &crash.id).collect();
        ensure!(ids.len() == crashes.len(), "an id twice: {crashes:?}");
        let reached = reached()?;
        for boot in &memo.boot_ids {
            let last = reached.iter().rfind(|one| one.boot_id == *boot);
            let stage = last
                .with_context(|| format!("boot {boot} reached nothing"))?
                .stage;
            let mut records = crashes
                .iter()
                .filter(|crash| crash.boot_id.as_ref() == Some(boot));
            let (Some(crash), None) = (records.next(), records.next()) else {
                bail!("boot {boot} should have one record: {crashes:?}");
            };
            let running = crash.transition.as_ref();
            let running = running.map(|running| running.patch.as_str());
            let right = stage
                .phases()
                .iter()
                .any(|(phase, patch)| crash.phase == *phase && running == *patch);
            ensure!(
                crash.kind == "reset" && right,
                "the power went at stage {stage:?}: a reset, {:?}, and not {crash:?}",
                stage.phases()
            );
            guest.note(format!("{stage:?}: phase {}", crash.phase))?;
        }
        fs::remove_file(STAGES).with_context(|| format!("cannot remove {STAGES}"))?;
        guest.kill_monitor()?;
        guest.start_monitor(&[])?;
        let again = expected::list(memo.boot_ids.len())?;
        ensure!(
            again == crashes,
            "another start changes {crashes:?} to {again:?}"
        );
        let all = u32::try_from(memo.boot_ids.len()).map_or(f64::NAN, f64::from);
        guest.scrape()?.expect_sum("livepatch_crashes_total", all)
    }

    fn random() -> Result<u64> {
        let mut bytes = [0; 8];
        let mut source = fs::File::open("/dev/urandom").context("no /dev/urandom")?;
        std::io::Read::read_exact(&mut source, &mut bytes).context("no random bytes")?;
        Ok(u64::from_le_bytes(bytes))
    }
}
