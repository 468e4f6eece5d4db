//! Where the outside world begins: what a client asks of a server and of a disk.

use crate::tuf::RoleName;

/// Whatever went wrong outside.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where a repository's metadata comes from.
pub trait Source {
    /// Fetches a role's file: `<version>.<role>.json`, or `<role>.json` where no version is given.
    ///
    /// `None`: the server says that it has no such file. Anything above `most` bytes is an error, found before
    /// the rest is read.
    fn fetch(
        &mut self,
        role: &RoleName,
        version: Option<u32>,
        most: usize,
    ) -> Result<Option<Vec<u8>>, BoxError>;
}

/// Where accepted metadata is kept, byte for byte.
pub trait Store {
    /// Returns the stored file of a role.
    fn load(&self, role: &RoleName) -> Result<Option<Vec<u8>>, BoxError>;
    /// Stores a role's file in place of the one before; after a power cut it is one of the two.
    fn keep(&mut self, role: &RoleName, bytes: &[u8]) -> Result<(), BoxError>;
    /// Removes a role's file. One that is not there is removed already.
    fn forget(&mut self, role: &RoleName) -> Result<(), BoxError>;
}
