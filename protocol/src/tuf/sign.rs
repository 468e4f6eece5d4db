//! Signing: unsigned metadata in, a file out, and one signature more on a file that has some.

use serde_json::{Value, json};

use super::key::{KeyId, PublicKey, SignError, Signer};
use super::{Role, TufError, canonical};
use crate::limits::SIGNATURES_MAX;

/// Signs a role's metadata with every signer; returns the file as it travels.
pub fn sign(signed: Value, signers: &[&dyn Signer]) -> Result<Vec<u8>, SignError> {
    let mut file = Draft { signatures: Vec::new(), signed };
    for signer in signers {
        file.add(*signer)?;
    }
    file.write()
}

/// Adds one signature to a file, or replaces the signer's own; the signed part stays as it is. For thresholds
/// that several people reach one after the other.
pub fn add_signature(file: &[u8], signer: &dyn Signer) -> Result<Vec<u8>, SignError> {
    let mut file = Draft::read(file)?;
    file.add(signer)?;
    file.write()
}

/// Returns the bytes that a signature on this file covers.
pub fn message(file: &[u8]) -> Result<Vec<u8>, SignError> {
    Draft::read(file)?.message()
}

/// Adds a signature that somebody else made, under the id that metadata gives the key. Refuses one that does not
/// verify.
pub fn attach(file: &[u8], keyid: &KeyId, key: &PublicKey, signature: Vec<u8>) -> Result<Vec<u8>, SignError> {
    let mut file = Draft::read(file)?;
    let message = file.message()?;
    file.keep(keyid.clone(), key, &message, signature)?;
    file.write()
}

struct Draft {
    signatures: Vec<(KeyId, String)>,
    signed: Value,
}

impl Draft {
    fn read(bytes: &[u8]) -> Result<Self, SignError> {
        #[derive(serde::Deserialize)]
        struct Raw {
            signatures: Vec<Signature>,
            signed: Value,
        }
        #[derive(serde::Deserialize)]
        struct Signature {
            keyid: KeyId,
            sig: String,
        }
        let refused = |e: String| TufError::malformed(Role::Targets, e);
        let ceiling = Role::ALL.into_iter().map(Role::ceiling).max().unwrap_or_default();
        if bytes.len() > ceiling {
            let length = bytes.len();
            return Err(TufError::TooLarge { role: Role::Targets.into(), length, ceiling }.into());
        }
        let value = canonical::read(bytes).map_err(|e| refused(e.to_string()))?;
        let raw: Raw = serde_json::from_value(value).map_err(|e| refused(e.to_string()))?;
        let signatures = raw.signatures.into_iter().map(|s| (s.keyid, s.sig)).collect();
        Ok(Self { signatures, signed: raw.signed })
    }

    fn add(&mut self, signer: &dyn Signer) -> Result<(), SignError> {
        let message = self.message()?;
        let key = signer.public();
        let signature = signer.sign(&message)?;
        self.keep(key.id(), &key, &message, signature)
    }

    fn message(&self) -> Result<Vec<u8>, SignError> {
        let role = kind(&self.signed)?;
        Ok(canonical::write(&self.signed).map_err(|e| TufError::malformed(role, e))?)
    }

    fn keep(
        &mut self,
        keyid: KeyId,
        key: &PublicKey,
        message: &[u8],
        signature: Vec<u8>,
    ) -> Result<(), SignError> {
        // Verified before it is kept: with two tokens at hand the wrong one signs without a word.
        if !key.verifies(message, &signature) {
            return Err(SignError::OtherKey(keyid));
        }
        self.signatures.retain(|(other, _)| *other != keyid);
        self.signatures.push((keyid, hex::encode(signature)));
        Ok(())
    }

    fn write(self) -> Result<Vec<u8>, SignError> {
        let role = kind(&self.signed)?;
        if self.signatures.len() > SIGNATURES_MAX {
            let why = format!("more than {SIGNATURES_MAX} signatures");
            return Err(TufError::malformed(role, why).into());
        }
        let bytes = file(self.signatures.iter().map(|(keyid, sig)| (keyid, sig.as_str())), self.signed);
        // A file above its ceiling would be refused by every device, so it is refused here.
        if bytes.len() > role.ceiling() {
            return Err(TufError::TooLarge {
                role: role.into(),
                length: bytes.len(),
                ceiling: role.ceiling(),
            }
            .into());
        }
        Ok(bytes)
    }
}

/// Writes a file as it travels: compact, every object's fields sorted by name.
///
/// Sorted here, for a map keeps insertion order if any crate of the build asks serde_json for that, and the
/// bundle dictionary ([`crate::bundle::Dictionary`]) must be the same bytes in every build.
pub(crate) fn file<'a>(signatures: impl Iterator<Item = (&'a KeyId, &'a str)>, signed: Value) -> Vec<u8> {
    let list: Vec<Value> = signatures.map(|(keyid, sig)| json!({"keyid": keyid, "sig": sig})).collect();
    let file = sorted(json!({"signatures": list, "signed": signed}));
    serde_json::to_vec(&file).expect("JSON values always serialise")
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<(String, Value)> = map.into_iter().collect();
            fields.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(fields.into_iter().map(|(name, field)| (name, sorted(field))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// Returns a role of the metadata's kind; all `targets`-like roles have one ceiling.
fn kind(signed: &Value) -> Result<Role, TufError> {
    let kind = signed.get("_type").and_then(Value::as_str).unwrap_or_default();
    Role::from_name(kind)
        .filter(|role| role.kind() == kind)
        .ok_or_else(|| TufError::malformed(Role::Targets, format_args!("its type is {kind:?}")))
}
