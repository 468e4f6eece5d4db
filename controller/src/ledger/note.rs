//! Signed notes: text with signature lines below it, as C2SP publishes the format (c2sp.org/signed-note).
//!
//! ```text
//! <text, ends with a newline>
//!
//! — <key name> base64(key id ‖ signature)
//! ```
//!
//! The signature type is 0x02: ECDSA over P-256 and SHA-256, in DER, where the key id is the first four bytes of
//! SHA-256 over the public key (SPKI, DER). A key's name follows from the key, so a key says for itself which
//! ledger is its own, and two ledgers never have one name.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::pkcs8::{DecodePublicKey, EncodePublicKey, LineEnding};
use tern_protocol::digest::Digest;

/// A longer note is none: a checkpoint has some 250 bytes, the largest boundary some 4000.
pub const NOTE_MAX: usize = 16 * 1024;
/// Signature lines that are looked at; the format asks for 16 at least.
const SIGNATURES_MAX: usize = 32;
/// Begins a signature line.
const DASH: &str = "— ";
/// Type byte of ECDSA.
const ECDSA: u8 = 2;

/// Says why a note is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is no signed note.
    #[error("it is no signed note: {0}")]
    Form(&'static str),
    /// None of its signatures names the key.
    #[error("it is signed by {found}, not by {wanted}")]
    OtherKey {
        /// Who signed.
        found: String,
        /// Who should have.
        wanted: String,
    },
    /// The signature does not fit the text.
    #[error("its signature by {0} does not fit its text")]
    Signature(String),
}

/// A text that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a P-256 public key: PEM (BEGIN PUBLIC KEY), hex of the point, or name+id+base64")]
pub struct NotAKey;

/// Whose signature is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    id: [u8; 4],
    point: VerifyingKey,
}

impl NoteKey {
    /// Names a key.
    pub fn new(point: VerifyingKey) -> Self {
        let spki = point.to_public_key_der().expect("a P-256 key always has a DER form");
        let hash = Digest::of(spki.as_bytes());
        let id = *hash.0.first_chunk().expect("a digest is longer");
        Self { name: format!("tern-ledger/{}", &hash.to_string()[..16]), id, point }
    }

    /// Reads PEM, the hex of the point, or a verifier key of the notes' own format.
    pub fn read(text: &str) -> Result<Self, NotAKey> {
        let text = text.trim();
        if text.starts_with("-----") {
            return VerifyingKey::from_public_key_pem(text).map(Self::new).map_err(|_| NotAKey);
        }
        let (hex, named) = match text.rsplit_once('+').filter(|_| text.starts_with("tern-ledger/")) {
            // The name and the id follow from the key; one that was put together wrongly is none.
            Some(_) => {
                let mut parts = text.splitn(3, '+');
                let key = parts.nth(2).and_then(|key| STANDARD.decode(key).ok()).ok_or(NotAKey)?;
                let [ECDSA, spki @ ..] = &key[..] else { return Err(NotAKey) };
                let point = VerifyingKey::from_public_key_der(spki).map_err(|_| NotAKey)?;
                (hex::encode(point.to_encoded_point(false)), Some(text))
            }
            None => (text.to_owned(), None),
        };
        let bytes = hex::decode(hex).map_err(|_| NotAKey)?;
        let key = Self::new(VerifyingKey::from_sec1_bytes(&bytes).map_err(|_| NotAKey)?);
        if named.is_some_and(|named| named != key.verifier_key()) { Err(NotAKey) } else { Ok(key) }
    }

    /// Returns its name, which is the origin of the ledger's checkpoints.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the point in hex, uncompressed.
    pub fn hex(&self) -> String {
        hex::encode(self.point.to_encoded_point(false))
    }

    /// Returns the key in PEM.
    pub fn pem(&self) -> String {
        self.point.to_public_key_pem(LineEnding::LF).expect("a P-256 key always has a PEM form")
    }

    /// Returns the key as other programs that read notes take it: name+id+base64.
    pub fn verifier_key(&self) -> String {
        let spki = self.point.to_public_key_der().expect("a P-256 key always has a DER form");
        let key = STANDARD.encode([&[ECDSA], spki.as_bytes()].concat());
        format!("{}+{}+{key}", self.name, hex::encode(self.id))
    }

    /// Returns the text of a note if this key has signed it.
    pub fn open<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        let (text, lines) = split(note)?;
        let mut others = Vec::new();
        let mut signed = false;
        for line in lines {
            let (name, bytes) = line?;
            let Some((id, signature)) = bytes.split_first_chunk::<4>() else {
                return Err(NoteError::Form("a signature is too short"));
            };
            if name != self.name || *id != self.id {
                others.push(name);
                continue;
            }
            // "If a signature from a known key fails to verify, clients SHOULD reject the whole note."
            let fits =
                Signature::from_der(signature).is_ok_and(|s| self.point.verify(text.as_bytes(), &s).is_ok());
            if !fits {
                return Err(NoteError::Signature(self.name.clone()));
            }
            signed = true;
        }
        if signed {
            return Ok(text);
        }
        let mut found = others.join(", ");
        found.truncate(found.char_indices().nth(200).map_or(found.len(), |(at, _)| at));
        Err(NoteError::OtherKey { found, wanted: self.name.clone() })
    }
}

/// What signs notes.
#[derive(Clone)]
pub struct NoteSigner {
    key: SigningKey,
    public: NoteKey,
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteSigner({})", self.public.name)
    }
}

impl NoteSigner {
    /// Signs with this key.
    pub fn new(key: SigningKey) -> Self {
        let public = NoteKey::new(*key.verifying_key());
        Self { key, public }
    }

    /// Returns the public half.
    pub fn public(&self) -> &NoteKey {
        &self.public
    }

    /// Signs a text, which ends with a newline.
    pub fn sign(&self, text: &str) -> String {
        let signature: Signature = self.key.sign(text.as_bytes());
        let line = STANDARD.encode([&self.public.id, signature.to_der().as_bytes()].concat());
        format!("{text}\n{DASH}{} {line}\n", self.public.name)
    }
}

/// Returns a note's text without asking who signed it.
pub fn unverified(note: &str) -> Result<&str, NoteError> {
    split(note).map(|(text, _)| text)
}

type Line<'a> = Result<(&'a str, Vec<u8>), NoteError>;

/// Returns the text and the signature lines of a note.
fn split(note: &str) -> Result<(&str, impl Iterator<Item = Line<'_>>), NoteError> {
    let bad = NoteError::Form;
    if note.len() > NOTE_MAX {
        return Err(bad("it is too long"));
    }
    if note.chars().any(|c| c < ' ' && c != '\n') {
        return Err(bad("it has control characters"));
    }
    // "The text is separated from the signatures by the last empty line in the note."
    let at = note.rfind("\n\n").ok_or(bad("it has no signature"))?;
    let (text, signatures) = (&note[..=at], &note[at + 2..]);
    let signatures = signatures.strip_suffix('\n').ok_or(bad("it is cut short"))?;
    if signatures.lines().count() > SIGNATURES_MAX {
        return Err(bad("it has too many signatures"));
    }
    let read = |line: &'static str| NoteError::Form(line);
    let lines = signatures.lines().map(move |line| {
        let (name, signature) = line
            .strip_prefix(DASH)
            .and_then(|rest| rest.split_once(' '))
            .filter(|(name, _)| !name.is_empty() && !name.contains('+'))
            .ok_or(read("a signature line does not read"))?;
        let bytes = STANDARD.decode(signature).map_err(|_| read("a signature is no base64"))?;
        Ok((name, bytes))
    });
    Ok((text, lines))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn signer(seed: u8) -> NoteSigner {
        NoteSigner::new(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    #[test]
    fn a_note_opens_for_its_key_and_for_no_other() {
        let note = signer(1).sign("one\n\nthree\n");
        assert_eq!(signer(1).public().open(&note), Ok("one\n\nthree\n"));
        assert!(matches!(signer(2).public().open(&note), Err(NoteError::OtherKey { .. })));
        // Others may sign beside it.
        let also = format!("{note}{}", signer(2).sign("one\n\nthree\n").rsplit_once("\n\n").unwrap().1);
        assert_eq!(signer(1).public().open(&also), Ok("one\n\nthree\n"));
        assert_eq!(signer(2).public().open(&also), Ok("one\n\nthree\n"));
    }

    #[test]
    fn no_changed_byte_and_no_cut_is_believed() {
        let note = signer(1).sign("origin\n7\nroot\n");
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(signer(1).public().open(&changed).is_err(), "byte {at}");
            }
            if let Some(cut) = note.get(..at) {
                assert!(signer(1).public().open(cut).is_err(), "cut at {at}");
            }
        }
        assert!(signer(1).public().open(&format!("{}{note}", "x".repeat(NOTE_MAX))).is_err());
    }

    #[test]
    fn a_key_is_read_in_each_of_its_forms() {
        let key = signer(3).public().clone();
        for text in [key.pem(), key.hex(), key.verifier_key(), format!("  {}\n", key.hex())] {
            assert_eq!(NoteKey::read(&text), Ok(key.clone()), "{text}");
        }
        let other = signer(4).public().verifier_key();
        let (name, rest) = other.split_once('+').unwrap();
        let renamed = format!("{}+{rest}", key.name());
        for wrong in ["", "zz", "04", name, &renamed, "-----BEGIN PUBLIC KEY-----", &key.hex()[2..]] {
            assert_eq!(NoteKey::read(wrong), Err(NotAKey), "{wrong}");
        }
    }
}
