//! Tokens outside the ledger: drawn, and kept in files that only their owner may read.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use p256::elliptic_curve::zeroize::Zeroizing;

use crate::core::access::secret::{ID_BYTES, SECRET_BYTES};
use crate::core::access::{Secret, SecretError};
use crate::files::{Readers, reads_as_file, replace};

/// Name of the file in the data folder into which the service writes the first admin token.
pub const ADMIN: &str = "admin.token";
/// A file longer than this holds no token.
const FILE_MAX: u64 = 4096;

/// Says why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It does not read.
    #[error("could not read the token in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a folder or a device.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Others may read it.
    #[error("{} can be read by others (mode {mode:o})", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What it holds is no token.
    #[error("{} holds no whole token", path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SecretError,
    },
}

impl TokenFileError {
    /// Returns what to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Read { .. } => {
                "check the path, and who you are: only the file's owner may read it".to_owned()
            }
            Self::NotAFile(_) => "name the file that holds the token".to_owned(),
            Self::Open { path, .. } => format!("close it with `chmod 600 {}`", path.display()),
            Self::NoToken { .. } => "copy the token into it once more, whole".to_owned(),
        }
    }
}

/// Draws a token.
pub fn draw() -> io::Result<Secret> {
    let (mut id, mut secret) = ([0; ID_BYTES], Zeroizing::new([0; SECRET_BYTES]));
    getrandom::fill(&mut id).and_then(|()| getrandom::fill(secret.as_mut())).map_err(io::Error::other)?;
    Ok(Secret::new(id, *secret))
}

/// Writes a token for its owner alone; what lies there is replaced.
pub fn write(path: &Path, token: &Secret) -> io::Result<()> {
    let text = Zeroizing::new(format!("{}\n", token.reveal().as_str()));
    replace(path, text.as_bytes(), Readers::Owner)
}

/// Reads the token in a file; refuses one that others may read.
pub fn read(path: &Path) -> Result<Secret, TokenFileError> {
    let failed = |source| TokenFileError::Read { path: path.to_owned(), source };
    let about = fs::metadata(path).map_err(failed)?;
    if !reads_as_file(&about) {
        return Err(TokenFileError::NotAFile(path.to_owned()));
    }
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TokenFileError::Open { path: path.to_owned(), mode });
    }
    let none = |source| TokenFileError::NoToken { path: path.to_owned(), source };
    if about.len() > FILE_MAX {
        return Err(none(SecretError::NotOne));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    text.trim().parse().map_err(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_is_its_owners_alone_and_is_read_only_while_it_stays_so() {
        let home = tempfile::TempDir::new().unwrap();
        let path = home.path().join("token");
        let token = draw().unwrap();

        write(&path, &token).unwrap();

        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap().hash(), token.hash());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(TokenFileError::Open { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for other in [home.path(), Path::new("/dev/null")] {
            assert!(matches!(read(other), Err(TokenFileError::NotAFile(_))), "{}", other.display());
        }
        let cut = token.reveal()[..80].to_owned();
        fs::write(&path, cut).unwrap();
        assert!(matches!(read(&path), Err(TokenFileError::NoToken { source: SecretError::Mistyped, .. })));
    }
}
