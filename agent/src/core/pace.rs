//! How fast a download may be, in the long run: nothing more is asked for until what was asked for last would be here.

use tern_protocol::message::{Get, Want};

/// When more may be asked for.
#[derive(Debug, Default)]
pub(super) struct Pace {
    not_before: u64,
}

impl Pace {
    /// Returns how many packs, of `each` bytes, one request may ask for: a second's worth.
    pub(super) fn most(rate: Option<u64>, each: u64) -> u32 {
        rate.map_or(u32::MAX, |rate| u32::try_from(rate / each).unwrap_or(u32::MAX).max(1))
    }

    pub(super) fn asked(&mut self, get: &Get, each: u64, rate: Option<u64>, uptime: u64) {
        let packs = |want: &Want| match want {
            Want::Packs { ranges, .. } => ranges.iter().map(|(from, to)| u64::from(to - from)).sum(),
            _ => 0,
        };
        let bytes = get.want.iter().map(packs).sum::<u64>() * each;
        if let Some(rate) = rate.filter(|rate| *rate > 0) {
            self.not_before = uptime + bytes * 1000 / rate;
        }
    }

    pub(super) fn not_before(&self) -> u64 {
        self.not_before
    }
}
