//! A token as text: `tern_<id>_<secret>_<check>`, all in lower-case hex.
//!
//! The id finds the token in the register without giving anything away; the secret is 256 random bits; the check is
//! a CRC-32C of what stands before it, so that a slip of the fingers is told apart from a token that nobody made,
//! and so that scanners for leaked secrets find few false ones.

use std::fmt;
use std::str::FromStr;

use p256::elliptic_curve::subtle::ConstantTimeEq as _;
use p256::elliptic_curve::zeroize::Zeroizing;
use tern_protocol::digest::Digest;

/// How every token begins.
pub const PREFIX: &str = "tern_";
/// Bytes of the id: it names one of a few hundred.
pub const ID_BYTES: usize = 6;
/// Bytes of the secret.
pub const SECRET_BYTES: usize = 32;
/// Characters of a token: a longer text is not looked at.
pub const TEXT: usize = PREFIX.len() + 2 * ID_BYTES + 1 + 2 * SECRET_BYTES + 1 + 8;

/// A token on its way in or out; wiped from memory after use, and never printed by accident.
pub struct Secret {
    id: [u8; ID_BYTES],
    bytes: Zeroizing<[u8; SECRET_BYTES]>,
}

/// Says why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It does not begin like one.
    #[error("this is not a token of Tern: those begin with \"tern_\"")]
    NotOne,
    /// It begins like one and is not whole.
    #[error("the token is mistyped or cut short: its check does not fit")]
    Mistyped,
}

impl Secret {
    /// Makes a token of what was drawn.
    pub fn new(id: [u8; ID_BYTES], secret: [u8; SECRET_BYTES]) -> Self {
        Self { id, bytes: Zeroizing::new(secret) }
    }

    /// Returns what finds the token; no secret.
    pub fn id(&self) -> String {
        hex::encode(self.id)
    }

    /// Returns what is kept of it. One round of SHA-256 is enough: slow hashes are for passwords, which people
    /// choose; nobody tries 2²⁵⁶ secrets, however fast each try is.
    pub fn hash(&self) -> Digest {
        Digest::of_parts(&[b"tern-token-v1\n", &self.id, self.bytes.as_ref()])
    }

    /// Tells whether this is the secret of a hash, in the same time whatever differs.
    pub fn is_of(&self, hash: &Digest) -> bool {
        self.hash().0.ct_eq(&hash.0).into()
    }

    /// Returns the text: for its holder, once.
    pub fn reveal(&self) -> Zeroizing<String> {
        let body = Zeroizing::new(format!("{PREFIX}{}_{}", self.id(), hex::encode(self.bytes.as_ref())));
        Zeroizing::new(format!("{}_{:08x}", body.as_str(), crc32c::crc32c(body.as_bytes())))
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let rest = text.strip_prefix(PREFIX).ok_or(SecretError::NotOne)?;
        // Other letters would be other texts of one token.
        let plain = text.len() == TEXT
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        let read = || {
            let (id, rest) = rest.split_once('_')?;
            let (secret, check) = rest.split_once('_')?;
            let (mut id_bytes, mut bytes) = ([0; ID_BYTES], Zeroizing::new([0; SECRET_BYTES]));
            hex::decode_to_slice(id, &mut id_bytes).ok()?;
            hex::decode_to_slice(secret, bytes.as_mut()).ok()?;
            let body = text.len().checked_sub(check.len() + 1).and_then(|end| text.get(..end))?;
            let expected = format!("{:08x}", crc32c::crc32c(body.as_bytes()));
            (expected == check).then_some(Self { id: id_bytes, bytes })
        };
        plain.then(read).flatten().ok_or(SecretError::Mistyped)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}, hidden)", self.id())
    }
}
