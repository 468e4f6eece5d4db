//! Private keys at rest: PKCS#8 in PEM, encrypted with a passphrase (PBES2: scrypt, AES-256-CBC) or, where somebody
//! says so, in the clear. `openssl pkey` reads both.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use p256::SecretKey;
use p256::elliptic_curve::zeroize::Zeroizing;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use pkcs8::pkcs5::pbes2::Parameters;
use pkcs8::pkcs5::scrypt::Params;
use pkcs8::{EncryptedPrivateKeyInfo, PrivateKeyInfo, SecretDocument};

use super::KeysError;
use crate::files::{Readers, reads_as_file, replace};

/// A key file longer than this is none.
const KEY_MAX: u64 = 16 * 1024;
/// Characters that a passphrase has at least.
pub const PASSPHRASE_MIN: usize = 8;
/// Work of scrypt: N = 2¹⁴, r = 8, p = 5. Above 32 MiB (N = 2¹⁵) openssl refuses to read the key, so the work is in p.
const SCRYPT: (u8, u32, u32) = (14, 8, 5);
/// Label of an encrypted key.
const SEALED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// What opens an encrypted key; wiped from memory after use.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes a passphrase that somebody chose; refuses one that is too short to be one.
    pub fn chosen(text: impl Into<String>) -> Result<Self, KeysError> {
        Self::given(text).checked()
    }

    /// Refuses it if it is too short for a new key.
    pub fn checked(self) -> Result<Self, KeysError> {
        if self.0.chars().count() < PASSPHRASE_MIN { Err(KeysError::ShortPassphrase) } else { Ok(self) }
    }

    /// Takes a passphrase that a key may have been made with.
    pub fn given(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Reads the first line of a file that only its owner may read.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let text = Zeroizing::new(private_text(path, "read the passphrase in")?);
        Ok(Self::given(text.lines().next().unwrap_or_default()))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// How a new key is kept.
#[derive(Debug, Clone)]
pub enum Protection {
    /// Encrypted.
    Passphrase(Passphrase),
    /// In the clear: whoever has the file has the key.
    Unencrypted,
}

/// Draws a key.
pub(super) fn draw() -> Result<SecretKey, KeysError> {
    loop {
        let mut bytes = Zeroizing::new([0; 32]);
        fill(bytes.as_mut())?;
        // Of 2³² draws about one is no key.
        if let Ok(key) = SecretKey::from_slice(bytes.as_ref()) {
            return Ok(key);
        }
    }
}

/// Writes a key for its owner alone; what lies there is replaced, so ask first.
pub(super) fn write(path: &Path, key: &SecretKey, protection: &Protection) -> Result<(), KeysError> {
    let plain = key.to_pkcs8_der().expect("a P-256 key always has a DER form");
    let pem = match protection {
        Protection::Unencrypted => plain.to_pem("PRIVATE KEY", LineEnding::LF),
        Protection::Passphrase(passphrase) => {
            sealed(&plain, passphrase)?.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF)
        }
    };
    let pem = pem.expect("DER always has a PEM form");
    replace(path, pem.as_bytes(), Readers::Owner).map_err(KeysError::io("write the key", path))
}

/// Reads a key; refuses one that others may read. `ask` is asked only for a key that is encrypted.
pub(super) fn read(
    path: &Path,
    ask: &dyn Fn(&Path) -> Result<Passphrase, KeysError>,
) -> Result<SecretKey, KeysError> {
    let pem = Zeroizing::new(private_text(path, "read the key")?);
    let no_key = || KeysError::NotAKey(path.to_owned());
    // openssl lets text stand before the key.
    if !pem.lines().any(|line| line.trim_end() == SEALED) {
        return SecretKey::from_pkcs8_pem(&pem).map_err(|_| no_key());
    }
    let (_, sealed) = SecretDocument::from_pem(&pem).map_err(|_| no_key())?;
    let sealed = EncryptedPrivateKeyInfo::try_from(sealed.as_bytes()).map_err(|_| no_key())?;
    let passphrase = ask(path)?;
    // A wrong passphrase gives bytes that are no padding or, once in 256 times, no key.
    let opened = sealed.decrypt(passphrase.0.as_bytes()).ok();
    let key = opened.and_then(|plain| SecretKey::from_pkcs8_der(plain.as_bytes()).ok());
    key.ok_or_else(|| KeysError::WrongPassphrase(path.to_owned()))
}

fn sealed(plain: &SecretDocument, passphrase: &Passphrase) -> Result<SecretDocument, KeysError> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    fill(&mut salt)?;
    fill(&mut iv)?;
    let (log_n, r, p) = SCRYPT;
    let work = Params::new(log_n, r, p, 32).expect("these parameters are within scrypt's bounds");
    let parameters = Parameters::scrypt_aes256cbc(work, &salt, &iv).expect("a salt of 16 bytes is allowed");
    let info = PrivateKeyInfo::try_from(plain.as_bytes()).expect("it was encoded just now");
    let sealed = info.encrypt_with_params(parameters, passphrase.0.as_bytes());
    Ok(sealed.expect("a P-256 key always fits into PBES2"))
}

fn private_text(path: &Path, what: &'static str) -> Result<String, KeysError> {
    let about = fs::metadata(path).map_err(KeysError::io(what, path))?;
    if !reads_as_file(&about) {
        return Err(KeysError::NotAFile(path.to_owned()));
    }
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeysError::Open { path: path.to_owned(), mode });
    }
    if about.len() > KEY_MAX {
        return Err(KeysError::NotAKey(path.to_owned()));
    }
    fs::read_to_string(path).map_err(KeysError::io(what, path))
}

fn fill(bytes: &mut [u8]) -> Result<(), KeysError> {
    getrandom::fill(bytes).map_err(|e| KeysError::Random(e.to_string()))
}
