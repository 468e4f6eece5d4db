//! What the service took in and what it refused.

use serde::{Deserialize, Serialize};

/// What was refused and why, for the statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Reports taken in.
    pub accepted: u64,
    /// Reports that came again.
    pub duplicates: u64,
    /// Messages that did not authenticate.
    pub forged: u64,
    /// Messages that made no sense.
    pub malformed: u64,
    /// Messages of devices that nobody registered.
    pub unknown: u64,
    /// Challenges sent.
    pub challenged: u64,
    /// Messages of devices that are revoked, or reset and not enrolled again.
    pub silenced: u64,
    /// Enrolments with a claim that nobody made, or without its token.
    pub unclaimed: u64,
    /// Times given to devices that share no code with the service yet.
    pub timed: u64,
    /// Times not given, for too many were asked for.
    pub untimed: u64,
    /// Enrolments with the right token that were refused: expired, used up, revoked, another kind, queue full.
    pub turned_away: u64,
    /// Secrets agreed on and keys derived: a few for each boot of a device. What junk may not bring about.
    pub derived: u64,
}

impl Counters {
    /// Returns how many enrolments by a claim were refused, whyever.
    pub fn refused(&self) -> u64 {
        self.unclaimed + self.turned_away
    }
}
