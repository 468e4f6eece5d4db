//! The device's two keys (P-256), made on first start and kept in files that only the agent may read.
//!
//! The identity key only signs: enrolment and answers to challenges. The telemetry key only agrees on secrets:
//! the authentication codes of reports and answers. One that cannot be read is an error, because a device that
//! silently became somebody else would be shut out by its fleet.
//!
//! Keys are replaced in an order in which a power cut anywhere leaves keys that the controller knows, or will take:
//!
//! ```text
//! rotate   make telemetry.next.pem, then identity.next.pem           both there: the agent uses them from its next
//!                                                                     start, and the old key vouches for them
//! settle   telemetry.next.pem -> telemetry.pem, then identity.next.pem -> identity.pem
//!                                                                     only after an answer under the new keys
//! identity.next.pem alone: settling was cut short, and is finished.   telemetry.next.pem alone: making was.
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, LineEnding};
use p256::{PublicKey, SecretKey};
use serde::Serialize;
use tern_protocol::id::DeviceId;
use tern_protocol::mac::PairSecret;

use crate::core::agent::Keys;
use crate::record::{self, RecordError};

/// Says why a key could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file could not be read.
    #[error("could not read key {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file does not hold a key.
    #[error("{} holds no P-256 key in PKCS#8 PEM form; restore it from a copy, or, without one, remove it, journal.0 and journal.1, and register the device under a new id: the fleet knows the old id by the old key", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: p256::pkcs8::Error,
    },
    /// It is gone.
    #[error("{} is gone, and this device is enrolled with it: restore it from a copy; without one, remove journal.0 and journal.1 beside it, and register the device under a new id", .0.display())]
    Gone(PathBuf),
    /// Others may read the key.
    #[error("{} may be read by others (mode {mode:03o}); give it mode 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// No random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
    /// A new key could not be saved.
    #[error("could not save a new key")]
    Save(#[source] RecordError),
    /// A new key could not take the place of the old one.
    #[error("could not put the new key into {}", path.display())]
    Replace {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The keys are being replaced already.
    #[error("new keys wait in {} already; start the agent and let the service answer it", .0.display())]
    Rotating(PathBuf),
}

const IDENTITY: &str = "identity.pem";
const TELEMETRY: &str = "telemetry.pem";
const NEXT_IDENTITY: &str = "identity.next.pem";
const NEXT_TELEMETRY: &str = "telemetry.next.pem";

/// Keys in files of a folder.
pub struct FileIdentity {
    identity: SecretKey,
    telemetry: SecretKey,
    /// The identity key that these are to replace.
    former: Option<SecretKey>,
}

impl std::fmt::Debug for FileIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileIdentity(hidden)")
    }
}

/// Refuses to go on where the keys are gone that a device was enrolled with: new ones would be somebody else's.
pub fn check(folder: &Path, enrolled: bool) -> Result<(), IdentityError> {
    let is_there = [IDENTITY, NEXT_IDENTITY].iter().any(|name| folder.join(name).exists());
    if enrolled && !is_there { Err(IdentityError::Gone(folder.join(IDENTITY))) } else { Ok(()) }
}

impl FileIdentity {
    /// Reads the keys in `folder`; makes the ones that are not there. Where new ones wait, they are the ones.
    pub fn open(folder: &Path) -> Result<Self, IdentityError> {
        if folder.join(NEXT_IDENTITY).exists() && !folder.join(NEXT_TELEMETRY).exists() {
            settle(folder)?;
        }
        let identity = key(folder, IDENTITY)?;
        let telemetry = key(folder, TELEMETRY)?;
        if !folder.join(NEXT_IDENTITY).exists() {
            return Ok(Self { identity, telemetry, former: None });
        }
        let (next, telemetry) = (key(folder, NEXT_IDENTITY)?, key(folder, NEXT_TELEMETRY)?);
        Ok(Self { identity: next, telemetry, former: Some(identity) })
    }

    /// Makes new keys beside the present ones. The agent uses them from its next start on; the present ones go when
    /// the controller has answered under them.
    pub fn rotate(folder: &Path) -> Result<Self, IdentityError> {
        let present = Self::open(folder)?;
        if present.former.is_some() {
            return Err(IdentityError::Rotating(folder.to_owned()));
        }
        // The identity key last: with it the new keys are the ones.
        let telemetry = key(folder, NEXT_TELEMETRY)?;
        let identity = key(folder, NEXT_IDENTITY)?;
        Ok(Self { identity, telemetry, former: Some(present.identity) })
    }

    /// Returns this device's line for the factory list: one JSON object.
    pub fn factory_line(&self, device: &DeviceId) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            device: &'a DeviceId,
            identity: String,
        }
        serde_json::to_string(&Line { device, identity: hex::encode(self.believed()) })
            .expect("two texts serialise")
    }
}

impl FileIdentity {
    /// Returns the public half of the identity key that the controller believes in, or is to believe in first.
    fn believed(&self) -> Vec<u8> {
        point(self.former.as_ref().unwrap_or(&self.identity))
    }
}

/// Puts the new keys into the place of those that they replace. Twice is harmless.
pub fn settle(folder: &Path) -> Result<(), IdentityError> {
    for (next, present) in [(NEXT_TELEMETRY, TELEMETRY), (NEXT_IDENTITY, IDENTITY)] {
        let path = folder.join(present);
        match fs::rename(folder.join(next), &path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(IdentityError::Replace { path, source }),
        }
        // The second rename must never be durable without the first.
        record::sync_folder(folder).map_err(IdentityError::Save)?;
    }
    tracing::info!("the new keys have replaced the old ones");
    Ok(())
}

impl Keys for FileIdentity {
    fn identity(&self) -> Vec<u8> {
        point(&self.identity)
    }

    fn telemetry(&self) -> Vec<u8> {
        point(&self.telemetry)
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        sign(&self.identity, message)
    }

    fn replaces(&self) -> bool {
        self.former.is_some()
    }

    fn sign_as_former(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.former.as_ref().map(|former| sign(former, message))
    }

    fn agree(&self, peer: &PublicKey) -> PairSecret {
        PairSecret::agree(&self.telemetry, peer)
    }
}

fn sign(key: &SecretKey, message: &[u8]) -> Vec<u8> {
    // Deterministic (RFC 6979): a weak random source on a device cannot leak the key.
    let signature: Signature = SigningKey::from(key).sign(message);
    signature.to_der().as_bytes().to_vec()
}

fn point(key: &SecretKey) -> Vec<u8> {
    key.public_key().to_encoded_point(false).as_bytes().to_vec()
}

fn key(folder: &Path, name: &str) -> Result<SecretKey, IdentityError> {
    let path = folder.join(name);
    let failed = |source| IdentityError::Read { path: path.clone(), source };
    match fs::metadata(&path) {
        Ok(found) => {
            let mode = found.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(IdentityError::Exposed { path, mode });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return make(folder, &path),
        Err(error) => return Err(failed(error)),
    }
    let pem = fs::read_to_string(&path).map_err(failed)?;
    SecretKey::from_pkcs8_pem(&pem).map_err(|source| IdentityError::Damaged { path, source })
}

fn make(folder: &Path, path: &Path) -> Result<SecretKey, IdentityError> {
    let mut scalar = [0; 32];
    let key = loop {
        getrandom::fill(&mut scalar).map_err(IdentityError::Random)?;
        // Fails for about one in 2³² draws: zero, or not below the curve's order.
        if let Ok(key) = SecretKey::from_slice(&scalar) {
            break key;
        }
    };
    let pem = key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|source| IdentityError::Damaged { path: path.to_owned(), source })?;
    record::create(folder, path, pem.as_bytes(), 0o600).map_err(IdentityError::Save)?;
    tracing::info!(file = %path.display(), "made a new key");
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use p256::ecdsa::VerifyingKey;
    use p256::ecdsa::signature::Verifier as _;

    use tern_protocol::mac::Direction;
    use tern_protocol::message::Presence;

    use super::*;

    #[test]
    fn keys_are_made_once_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let first = FileIdentity::open(folder.path()).unwrap();

        let second = FileIdentity::open(folder.path()).unwrap();

        assert_eq!(second.identity(), first.identity());
        assert_eq!(second.telemetry(), first.telemetry());
        assert_ne!(first.identity(), first.telemetry());
        let other = FileIdentity::open(tempfile::tempdir().unwrap().path()).unwrap();
        assert_ne!(other.identity(), first.identity());
    }

    #[test]
    fn only_the_owner_may_read_the_keys_and_an_exposed_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        FileIdentity::open(folder.path()).unwrap();
        for name in ["identity.pem", "telemetry.pem"] {
            let path = folder.path().join(name);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

            fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();

            let result = FileIdentity::open(folder.path());
            assert!(matches!(result, Err(IdentityError::Exposed { mode: 0o640, .. })), "{result:?}");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        }
    }

    #[test]
    fn a_signature_is_good_for_its_message_only() {
        let identity = FileIdentity::open(tempfile::tempdir().unwrap().path()).unwrap();
        let verifier = VerifyingKey::from_sec1_bytes(&identity.identity()).unwrap();

        let signature = Signature::from_der(&identity.sign(b"challenge")).unwrap();

        assert!(verifier.verify(b"challenge", &signature).is_ok());
        assert!(verifier.verify(b"another", &signature).is_err());
    }

    #[test]
    fn two_devices_agree_on_a_secret_by_their_telemetry_keys() {
        let open = || FileIdentity::open(tempfile::tempdir().unwrap().path()).unwrap();
        let (one, other) = (open(), open());
        let seal = |own: &FileIdentity, peer: &FileIdentity| {
            let secret = own.agree(&PublicKey::from_sec1_bytes(&peer.telemetry()).unwrap());
            let (fleet, device) = ("acme".parse().unwrap(), "r-1".parse().unwrap());
            secret.key(Direction::Up, &fleet, &device, 1, 1).seal(&Presence { online: true })
        };

        assert_eq!(seal(&one, &other), seal(&other, &one));
        assert_ne!(seal(&one, &other), seal(&one, &open()));
    }

    #[test]
    fn a_damaged_key_is_an_error_and_never_a_new_identity() {
        let folder = tempfile::tempdir().unwrap();
        FileIdentity::open(folder.path()).unwrap();
        let path = folder.path().join("identity.pem");
        fs::write(&path, "rubbish").unwrap();

        let error = FileIdentity::open(folder.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }));
        assert!(error.to_string().contains("under a new id"), "{error}");
        assert_eq!(fs::read_to_string(path).unwrap(), "rubbish");
    }

    #[test]
    fn a_power_cut_anywhere_in_a_rotation_leaves_keys_that_the_controller_knows_or_will_take() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let old = FileIdentity::open(folder.path()).unwrap();
        // Cut while the keys were made: only one is there, and the old ones go on.
        key(folder.path(), NEXT_TELEMETRY).unwrap();
        let cut = FileIdentity::open(folder.path()).unwrap();
        assert!(!cut.replaces() && cut.identity() == old.identity() && cut.telemetry() == old.telemetry());

        let new = FileIdentity::rotate(folder.path()).unwrap();

        assert_ne!(new.identity(), old.identity());
        assert_ne!(new.telemetry(), old.telemetry());
        // Until somebody settles, every start finds both pairs, and no second rotation begins.
        for _ in 0..2 {
            let found = FileIdentity::open(folder.path()).unwrap();
            assert!(found.replaces() && found.identity() == new.identity());
            let verifier = VerifyingKey::from_sec1_bytes(&old.identity()).unwrap();
            let signature = Signature::from_der(&found.sign_as_former(b"new").unwrap()).unwrap();
            assert!(verifier.verify(b"new", &signature).is_ok());
            assert_eq!(found.believed(), old.identity());
        }
        assert!(matches!(FileIdentity::rotate(folder.path()), Err(IdentityError::Rotating(_))));
        // Cut between the two renames of settling: the next start finishes it.
        fs::rename(path(NEXT_TELEMETRY), path(TELEMETRY)).unwrap();
        let settled = FileIdentity::open(folder.path()).unwrap();
        assert!(!settled.replaces());
        assert_eq!(settled.identity(), new.identity());
        assert_eq!(settled.telemetry(), new.telemetry());
        settle(folder.path()).unwrap();
        assert_eq!(FileIdentity::open(folder.path()).unwrap().identity(), new.identity());
    }

    #[test]
    fn the_factory_line_names_the_device_and_its_public_key() {
        let identity = FileIdentity::open(tempfile::tempdir().unwrap().path()).unwrap();

        let line = identity.factory_line(&"r-1".parse().unwrap());

        let expected = format!(r#"{{"device":"r-1","identity":"{}"}}"#, hex::encode(identity.identity()));
        assert_eq!(line, expected);
    }
}
