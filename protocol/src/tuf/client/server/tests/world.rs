//! A client, its store, its server, and a list of what was asked.

use std::collections::BTreeMap;

use super::server::Server;
use crate::limits::TufLimits;
use crate::tuf::client::tests::repository::NOW;
use crate::tuf::client::{BoxError, Client, ClientError, Source, Store};
use crate::tuf::metadata::Target;
use crate::tuf::{RoleName, TufError};

/// A web server in memory; as strict about `most` as the real one has to be.
#[derive(Clone, Default)]
pub(super) struct Web {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) asked: Vec<String>,
}

impl Source for Web {
    fn fetch(
        &mut self,
        role: &RoleName,
        version: Option<u32>,
        most: usize,
    ) -> Result<Option<Vec<u8>>, BoxError> {
        let role = role.quoted();
        let name = version.map_or_else(|| format!("{role}.json"), |version| format!("{version}.{role}.json"));
        self.asked.push(name.clone());
        match self.files.get(&name) {
            Some(bytes) if bytes.len() > most => Err(format!("more than {most} B").into()),
            found => Ok(found.cloned()),
        }
    }
}

/// A store in memory that remembers what was done to it.
#[derive(Clone, Default)]
pub(super) struct Memory {
    pub(super) files: BTreeMap<RoleName, Vec<u8>>,
    pub(super) done: Vec<String>,
    pub(super) full: bool,
}

impl Store for Memory {
    fn load(&self, role: &RoleName) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(self.files.get(role).cloned())
    }
    fn keep(&mut self, role: &RoleName, bytes: &[u8]) -> Result<(), BoxError> {
        if self.full {
            return Err("no space left".into());
        }
        self.done.push(format!("keep {role}"));
        self.files.insert(role.clone(), bytes.to_vec());
        Ok(())
    }
    fn forget(&mut self, role: &RoleName) -> Result<(), BoxError> {
        self.done.push(format!("forget {role}"));
        self.files.remove(role);
        Ok(())
    }
}

/// One client and its server.
#[derive(Clone)]
pub(super) struct World {
    pub(super) web: Web,
    pub(super) store: Memory,
    pub(super) limits: TufLimits,
    pub(super) now: u64,
}

impl World {
    /// A client that trusts the server's root and has nothing else.
    pub(super) fn new(server: &Server) -> Self {
        let mut store = Memory::default();
        Client::init(&mut store, &server.file("root"), &TufLimits::DEVICE).unwrap();
        let mut world = Self { web: Web::default(), store, limits: TufLimits::DEVICE, now: NOW };
        world.publish(server);
        world
    }

    /// Publishes everything of `server` beside what is there.
    pub(super) fn publish(&mut self, server: &Server) {
        self.web.files.extend(server.files());
    }

    pub(super) fn refresh(&mut self) -> Result<(), ClientError> {
        self.web.asked.clear();
        Client::new(&mut self.web, &mut self.store, self.limits, self.now)?.refresh().map(|_| ())
    }

    pub(super) fn find(&mut self, path: &str) -> Result<Option<Target>, ClientError> {
        self.web.asked.clear();
        Client::new(&mut self.web, &mut self.store, self.limits, self.now)?.refresh()?.find(path)
    }

    /// Which roles a look-up visited, in order.
    pub(super) fn visited(&self) -> Vec<&str> {
        let delegated = self.web.asked.iter().filter(|name| {
            !["root", "timestamp", "snapshot", "targets"].iter().any(|role| name.contains(role))
        });
        delegated.map(|name| name.split('.').nth(1).unwrap()).collect()
    }

    /// Damages what is stored, or puts something there.
    pub(super) fn store_anything(&mut self, role: &str, bytes: &[u8]) {
        self.store.files.insert(RoleName::delegated(role), bytes.to_vec());
    }

    pub(super) fn stored(&self, role: &str) -> Option<&[u8]> {
        self.store.files.get(&RoleName::delegated(role)).map(Vec::as_slice)
    }

    /// Returns the version that is stored, 0 for none.
    pub(super) fn version(&self, role: &str) -> u32 {
        self.stored(role).and_then(crate::tuf::peek).unwrap_or(0)
    }
}

/// Returns why a file was refused.
pub(super) fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> TufError {
    match result {
        Err(ClientError::Refused(error)) => error,
        other => panic!("refused nothing: {other:?}"),
    }
}

/// The four roles that root names.
pub(super) const TOP: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];
