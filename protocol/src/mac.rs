//! Authentication of everything that is not a signed file: reports upwards, answers downwards.
//!
//! ```text
//! secret  = ECDH(own telemetry key, peer's telemetry key)                     P-256, x coordinate
//! key     = HKDF-SHA256(secret, salt = fleet, info = "tern-mac-v1" ‖ direction ‖ device ‖ 0 ‖ kid ‖ epoch)
//! tag     = HMAC-SHA256(key, "tern-v1" ‖ direction ‖ device ‖ 0 ‖ body without its last '}')[..16]
//! message = body without its last '}' ‖ ,"m":"<22 base64url digits>"}
//! ```
//! direction is one byte, 'u' or 'd'; kid (u32) and epoch (u64) are big endian. The tag covers raw bytes, so no
//! canonical form is needed, and not the topic, which a bridge may remap. A device's two keys never mix: the
//! identity key only signs, the telemetry key only agrees.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use p256::{PublicKey, SecretKey};
use serde::Serialize;
use sha2::Sha256;

use crate::id::{DeviceId, FleetId};

const TAG: usize = 16;
const TAIL: usize = r#","m":""}"#.len() + 22;

/// Which way a message goes; a key serves one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Device to controller.
    Up,
    /// Controller to device.
    Down,
}

impl Direction {
    fn byte(self) -> u8 {
        match self {
            Self::Up => b'u',
            Self::Down => b'd',
        }
    }
}

/// What a device and the controller share for as long as both keep their telemetry keys.
#[derive(Clone)]
pub struct PairSecret([u8; 32]);

/// A key for one device, direction, telemetry key and epoch.
#[derive(Clone)]
pub struct MacKey {
    direction: Direction,
    device: DeviceId,
    hmac: Hmac<Sha256>,
}

impl std::fmt::Debug for PairSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PairSecret(hidden)")
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MacKey({:?}, {})", self.direction, self.device)
    }
}

/// Says why a message is not authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// No tag where one belongs.
    #[error("the message carries no authentication code")]
    Missing,
    /// The tag is not the one of this key and these bytes.
    #[error("the authentication code does not match")]
    Mismatch,
}

impl PairSecret {
    /// Agrees on the secret of two telemetry keys.
    pub fn agree(own: &SecretKey, peer: &PublicKey) -> Self {
        let shared = p256::ecdh::diffie_hellman(own.to_nonzero_scalar(), peer.as_affine());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(shared.raw_secret_bytes());
        Self(bytes)
    }

    /// Derives the key of one direction and epoch. `kid` numbers the controller's telemetry key.
    pub fn key(
        &self,
        direction: Direction,
        fleet: &FleetId,
        device: &DeviceId,
        kid: u32,
        epoch: u64,
    ) -> MacKey {
        let mut okm = [0; 32];
        Hkdf::<Sha256>::new(Some(fleet.as_str().as_bytes()), &self.0)
            .expand_multi_info(
                &[
                    b"tern-mac-v1",
                    &[direction.byte()],
                    device.as_str().as_bytes(),
                    &[0],
                    &kid.to_be_bytes(),
                    &epoch.to_be_bytes(),
                ],
                &mut okm,
            )
            .expect("32 bytes are within HKDF's reach");
        let hmac = Hmac::new_from_slice(&okm).expect("HMAC takes keys of any length");
        MacKey { direction, device: device.clone(), hmac }
    }
}

impl MacKey {
    fn tag(&self, covered: &[u8]) -> [u8; TAG] {
        let mut hmac = self.hmac.clone();
        hmac.update(b"tern-v1");
        hmac.update(&[self.direction.byte()]);
        hmac.update(self.device.as_str().as_bytes());
        hmac.update(&[0]);
        hmac.update(covered);
        let mut tag = [0; TAG];
        tag.copy_from_slice(&hmac.finalize().into_bytes()[..TAG]);
        tag
    }

    /// Writes `body` (a value that serialises to a non-empty JSON object) with its tag.
    pub fn seal<T: Serialize>(&self, body: &T) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(body).expect("our own messages serialise");
        let last = bytes.pop();
        debug_assert_eq!(last, Some(b'}'), "a message is a JSON object");
        let tag = self.tag(&bytes);
        bytes.extend_from_slice(br#","m":""#);
        bytes.extend_from_slice(URL_SAFE_NO_PAD.encode(tag).as_bytes());
        bytes.extend_from_slice(br#""}"#);
        bytes
    }

    /// Checks the tag and returns the body as JSON text.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, MacError> {
        let split = sealed.len().checked_sub(TAIL).ok_or(MacError::Missing)?;
        let (covered, tail) = sealed.split_at(split);
        let text = tail
            .strip_prefix(br#","m":""#)
            .and_then(|t| t.strip_suffix(br#""}"#))
            .ok_or(MacError::Missing)?;
        let tag = URL_SAFE_NO_PAD.decode(text).map_err(|_| MacError::Missing)?;
        if tag.len() != TAG || !equal(&tag, &self.tag(covered)) {
            return Err(MacError::Mismatch);
        }
        let mut body = covered.to_vec();
        body.push(b'}');
        Ok(body)
    }
}

/// Compares in time that does not depend on where the difference lies.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

/// Reads the epoch from the start of a sealed message, before any key is derived: `{"e":<digits>,`.
pub fn epoch_of(sealed: &[u8]) -> Option<u64> {
    let rest = sealed.strip_prefix(br#"{"e":"#)?;
    let digits = rest.iter().take(20).take_while(|b| b.is_ascii_digit()).count();
    (rest.get(digits) == Some(&b',')).then_some(())?;
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

/// Reads the number of the controller's telemetry key, which stands behind the epoch: `{"e":<digits>,"k":<digits>,`.
pub fn kid_of(sealed: &[u8]) -> Option<u32> {
    let rest = sealed.strip_prefix(br#"{"e":"#)?;
    let epoch = rest.iter().take(20).take_while(|b| b.is_ascii_digit()).count();
    let rest = rest[epoch..].strip_prefix(br#","k":"#)?;
    let digits = rest.iter().take(10).take_while(|b| b.is_ascii_digit()).count();
    (rest.get(digits) == Some(&b',')).then_some(())?;
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Body {
        e: u64,
        text: &'static str,
    }

    fn keys() -> (PairSecret, PairSecret) {
        let a = SecretKey::from_slice(&[1; 32]).unwrap();
        let b = SecretKey::from_slice(&[2; 32]).unwrap();
        (PairSecret::agree(&a, &b.public_key()), PairSecret::agree(&b, &a.public_key()))
    }

    fn key(secret: &PairSecret, direction: Direction, device: &str, epoch: u64) -> MacKey {
        secret.key(direction, &"acme".parse().unwrap(), &device.parse().unwrap(), 1, epoch)
    }

    #[test]
    fn both_ends_agree() {
        let (device, controller) = keys();
        let sealed = key(&device, Direction::Up, "d1", 4).seal(&Body { e: 4, text: "hi" });
        assert_eq!(epoch_of(&sealed), Some(4));
        let body = key(&controller, Direction::Up, "d1", 4).open(&sealed).unwrap();
        assert_eq!(body, br#"{"e":4,"text":"hi"}"#);
    }

    #[test]
    fn the_number_of_the_key_stands_behind_the_epoch() {
        assert_eq!(kid_of(br#"{"e":4,"k":12,"n":1,"#), Some(12));
        for other in [r#"{"e":4,"n":1,"k":1,"#, r#"{"e":4,"k":99999999999,"#, r#"{"e":4,"k":1"#, r#"{"k":1,"#]
        {
            assert_eq!(kid_of(other.as_bytes()), None, "{other}");
        }
    }

    /// The vector of docs/protocol.md; never change it.
    #[test]
    fn a_message_is_sealed_as_it_always_was() {
        let sealed = key(&keys().0, Direction::Up, "d1", 4).seal(&Body { e: 4, text: "hi" });
        assert_eq!(sealed, br#"{"e":4,"text":"hi","m":"bEyATWGdPOw3pwGpdGln9A"}"#);
    }

    /// The example of docs/protocol.md; never change it.
    #[test]
    fn a_request_to_present_files_is_sealed_as_it_always_was() {
        use crate::message::{Answer, AnswerKind};
        use crate::tuf::Role;
        let kind = AnswerKind::Present { roles: vec![Role::Release, Role::Halt] };
        let sealed = key(&keys().0, Direction::Down, "d1", 0).seal(&Answer { e: 0, k: 1, kind });
        let text = r#"{"e":0,"k":1,"t":"present","roles":["release","halt"],"m":"tgNylm2gvMYsCw16yMShvA"}"#;
        assert_eq!(String::from_utf8(sealed).unwrap(), text);
    }

    #[test]
    fn another_direction_device_epoch_or_byte_does_not_open() {
        let (device, controller) = keys();
        let sealed = key(&device, Direction::Up, "d1", 4).seal(&Body { e: 4, text: "hi" });
        for other in [
            key(&controller, Direction::Down, "d1", 4),
            key(&controller, Direction::Up, "d2", 4),
            key(&controller, Direction::Up, "d1", 5),
        ] {
            assert_eq!(other.open(&sealed), Err(MacError::Mismatch));
        }
        let right = key(&controller, Direction::Up, "d1", 4);
        for i in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[i] ^= 1;
            assert!(right.open(&broken).is_err(), "byte {i}");
        }
    }

    #[test]
    fn differences_do_not_cancel_out() {
        assert!(equal(b"tag", b"tag"));
        for (a, b) in [(b"tag", b"uag"), (b"tag", b"ubg"), (b"tag", b"gat"), (b"tag", b"taf")] {
            assert!(!equal(a, b), "{a:?} {b:?}");
        }
        assert!(!equal(b"tag", b"ta") && !equal(b"", b"t"));
    }

    #[test]
    fn a_key_is_named_and_never_shown() {
        let (secret, _) = keys();
        let shown = format!("{secret:?} {:?}", key(&secret, Direction::Up, "d1", 4));

        assert_eq!(shown, "PairSecret(hidden) MacKey(Up, d1)");
    }
}
