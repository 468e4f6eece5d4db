//! Stories of enrolment: each rule, and next to it what must not pass.

use std::collections::BTreeMap;

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::{PublicKey, SecretKey};
use serde_json::json;
use tern_protocol::claim::{Claimed, Token};
use tern_protocol::id::{DeviceId, FleetId};
use tern_protocol::mac::{Direction, PairSecret};
use tern_protocol::message::{
    Enrol, Hello, Nonce, Registry, Report, ReportKind, Revoked, TimeAnswer, Versions, enrol_signing_input,
};
use tern_protocol::topic::{Topic, UpKind};
use tern_protocol::tuf::content::point_hex;

use super::*;
use crate::core::enrolment::claim::{Approval, PENDING_MAX, Terms};
use crate::core::enrolment::factory::signing_input;
use crate::core::fact::{DeviceEntry, Entry};
use crate::core::fleet::device::Standing;
use crate::keys::{self, InitOptions};

const DAY: u64 = 24 * 3_600_000;
const NOW: u64 = 1_800_000_000_000;

pub(super) struct World {
    pub(super) service: Service,
    pub(super) now: u64,
    ledger: Vec<Entry>,
    _home: tempfile::TempDir,
}

/// A device, with its keys.
#[derive(Clone)]
pub(super) struct Camera {
    pub(super) id: DeviceId,
    identity: SigningKey,
    pub(super) telemetry: SecretKey,
}

pub(super) fn fleet() -> FleetId {
    "acme".parse().unwrap()
}

pub(super) fn registry() -> Registry {
    Registry {
        product: "cam".parse().unwrap(),
        model: "b3".parse().unwrap(),
        carrier: "none".parse().unwrap(),
        region: "eu".parse().unwrap(),
    }
}

/// A device; another `life` has other keys under the same name.
fn device(number: u16, life: u8) -> Camera {
    let secret = |kind: u8| {
        let mut bytes = [1; 32];
        bytes[28] = life;
        bytes[29] = kind;
        bytes[30..].copy_from_slice(&number.to_be_bytes());
        SecretKey::from_slice(&bytes).unwrap()
    };
    let id = format!("cam-{number}").parse().unwrap();
    Camera { id, identity: SigningKey::from(secret(1)), telemetry: secret(2) }
}

impl Camera {
    fn points(&self) -> (Vec<u8>, Vec<u8>) {
        let point = |key: PublicKey| hex::decode(point_hex(&key)).unwrap();
        (point(PublicKey::from(self.identity.verifying_key())), point(self.telemetry.public_key()))
    }

    fn enrol(&self, token: Option<&Token>) -> Enrol {
        let (identity, telemetry) = self.points();
        let input = enrol_signing_input(&fleet(), &self.id, &identity, &telemetry);
        let proof: Signature = self.identity.sign(&input);
        let registry = registry();
        let (fleet, device) = (&fleet(), &self.id);
        let claimed =
            Claimed { fleet, device, identity: &identity, telemetry: &telemetry, registry: &registry };
        Enrol {
            identity: hex::encode(&identity),
            telemetry: hex::encode(&telemetry),
            proof: hex::encode(proof.to_der()),
            claim: token.map(|token| token.prove(&claimed).to_string()),
            registry: token.map(|_| registry.clone()),
            replaces: None,
            time: None,
        }
    }

    /// An enrolment for which the holder of another identity key vouches.
    fn enrol_instead_of(&self, former: &Self) -> Enrol {
        let (identity, telemetry) = self.points();
        let input = enrol_signing_input(&fleet(), &self.id, &identity, &telemetry);
        let vouched: Signature = former.identity.sign(&input);
        Enrol { replaces: Some(hex::encode(vouched.to_der())), ..self.enrol(None) }
    }

    fn entry(&self) -> DeviceEntry {
        let identity = hex::encode(self.points().0);
        DeviceEntry { device: self.id.clone(), identity, registry: registry() }
    }
}

impl World {
    pub(super) fn new() -> Self {
        let home = tempfile::TempDir::new().unwrap();
        let options = InitOptions::unencrypted(
            fleet(),
            "cam".parse().unwrap(),
            home.path().join("data"),
            home.path().join("offline"),
            NOW / 1000,
        );
        keys::init(&options).unwrap();
        let online = keys::load_online(&options.data, &options.product).unwrap();
        let online = BTreeMap::from([(options.product.clone(), online)]);
        let service = Service::new(Fleet::new(fleet()), online, Lives::default(), [7; 32]);
        let mut world = Self { service, now: NOW, ledger: Vec::new(), _home: home };
        let files = keys::offline_files(&options.data, &options.product).unwrap();
        world.command(Command::AddProduct { product: options.product, files }).unwrap();
        world
    }

    pub(super) fn handle(&mut self, input: Input) -> Vec<Output> {
        let step = self.service.handle(vec![input], self.now);
        self.ledger.extend(step.facts.iter().map(|fact| Entry {
            at: step.at,
            actor: None,
            fact: fact.clone(),
        }));
        // Whatever happens, a restart must come to the same state.
        let mut again = Fleet::new(fleet());
        for entry in &self.ledger {
            let text = serde_json::to_string(entry).unwrap();
            let entry: Entry = serde_json::from_str(&text).unwrap();
            again.apply(entry.at, &entry.fact);
        }
        if self.ledger.len() < 100 {
            assert_eq!(again, *self.service.fleet());
        }
        step.outputs
    }

    fn command(&mut self, command: Command) -> Result<Reply, Refusal> {
        let outputs = self.handle(Input::Command { id: 1, by: None, command: Box::new(command) });
        outputs
            .into_iter()
            .find_map(|output| match output {
                Output::Reply { result, .. } => Some(result),
                Output::Publish { .. } => None,
            })
            .unwrap()
    }

    fn admit(&mut self, device: &Camera, admission: Admission) -> Result<Reply, Refusal> {
        self.command(Command::Admit { device: device.id.clone(), admission, reason: "a test".into() })
    }

    fn sends(&mut self, device: &Camera, enrol: &Enrol) {
        let payload = serde_json::to_vec(enrol).unwrap();
        self.handle(Input::Message { topic: Topic::Up(device.id.clone(), UpKind::Enrol), payload });
    }

    /// Says hello and tells whether the service answered.
    pub(super) fn hears(&mut self, device: &Camera, n: u64) -> bool {
        let hello = Hello {
            running: 1,
            agent: "test".into(),
            product: registry().product,
            model: registry().model,
            carrier: registry().carrier,
            region: registry().region,
            floor: 0,
            versions: Versions::default(),
            halted: Vec::new(),
            components: BTreeMap::new(),
            proof: None,
        };
        let online = &self.service.keys[&registry().product];
        let (kid, ours) = online.newest().unwrap();
        let secret = PairSecret::agree(&device.telemetry, &ours.public_key());
        let report = Report { e: 1, k: kid, n, low: n, kind: ReportKind::Hello(Box::new(hello)) };
        let payload = secret.key(Direction::Up, &fleet(), &device.id, kid, 1).seal(&report);
        let topic = Topic::Up(device.id.clone(), UpKind::Report);
        let outputs = self.handle(Input::Message { topic, payload });
        outputs.iter().any(|output| match output {
            Output::Publish { topic: Topic::DeviceIn(to), payload } => {
                // Sealed for this very device, and so by a service that knows its key.
                let e = tern_protocol::mac::epoch_of(payload).unwrap();
                *to == device.id && secret.key(Direction::Down, &fleet(), to, kid, e).open(payload).is_ok()
            }
            _ => false,
        })
    }

    fn claim(&mut self, count: u64, approve: Approval) -> Token {
        let expires = self.now + DAY;
        let product = registry().product;
        let terms = Terms { product, model: None, region: None, carrier: None, count, expires, approve };
        match self.command(Command::CreateClaim(NewClaim { claim: None, terms })) {
            Ok(Reply::Claim { token, .. }) => token.0.parse().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn standing(&self, device: &Camera) -> Option<Standing> {
        self.service.fleet().devices.get(&device.id).map(|device| device.standing)
    }

    fn waits(&self, device: &Camera) -> bool {
        self.service.fleet().pending.contains_key(&device.id)
    }

    /// A device that is in, by a claim.
    pub(super) fn enrolled(&mut self, number: u16) -> Camera {
        let token = self.claim(1, Approval::Auto);
        let device = device(number, 1);
        self.sends(&device, &device.enrol(Some(&token)));
        assert!(self.hears(&device, 1));
        device
    }
}

#[test]
fn a_claimed_device_waits_unheard_until_somebody_approves_it() {
    let mut world = World::new();
    let token = world.claim(2, Approval::Hand);
    let cam = device(1, 1);

    world.sends(&cam, &cam.enrol(Some(&token)));

    assert!(world.waits(&cam) && world.standing(&cam).is_none());
    assert!(!world.hears(&cam, 1), "a waiting device gets no answer");
    assert_eq!(world.service.fleet().reports, 0);
    // Asking again changes nothing and costs nothing of the claim.
    world.sends(&cam, &cam.enrol(Some(&token)));
    assert_eq!(world.service.fleet().claims[token.claim()].used, 1);
    world.admit(&cam, Admission::Approve).unwrap();
    assert!(world.hears(&cam, 1));
    assert!(world.admit(&cam, Admission::Approve).is_err(), "nobody waits any more");
}

#[test]
fn the_ledger_and_the_wire_never_hold_the_token() {
    let mut world = World::new();
    let token = world.claim(1, Approval::Auto);
    let cam = device(1, 1);
    let enrol = cam.enrol(Some(&token));
    world.sends(&cam, &enrol);

    let secret = token.reveal().split_once('.').unwrap().1.to_owned();
    assert!(!serde_json::to_string(&world.ledger).unwrap().contains(&secret));
    assert!(!serde_json::to_string(&enrol).unwrap().contains(&secret));
}

#[test]
fn a_proof_that_was_overheard_is_good_for_nobody_else() {
    let mut world = World::new();
    let token = world.claim(10, Approval::Auto);
    let (honest, thief) = (device(1, 1), device(2, 1));
    let overheard = honest.enrol(Some(&token)).claim;

    let stolen = Enrol { claim: overheard.clone(), registry: Some(registry()), ..thief.enrol(None) };
    world.sends(&thief, &stolen);
    let mine = Enrol { claim: overheard, registry: Some(registry()), ..device(1, 2).enrol(None) };
    world.sends(&honest, &mine);
    let elsewhere = Registry { region: "us".parse().unwrap(), ..registry() };
    world.sends(&honest, &Enrol { registry: Some(elsewhere), ..honest.enrol(Some(&token)) });

    assert_eq!(world.service.counters().unclaimed, 3);
    assert!(world.service.fleet().devices.is_empty() && world.service.fleet().pending.is_empty());
    // The control: as it was meant it passes.
    world.sends(&honest, &honest.enrol(Some(&token)));
    assert_eq!(world.standing(&honest), Some(Standing::Active));
}

#[test]
fn a_claim_lets_in_no_more_than_its_count_also_when_some_were_rejected() {
    let mut world = World::new();
    let token = world.claim(2, Approval::Hand);
    let cams = [device(1, 1), device(2, 1), device(3, 1)];
    cams.iter().for_each(|cam| world.sends(cam, &cam.enrol(Some(&token))));

    assert_eq!(cams.each_ref().map(|cam| world.waits(cam)), [true, true, false]);
    world.admit(&cams[0], Admission::Reject).unwrap();
    for cam in [&cams[0], &cams[2]] {
        world.sends(cam, &cam.enrol(Some(&token)));
        assert!(!world.waits(cam), "a rejected device has used its place up, and does not come back");
    }
    assert_eq!(world.service.counters().turned_away, 3);
}

#[test]
fn an_expired_and_a_revoked_claim_let_nobody_in() {
    let mut world = World::new();
    let (expires, revoked) = (world.claim(5, Approval::Auto), world.claim(5, Approval::Auto));
    let (cam, other) = (device(1, 1), device(2, 1));
    world.command(Command::RevokeClaim(revoked.claim().clone())).unwrap();

    world.sends(&other, &other.enrol(Some(&revoked)));
    world.now += DAY;
    world.sends(&cam, &cam.enrol(Some(&expires)));

    assert!(world.service.fleet().devices.is_empty());
    assert_eq!(world.service.counters().turned_away, 2);
    world.now -= 1;
    // Time never goes back for the service: the control is a fresh claim.
    let fresh = world.claim(1, Approval::Auto);
    world.sends(&cam, &cam.enrol(Some(&fresh)));
    assert_eq!(world.standing(&cam), Some(Standing::Active));
}

#[test]
fn junk_costs_a_counter_and_no_ledger_frame() {
    let mut world = World::new();
    let token = world.claim(1, Approval::Hand);
    let frames = world.ledger.len();
    let stranger = device(1, 1);
    let made_up: Token = "cam-claim-9.000102030405060708090a0b0c0d0e0f".parse().unwrap();
    let guessed = Token::new(token.claim().clone(), [0; 16]);

    world.sends(&stranger, &stranger.enrol(None));
    world.sends(&stranger, &stranger.enrol(Some(&made_up)));
    world.sends(&stranger, &stranger.enrol(Some(&guessed)));
    let topic = Topic::Up(stranger.id.clone(), UpKind::Enrol);
    world.handle(Input::Message { topic, payload: vec![b'{'; 5000] });

    let counters = world.service.counters();
    assert_eq!((counters.unknown, counters.unclaimed), (2, 2));
    assert_eq!(world.ledger.len(), frames);
}

#[test]
fn somebody_with_the_token_cannot_keep_us_busy_with_wrong_signatures() {
    let mut world = World::new();
    let token = world.claim(10, Approval::Auto);
    let cam = device(1, 1);
    let unsigned = Enrol { proof: device(2, 1).enrol(None).proof, ..cam.enrol(Some(&token)) };

    world.sends(&cam, &unsigned);
    world.sends(&cam, &cam.enrol(Some(&token)));
    assert!(world.standing(&cam).is_none(), "within a second of a wrong one nothing is checked");
    assert_eq!(world.service.counters().forged, 2);

    world.now += 1000;
    world.sends(&cam, &cam.enrol(Some(&token)));
    assert_eq!(world.standing(&cam), Some(Standing::Active));
}

#[test]
fn a_full_queue_refuses_newcomers_and_keeps_who_waits() {
    let mut world = World::new();
    let token = world.claim(PENDING_MAX as u64 + 5, Approval::Hand);
    let first = device(0, 1);
    world.sends(&first, &first.enrol(Some(&token)));
    // The others stand in without a signature check each: what is tested is the ceiling.
    for number in 1..PENDING_MAX {
        let waits = world.service.fleet.pending[&first.id].clone();
        world.service.fleet.pending.insert(format!("junk-{number}").parse().unwrap(), waits);
    }
    world.ledger = Vec::new();
    let late = device(1, 1);
    let payload = serde_json::to_vec(&late.enrol(Some(&token))).unwrap();
    let topic = Topic::Up(late.id.clone(), UpKind::Enrol);
    let step =
        world.service.handle(vec![Input::Message { topic: topic.clone(), payload: payload.clone() }], NOW);

    assert!(step.facts.is_empty() && !world.waits(&late) && world.waits(&first));
    assert_eq!(world.service.counters().turned_away, 1);
    assert_eq!(world.service.fleet().claims[token.claim()].used, 1);
    // The control: with one place free the same message is taken.
    world.service.fleet.pending.remove(&"junk-7".parse().unwrap());
    let step = world.service.handle(vec![Input::Message { topic, payload }], NOW);
    assert!(!step.facts.is_empty() && world.waits(&late));
}

#[test]
fn an_enrolled_id_is_not_taken_without_its_present_key() {
    let mut world = World::new();
    let token = world.claim(10, Approval::Auto);
    let cam = world.enrolled(1);
    let thief = device(1, 9);

    world.sends(&thief, &thief.enrol(None));
    world.sends(&thief, &thief.enrol(Some(&token)));
    world.sends(&thief, &thief.enrol_instead_of(&thief));
    world.now += 1000;
    world.sends(&thief, &thief.enrol_instead_of(&device(2, 1)));
    let listed = world.command(Command::AddUnsignedDevices { devices: vec![thief.entry()] });

    assert!(listed.is_err());
    assert_eq!(world.service.counters().forged, 4);
    assert!(!world.hears(&thief, 2) && world.hears(&cam, 2));
}

#[test]
fn a_device_replaces_its_keys_with_its_present_key_and_never_goes_back() {
    let mut world = World::new();
    let old = world.enrolled(1);
    let new = device(1, 2);

    world.sends(&new, &new.enrol_instead_of(&old));

    assert!(!world.hears(&old, 2) && world.hears(&new, 2));
    // The broker repeats what it once heard, and whoever found the old key signs anew.
    world.sends(&old, &old.enrol(None));
    world.sends(&old, &old.enrol_instead_of(&new));
    assert!(!world.hears(&old, 3) && world.hears(&new, 3));
    // Another telemetry key under the same identity: accepted once, and the one before is over as well.
    let turned = Camera { telemetry: device(1, 3).telemetry, ..new.clone() };
    world.sends(&turned, &turned.enrol(None));
    world.sends(&new, &new.enrol(None));
    assert!(world.hears(&turned, 4) && !world.hears(&new, 5));
}

#[test]
fn a_thief_of_a_quarantined_device_cannot_lock_its_owner_out() {
    let mut world = World::new();
    let old = world.enrolled(1);
    let new = device(1, 2);
    world.admit(&old, Admission::Quarantine).unwrap();

    world.sends(&new, &new.enrol_instead_of(&old));
    assert!(world.hears(&old, 2), "it is heard, and its keys are the old ones");

    world.admit(&old, Admission::Readmit).unwrap();
    world.sends(&new, &new.enrol_instead_of(&old));
    assert!(world.hears(&new, 3));
}

#[test]
fn a_revoked_device_is_neither_heard_nor_answered() {
    let mut world = World::new();
    let (cam, other) = (world.enrolled(1), world.enrolled(2));
    let reports = world.service.fleet().reports;

    world.admit(&cam, Admission::Revoke).unwrap();

    assert!(!world.hears(&cam, 2) && world.hears(&other, 2));
    world.sends(&cam, &device(1, 2).enrol_instead_of(&cam));
    assert_eq!(world.service.counters().silenced, 2);
    assert_eq!(world.service.fleet().reports, reports + 1);
    assert!(world.admit(&cam, Admission::Readmit).is_err(), "only a reset brings it back");
}

#[test]
fn fronts_are_told_who_is_revoked_at_once_and_again_after_every_start() {
    let mut world = World::new();
    let (cam, other) = (world.enrolled(1), world.enrolled(2));
    let told = |outputs: &[Output]| {
        outputs.iter().find_map(|output| match output {
            Output::Publish { topic: Topic::Revoked, payload } => Some(Revoked::read(payload).unwrap()),
            _ => None,
        })
    };
    let admit = |world: &mut World, admission| {
        let command = Command::Admit { device: cam.id.clone(), admission, reason: "a test".into() };
        told(&world.handle(Input::Command { id: 1, by: None, command: Box::new(command) })).unwrap()
    };

    let revoked = admit(&mut world, Admission::Revoke);
    assert!(revoked.contains(&cam.id) && !revoked.contains(&other.id));
    assert_eq!(told(&world.handle(Input::BrokerUp)), Some(revoked));
    assert_eq!(told(&world.handle(Input::Time)), None);

    // Its place at the broker is its own again: it has to enrol from there.
    assert!(admit(&mut world, Admission::Reset).is_empty());
}

#[test]
fn a_device_that_lost_its_keys_comes_back_by_a_reset_and_a_claim() {
    let mut world = World::new();
    let (old, new) = (world.enrolled(1), device(1, 2));
    let token = world.claim(2, Approval::Hand);
    world.sends(&new, &new.enrol(Some(&token)));
    assert!(!world.waits(&new), "without a reset a claim does not help");

    world.admit(&old, Admission::Reset).unwrap();
    world.sends(&old, &old.enrol(Some(&token)));
    assert!(!world.waits(&old) && !world.hears(&old, 2), "the lost keys do not come back");
    world.sends(&new, &new.enrol(Some(&token)));
    assert!(world.waits(&new) && !world.hears(&new, 1));
    world.admit(&new, Admission::Approve).unwrap();

    assert_eq!(world.standing(&new), Some(Standing::Active));
    // Its numbers begin anew, so it is challenged: an answer all the same.
    assert!(world.hears(&new, 1) && !world.hears(&old, 3));
}

#[test]
fn a_revocation_while_new_keys_wait_is_not_undone_by_approving_them() {
    let mut world = World::new();
    let (old, new) = (world.enrolled(1), device(1, 2));
    let token = world.claim(1, Approval::Hand);
    world.admit(&old, Admission::Reset).unwrap();
    world.sends(&new, &new.enrol(Some(&token)));

    world.admit(&new, Admission::Revoke).unwrap();

    assert!(world.admit(&new, Admission::Approve).is_err());
    assert_eq!(world.standing(&new), Some(Standing::Revoked));
}

#[test]
fn a_factory_list_counts_byte_for_byte_and_only_under_a_trusted_key() {
    let mut world = World::new();
    let factory = SigningKey::from_slice(&[9; 32]).unwrap();
    let key = point_hex(&PublicKey::from(factory.verifying_key()));
    let list = serde_json::to_string(&device(1, 1).entry()).unwrap() + "\n";
    let signature: Signature = factory.sign(&signing_input(&fleet(), list.as_bytes()));
    let signature = hex::encode(signature.to_der());
    let add = |list: &str| Command::AddDevices { list: list.to_owned(), signature: signature.clone() };

    assert!(world.command(add(&list)).is_err(), "nobody trusts that key yet");
    let name = "line-1".parse().unwrap();
    world.command(Command::TrustFactory { factory: name, key }).unwrap();
    assert!(world.command(add(&list.replace("\"eu\"", "\"us\""))).is_err());
    assert!(world.command(add(&(list.clone() + "\n"))).is_err());
    assert!(world.service.fleet().devices.is_empty());

    world.command(add(&list)).unwrap();

    assert_eq!(world.standing(&device(1, 1)), Some(Standing::Active));
    let said = serde_json::to_value(world.ledger.last().unwrap()).unwrap();
    assert_eq!((&said["by"]["vouched"], &said["by"]["factory"]), (&json!("by-factory"), &json!("line-1")));
    world.command(Command::RevokeFactory("line-1".parse().unwrap())).unwrap();
    assert!(world.command(add(&list)).is_err());
    assert_eq!(world.standing(&device(1, 1)), Some(Standing::Active), "what it brought stays");
}

#[test]
fn a_ledger_from_before_there_were_claims_still_loads() {
    let listed = serde_json::to_value(device(1, 1).entry()).unwrap();
    let old = json!({"at": 5, "fact": "devices-added", "devices": [listed]});
    let entry: Entry = serde_json::from_value(old).unwrap();
    let mut loaded = Fleet::new(fleet());
    loaded.apply(entry.at, &entry.fact);
    let device = &loaded.devices[&device(1, 1).id];
    assert!(device.is_active() && device.retired.is_empty());
}

/// Enrols asking for the time, and returns what the time key answers.
fn time_of(world: &mut World, camera: &Camera, enrol: &Enrol, nonce: u8) -> Option<TimeAnswer> {
    let nonce = Nonce([nonce; 16]);
    let payload = serde_json::to_vec(&Enrol { time: Some(nonce), ..enrol.clone() }).unwrap();
    let outputs =
        world.handle(Input::Message { topic: Topic::Up(camera.id.clone(), UpKind::Enrol), payload });
    let key = world.service.keys[&registry().product].time.clone().unwrap();
    let key = PublicKey::from(key.verifying_key());
    outputs.iter().find_map(|output| match output {
        Output::Publish { topic: Topic::DeviceIn(to), payload } if TimeAnswer::looks_like(payload) => {
            let answer = TimeAnswer::open(payload, &key, &fleet(), &registry().product, to).unwrap();
            (*to == camera.id && answer.nonce == nonce).then_some(answer)
        }
        _ => None,
    })
}

#[test]
fn the_time_is_told_to_who_waits_or_was_never_heard_and_to_nobody_else() {
    let mut world = World::new();
    let token = world.claim(2, Approval::Hand);
    let cam = device(1, 1);
    assert_eq!(time_of(&mut world, &cam, &cam.enrol(None), 1), None, "a stranger");

    let answer = time_of(&mut world, &cam, &cam.enrol(Some(&token)), 2).unwrap();

    assert_eq!((answer.time, answer.rollout, answer.halt), (NOW / 1000, 1, 1));
    world.now += 10_000;
    assert_eq!(time_of(&mut world, &device(1, 2), &device(1, 2).enrol(Some(&token)), 3), None, "another key");
    world.admit(&cam, Admission::Approve).unwrap();
    assert!(time_of(&mut world, &cam, &cam.enrol(Some(&token)), 4).is_some());
    assert!(world.hears(&cam, 1));
    world.now += 10_000;
    assert_eq!(time_of(&mut world, &cam, &cam.enrol(Some(&token)), 5), None, "it has codes now");
}

#[test]
fn however_many_ask_for_the_time_there_is_a_ceiling_on_signatures() {
    let mut world = World::new();
    let token = world.claim(200, Approval::Hand);
    let cams: Vec<Camera> = (0..120).map(|number| device(number, 1)).collect();
    let enrols: Vec<Enrol> = cams.iter().map(|cam| cam.enrol(Some(&token))).collect();
    let asked = |world: &mut World| {
        let each = cams.iter().zip(&enrols);
        each.filter(|(cam, enrol)| time_of(world, cam, enrol, 1).is_some()).count()
    };

    assert_eq!(asked(&mut world), 50);
    assert_eq!(world.service.counters().untimed, 70);
    // The next second others have their turn, and nobody twice within five.
    let mut told = 50;
    for _ in 0..3 {
        world.now += 1000;
        told += asked(&mut world);
    }
    assert_eq!(told, 120);
    world.now += 5000;
    assert_eq!(asked(&mut world), 50);
}

#[test]
fn a_product_without_a_time_key_tells_no_time() {
    let mut world = World::new();
    let token = world.claim(1, Approval::Hand);
    let cam = device(1, 1);
    world.service.keys.get_mut(&registry().product).unwrap().time = None;

    world.sends(&cam, &Enrol { time: Some(Nonce([1; 16])), ..cam.enrol(Some(&token)) });

    assert!(world.waits(&cam) && world.service.counters().timed == 0);
}
