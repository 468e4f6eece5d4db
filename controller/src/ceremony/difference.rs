//! What a person should see before signing root or targets: keys with their holders, thresholds, expiry, and
//! whether anything else changes.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use tern_protocol::tuf::key::PublicKey;
use tern_protocol::tuf::{Role, time};

use super::{Document, KeyLine};

/// A file against the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The role.
    pub role: Role,
    /// Version of the file before; none when there is nothing to compare with.
    pub before: Option<u32>,
    /// Version.
    pub version: u32,
    /// When the one before expires.
    pub expired: Option<String>,
    /// When it expires.
    pub expires: String,
    /// Keys, by the role that they speak for.
    pub keys: Vec<KeysChange>,
    /// Parts that change besides keys, names, version and expiry.
    pub others: Vec<String>,
}

/// Keys of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeysChange {
    /// The role.
    pub role: Role,
    /// Those that it did not have.
    pub added: Vec<KeyLine>,
    /// Those that it has no more.
    pub removed: Vec<KeyLine>,
    /// Those that stay.
    pub kept: Vec<KeyLine>,
    /// How many had to sign.
    pub threshold_before: Option<u32>,
    /// How many must sign.
    pub threshold: u32,
}

/// Compares a file with the one before it.
pub fn difference(before: Option<&Document>, file: &Document) -> Difference {
    let keys = file.names_keys_of().iter().map(|role| keys_change(before, file, *role)).collect();
    let others = before.map(|before| other_parts(&before.signed, &file.signed)).unwrap_or_default();
    Difference {
        role: file.role,
        before: before.map(|before| before.version),
        version: file.version,
        expired: before.map(Document::expires_text),
        expires: time::write(file.expires),
        keys,
        others,
    }
}

fn keys_change(before: Option<&Document>, file: &Document, role: Role) -> KeysChange {
    // A key is the key itself, not the id or the name that a file gives it.
    let id = |key: &PublicKey| key.id();
    let shown = |(line, key): &(KeyLine, PublicKey)| KeyLine { key: id(key).to_string(), ..line.clone() };
    let new = file.keys_of(role);
    let old = before.map(|before| before.keys_of(role)).unwrap_or_default();
    let in_old = |key: &PublicKey| old.iter().any(|(_, other)| id(other) == id(key));
    let in_new = |key: &PublicKey| new.iter().any(|(_, other)| id(other) == id(key));
    let threshold = |document: &Document| document.authority(role).map(|authority| authority.threshold());
    KeysChange {
        role,
        added: new.iter().filter(|(_, key)| !in_old(key)).map(shown).collect(),
        removed: old.iter().filter(|(_, key)| !in_new(key)).map(shown).collect(),
        kept: new.iter().filter(|(_, key)| in_old(key)).map(shown).collect(),
        threshold_before: before.and_then(threshold),
        threshold: threshold(file).unwrap_or_default(),
    }
}

/// Names what differs once keys, thresholds, names, version and expiry are taken out.
fn other_parts(before: &Value, file: &Value) -> Vec<String> {
    let mut parts = Vec::new();
    compare("", &rest(before), &rest(file), &mut parts);
    parts
}

fn rest(signed: &Value) -> Value {
    let mut rest = signed.clone();
    let mut without = |pointer: &str, fields: &[&str]| {
        if let Some(map) = rest.pointer_mut(pointer).and_then(Value::as_object_mut) {
            fields.iter().for_each(|field| drop(map.remove(*field)));
        }
    };
    without("", &["version", "expires", "keys"]);
    without("/delegations", &["keys"]);
    without("/x-tern", &["names"]);
    for role in Role::ALL {
        without(&format!("/roles/{role}"), &["keyids", "threshold"]);
    }
    let delegations = rest.pointer_mut("/delegations/roles").and_then(Value::as_array_mut);
    for role in delegations.into_iter().flatten().filter_map(Value::as_object_mut) {
        drop((role.remove("keyids"), role.remove("threshold")));
    }
    if rest.get("x-tern").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
        rest.as_object_mut().and_then(|map| map.remove("x-tern"));
    }
    rest
}

fn compare(at: &str, before: &Value, file: &Value, parts: &mut Vec<String>) {
    match (before, file) {
        (Value::Object(a), Value::Object(b)) => {
            let fields: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for field in fields {
                let none = Value::Null;
                let (a, b) = (a.get(field).unwrap_or(&none), b.get(field).unwrap_or(&none));
                compare(&format!("{at}/{}", field.escape_debug()), a, b, parts);
            }
        }
        (a, b) if a == b => {}
        (a, b) => {
            let short = |value: &Value| value.to_string().chars().take(100).collect::<String>();
            parts.push(format!("{at}: {} -> {}", short(a), short(b)));
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.before {
            Some(before) => writeln!(f, "{}: version {before} -> {}", self.role, self.version)?,
            None => writeln!(f, "{}: version {}", self.role, self.version)?,
        }
        match &self.expired {
            Some(expired) => writeln!(f, "expires: {expired} -> {}", self.expires)?,
            None => writeln!(f, "expires: {}", self.expires)?,
        }
        for keys in &self.keys {
            write!(f, "keys of {}: ", keys.role)?;
            let count = keys.added.len() + keys.kept.len();
            match keys.threshold_before.filter(|before| *before != keys.threshold) {
                Some(before) => {
                    writeln!(f, "{} of {count} must sign, WHERE IT WAS {before}", keys.threshold)?;
                }
                None => writeln!(f, "{} of {count} must sign", keys.threshold)?,
            }
            let lines = [("ADDED  ", &keys.added), ("REMOVED", &keys.removed), ("as before", &keys.kept)];
            for (word, lines) in lines {
                // Without anything to compare with, nothing was added.
                let word = if self.before.is_none() { "key" } else { word };
                for line in lines {
                    writeln!(f, "  {word} {line}")?;
                }
            }
        }
        for part in &self.others {
            writeln!(f, "ALSO CHANGES {part}")?;
        }
        Ok(())
    }
}
