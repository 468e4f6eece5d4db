//! Time alone: a phase opens when its time has come, whatever was seen. Mender's phases are like that (percent and
//! start time; its open model of a deployment has neither phases nor a threshold).

use super::{Move, Rule, SOAK, Seen, reaches};

/// Opens a phase every 24 h.
#[derive(Debug, Default)]
pub struct TimeOnly {
    reaches: Vec<usize>,
    opened: usize,
}

impl Rule for TimeOnly {
    fn begin(&mut self, fleet: usize) -> Move {
        self.reaches = reaches(fleet);
        self.opened = 1;
        Move::Offer(self.reaches[0])
    }

    fn see(&mut self, at: u64, seen: Seen) -> Move {
        if seen != Seen::Clock || self.wakes_at().is_none_or(|due| at < due) {
            return Move::Nothing;
        }
        self.opened += 1;
        Move::Offer(self.reaches[self.opened - 1])
    }

    fn wakes_at(&self) -> Option<u64> {
        (self.opened < self.reaches.len()).then_some(self.opened as u64 * SOAK)
    }
}
