//! Files as the signer writes them, with nothing in them: what a dictionary is made of.

use std::str::FromStr;

use p256::ecdsa::VerifyingKey;
use serde_json::Value;

use super::container::{self, File};
use crate::digest::Digest;
use crate::message::Versions;
use crate::position::{Cut, Salt};
use crate::tuf::build::{self, DelegatedKeys, Keys, Named, RootKeys};
use crate::tuf::content::{
    Arm, ArtifactContent, Entry, EntryKind, HaltContent, RolloutContent, TargetsContent, Urgency,
};
use crate::tuf::key::{KeyId, PublicKey};
use crate::tuf::{Role, sign};

/// A signature of the right form: hex of DER of r = s = 1.
const SIGNATURE: &str = "3006020101020101";
/// A number that is long enough to be taken out.
const TIME: u64 = 1_800_000_000;

/// Appends the text of a role's file, signed by `keys`, with its values taken out where `stays` is false.
pub(super) fn write(
    role: Role,
    product: &str,
    keys: &[&KeyId],
    stays: impl Fn(&[u8]) -> bool,
    out: &mut Vec<u8>,
) {
    let signatures = keys.iter().map(|id| (*id, SIGNATURE));
    let file = File { role, bytes: sign::file(signatures, signed_part(role, product)) };
    container::write(&file, stays, out, &mut Vec::new());
}

fn signed_part(role: Role, product: &str) -> Value {
    let zeros = Digest([0; 32]);
    let named = Named { path: format!("{product}/1/rootfs"), length: TIME, sha256: zeros };
    let one = || Versions { root: 1, timestamp: 1, snapshot: 1, targets: 1, release: 1, rollout: 1, halt: 1 };
    match role {
        Role::Timestamp => {
            let mut value = build::timestamp(1, TIME, 1, Some(&[]), TIME);
            value["meta"]["snapshot.json"]["hashes"]["sha256"] = zeros.to_string().into();
            value
        }
        Role::Snapshot => build::snapshot(1, TIME, &one()),
        Role::Release => {
            let content = ArtifactContent::new(1, "1.0.0", "rootfs", vec![id("a")], zeros);
            build::release(1, TIME, &[(named, content)])
        }
        Role::Root => {
            let keys = Keys::one(any_key());
            let roles = RootKeys {
                root: keys.clone(),
                timestamp: keys.clone(),
                snapshot: keys.clone(),
                targets: keys,
            };
            build::root(1, TIME, &roles)
        }
        Role::Targets => {
            let keys = Keys::one(any_key());
            let delegated = DelegatedKeys { release: keys.clone(), rollout: keys.clone(), halt: keys };
            let content = TargetsContent { telemetry: [(1, String::new())].into(), time: None };
            build::targets(1, TIME, &id(product), &delegated, &content)
        }
        Role::Halt => build::halt(1, TIME, &HaltContent { halted: vec![1] }),
        Role::Rollout => {
            let entry = Entry {
                rollout: id(&format!("{product}-1-1")),
                rc: 1,
                kind: EntryKind::Update,
                attempt: 1,
                regions: vec![id("a")],
                models: vec![],
                carriers: vec![],
                salt: Salt([0; 16]),
                cuts: [(id("a"), Cut(0))].into(),
                hold_back: None,
                schedule: None,
                from: vec![],
                list: vec![],
                spread: 0,
                arm: Arm::Acked,
                urgency: Urgency::Soft,
            };
            build::rollout(1, TIME, &[named], &RolloutContent { entries: vec![entry] })
        }
    }
}

/// Some key: the point from which P-256 counts.
pub(super) fn any_key() -> PublicKey {
    let point = VerifyingKey::from_affine(p256::AffinePoint::GENERATOR);
    PublicKey::p256(&point.expect("the generator is a point of the curve"))
}

/// Returns an id, or the shortest if `text` is none: a product's name comes from a signed file that may be older
/// than today's rules.
fn id<T: FromStr>(text: &str) -> T {
    text.parse().or_else(|_| "a".parse()).unwrap_or_else(|_| unreachable!("one letter is an id"))
}
