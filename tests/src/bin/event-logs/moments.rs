//! Moments of one log, each used once: then there is no doubt which event killed.

use std::collections::BTreeSet;

/// Milliseconds at which something happens.
#[derive(Debug)]
pub(crate) struct Moments {
    used: BTreeSet<u64>,
    /// From a start to its early deadline.
    pub(crate) early: u64,
    /// From a start to its last deadline.
    pub(crate) last: u64,
}

impl Moments {
    pub(crate) fn new(early: u64, last: u64) -> Self {
        Self { used: BTreeSet::new(), early, last }
    }

    /// Takes the first free moment from `at` on; with it, the deadlines that follow if a device starts in it.
    pub(crate) fn take(&mut self, at: u64, starts: bool) -> u64 {
        let needs = |at| [at, at + self.early, at + self.last].into_iter().take(if starts { 3 } else { 1 });
        let free = (at..).find(|at| needs(*at).all(|moment| !self.used.contains(&moment)));
        let at = free.expect("moments do not run out");
        let needs: Vec<u64> = needs(at).collect();
        self.used.extend(needs);
        at
    }
}
