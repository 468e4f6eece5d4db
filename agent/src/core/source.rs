//! Whom to ask for packs: web servers that the device's owner has named, one after the other, then the broker.
//!
//! ```text
//! first prefix ── gives them ──► all here
//!    │  has it not, lies, leads elsewhere: at once · silent, broken off, overloaded: after FAILURES without a pack
//!    ▼
//! next prefix ─► … ─► the broker, as long as the attempt lasts; the reason is told when the download ends
//! ```
//! A web server is believed as little as a broker: what it gives leads to the signed root, or is thrown away. Prefixes come
//! from the configuration alone: no message can make a device ask a machine of somebody's choice. Which ways there are, and
//! which of them is the cheapest, the broker is asked: an answer to that is signed, and may be signed anew.

use std::collections::BTreeMap;

use tern_protocol::chunk::PieceId;
use tern_protocol::limits::REASON_MAX;
use tern_protocol::message::{Attempt, Get, PackKind, ReportKind, Want};
use tern_protocol::state::StateName;

use super::agent::{Agent, Output, Web, WebFailure, WebGet};
use super::fetch::Fetch;
use super::pace::Pace;
use super::timing::{Backoff, Now, Timing};

/// Whether this agent can ask web servers at all; where it cannot the compiler leaves the rest away.
const ENABLED: bool = cfg!(any(test, feature = "http-source"));
/// Requests that are under way at once on a quick link, each for its part of the window: while some are on their way there
/// another is answered. On a slow one all would come at once, and a cut would cost a part of each.
const OPEN: u32 = 4;
/// A link is quick if a pack takes less than this: 1 Mbit/s.
const QUICK: u64 = 500;
/// Failures that may pass, without a pack between them.
const FAILURES: u32 = 3;
/// Such failures of one server in an attempt, with packs between them: enough for a bad day, and then it is the broker's turn.
const FAILURES_IN_ALL: u32 = 16;

/// What has become of the sources in the present attempt.
#[derive(Debug, Default)]
pub(super) struct Sources {
    attempt: Option<Attempt>,
    /// Prefixes before this one are given up.
    prefix: usize,
    failures: u32,
    in_all: u32,
    pause: Option<Backoff>,
    not_before: u64,
    open: BTreeMap<u64, Open>,
    requests: u64,
    is_quick: bool,
    /// Why the last one was given up.
    why: Option<String>,
    /// Bytes of packs that have come this way for the present artifact.
    bytes: u64,
}

/// A request that is under way.
#[derive(Debug)]
struct Open {
    get: WebGet,
    asked: u64,
}

impl Open {
    fn packs(&self) -> u32 {
        self.get.ranges.iter().map(|(from, to)| to - from).sum()
    }
}

impl Sources {
    /// Forgets what was of another attempt.
    pub(super) fn begin(&mut self, attempt: &Attempt) {
        if ENABLED && self.attempt.as_ref() != Some(attempt) {
            // Numbers go on: what the requests before still say must not be taken for an answer to the next.
            let (requests, open) = (self.requests, std::mem::take(&mut self.open));
            *self = Self { attempt: Some(attempt.clone()), requests, open, ..Self::default() };
        }
    }

    pub(super) fn take_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }

    /// Returns how many packs may be asked for at once, `ceiling` of them being on their way at most.
    fn room(&self, ceiling: u32) -> u32 {
        let at_once = if self.is_quick { OPEN as usize } else { 1 };
        let open = self.open.values().map(Open::packs).sum();
        let part = (ceiling / OPEN).max(1);
        if self.open.len() < at_once { part.min(ceiling.saturating_sub(open)) } else { 0 }
    }

    fn opened(&mut self, get: WebGet, uptime: u64) -> u64 {
        self.requests += 1;
        self.open.insert(self.requests, Open { get, asked: uptime });
        self.requests
    }

    /// Takes note that a request was answered.
    fn ended(&mut self, request: u64, uptime: u64) {
        // They share the link.
        let at_once = self.open.len() as u64;
        let Some(open) = self.open.remove(&request) else { return };
        if let packs @ 1.. = u64::from(open.packs()) {
            self.is_quick = uptime.saturating_sub(open.asked) < QUICK * packs * at_once;
        }
    }

    fn gave(&mut self, bytes: u64) {
        self.failures = 0;
        self.pause = None;
        self.bytes += bytes;
    }

    /// Takes note of a failure; tells whether the server is given up.
    fn failed(&mut self, may_pass: bool, now: Now, timing: &Timing) -> bool {
        self.failures += 1;
        self.in_all += 1;
        self.is_quick = false;
        if !may_pass || self.failures >= FAILURES || self.in_all >= FAILURES_IN_ALL {
            let prefix = self.prefix + 1;
            (self.prefix, self.failures, self.in_all, self.pause, self.not_before) = (prefix, 0, 0, None, 0);
            return true;
        }
        // All requests fail when the server goes, and wait together.
        if now.uptime >= self.not_before {
            let first = || Backoff::new(timing.get_first, timing.get_most);
            self.not_before = now.uptime + self.pause.get_or_insert_with(first).step();
        }
        false
    }
}

impl WebGet {
    /// Takes of a request what is about objects.
    fn of(fetch: &Fetch, get: Get) -> Option<Self> {
        let asked = fetch.asked()?;
        let (parts, length) = asked.shape();
        let mut web = Self { of: asked.root(), parts, length, pieces: Vec::new(), ranges: Vec::new() };
        for want in get.want {
            match want {
                Want::Piece { level, index, .. } => web.pieces.push(PieceId { level, index }),
                Want::Packs { ranges, .. } => web.ranges.extend(ranges),
                Want::Delta { .. } | Want::File { .. } => {}
            }
        }
        Some(web)
    }

    /// Returns everything that is asked for.
    fn kinds(&self) -> impl Iterator<Item = PackKind> + '_ {
        let chunks = self.ranges.iter().flat_map(|(from, to)| *from..*to).map(PackKind::Chunk);
        self.pieces.iter().copied().map(PackKind::Piece).chain(chunks)
    }
}

impl Agent {
    /// Tells whether packs are asked of a web server at present.
    pub(super) fn asks_web(&self) -> bool {
        ENABLED
            && self.sources.prefix < self.settings.transfer.prefixes.len()
            && self.fetch.as_ref().is_some_and(|fetch| !fetch.only_asks())
    }

    /// Returns when there is something to ask of a web server, if nothing comes before.
    pub(super) fn web_due(&self, fetch: &Fetch, now: Now) -> u64 {
        if self.sources.room(self.settings.timing.window) == 0 {
            return u64::MAX;
        }
        // What has failed is to be asked for again, though nothing was held back.
        let due = if self.sources.not_before > now.uptime { 0 } else { fetch.due_in_order() };
        due.max(self.sources.not_before)
    }

    /// Asks for as much as may be on its way.
    pub(super) fn ask_web(&mut self, now: Now) {
        let (rate, prefix) = (self.settings.transfer.rate, self.sources.prefix);
        while now.uptime >= self.sources.not_before && now.uptime >= self.pace.not_before() {
            let room = self.sources.room(self.settings.timing.window);
            let Some(fetch) = self.fetch.as_mut().filter(|_| room > 0) else { return };
            let each = fetch.each();
            let most = Pace::most(rate, each).min(room);
            let Some(get) = fetch.request_in_order(now.uptime, most) else { return };
            self.pace.asked(&get, each, rate, now.uptime);
            let Some(get) = WebGet::of(fetch, get) else { return };
            let request = self.sources.opened(get.clone(), now.uptime);
            self.out.push(Output::Web { request, prefix, get });
        }
    }

    /// Takes what a web server gave.
    pub(super) fn web(&mut self, request: u64, said: Web, now: Now) {
        let Some(open) = self.sources.open.get(&request).filter(|_| ENABLED) else { return };
        let of = open.get.of.short();
        match said {
            Web::Pack(pack) => {
                let (kind, before) = (pack.kind, self.fetched);
                if pack.of == of {
                    self.take_pack(pack, now);
                }
                // What is right does not stay open, nor what has come by another way meanwhile.
                let download = self.fetch.as_mut().and_then(|fetch| fetch.download_of(of));
                if download.is_some_and(|download| download.awaits(kind)) {
                    let reason = "it gives other bytes than the object has".to_owned();
                    return self.web_failed(request, WebFailure { reason, may_pass: false }, now);
                }
                self.sources.gave(self.fetched.saturating_sub(before));
            }
            Web::Ended if self.forget(request) > 0 => {
                let reason = "it gives less than it was asked for".to_owned();
                self.web_failed(request, WebFailure { reason, may_pass: false }, now);
            }
            Web::Ended => self.sources.ended(request, now.uptime),
            Web::Failed(failure) => self.web_failed(request, failure, now),
        }
    }

    fn web_failed(&mut self, request: u64, failure: WebFailure, now: Now) {
        self.forget(request);
        self.sources.open.remove(&request);
        self.out.push(Output::StopWeb(request));
        let prefix = self.settings.transfer.prefixes.get(self.sources.prefix).cloned().unwrap_or_default();
        let gives_up = self.sources.failed(failure.may_pass, now, &self.settings.timing);
        let next = gives_up.then(|| {
            self.sources.why = Some(format!("{prefix}: {}", failure.reason));
            // Of the other requests at this server nothing is believed either.
            let open = std::mem::take(&mut self.sources.open);
            self.out.extend(open.into_keys().map(Output::StopWeb));
            if let Some(fetch) = &mut self.fetch {
                fetch.renew();
            }
            let next = self.settings.transfer.prefixes.get(self.sources.prefix);
            next.cloned().unwrap_or_else(|| "the broker".to_owned())
        });
        self.out.push(Output::WebFailed { prefix, reason: failure.reason, next });
    }

    /// What was asked for and is not here does not come by this request; returns how much that is.
    fn forget(&mut self, request: u64) -> usize {
        let Some(Open { get, .. }) = self.sources.open.get(&request) else { return 0 };
        let download = self.fetch.as_mut().and_then(|fetch| fetch.download_of(get.of.short()));
        download.map_or(0, |download| get.kinds().filter(|kind| download.forget(*kind)).count())
    }

    /// Stops requests for what is not fetched any more, or not from there.
    pub(super) fn stop_web(&mut self) {
        if !ENABLED || self.sources.open.is_empty() {
            return;
        }
        let (asks, fetch, out) = (self.asks_web(), &mut self.fetch, &mut self.out);
        self.sources.open.retain(|request, Open { get, .. }| {
            let is_wanted =
                asks && fetch.as_mut().is_some_and(|fetch| fetch.download_of(get.of.short()).is_some());
            if !is_wanted {
                out.push(Output::StopWeb(*request));
            }
            is_wanted
        });
    }

    /// Says in the report that ends a download why it did not come from where it should.
    pub(super) fn telling_of_sources(&mut self, mut said: Vec<ReportKind>) -> Vec<ReportKind> {
        for kind in said.iter_mut().filter(|_| ENABLED) {
            if let ReportKind::Transition { from: StateName::Downloading, reason: reason @ None, .. } = kind {
                *reason = self.sources.why.take();
                reason.iter_mut().for_each(|text| text.truncate(text.floor_char_boundary(REASON_MAX)));
            }
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use tern_protocol::digest::Digest;

    use super::*;

    fn at(uptime: u64) -> Now {
        Now { uptime, wall: 0 }
    }

    fn attempt(number: u32) -> Attempt {
        Attempt { rc: 2, rollout: "r2".parse().unwrap(), attempt: number }
    }

    fn get(ranges: &[(u32, u32)]) -> WebGet {
        WebGet { of: Digest([1; 32]), parts: 500, length: None, pieces: vec![], ranges: ranges.to_vec() }
    }

    #[test]
    fn what_will_not_pass_gives_a_server_up_at_once_and_what_may_after_some_failures_in_a_row() {
        let timing = Timing::default();
        let mut sources = Sources::default();
        assert!(sources.failed(false, at(0), &timing), "a lie is enough");
        assert_eq!(sources.prefix, 1);

        assert!(!sources.failed(true, at(0), &timing));
        assert_eq!(sources.not_before, timing.get_first, "then it is left alone for a while");
        assert!(!sources.failed(true, at(0), &timing), "the other request, at the same moment");
        assert_eq!(sources.not_before, timing.get_first);
        sources.gave(7);
        assert!(!sources.failed(true, at(20_000), &timing), "a pack between them");
        assert!(!sources.failed(true, at(40_000), &timing));
        assert!(sources.failed(true, at(80_000), &timing));
        assert_eq!((sources.prefix, sources.not_before), (2, 0));
    }

    #[test]
    fn a_server_that_fails_again_and_again_between_packs_is_given_up_too() {
        let (timing, mut sources) = (Timing::default(), Sources::default());
        let mut failures = 1;

        while !sources.failed(true, at(0), &timing) {
            sources.gave(1);
            failures += 1;
        }

        assert_eq!(failures, FAILURES_IN_ALL);
    }

    #[test]
    fn a_quick_link_has_four_requests_at_once_and_a_slow_one_a_single_one_of_no_more_packs_than_the_ceiling()
    {
        for (took, ceiling, rooms) in [
            (6_000, 96, [24, 24, 24, 24, 0]),
            (6_000, 3, [1, 1, 1, 0, 0]),
            (6_000, 1, [1, 0, 0, 0, 0]),
            (12_000, 96, [24, 0, 0, 0, 0]),
        ] {
            let mut sources = Sources::default();
            assert_eq!(sources.room(96), 24);
            let request = sources.opened(get(&[(0, 24)]), 1000);
            assert_eq!(sources.room(96), 0, "nothing is known of the link");
            sources.ended(request, 1000 + took);

            for room in rooms {
                assert_eq!(sources.room(ceiling), room, "of {ceiling} after {took} ms");
                if room > 0 {
                    sources.opened(get(&[(0, room)]), 2000 + took);
                }
            }
            sources.failed(true, at(0), &Timing::default());
            assert_eq!(sources.room(96), 0, "after a failure one at a time");
        }
    }

    #[test]
    fn requests_that_share_a_link_are_not_slow_for_that() {
        let mut sources = Sources { is_quick: true, ..Sources::default() };
        let all = [0, 1, 2, 3].map(|_| sources.opened(get(&[(0, 24)]), 0));

        sources.ended(all[0], 40_000);
        assert!(sources.is_quick, "24 packs in 10 s, if it had been alone");
        sources.ended(all[1], 40_000);
        assert!(!sources.is_quick, "beside two others that would be 13 s");
    }

    #[test]
    fn the_next_attempt_begins_with_the_first_server_and_takes_no_answer_of_the_one_before() {
        let mut sources = Sources::default();
        sources.begin(&attempt(1));
        let request = sources.opened(get(&[(0, 1)]), 0);
        sources.failed(false, at(0), &Timing::default());
        sources.why = Some("a lie".into());
        sources.begin(&attempt(1));
        assert_eq!(sources.prefix, 1, "the same attempt");

        sources.begin(&attempt(2));

        assert_eq!((sources.prefix, sources.why.clone()), (0, None));
        assert!(sources.opened(get(&[(0, 1)]), 0) > request);
    }
}
