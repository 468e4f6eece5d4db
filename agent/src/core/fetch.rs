//! What Downloading does: asks which way is the cheapest, asks for packs, has them written, decoded and compared.

use tern_protocol::delta::signed;
use tern_protocol::digest::Digest;
use tern_protocol::limits::CHUNK;
use tern_protocol::message::{Get, Pack};
use tern_protocol::offer::Artifact;
use tern_protocol::state::StateName;
use tern_protocol::topic::{Topic, UpKind};
use tern_protocol::tuf::Role;
use tern_protocol::tuf::verify::Authority;

use super::agent::{Agent, Decode, Done, Job, Output, Target};
use super::choice::Choice;
use super::component::target;
use super::download::{Accepted, Download};
use super::pace::Pace;
use super::packs::Packs;
use super::state::{Event, State};
use super::timing::Now;
use super::way::{Course, Way};

/// What is fetched, while the process lives; rebuilt from the journal.
#[derive(Debug)]
pub(super) struct Fetch {
    artifact: Artifact,
    leg: Leg,
    kind: Kind,
    /// Packs that wait while a gap is filled.
    aside: Option<Packs>,
}

#[derive(Debug)]
enum Kind {
    Choice(Choice),
    Chunks(Download),
    Packs(Packs),
}

/// What tells one part of a download from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    Open,
    Raw,
    Mend,
    Packs(Digest),
    Gap(u32, u32),
}

impl Leg {
    fn of(way: &Way) -> Self {
        match way {
            Way::Open => Self::Open,
            Way::Raw => Self::Raw,
            Way::Mend => Self::Mend,
            Way::Delta(course) => match course.gap {
                Some((from, to)) => Self::Gap(from, to),
                None => Self::Packs(course.manifest.root),
            },
        }
    }
}

impl Fetch {
    /// Returns when it wants to ask for something.
    pub(super) fn due(&self) -> u64 {
        match &self.kind {
            Kind::Choice(choice) => choice.due(),
            Kind::Chunks(download) => download.due(),
            Kind::Packs(packs) => packs.due(),
        }
    }

    /// Tells whether it asks for nothing but what there is.
    pub(super) fn only_asks(&self) -> bool {
        self.leg == Leg::Open
    }

    /// Returns how many bytes a pack of it has, about.
    pub(super) fn each(&self) -> u64 {
        match &self.kind {
            Kind::Packs(packs) => (packs.manifest().bytes / u64::from(packs.manifest().packs)).max(1),
            Kind::Choice(_) | Kind::Chunks(_) => CHUNK as u64,
        }
    }

    fn request(&mut self, uptime: u64, most: u32) -> Option<Get> {
        match &mut self.kind {
            Kind::Choice(choice) => choice.request(uptime),
            Kind::Chunks(download) => download.request_within(uptime, most),
            Kind::Packs(packs) => packs.request(uptime, most),
        }
    }

    /// The same of a web server; which way is the cheapest none is asked.
    pub(super) fn request_in_order(&mut self, uptime: u64, most: u32) -> Option<Get> {
        match &mut self.kind {
            Kind::Choice(_) => None,
            Kind::Chunks(download) => download.request_in_order(uptime, most),
            Kind::Packs(packs) => packs.download().request_in_order(uptime, most),
        }
    }

    /// Returns when that is to be asked again.
    pub(super) fn due_in_order(&self) -> u64 {
        self.asked().map_or(u64::MAX, Download::due_in_order)
    }

    /// Returns what is asked for now.
    pub(super) fn asked(&self) -> Option<&Download> {
        match &self.kind {
            Kind::Choice(_) => None,
            Kind::Chunks(download) => Some(download),
            Kind::Packs(packs) => Some(packs.asked()),
        }
    }

    /// Returns the download of an object, if that is one of those that are going on.
    pub(super) fn download_of(&mut self, of: u64) -> Option<&mut Download> {
        let now = match &mut self.kind {
            Kind::Choice(_) => None,
            Kind::Chunks(download) => Some(download),
            Kind::Packs(packs) => Some(packs.download()),
        };
        let aside = self.aside.as_mut().map(Packs::download);
        now.into_iter().chain(aside).find(|download| download.root().short() == of)
    }

    /// What is asked for from now on comes by another way.
    pub(super) fn renew(&mut self) {
        match &mut self.kind {
            Kind::Choice(_) => {}
            Kind::Chunks(download) => download.renew(),
            Kind::Packs(packs) => packs.download().renew(),
        }
        if let Some(packs) = &mut self.aside {
            packs.download().renew();
        }
    }

    fn wait_until(&mut self, uptime: u64) {
        match &mut self.kind {
            Kind::Choice(choice) => choice.wait_until(uptime),
            Kind::Chunks(download) => download.wait_until(uptime),
            Kind::Packs(packs) => packs.download().wait_until(uptime),
        }
    }

    /// Tells whether nothing comes that was asked for, so that the link itself may be dead.
    pub(super) fn doubts_link(&self) -> bool {
        match &self.kind {
            Kind::Choice(_) => false,
            Kind::Chunks(download) => download.doubts_link(),
            Kind::Packs(packs) => packs.doubts_link(),
        }
    }

    /// What was asked for is lost.
    pub(super) fn link_lost(&mut self) {
        match &mut self.kind {
            Kind::Choice(choice) => choice.link_lost(),
            Kind::Chunks(download) => download.cut(),
            Kind::Packs(packs) => packs.download().cut(),
        }
        if let Some(packs) = &mut self.aside {
            packs.download().cut();
        }
    }

    /// Returns the packs of this delta, which were fetched ahead.
    fn packs_of(self, course: &Course) -> Option<Packs> {
        let packs = if let Kind::Packs(packs) = self.kind { Some(packs) } else { self.aside };
        packs.filter(|packs| *packs.manifest() == course.manifest)
    }
}

impl Agent {
    /// Goes on with what Downloading is about.
    pub(super) fn attend_download(&mut self, now: Now) {
        let Some(event) = self.fetch_begins(now) else { return self.attend_fetch(now) };
        self.step(&event, now);
        if self.hold.download {
            // What was too dear may not be any more.
            self.look_again();
        }
        self.attend_work(now);
    }

    /// Sees that the way is another one, or has what it needs at hand.
    fn fetch_begins(&mut self, now: Now) -> Option<Event> {
        let State::Downloading { work, at, way, have, .. } = &self.durable.state else { return None };
        let artifact = work.offer.artifacts.get(*at)?.clone();
        let (leg, is_first) = (Leg::of(way), *at == 0);
        // Of the slot alone: what a component has had is not kept as it came.
        let base = if is_first { self.base()? } else { None };
        match way {
            Way::Open if self.settings.transfer.profiles.is_empty() => return Some(Event::Chosen(Way::Raw)),
            Way::Open if is_first && self.quote.is_some() => {
                let quote = self.quote.take()?;
                if let Some(way) = quote.chosen(now.uptime).filter(|_| quote.is_of(&artifact)) {
                    return Some(Event::Chosen(way));
                }
            }
            // What it leads from is not there any more.
            Way::Delta(course) if !course.is_whole() && base != Some(course.manifest.old) => {
                return Some(Event::Chosen(Way::Open));
            }
            _ => {}
        }
        if let Some(Fetch { artifact: of, leg: on, kind, .. }) = &self.fetch
            && (of, *on) == (&artifact, leg)
        {
            return match kind {
                Kind::Choice(choice) => choice.chosen(now.uptime).map(Event::Chosen),
                // What it has given so far may be right.
                Kind::Packs(packs) if packs.is_given_up() => Some(Event::Chosen(Way::Mend)),
                _ => None,
            };
        }
        let timing = &self.settings.timing;
        let (is_new, mut aside) = (self.fetch.is_none(), None);
        let kind = match way {
            Way::Open => Kind::Choice(Choice::new(&artifact, base, &self.settings.transfer.profiles, timing)),
            Way::Raw => Kind::Chunks(Download::new(&artifact, have, timing)),
            Way::Mend => Kind::Chunks(Download::new(&artifact, have, timing).comparing()),
            Way::Delta(course) => {
                let packs = self.fetch.take().and_then(|fetch| fetch.packs_of(course));
                match course.gap {
                    None => Kind::Packs(packs.unwrap_or_else(|| Packs::new(course, timing))),
                    Some((from, to)) => {
                        aside = packs;
                        let mut download = Download::new(&artifact, have, timing);
                        download.within(from..to);
                        Kind::Chunks(download)
                    }
                }
            }
        };
        let mut fetch = Fetch { artifact, leg, kind, aside };
        if is_new {
            // Once a device waits for its turn; not before each of its artifacts, nor before each leg.
            let spread = if is_first { work.offer.spread } else { 0 };
            fetch.wait_until(now.uptime + self.spread(spread));
        }
        self.fetch = Some(fetch);
        None
    }

    fn attend_fetch(&mut self, now: Now) {
        let State::Downloading { work, at, .. } = &self.durable.state else { return };
        let target = target(work.slot, &work.offer.artifacts, *at);
        self.sources.begin(&work.offer.attempt);
        let Some(fetch) = &self.fetch else { return };
        if (!self.hold.download || fetch.only_asks()) && now.uptime >= self.pace.not_before() {
            if self.asks_web() { self.ask_web(now) } else { self.ask_broker(now) }
        }
        let is_busy = matches!(self.job, Some((_, Job::Sync(..) | Job::Decode(_) | Job::Compare { .. })));
        if !is_busy && let Some(job) = self.fetch_job(&target) {
            self.start(job, now);
        }
        if self.job.is_none() {
            self.attend_look(now);
        }
    }

    fn ask_broker(&mut self, now: Now) {
        let Some(fetch) = self.fetch.as_mut().filter(|_| self.exchange.is_up()) else { return };
        let rate = self.settings.transfer.rate;
        let (each, most) = (fetch.each(), Pace::most(rate, fetch.each()));
        if let Some(get) = fetch.request(now.uptime, most) {
            self.pace.asked(&get, each, rate, now.uptime);
            let topic = Topic::Up(self.settings.device.clone(), UpKind::Get);
            self.out.push(Output::Publish { topic, payload: get.write() });
        }
    }

    /// Returns the job that what has come is waiting for.
    fn fetch_job(&mut self, target: &Target) -> Option<Job> {
        let fetch = self.fetch.as_mut()?;
        match &mut fetch.kind {
            Kind::Choice(_) => None,
            Kind::Chunks(download) => match download.comparison() {
                Some((first, leaves)) => Some(Job::Compare {
                    target: target.clone(),
                    length: fetch.artifact.length,
                    first,
                    leaves: leaves.to_vec(),
                }),
                None => download.to_sync().map(|chunks| Job::Sync(target.clone(), chunks)),
            },
            Kind::Packs(packs) => {
                let due = packs.next()?;
                let State::Downloading { way: Way::Delta(course), .. } = &self.durable.state else {
                    return None;
                };
                Some(Job::Decode(Decode {
                    target: target.clone(),
                    manifest: Box::new(course.manifest),
                    number: due.number,
                    pack: due.pack,
                    syncs: due.syncs,
                }))
            }
        }
    }

    /// Takes the end of a job that decodes or compares.
    pub(super) fn fetch_ended(&mut self, work: Job, result: Done) -> Option<Event> {
        let kind = self.fetch.as_mut().map(|fetch| &mut fetch.kind);
        match (work, result, kind) {
            (Job::Compare { first, .. }, Done::Compared(right), Some(Kind::Chunks(download))) => {
                download.compared(first, &right);
                Some(Event::Written(right))
            }
            (Job::Decode(order), Done::Ok, Some(Kind::Packs(packs))) => {
                packs.decoded(order.number, order.syncs);
                order.syncs.then_some(Event::Decoded(order.number + 1))
            }
            (Job::Decode(order), Done::Undecoded(from), Some(Kind::Packs(packs))) => {
                let owed = packs.owed(order.number, from);
                packs.decoded(order.number, true);
                match owed {
                    Some((from, to)) => Some(Event::Undecoded { pack: order.number, from, to }),
                    None => Some(Event::Chosen(Way::Mend)),
                }
            }
            // Its packs are what was signed, and no delta: whoever made it is wrong, and what it has given so far may be right.
            (Job::Decode(_), Done::Useless(_), _) => Some(Event::Chosen(Way::Mend)),
            (_, Done::Failed(reason) | Done::NotNow(reason), _) => {
                self.fetch = None;
                Some(Event::WriteFailed(reason))
            }
            _ => None,
        }
    }

    /// Says, once an artifact is here, by which way it came and what that cost.
    pub(super) fn note_fetched(&mut self, before: &State, after: &State) {
        let State::Downloading { work, at, marked: true, way, .. } = before else { return };
        let is_here = match after {
            State::Downloading { at: next, .. } => next != at,
            after => after.name() == StateName::Verifying,
        };
        if !is_here {
            return;
        }
        let by = match way {
            Way::Delta(course) if course.is_whole() => "whole image, coded",
            Way::Delta(_) => "delta",
            Way::Open | Way::Raw => "chunks",
            Way::Mend => "repair",
        };
        let mended = if let Way::Delta(course) = way { course.mended } else { 0 };
        let target = target(work.slot, &work.offer.artifacts, *at);
        let bytes = std::mem::take(&mut self.fetched);
        let web = self.sources.take_bytes();
        self.out.push(Output::Fetched { target, by, bytes, mended, web });
    }

    /// Takes a pack that arrived from the broker.
    pub(super) fn pack(&mut self, payload: &[u8], now: Now) {
        if let Ok(pack) = Pack::read(payload) {
            self.take_pack(pack, now);
        }
    }

    /// Takes a pack, wherever it comes from.
    pub(super) fn take_pack(&mut self, pack: Pack, now: Now) {
        let targets = self.trust.targets();
        let open = |signed: &[u8]| {
            let authority = Authority::delegated(&targets?.meta, Role::Rollout).ok()?;
            signed::open(signed, authority).ok()
        };
        if let (State::Checking { .. }, Some(quote)) = (&self.durable.state, &mut self.quote) {
            return quote.take(&pack, open);
        }
        let (Some(fetch), State::Downloading { work, at, marked: true, .. }) =
            (&mut self.fetch, &self.durable.state)
        else {
            return;
        };
        if let Some(packs) = fetch.aside.as_mut().filter(|packs| packs.manifest().root.short() == pack.of) {
            self.fetched += packs.accept(pack, now.uptime);
            return;
        }
        match &mut fetch.kind {
            Kind::Choice(choice) => choice.take(&pack, open),
            Kind::Chunks(download) => {
                if let Accepted::Chunk { index, bytes } = download.accept(pack, now.uptime) {
                    let offset = u64::from(index) * CHUNK as u64;
                    let target = target(work.slot, &work.offer.artifacts, *at);
                    self.fetched += bytes.len() as u64;
                    self.out.push(Output::Write { target, offset, bytes });
                }
            }
            Kind::Packs(packs) => self.fetched += packs.accept(pack, now.uptime),
        }
    }

    /// A device waits hash × spread before its first `get`, so that a wave does not ask all at once.
    fn spread(&self, seconds: u32) -> u64 {
        let hash = Digest::of(self.settings.device.as_str().as_bytes()).short();
        // The upper half of the hash as a fraction of 2³².
        (u64::from(seconds) * 1000 * (hash >> 32)) >> 32
    }
}
