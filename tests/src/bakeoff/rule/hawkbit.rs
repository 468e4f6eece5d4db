//! Eclipse hawkBit, as its code at 67ca1c43 (2026-08) does it: `ThresholdRolloutGroupErrorCondition` trips when ERROR
//! actions are more than the threshold of ALL targets of a group; `ThresholdRolloutGroupSuccessCondition` opens the
//! next group when FINISHED ones are at least the threshold of all. Error is looked at first, in every running group. A
//! group whose actions have all ended opens the next one whatever they came to. There is no time in it: neither a soak
//! nor a time-out. `RolloutGroupConditionBuilder.withDefaults` sets both thresholds to 50 %.

use super::{Move, Rule, Seen, reaches};

#[derive(Debug, Default, Clone, Copy)]
struct Group {
    targets: usize,
    finished: usize,
    errors: usize,
}

/// The rule.
#[derive(Debug)]
pub struct HawkBit {
    error_percent: usize,
    success_percent: usize,
    groups: Vec<Group>,
    opened: usize,
}

impl HawkBit {
    /// With its defaults.
    pub fn defaults() -> Self {
        Self::new(50, 50)
    }

    /// With these thresholds, in percent.
    pub fn new(error_percent: usize, success_percent: usize) -> Self {
        Self { error_percent, success_percent, groups: Vec::new(), opened: 0 }
    }

    fn reach(&self) -> usize {
        self.groups[..self.opened].iter().map(|group| group.targets).sum()
    }

    fn group_of(&mut self, rank: usize) -> Option<&mut Group> {
        let mut end = 0;
        self.groups.iter_mut().find(|group| {
            end += group.targets;
            rank < end
        })
    }
}

impl Rule for HawkBit {
    fn begin(&mut self, fleet: usize) -> Move {
        let reaches = reaches(fleet);
        let before = std::iter::once(0).chain(reaches.iter().copied());
        self.groups = reaches
            .iter()
            .zip(before)
            .map(|(reach, before)| Group { targets: reach - before, ..Group::default() })
            .collect();
        self.opened = 1;
        Move::Offer(self.reach())
    }

    fn see(&mut self, _: u64, seen: Seen) -> Move {
        match seen {
            Seen::Succeeded(rank) => {
                if let Some(group) = self.group_of(rank) {
                    group.finished += 1;
                }
            }
            Seen::Failed(rank) => {
                if let Some(group) = self.group_of(rank) {
                    group.errors += 1;
                }
            }
            Seen::Started(_) | Seen::TimedOut(_) | Seen::Clock => return Move::Nothing,
        }
        let running = &self.groups[..self.opened];
        if running.iter().any(|group| group.errors * 100 > self.error_percent * group.targets) {
            return Move::Pause;
        }
        let last = running[self.opened - 1];
        let ended = last.finished + last.errors >= last.targets;
        if self.opened < self.groups.len()
            && (ended || last.finished * 100 >= self.success_percent * last.targets)
        {
            self.opened += 1;
            return Move::Offer(self.reach());
        }
        Move::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_against_all_targets_so_a_hundred_of_a_thousand_are_no_more_than_ten_percent() {
        let mut rule = HawkBit::new(10, 50);
        assert_eq!(rule.begin(100_000), Move::Offer(1000));
        assert!((0..100).all(|rank| rule.see(0, Seen::Failed(rank)) == Move::Nothing));
        assert_eq!(rule.see(0, Seen::Failed(100)), Move::Pause);
    }

    #[test]
    fn half_of_a_group_opens_the_next_though_the_other_half_is_silent() {
        let mut rule = HawkBit::defaults();
        rule.begin(100_000);
        assert!((0..499).all(|rank| rule.see(0, Seen::Succeeded(rank)) == Move::Nothing));
        assert_eq!(rule.see(0, Seen::Succeeded(499)), Move::Offer(10_000));
    }
}
