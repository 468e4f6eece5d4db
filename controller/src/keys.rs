//! Private keys: made with `tern keys init`, read by the service and by whoever signs. What they sign, and who has
//! to, is in [`crate::ceremony`].
//!
//! ```text
//! <offline>/                        one folder a holder, taken offline afterwards
//!   root.pem targets.pem release.pem    sign root, targets and release; encrypted
//!   root.json targets.json              against which a signature is checked and a change is shown
//!   release.json                        what was signed here last
//! <data>/
//!   fleet                               the fleet's id
//!   keys/ledger.pem                     signs the ledger's checkpoints
//!   keys/<product>/{rollout,halt,snapshot,timestamp,telemetry,time}.pem
//!   keys/<product>/<name>-<key>.pem     the same name's key after a rotation
//!   products/<product>/{root,targets,release}.json
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `secret` | key files, encrypted or not |
//! | `hand`, `exec` | what signs for a person: a key file, a program |
//! | `init` | the keys of a new product |
//! | `load` | what the service reads |
//! | `ledger` | the key of the ledger |

mod exec;
mod hand;
mod init;
mod ledger;
mod load;
mod secret;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use tern_protocol::id::{FleetId, IdError, ProductId};
use tern_protocol::tuf::Role;

pub use exec::{ExecError, ExecSigner};
pub use hand::{Hand, KeyName};
pub use init::{FactoryReport, Holder, InitOptions, InitReport, Quota, init, make_factory, make_key};
pub use ledger::{LedgerKey, ledger_key};
pub use load::{
    OnlineKey, Unnamed, fleet, keep_offline, load_online, load_online_for, load_signer, load_signer_asking,
    make_online, make_service_key, offline_files, online_keys, products,
};
pub use secret::{PASSPHRASE_MIN, Passphrase, Protection};

/// Names of the keys that the service holds.
const ONLINE: [&str; 6] = ["rollout", "halt", "snapshot", "timestamp", "telemetry", "time"];
/// Files that `keys init` signs.
const FILES: [Role; 3] = [Role::Targets, Role::Release, Role::Root];

/// Says why keys could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Something is there that must not be overwritten.
    #[error("{} exists already and is not overwritten", .0.display())]
    Exists(PathBuf),
    /// The data folder belongs to another fleet.
    #[error("the data folder {} belongs to fleet {found}, not to {wanted}", data.display())]
    OtherFleet {
        /// The data folder.
        data: PathBuf,
        /// Its fleet.
        found: FleetId,
        /// The fleet that was named.
        wanted: FleetId,
    },
    /// A name in the data folder is no name.
    #[error("could not read the name in {}", path.display())]
    Name {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: IdError,
    },
    /// A file or folder could not be read or written.
    #[error("could not {what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is no P-256 key.
    #[error("{} is not a P-256 private key in PEM (BEGIN PRIVATE KEY)", .0.display())]
    NotAKey(PathBuf),
    /// A key's or passphrase's path leads to a folder or a device.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Others may read a private key.
    #[error("{} can be read by others (mode {mode:o})", path.display())]
    Open {
        /// The key.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The passphrase does not open the key.
    #[error("the passphrase does not open {}", .0.display())]
    WrongPassphrase(PathBuf),
    /// A key is encrypted where nobody can be asked.
    #[error("{} is encrypted, and there is no terminal to ask for its passphrase", .0.display())]
    Sealed(PathBuf),
    /// A passphrase that is too short.
    #[error("a passphrase has at least {PASSPHRASE_MIN} characters")]
    ShortPassphrase,
    /// The two passphrases differ.
    #[error("the two passphrases differ")]
    PassphrasesDiffer,
    /// An outside signer did not sign.
    #[error("could not sign with a program")]
    Exec(#[source] ExecError),
    /// A key did not sign.
    #[error("the key did not sign")]
    Hand(#[source] tern_protocol::tuf::key::SignError),
    /// Numbers of keys that do not go together.
    #[error("{0}")]
    Quota(String),
    /// The service holds no key that the files name.
    #[error("no key in {} is one that the signed files name for {role}", folder.display())]
    NotNamed {
        /// The folder.
        folder: PathBuf,
        /// The role.
        role: Role,
    },
    /// The telemetry key is not the one that targets names.
    #[error("the telemetry key of product {0} is not one that its targets file names")]
    Telemetry(ProductId),
    /// A signed file does not read.
    #[error("{} is not a signed file of its role", .0.display())]
    File(PathBuf),
    /// A file could not be signed.
    #[error("could not sign {role}")]
    Sign {
        /// The role.
        role: Role,
        /// Why.
        #[source]
        source: tern_protocol::tuf::key::SignError,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

impl KeysError {
    /// Returns what to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Exists(_) => {
                "choose other folders; after an interrupted `tern keys init` move what it left away first"
                    .to_owned()
            }
            Self::OtherFleet { .. } => "one service serves one fleet: choose another --data".to_owned(),
            Self::Name { .. } | Self::File(_) => "restore the data folder from a copy".to_owned(),
            Self::Io { .. } => "check the path, its permissions and the room on the disk".to_owned(),
            Self::NotAFile(_) => "name the file that holds it".to_owned(),
            Self::NotAKey(_) => "name a key that `tern keys init` made".to_owned(),
            Self::Open { path, .. } => format!("close it with `chmod 600 {}`", path.display()),
            Self::WrongPassphrase(_) => "type it again; nothing was changed".to_owned(),
            Self::Sealed(_) => "give --passphrase-file FILE, or run it on a terminal".to_owned(),
            Self::ShortPassphrase => "choose some words; or say --no-passphrase".to_owned(),
            Self::PassphrasesDiffer => "try again".to_owned(),
            Self::Exec(_) => {
                "run the program by hand, with any file as its input; a signature in DER must come out"
                    .to_owned()
            }
            Self::Hand(_) => "check the key".to_owned(),
            Self::Quota(_) => "correct the numbers".to_owned(),
            Self::NotNamed { .. } => {
                "restore the key from a copy, or name a new one with `tern keys rotate`".to_owned()
            }
            Self::Telemetry(_) => "restore the key from a copy, or sign new targets that name it".to_owned(),
            Self::Sign { .. } => "check the key".to_owned(),
            Self::Random(_) => "wait until the system has started, then try again".to_owned(),
        }
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

fn online_key(data: &Path, product: &ProductId, name: &str) -> PathBuf {
    data.join("keys").join(product.as_str()).join(format!("{name}.pem"))
}

fn file(data: &Path, product: &ProductId, role: Role) -> PathBuf {
    data.join("products").join(product.as_str()).join(format!("{role}.json"))
}
