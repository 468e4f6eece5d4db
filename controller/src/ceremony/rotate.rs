//! The next version of root, targets or release: other keys, another threshold, or only another expiry.
//!
//! The file is changed where it has to be and otherwise stays as it was signed, with whatever this version of Tern
//! does not know. Where the change takes the authority of a file below it away, that file comes out anew as well,
//! for the new keys to sign.

use std::collections::BTreeSet;

use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use tern_protocol::limits::TELEMETRY_KEYS_MAX;
use tern_protocol::tuf::content::{TargetsContent, point_hex};
use tern_protocol::tuf::key::PublicKey;
use tern_protocol::tuf::{Role, time};

use super::{CeremonyError, Document};

/// What is in force.
#[derive(Debug, Clone)]
pub struct Present {
    /// Root.
    pub root: Document,
    /// Targets.
    pub targets: Document,
    /// Release.
    pub release: Document,
}

/// What should change for one role.
#[derive(Debug, Clone)]
pub struct Change {
    /// The role whose keys, or whose expiry.
    pub role: Role,
    /// Keys to add, with their holders' names; empty for none.
    pub add: Vec<(String, PublicKey)>,
    /// Keys to take away: by the beginning of the id, or by the holder's name.
    pub remove: Vec<String>,
    /// How many must sign; as before when absent.
    pub threshold: Option<u32>,
    /// When root and targets expire, unix seconds.
    pub expires: u64,
    /// When release expires, unix seconds.
    pub release_expires: u64,
}

impl Change {
    fn is_renewal(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty() && self.threshold.is_none()
    }
}

/// Works out the files that follow, without signatures: root before targets before release.
pub fn rotate(present: &Present, change: &Change) -> Result<Vec<Document>, CeremonyError> {
    let online = matches!(change.role, Role::Rollout | Role::Halt | Role::Snapshot | Role::Timestamp);
    if change.is_renewal() {
        if online {
            let why =
                format!("{} is renewed by the service; a rotation of its key takes a new key", change.role);
            return Err(CeremonyError::Change(why));
        }
        return Ok(vec![renewed(present, change, change.role)?]);
    }
    let parent = match change.role {
        Role::Root | Role::Targets | Role::Snapshot | Role::Timestamp => &present.root,
        Role::Release | Role::Rollout | Role::Halt => &present.targets,
    };
    let mut signed = parent.signed.clone();
    change_keys(&mut signed, parent, change)?;
    next(&mut signed, parent, change)?;
    let parent = Document::unsigned(&signed)?;
    let mut files = vec![parent];
    // Those whom the new file does not name any more must not be the only ones who signed what is below it.
    let below = match change.role {
        Role::Targets => Some(&present.targets),
        Role::Release => Some(&present.release),
        _ => None,
    };
    if let Some(below) = below
        && !files[0].authority(below.role).is_some_and(|authority| below.is_signed(authority))
    {
        files.push(renewed(present, change, below.role)?);
    }
    Ok(files)
}

/// What should change among the keys of the service that targets names beside the roles.
#[derive(Debug, Clone)]
pub enum ServiceKey {
    /// Another time key takes the present one's place.
    Time(p256::PublicKey),
    /// A further telemetry key, under the next number; the others stay until they are taken away.
    Telemetry(p256::PublicKey),
    /// This telemetry key goes.
    NoTelemetry(u32),
}

/// Works out the targets that follow, without signatures.
pub fn rotate_service_key(
    present: &Present,
    change: &ServiceKey,
    expires: u64,
) -> Result<Document, CeremonyError> {
    let wrong = |why: String| Err(CeremonyError::Change(why));
    let mut signed = present.targets.signed.clone();
    let mut content = TargetsContent::deserialize(&signed["x-tern"])
        .map_err(|error| CeremonyError::Change(format!("the present targets do not read: {error}")))?;
    let newest = content.telemetry.last_key_value().map_or(0, |(kid, _)| *kid);
    match change {
        ServiceKey::Time(key) => content.time = Some(point_hex(key)),
        ServiceKey::Telemetry(_) if content.telemetry.len() >= TELEMETRY_KEYS_MAX => {
            let first = content.telemetry.first_key_value().map_or(0, |(kid, _)| *kid);
            return wrong(format!(
                "{TELEMETRY_KEYS_MAX} telemetry keys are in force; take number {first} away first"
            ));
        }
        ServiceKey::Telemetry(key) => {
            drop(content.telemetry.insert(newest.saturating_add(1), point_hex(key)))
        }
        ServiceKey::NoTelemetry(kid) if *kid == newest => {
            return wrong(format!(
                "telemetry key {kid} is the one that devices use; rotate first, then take it away"
            ));
        }
        ServiceKey::NoTelemetry(kid) => {
            if content.telemetry.remove(kid).is_none() {
                let held: Vec<String> = content.telemetry.keys().map(u32::to_string).collect();
                return wrong(format!("there is no telemetry key {kid}; there are {}", held.join(", ")));
            }
        }
    }
    signed["x-tern"]["telemetry"] = json!(content.telemetry);
    if let Some(time) = content.time {
        signed["x-tern"]["time"] = time.into();
    }
    let change = Change {
        role: Role::Targets,
        add: Vec::new(),
        remove: Vec::new(),
        threshold: None,
        expires,
        release_expires: expires,
    };
    next(&mut signed, &present.targets, &change)?;
    Document::unsigned(&signed)
}

/// The same with the next version and a new expiry.
fn renewed(present: &Present, change: &Change, role: Role) -> Result<Document, CeremonyError> {
    let file = match role {
        Role::Root => &present.root,
        Role::Targets => &present.targets,
        _ => &present.release,
    };
    let mut signed = file.signed.clone();
    next(&mut signed, file, change)?;
    Document::unsigned(&signed)
}

fn next(signed: &mut Value, before: &Document, change: &Change) -> Result<(), CeremonyError> {
    let last = || CeremonyError::Change("there is no version after this one".to_owned());
    let expires = if before.role == Role::Release { change.release_expires } else { change.expires };
    signed["version"] = before.version.checked_add(1).ok_or_else(last)?.into();
    signed["expires"] = time::write(expires).into();
    Ok(())
}

fn change_keys(signed: &mut Value, parent: &Document, change: &Change) -> Result<(), CeremonyError> {
    let wrong = |why: String| Err(CeremonyError::Change(why));
    let role = change.role;
    let present = parent.keys_of(role);
    let mut gone = BTreeSet::new();
    for wanted in &change.remove {
        let is = |line: &super::KeyLine| line.name == *wanted || line.key.starts_with(wanted.as_str());
        let found: Vec<&String> = present.iter().filter(|(l, _)| is(l)).map(|(l, _)| &l.key).collect();
        match found.as_slice() {
            [one] => drop(gone.insert((*one).clone())),
            [] => return wrong(format!("{role} has no key {wanted}")),
            _ => return wrong(format!("{wanted} is several keys of {role}; give more of the key id")),
        }
    }
    let mut ids: Vec<String> =
        present.iter().map(|(line, _)| line.key.clone()).filter(|id| !gone.contains(id)).collect();
    let keys_at = if parent.role == Role::Root { "/keys" } else { "/delegations/keys" };
    for (name, key) in &change.add {
        let id = key.id().to_string();
        if present.iter().any(|(_, other)| other.pem() == key.pem()) || ids.contains(&id) {
            return wrong(format!("{role} has the key {name} already"));
        }
        let keys = signed.pointer_mut(keys_at).and_then(Value::as_object_mut);
        let keys = keys.ok_or_else(|| CeremonyError::Change("the file names no keys".to_owned()))?;
        keys.insert(id.clone(), json!(key));
        if !name.is_empty() {
            names_of(signed)?.insert(id.clone(), name.as_str().into());
        }
        ids.push(id);
    }
    let before = parent.authority(role).map_or(1, |authority| authority.threshold());
    let threshold = change.threshold.unwrap_or(before);
    if threshold == 0 || threshold as usize > ids.len() {
        return wrong(format!("{threshold} of {} keys of {role} cannot sign", ids.len()));
    }
    let place = match parent.role {
        Role::Root => signed.pointer_mut(&format!("/roles/{role}")),
        _ => signed
            .pointer_mut("/delegations/roles")
            .and_then(Value::as_array_mut)
            .and_then(|roles| roles.iter_mut().find(|delegated| delegated["name"] == role.name())),
    };
    let place = place.ok_or_else(|| CeremonyError::Change(format!("the file does not name {role}")))?;
    place["keyids"] = json!(ids);
    place["threshold"] = threshold.into();
    sweep(signed, keys_at);
    Ok(())
}

/// Returns the names of keys. What a file holds there is whatever somebody wrote: where it cannot hold names, people
/// decide, for it was signed.
fn names_of(signed: &mut Value) -> Result<&mut Map<String, Value>, CeremonyError> {
    let mut place = signed;
    for key in ["x-tern", "names"] {
        let odd = || {
            CeremonyError::Change(format!(
                "the file has a {key:?} that is no object, so names of keys have no place"
            ))
        };
        let object =
            place.as_object_mut().ok_or_else(|| CeremonyError::Change("the file is no object".to_owned()))?;
        let inside = object.entry(key).or_insert(Value::Null);
        if inside.is_null() {
            *inside = Value::Object(Map::new());
        }
        place = Some(inside).filter(|inside| inside.is_object()).ok_or_else(odd)?;
    }
    place.as_object_mut().ok_or_else(|| CeremonyError::Change("the file has no place for names".to_owned()))
}

/// Takes out keys, and names of keys, that speak for no role any more.
fn sweep(signed: &mut Value, keys_at: &str) {
    let of = |role: &Value| -> Vec<String> {
        let ids = role["keyids"].as_array().into_iter().flatten();
        ids.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let top = signed["roles"].as_object().into_iter().flatten().map(|(_, role)| role);
    let delegated = signed.pointer("/delegations/roles").and_then(Value::as_array).into_iter().flatten();
    let used: BTreeSet<String> = top.chain(delegated).flat_map(of).collect();
    for pointer in [keys_at, "/x-tern/names"] {
        if let Some(map) = signed.pointer_mut(pointer).and_then(Value::as_object_mut) {
            map.retain(|id, _| used.contains(id));
        }
    }
}
