//! The device's two keys (P-256), made on first start and kept in files that only the agent may read.
//!
//! The identity key only signs: enrolment and answers to challenges. The telemetry key only agrees on secrets:
//! the authentication codes of reports and answers. A key that exists is never replaced here; one that cannot be
//! read is an error, because a device that silently became somebody else would be shut out by its fleet.

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
    #[error("{} holds no P-256 key in PKCS#8 PEM form; restore it from a copy, or, without one, remove it and register the device under a new id: the fleet knows the old id by the old key", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: p256::pkcs8::Error,
    },
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
}

/// Keys in two files of a folder.
pub struct FileIdentity {
    identity: SecretKey,
    telemetry: SecretKey,
}

impl std::fmt::Debug for FileIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileIdentity(hidden)")
    }
}

impl FileIdentity {
    /// Reads the keys in `folder`; makes the ones that are not there.
    pub fn open(folder: &Path) -> Result<Self, IdentityError> {
        let identity = key(folder, "identity.pem")?;
        let telemetry = key(folder, "telemetry.pem")?;
        Ok(Self { identity, telemetry })
    }

    /// Returns this device's line for the factory list: one JSON object.
    pub fn factory_line(&self, device: &DeviceId) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            device: &'a DeviceId,
            identity: String,
        }
        serde_json::to_string(&Line { device, identity: hex::encode(self.identity()) })
            .expect("two texts serialise")
    }
}

impl Keys for FileIdentity {
    fn identity(&self) -> Vec<u8> {
        point(&self.identity)
    }

    fn telemetry(&self) -> Vec<u8> {
        point(&self.telemetry)
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        // Deterministic (RFC 6979): a weak random source on a device cannot leak the key.
        let signature: Signature = SigningKey::from(&self.identity).sign(message);
        signature.to_der().as_bytes().to_vec()
    }

    fn agree(&self, peer: &PublicKey) -> PairSecret {
        PairSecret::agree(&self.telemetry, peer)
    }
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
    fn the_factory_line_names_the_device_and_its_public_key() {
        let identity = FileIdentity::open(tempfile::tempdir().unwrap().path()).unwrap();

        let line = identity.factory_line(&"r-1".parse().unwrap());

        let expected = format!(r#"{{"device":"r-1","identity":"{}"}}"#, hex::encode(identity.identity()));
        assert_eq!(line, expected);
    }
}
