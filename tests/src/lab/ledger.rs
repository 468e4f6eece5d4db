//! The ledger as its files tell it, added up again by other means than the service's.

use std::collections::BTreeMap;

use tern_controller::api::types::LedgerFrame;
use tern_controller::core::fact::Fact;
use tern_protocol::message::ReportKind;
use tern_protocol::state::{Outcome, StateName};

use super::Lab;

/// What one device did in one rollout.
#[derive(Debug, Clone, Copy, Default)]
pub struct Part {
    /// Its start stands.
    pub started: bool,
    /// Its outcome.
    pub outcome: Option<Outcome>,
}

/// Counters of a rollout, added up here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// Devices whose start stands.
    pub started: u64,
    /// Of those, confirmed.
    pub good: u64,
    /// Of those, failed or rolled back.
    pub bad: u64,
    /// Of those, recalled.
    pub recalled: u64,
}

/// Everything that devices said, by device and number.
#[derive(Debug, Default)]
pub struct Heard {
    next: u64,
    /// Reports by device and number.
    pub reports: BTreeMap<(String, u64), ReportKind>,
    /// Numbers that are in the ledger more than once.
    pub doubled: Vec<(String, u64)>,
    /// By device: reports that arrived after a later one, as happens when nobody was there to hear them first.
    pub overtaken: BTreeMap<String, u64>,
    /// By rollout and device.
    pub parts: BTreeMap<String, BTreeMap<String, Part>>,
}

impl Heard {
    /// Returns what would be heard of these reports, each once and in order.
    pub fn of(reports: &BTreeMap<(String, u64), ReportKind>) -> Self {
        let mut heard = Self::default();
        reports.iter().for_each(|((device, n), report)| heard.take(device, *n, report.clone()));
        heard
    }

    /// Reads the frames that came since the last time, from the files.
    pub fn read(&mut self, lab: &Lab) {
        let (data, from) = (lab.data().display().to_string(), self.next.to_string());
        let ran =
            lab.run(&["--json", "ledger", "show", "--data", &data, "--from", &from, "--limit", "1000000"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        for line in ran.out.lines() {
            let frame: LedgerFrame = serde_json::from_str(line).expect("a frame");
            assert_eq!(frame.seq, self.next, "the ledger has a gap");
            self.next += 1;
            if let Fact::Reported { device, n, report, .. } = frame.entry.fact {
                self.take(device.as_str(), n, report);
            }
        }
    }

    fn take(&mut self, device: &str, n: u64, report: ReportKind) {
        if let Some(attempt) = report.attempt() {
            let parts = self.parts.entry(attempt.rollout.to_string()).or_default();
            let part = parts.entry(device.to_owned()).or_default();
            match &report {
                ReportKind::Started { .. } | ReportKind::Transition { to: StateName::VerifyPost, .. } => {
                    part.started |= part.outcome.is_none();
                }
                // Takes the start back; the device will start again.
                ReportKind::Outcome { outcome: Outcome::Deferred, .. } => part.started = false,
                ReportKind::Outcome { outcome, .. } => part.outcome = part.outcome.or(Some(*outcome)),
                _ => {}
            }
        }
        let later = self.reports.range((device.to_owned(), n + 1)..).next();
        if later.is_some_and(|((other, _), _)| other == device) {
            *self.overtaken.entry(device.to_owned()).or_default() += 1;
        }
        if self.reports.insert((device.to_owned(), n), report).is_some() {
            self.doubled.push((device.to_owned(), n));
        }
    }

    /// Adds up a rollout.
    pub fn sum(&self, rollout: &str) -> Sum {
        let mut sum = Sum::default();
        for part in self.parts.get(rollout).into_iter().flat_map(BTreeMap::values).filter(|p| p.started) {
            sum.started += 1;
            match part.outcome {
                Some(Outcome::Success) => sum.good += 1,
                Some(Outcome::Failed | Outcome::RolledBack) => sum.bad += 1,
                Some(Outcome::Recalled) => sum.recalled += 1,
                _ => {}
            }
        }
        sum
    }

    /// Follows every device from state to state in the order of its numbers. A report that is missing, or that
    /// was counted under two numbers, breaks the walk; says where.
    pub fn broken_walks(&self) -> Vec<String> {
        let mut at: BTreeMap<&str, StateName> = BTreeMap::new();
        let mut broken = Vec::new();
        for ((device, n), report) in &self.reports {
            let ReportKind::Transition { from, to, .. } = report else { continue };
            let before = at.insert(device, *to).unwrap_or(StateName::Idle);
            if before != *from {
                broken.push(format!("{device}, report {n}: from {from} to {to}, but it was in {before}"));
            }
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::message::{Attempt, Nonce};

    fn attempt() -> Attempt {
        Attempt { rc: 2, rollout: "r".parse().unwrap(), attempt: 1 }
    }

    fn step(from: StateName, to: StateName) -> ReportKind {
        ReportKind::Transition { attempt: attempt(), from, to, reason: None }
    }

    fn heard(reports: &[(u64, ReportKind)]) -> Heard {
        let mut heard = Heard::default();
        reports.iter().for_each(|(n, report)| heard.take("dev-1", *n, report.clone()));
        heard
    }

    #[test]
    fn a_report_that_is_missing_or_stands_twice_is_noticed() {
        use StateName::{Checking, Downloading, Idle, Verifying};
        let walk =
            [(1, step(Idle, Checking)), (4, step(Checking, Downloading)), (5, step(Downloading, Verifying))];
        let missing = [walk[0].clone(), walk[2].clone()];
        let again = [walk[0].clone(), walk[1].clone(), (6, step(Checking, Downloading))];
        let doubled = [walk[0].clone(), walk[0].clone()];

        assert_eq!(heard(&walk).broken_walks().len(), 0);
        assert_eq!(heard(&missing).broken_walks().len(), 1);
        assert_eq!(heard(&again).broken_walks().len(), 1);
        assert_eq!(heard(&doubled).doubled, [("dev-1".to_owned(), 1)]);
    }

    #[test]
    fn a_start_that_was_taken_back_is_not_counted_and_a_second_outcome_changes_nothing() {
        let started = |n| (n, ReportKind::Started { nonce: Nonce([0; 16]), attempt: attempt() });
        let ended = |n, outcome| (n, ReportKind::Outcome { attempt: attempt(), outcome, reason: None });

        let deferred = heard(&[started(1), ended(2, Outcome::Deferred)]).sum("r");
        let once =
            heard(&[started(1), started(2), ended(3, Outcome::Success), ended(4, Outcome::Failed)]).sum("r");

        assert_eq!(deferred, Sum::default());
        assert_eq!(once, Sum { started: 1, good: 1, ..Sum::default() });
    }
}
