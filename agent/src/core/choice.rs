//! Which way is the cheapest: what there is of deltas to an image is asked for before anything of it is.

use tern_protocol::chunk::{TreeShape, chunks_of};
use tern_protocol::delta::{DeltaManifest, ImageId};
use tern_protocol::message::{Get, Pack, Want};
use tern_protocol::offer::{Artifact, Offer};
use tern_protocol::topic::{Topic, UpKind};

use super::agent::{Agent, Content, Output};
use super::timing::{Backoff, Now, Timing};
use super::way::{Course, Way};

/// How often it is asked before silence counts as "there is none": a chunk server may be older than deltas. From the second
/// time on a piece of the image is asked for too. Whoever has not even that is away, as is one behind a site's edge that is
/// cut off; to take the image as it is would then cost all its bytes once the way is there again.
const ASKS: u32 = 2;

/// A choice that is still open.
#[derive(Debug)]
pub(super) struct Choice {
    wanted: ImageId,
    /// Where a delta may lead from, and what was answered.
    bases: Vec<(ImageId, Option<Answer>)>,
    profiles: Vec<u8>,
    repeat: Backoff,
    asked: u32,
    ask_again: u64,
    /// Somebody has said something of the wanted image.
    heard: bool,
}

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    None,
    Delta(DeltaManifest),
}

impl Choice {
    /// Begins to choose a way to `artifact`, from what is there, if something is, and from nothing.
    pub(super) fn new(artifact: &Artifact, base: Option<ImageId>, profiles: &[u8], timing: &Timing) -> Self {
        let bases = base.into_iter().chain([ImageId::nothing()]).map(|base| (base, None)).collect();
        Self {
            wanted: ImageId { length: artifact.length, root: artifact.root },
            bases,
            profiles: profiles.to_vec(),
            repeat: Backoff::new(timing.get_first, timing.get_most),
            asked: 0,
            ask_again: 0,
            heard: false,
        }
    }

    /// Tells whether it is about `artifact`.
    pub(super) fn is_of(&self, artifact: &Artifact) -> bool {
        (self.wanted.length, self.wanted.root) == (artifact.length, artifact.root)
    }

    pub(super) fn due(&self) -> u64 {
        self.ask_again
    }

    pub(super) fn wait_until(&mut self, uptime: u64) {
        self.ask_again = uptime;
    }

    /// What was asked is lost.
    pub(super) fn link_lost(&mut self) {
        if std::mem::take(&mut self.asked) > 0 {
            self.ask_again = 0;
        }
        self.heard = false;
    }

    /// Returns what to ask: all that was not answered.
    pub(super) fn request(&mut self, uptime: u64) -> Option<Get> {
        if uptime < self.ask_again || self.is_silent(uptime) {
            return None;
        }
        self.asked += 1;
        self.ask_again = uptime + self.repeat.step();
        let open = self.bases.iter().filter(|(_, answer)| answer.is_none());
        let want = |(base, _): &(ImageId, _)| Want::Delta {
            from: base.root,
            to: self.wanted.root,
            profiles: self.profiles.clone(),
        };
        let chunks = chunks_of(self.wanted.length).filter(|_| self.asked >= ASKS);
        let piece = chunks.map(|chunks| Want::piece(self.wanted.root, TreeShape::new(chunks).top()));
        Some(Get::from(open.map(want).chain(piece).collect::<Vec<_>>()))
    }

    /// Tells whether whoever has the image has had time enough to say what there is of deltas.
    fn is_silent(&self, uptime: u64) -> bool {
        self.heard && self.asked >= ASKS && uptime >= self.ask_again
    }

    /// Takes an answer; `open` verifies who signed it. One that is forged, or about something else, is none.
    pub(super) fn take(&mut self, pack: &Pack, open: impl FnOnce(&[u8]) -> Option<DeltaManifest>) {
        if pack.of != self.wanted.root.short() {
            return;
        }
        self.heard = true;
        let Some((from, signed)) = pack.as_delta() else { return };
        let wanted = self.wanted;
        let Some((base, answer)) = self.bases.iter_mut().find(|(base, _)| base.root == from) else { return };
        if signed.is_empty() {
            // Whoever says so falsely makes the device fetch more, and nothing else.
            answer.get_or_insert(Answer::None);
            return;
        }
        let fits = |delta: &DeltaManifest| {
            delta.old == *base
                && delta.new == wanted
                && delta.packs > 0
                && self.profiles.contains(&delta.profile.id())
        };
        if let Some(delta) = open(signed).filter(fits) {
            *answer = Some(Answer::Delta(delta));
        }
    }

    /// Returns the cheapest way, once it is known.
    pub(super) fn chosen(&self, uptime: u64) -> Option<Way> {
        if !self.is_silent(uptime) && self.bases.iter().any(|(_, answer)| answer.is_none()) {
            return None;
        }
        let offered = |(base, answer): &(ImageId, Option<Answer>)| match answer {
            // What costs as much as chunks is not worth its decoding.
            Some(Answer::Delta(delta)) if delta.bytes < self.wanted.length => Some((*base, *delta)),
            _ => None,
        };
        let deltas = || self.bases.iter().filter_map(offered);
        let whole = deltas().find(|(base, _)| *base == ImageId::nothing()).map(|(_, delta)| delta);
        let Some((_, best)) = deltas().min_by_key(|(_, delta)| delta.bytes) else { return Some(Way::Raw) };
        Some(Way::Delta(Box::new(Course::new(best, whole.filter(|whole| *whole != best)))))
    }
}

impl Agent {
    /// Returns what the slot that runs holds whole: a delta of a slot may lead from there.
    pub(super) fn base(&self) -> Option<Option<ImageId>> {
        let boot = self.boot.as_ref()?;
        Some(match boot.contents[boot.slot as usize] {
            Content::Whole(held) => Some(ImageId { length: held.length, root: held.root }),
            Content::Bad | Content::Unknown => None,
        })
    }

    /// Returns how many bytes a release costs by the cheapest ways; nothing while that is asked. For a link on which every
    /// byte costs: else it is asked when it is fetched.
    pub(super) fn quoted(&mut self, offer: &Offer, now: Now) -> Option<u64> {
        let (artifact, others) = offer.artifacts.split_first()?;
        let others: u64 = others.iter().map(|artifact| artifact.length).sum();
        let transfer = &self.settings.transfer;
        if transfer.profiles.is_empty() {
            return Some(artifact.length + others);
        }
        if !self.quote.as_ref().is_some_and(|quote| quote.is_of(artifact)) {
            let base = self.base()?;
            self.quote = Some(Choice::new(artifact, base, &transfer.profiles, &self.settings.timing));
        }
        let quote = self.quote.as_mut()?;
        if let Some(way) = quote.chosen(now.uptime) {
            return Some(others + way.bytes(artifact.length));
        }
        if self.exchange.is_up()
            && let Some(get) = quote.request(now.uptime)
        {
            let topic = Topic::Up(self.settings.device.clone(), UpKind::Get);
            self.out.push(Output::Publish { topic, payload: get.write() });
        }
        None
    }
}
