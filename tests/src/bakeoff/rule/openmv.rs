//! openmv-ota 1.0.7, `server/rollout.py`: a ramp of stages, each with a percentage, a least soak, a least number of
//! attempted devices and a ceiling. `ramp_action` pauses when failures / attempted of the stage's own window exceed the
//! ceiling (default 0.05, `failure_threshold`), and looks at that before it raises. Decided when a device checks in. The
//! ramp has no defaults but zeros: here every stage soaks for 24 h, as ours do.

use super::{Move, Rule, SOAK, Seen, reaches};

/// The rule.
#[derive(Debug, Default)]
pub struct OpenMv {
    reaches: Vec<usize>,
    stage: usize,
    entered: u64,
    attempted: u64,
    failures: u64,
}

const CEILING: f64 = 0.05;

impl Rule for OpenMv {
    fn begin(&mut self, fleet: usize) -> Move {
        self.reaches = reaches(fleet);
        Move::Offer(self.reaches[0])
    }

    fn see(&mut self, at: u64, seen: Seen) -> Move {
        match seen {
            Seen::Started(_) => self.attempted += 1,
            Seen::Failed(_) => self.failures += 1,
            // A fleet that polls every hour has somebody who checks in at any time.
            Seen::Succeeded(_) | Seen::Clock => {}
            Seen::TimedOut(_) => return Move::Nothing,
        }
        if self.attempted > 0 && self.failures as f64 / self.attempted as f64 > CEILING {
            return Move::Pause;
        }
        if self.stage + 1 < self.reaches.len() && at.saturating_sub(self.entered) >= SOAK {
            self.stage += 1;
            (self.entered, self.attempted, self.failures) = (at, 0, 0);
            return Move::Offer(self.reaches[self.stage]);
        }
        Move::Nothing
    }

    fn wakes_at(&self) -> Option<u64> {
        (self.stage + 1 < self.reaches.len()).then_some(self.entered + SOAK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_among_the_first_nineteen_pauses() {
        let mut rule = OpenMv::default();
        rule.begin(1000);
        assert!((0..19).all(|rank| rule.see(0, Seen::Started(rank)) == Move::Nothing));
        assert_eq!(rule.see(1, Seen::Failed(0)), Move::Pause);
    }
}
