//! What comes behind the end of a panic, which ends a boot.

use super::{
    super::{super::signal::Signal, headline::Sign, line::Line},
    Event,
};

/// A boot that ended with a panic says nothing more after as long as this.
const SILENCE_SECONDS: f64 = 300.0;

impl Event {
    /// The last line of panic(): the machine stops or restarts.
    pub(in super::super) fn panic_ends(&mut self, line: &Line) {
        self.over = true;
        self.part(line);
    }

    /// Whether a report's first line is of the boot behind the panic, the first lines of
    /// which are not in the log: the clock has gone back or far ahead, the kernel panics
    /// a second time, or counts its oopses anew.
    pub(in super::super) fn is_before_boot_of(&self, sign: &Sign, line: &Line) -> bool {
        if self.panic.is_none() || !self.over {
            return false;
        }
        let back = self.part_at.zip(line.uptime).is_some_and(|(a, b)| b < a);
        let later = self.seconds_since(line);
        let elsewhen = back || later.is_some_and(|later| later > SILENCE_SECONDS);
        match sign {
            Sign::Panic(_) => true,
            Sign::Die => elsewhen || self.died && line.text.contains("[#1]"),
            Sign::Start(signal, _) => {
                elsewhen || self.died && *signal == Signal::Oops && line.clock.is_none()
            }
            Sign::Report(..) => elsewhen,
            Sign::Boot { .. } | Sign::EndTrace | Sign::EndPanic(_) => false,
        }
    }
}
