//! A broker that somebody has taken over: it loses, holds back, repeats, swaps, changes and invents messages, and
//! forgets or ages what it retains. It has no key. What it may achieve is delay; everything else is a violation.

use tern_protocol::bundle::Bundle;
use tern_protocol::id::DeviceId;
use tern_protocol::topic::{Topic, UpKind};

use super::clock::{MINUTE, Rng, SECOND};
use super::{Event, Sim};

/// Messages that it remembers, to use them again.
const HEARD_MAX: usize = 400;

/// How it behaves; the seed combines.
#[derive(Debug, Clone, Copy)]
pub struct Hostility {
    /// From here on it behaves.
    pub until: u64,
    /// Share of messages to devices that never arrive.
    pub hides: f64,
    /// Share of reports that never arrive.
    pub mutes: f64,
    /// Share of messages that arrive minutes to hours late.
    pub holds: f64,
    /// Share of messages in which a bit is turned over.
    pub bends: f64,
    /// Share of messages that come a second time.
    pub doubles: f64,
    /// Mean time between two acts of its own.
    pub acts_every: u64,
    /// A control: it was given the devices' telemetry keys too, so that what it invents is sealed. Must be found.
    pub thief: bool,
}

impl Hostility {
    /// Combines by seed: each share is none, some, or much of it.
    pub fn of(seed: u64, until: u64) -> Self {
        let mut rng = Rng::of(seed, "hostility");
        let mut share = |much: f64| [0.0, much / 4.0, much][usize::try_from(rng.below(3)).unwrap_or(0)];
        let (hides, mutes, holds, bends) = (share(0.8), share(0.8), share(0.6), share(0.4));
        let doubles = share(0.5);
        let acts_every = 5 * SECOND + rng.below(MINUTE);
        Self { until, hides, mutes, holds, bends, doubles, acts_every, thief: false }
    }
}

/// What it knows and draws from.
#[derive(Debug)]
pub(super) struct Hostile {
    how: Hostility,
    rng: Rng,
    heard: Vec<(Topic, Vec<u8>)>,
    /// Genuine messages of another product, under that product's own keys.
    foreign: Vec<(Topic, Vec<u8>)>,
    /// Everything that was retained at one early moment, to be served whole again.
    old_state: Option<super::broker::Retained>,
}

/// What becomes of a message.
pub(super) enum Fate {
    /// It goes its way, perhaps bent.
    Passes(Vec<u8>),
    /// It is gone.
    Lost,
    /// It comes after this time.
    Held(u64),
    /// It goes its way, and comes once more after this time.
    Twice(u64),
}

impl Hostile {
    pub(super) fn new(seed: u64, how: Hostility, foreign: Vec<(Topic, Vec<u8>)>) -> Self {
        let rng = Rng::of(seed, "hostile broker");
        Self { how, rng, heard: Vec::new(), foreign, old_state: None }
    }

    /// Decides about a message on its way, and remembers it.
    pub(super) fn judge(&mut self, now: u64, topic: &Topic, payload: &[u8], up: bool) -> Fate {
        if now >= self.how.until {
            return Fate::Passes(payload.to_vec());
        }
        if self.heard.len() < HEARD_MAX {
            self.heard.push((topic.clone(), payload.to_vec()));
        } else {
            // The oldest are the most dangerous: an old state, complete. So those stay, and the rest rotates.
            let place = HEARD_MAX / 4 + self.below(HEARD_MAX - HEARD_MAX / 4);
            self.heard[place] = (topic.clone(), payload.to_vec());
        }
        let (lost, held, bent, twice) = (
            self.rng.chance(if up { self.how.mutes } else { self.how.hides }),
            self.rng.chance(self.how.holds),
            self.rng.chance(self.how.bends),
            self.rng.chance(self.how.doubles),
        );
        match (lost, held) {
            (true, _) => Fate::Lost,
            (_, true) => Fate::Held(SECOND + self.rng.below(90 * MINUTE)),
            _ if bent => Fate::Passes(self.bend(payload)),
            _ if twice => Fate::Twice(1 + self.rng.below(10 * MINUTE)),
            _ => Fate::Passes(payload.to_vec()),
        }
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.rng.below(end as u64)).unwrap_or(0)
    }

    fn bend(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = payload.to_vec();
        if !bytes.is_empty() {
            let at = self.below(bytes.len());
            bytes[at] ^= 1 << self.rng.below(8);
        }
        bytes
    }

    fn recall(&mut self) -> Option<(Topic, Vec<u8>)> {
        let place = self.below(self.heard.len());
        self.heard.get(place).cloned()
    }

    /// Makes up a message of a device: well-formed, and sealed by nobody.
    fn invent_report(&mut self) -> Vec<u8> {
        let (e, n) = (1 + self.rng.below(3), self.rng.below(40));
        let rc = self.rng.below(4);
        let what = match self.rng.below(4) {
            0 => format!(r#""t":"outcome","rc":{rc},"rollout":"r1","attempt":1,"outcome":"success""#),
            1 => format!(r#""t":"outcome","rc":{rc},"rollout":"r1","attempt":1,"outcome":"rolled-back""#),
            2 => format!(
                r#""t":"started","nonce":"{}","rc":{rc},"rollout":"r1","attempt":1"#,
                hex::encode(&self.rng.seed()[..16])
            ),
            _ => format!(
                r#""t":"transition","rc":{rc},"rollout":"r1","attempt":1,"from":"idle","to":"verify-post""#
            ),
        };
        format!(r#"{{"e":{e},"k":1,"n":{n},"low":{n},{what},"m":"AAAAAAAAAAAAAAAAAAAAAA"}}"#).into_bytes()
    }

    /// Makes up an answer to a device: an ack for everything, or a word that nothing newer is there.
    fn invent_answer(&mut self) -> Vec<u8> {
        let e = 1 + self.rng.below(3);
        let what = match self.rng.below(3) {
            0 => r#""t":"ack","ranges":[[0,1000]]"#.to_owned(),
            1 => format!(
                r#""t":"answer","nonce":"{}","time":4000000000,"rollout":0,"halt":0"#,
                hex::encode(&self.rng.seed()[..16])
            ),
            _ => format!(
                r#""t":"grant","challenge":"{}","epoch":99,"counter":99"#,
                hex::encode(&self.rng.seed()[..16])
            ),
        };
        format!(r#"{{"e":{e},"k":1,{what},"m":"AAAAAAAAAAAAAAAAAAAAAA"}}"#).into_bytes()
    }

    /// Takes a bundle apart, raises the versions in its files without a key to sign them, and packs it again.
    fn forge(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut bundle = Bundle::unpack(payload, None).ok()?;
        for file in &mut bundle.files {
            let text = String::from_utf8(file.bytes.clone()).ok()?;
            let raised = format!(r#""version":{}"#, 50 + self.rng.below(50));
            let at = text.find(r#""version":"#)?;
            let end = at + 10 + text[at + 10..].find(|c: char| !c.is_ascii_digit())?;
            file.bytes = format!("{}{raised}{}", &text[..at], &text[end..]).into_bytes();
        }
        Some(bundle.pack())
    }
}

impl Sim {
    /// The next act of a hostile broker.
    pub(super) fn hostile_act(&mut self) {
        let now = self.queue.now();
        let Some(mut hostile) = self.hostile.take() else { return };
        if now >= hostile.how.until {
            self.broker_behaves();
            return;
        }
        let wait = SECOND + hostile.rng.below(2 * hostile.how.acts_every);
        self.queue.plan(now + wait, Event::HostileAct);
        let d = hostile.below(self.devices.len());
        let victim = self.devices[d].id.clone();
        let kind = hostile.rng.below(10);
        match kind {
            // Something old, where it belongs.
            0 | 1 => {
                if let Some((topic, payload)) = hostile.recall() {
                    self.slip_in(&topic, payload);
                }
            }
            // Something old where it does not belong: another device's, another cohort's, another product's.
            2 => {
                let (theirs, what) = (hostile.recall(), hostile.recall());
                if let (Some((topic, _)), Some((_, payload))) = (theirs, what) {
                    self.slip_in(&topic, payload);
                }
            }
            3 => {
                let payload = match self.sealed_by_a_thief(&hostile, d) {
                    Some(sealed) => sealed,
                    None => hostile.invent_report(),
                };
                self.slip_in(&Topic::Up(victim, UpKind::Report), payload);
            }
            4 => {
                let payload = hostile.invent_answer();
                self.slip_in(&Topic::DeviceIn(victim), payload);
            }
            // An id is to be taken over: another device's enrolment under this one's name.
            5 => {
                let enrolment = |(topic, _): &&(Topic, Vec<u8>)| matches!(topic, Topic::Up(_, UpKind::Enrol));
                if let Some((_, payload)) = hostile.heard.iter().rev().find(enrolment).cloned() {
                    self.slip_in(&Topic::Up(victim, UpKind::Enrol), payload);
                }
            }
            6 => {
                if let Some((topic, payload)) = hostile.recall()
                    && let Some(forged) = hostile.forge(&payload)
                {
                    self.slip_in(&topic, forged);
                }
            }
            // Another product's genuine files, where this product's belong.
            7 => {
                let place = hostile.below(hostile.foreign.len());
                if let Some((topic, payload)) = hostile.foreign.get(place).cloned()
                    && let Some(topic) = self.as_ours(topic)
                {
                    self.broker.age(topic.render(&self.fleet), &topic, payload.clone());
                    self.slip_in(&topic, payload);
                }
            }
            // Everything as it was at one early moment, complete and consistent, for devices that connect anew.
            8 => match &hostile.old_state {
                Some(old) => {
                    self.broker.restore(old.clone());
                    self.note(|_| "the broker serves an old complete state".to_owned());
                    (0..self.devices.len()).for_each(|d| self.disconnect(d));
                }
                None => hostile.old_state = Some(self.broker.snapshot()),
            },
            // What it retains is gone, or is what it was long ago; devices that subscribe get that.
            _ => {
                let topics: Vec<String> = self.broker.topics().map(str::to_owned).collect();
                if let Some(key) = topics.get(hostile.below(topics.len())) {
                    let old =
                        hostile.heard.iter().find(|(topic, _)| topic.render(&self.fleet) == *key).cloned();
                    match old {
                        Some((topic, payload)) if hostile.rng.chance(0.5) => {
                            self.broker.age(key.clone(), &topic, payload);
                        }
                        _ => self.broker.forget(key),
                    }
                }
            }
        }
        self.hostile = Some(hostile);
    }

    /// Returns a sealed report that its device never made, if the broker holds that device's key.
    fn sealed_by_a_thief(&self, hostile: &Hostile, d: usize) -> Option<Vec<u8>> {
        if !hostile.how.thief {
            return None;
        }
        let id = &self.devices[d].id;
        let theirs = |(topic, _): &&(Topic, Vec<u8>)| *topic == Topic::Up(id.clone(), UpKind::Report);
        let (_, payload) = hostile.heard.iter().rev().find(theirs)?;
        self.controller.forge_report(id, payload)
    }

    /// Returns the topic of this product that stands where `topic` stands in another product.
    fn as_ours(&self, topic: Topic) -> Option<Topic> {
        let product = self.product.clone();
        match topic {
            Topic::Timestamp(_) => Some(Topic::Timestamp(product)),
            Topic::Head(_) => Some(Topic::Head(product)),
            _ => None,
        }
    }

    /// Delivers something that nobody sent.
    fn slip_in(&mut self, topic: &Topic, payload: Vec<u8>) {
        let at = self.queue.now() + 1;
        match topic {
            Topic::Up(_, UpKind::Get) => {}
            Topic::Up(..) => self.queue.plan(at, Event::ToService { topic: topic.clone(), payload }),
            topic => {
                let key = topic.render(&self.fleet);
                let own =
                    |id: &DeviceId| matches!(topic, Topic::DeviceIn(of) | Topic::DevicePack(of) if of == id);
                for d in 0..self.devices.len() {
                    let device = &self.devices[d];
                    if device.link && (device.subscriptions.contains(&key) || own(&device.id)) {
                        let (connection, topic, payload) =
                            (device.connection, topic.clone(), payload.clone());
                        self.queue.plan(at, Event::ToDevice { d, connection, topic, payload });
                    }
                }
            }
        }
    }

    /// The broker is itself again: it was started anew, so the service publishes everything and everybody connects.
    fn broker_behaves(&mut self) {
        self.note(|_| "the broker behaves from here on".to_owned());
        self.broker.forget_everything();
        self.serve(tern_controller::core::service::Input::BrokerUp);
        for d in 0..self.devices.len() {
            self.disconnect(d);
        }
    }
}
