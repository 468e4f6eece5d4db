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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuf::client::tests::repository::{Repository, key, signed};

    fn too_large<T>(result: Result<T, SignError>) -> bool {
        matches!(result, Err(SignError::Metadata(TufError::TooLarge { .. })))
    }

    #[test]
    fn a_signature_made_elsewhere_is_attached_if_it_verifies() {
        let value = Repository::default().root_value();
        let one = signed(value.clone(), &[1]);
        let covered = message(&one).unwrap();
        let (id, public) = (key(2).public().id(), key(2).public());

        assert_eq!(covered, canonical::write(&value).unwrap());
        let made = key(2).sign(&covered).unwrap();
        assert_eq!(attach(&one, &id, &public, made.clone()).unwrap(), signed(value, &[1, 2]));
        // Metadata may give a key another name than ours.
        let named: KeyId = serde_json::from_value(json!("holder-b")).unwrap();
        let file: Value = serde_json::from_slice(&attach(&one, &named, &public, made).unwrap()).unwrap();
        assert_eq!(file["signatures"][1]["keyid"], "holder-b");
        let other = key(3).sign(&covered).unwrap();
        assert!(matches!(attach(&one, &id, &public, other), Err(SignError::OtherKey(of)) if of == id));
    }

    #[test]
    fn a_file_to_be_signed_is_read_up_to_the_largest_ceiling() {
        let mut file = signed(Repository::default().root_value(), &[1]);
        let ceiling = Role::ALL.into_iter().map(Role::ceiling).max().unwrap();
        file.resize(ceiling, b' ');
        assert!(message(&file).is_ok());

        for _ in 0..2 {
            file.push(b' ');
            assert!(too_large(message(&file)));
        }
    }

    #[test]
    fn a_file_is_written_up_to_its_ceiling_and_with_sixteen_signatures() {
        let value = |padding: usize| {
            let mut value = Repository::default().value(Role::Timestamp);
            value["x-note"] = json!("x".repeat(padding));
            value
        };
        let (ceiling, least) = (Role::Timestamp.ceiling(), signed(value(0), &[1]).len());
        // A signature has one or two bytes more or less for every message.
        let near = (ceiling - least - 8..ceiling - least + 8).map(|padding| sign(value(padding), &[&key(1)]));
        let (written, refused): (Vec<_>, Vec<_>) = near.partition(Result::is_ok);

        assert_eq!(written.into_iter().flatten().map(|file| file.len()).max(), Some(ceiling));
        assert!(!refused.is_empty() && refused.into_iter().all(too_large));

        let keys: Vec<_> = (1..=18).map(key).collect();
        let by = |count: usize| {
            let signers: Vec<&dyn Signer> = keys[..count].iter().map(|key| key as &dyn Signer).collect();
            sign(Repository::default().root_value(), &signers)
        };
        assert!(by(SIGNATURES_MAX).is_ok());
        assert!(matches!(by(SIGNATURES_MAX + 1), Err(SignError::Metadata(TufError::Malformed { .. }))));
        assert!(by(SIGNATURES_MAX + 2).is_err());
    }
}
