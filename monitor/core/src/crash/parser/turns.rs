//! Detects lines of two machines, or of two boots, that alternate in a log without names: its clock
//! goes back and forth.

/// Lines of different CPUs are out of order by less than this.
const BACK_SECONDS: f64 = 5.0;
/// Lines within which the clock must return to its former time.
const SOON: u32 = 32;
/// A new boot may by chance continue where the one before ended, once.
const FEWEST: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Turns {
    last: f64,
    /// The clock's time before it went back, and the number of lines since.
    before: Option<(f64, u32)>,
    turns: u32,
}

impl Turns {
    pub(super) fn line(&mut self, uptime: f64) {
        let last = std::mem::replace(&mut self.last, uptime);
        if uptime + BACK_SECONDS < last {
            self.before = Some((last, 0));
        } else if let Some((before, lines)) = &mut self.before {
            *lines += 1;
            if last + BACK_SECONDS < *before && uptime >= *before {
                self.turns += 1;
                self.before = None;
            } else if *lines > SOON {
                self.before = None;
            }
        }
    }

    pub(super) const fn are_taken(&self) -> bool {
        self.turns >= FEWEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn are_taken(uptimes: &[f64]) -> bool {
        let mut turns = Turns::default();
        uptimes.iter().for_each(|uptime| turns.line(*uptime));
        turns.are_taken()
    }

    #[test]
    fn a_clock_that_goes_back_and_forth() {
        assert!(are_taken(&[400.0, 0.1, 400.1, 0.2, 400.2]));
        assert!(!are_taken(&[1.0, 400.0, 0.1, 2.0, 401.0, 402.0]));
        assert!(!are_taken(&[1.0, 9.0, 0.1, 5.0, 9.0, 0.1, 5.0, 9.0]));
        assert!(!are_taken(&[100.0, 96.0, 100.0, 96.0, 100.0]));
    }
}
