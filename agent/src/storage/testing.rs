//! What tests of several modules share.

use std::any::Any;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::mpsc::Sender;

use super::system::System;
use super::{Access, Found, Opened, Storage, Use};

/// The system's disk, which tells of each lock that somebody else has.
#[derive(Debug)]
pub(crate) struct Knocking(pub(crate) Sender<()>);

impl Storage for Knocking {
    fn lock(&self, path: &Path, mode: u32) -> io::Result<Box<dyn Any + Send>> {
        let lock = System.lock(path, mode);
        if lock.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            let _nobody_waits = self.0.send(());
        }
        lock
    }
    fn look(&self, path: &Path) -> io::Result<Found> {
        System.look(path)
    }
    fn use_of(&self, path: &Path, found: &Found) -> io::Result<Option<Use>> {
        System.use_of(path, found)
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn Opened>> {
        System.open(path, access)
    }
    fn list(&self, folder: &Path, most: usize) -> io::Result<Vec<OsString>> {
        System.list(folder, most)
    }
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        System.create_folder(folder)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        System.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        System.remove(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        System.sync_folder(folder)
    }
}
