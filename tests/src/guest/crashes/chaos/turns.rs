//! A transition that tasks hold up in both directions, reversed repeatedly.

use anyhow::Result;

use crate::{
    eventually::seconds, exposition::Exposition, files, guest::Guest, helpers::Hold,
    livepatch::PATCH_A, scenarios::clock::expect_between, target,
};

const REVERSALS: &str = "livepatch_transition_reversals_total";

const PENDING: &str = "livepatch_pending_tasks";

/// How often the transition was reversed.
#[derive(Debug, Default)]
pub(super) struct Turns {
    turns: u32,
    /// Number of reversals before the start of the monitor that counts them.
    before: u32,
}

impl Turns {
    /// Starts the transition to a patch, which can then complete in neither direction.
    pub(super) fn begin(guest: &mut Guest) -> Result<Self> {
        target::load()?;
        guest.hold(&Hold::ONE)?;
        PATCH_A.load()?;
        guest.wait_start_noted(1.0)?;
        // It starts in the new function, so it holds up the transition back.
        guest.hold(&Hold::ONE)?;
        let mut turns = Self::default();
        turns.turn()?;
        turns.wait_counted(guest)?;
        Ok(turns)
    }

    /// Reverses the transition.
    pub(super) fn turn(&mut self) -> Result<()> {
        let enabled = match self.is_back() {
            true => "1",
            false => "0",
        };
        files::write("/sys/kernel/livepatch/lpm_patch_a/enabled", enabled)?;
        self.turns += 1;
        Ok(())
    }

    /// Reverses it, and waits until the monitor has counted that.
    pub(super) fn turn_counted(&mut self, guest: &mut Guest) -> Result<Exposition> {
        self.turn()?;
        self.wait_counted(guest)
    }

    fn wait_counted(&self, guest: &mut Guest) -> Result<Exposition> {
        let metrics = guest.wait_for(seconds(20), REVERSALS, self.counted())?;
        self.expect(&metrics)?;
        Ok(metrics)
    }

    /// Every reversal is counted once, and the transition runs in the last direction.
    pub(super) fn expect(&self, metrics: &Exposition) -> Result<()> {
        metrics.expect(REVERSALS, self.counted())?;
        self.expect_running(metrics)?;
        metrics.expect("livepatch_monitor_events_lost_total", 0.0)
    }

    /// A second monitor has started: it knows when the transition started, and counts nothing again
    /// that the first one counted.
    pub(super) fn expect_taken_over(&mut self, guest: &mut Guest, begun: f64) -> Result<()> {
        self.before = self.turns;
        let metrics = guest.wait_for(seconds(20), PENDING, 1.0)?;
        metrics.expect(REVERSALS, 0.0)?;
        self.expect_running(&metrics)?;
        metrics.expect_sum("livepatch_crash_signals_total", 0.0)?;
        expect_between(
            "the start of the transition",
            start(&metrics)?,
            begun,
            begun,
        )
    }

    /// The transition runs in the last direction.
    fn expect_running(&self, metrics: &Exposition) -> Result<()> {
        let direction = match self.is_back() {
            true => "unpatch",
            false => "patch",
        };
        let active = "livepatch_transition_active";
        metrics.expect_sum(active, 1.0)?;
        metrics.expect(
            &format!("{active}{{patch=lpm_patch_a,direction={direction}}}"),
            1.0,
        )
    }

    fn counted(&self) -> f64 {
        f64::from(self.turns - self.before)
    }

    fn is_back(&self) -> bool {
        !self.turns.is_multiple_of(2)
    }
}

/// When the transition started.
pub(super) fn start(metrics: &Exposition) -> Result<f64> {
    metrics.get("livepatch_transition_start_timestamp_seconds{patch=lpm_patch_a}")
}
