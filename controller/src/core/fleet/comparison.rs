//! What the service learns when it compares itself with its devices, after its data folder was restored or lost.
//!
//! ```text
//!   a hello claims more than is known here ─┐
//!   the data folder is a copy ──────────────┼─> comparing ── every device that was heard is compared ──> paused rollouts,
//!   an operator says so ────────────────────┘      │           for two heartbeats, or somebody says so     versions above
//!                                                  └── a signed file is presented: taken over, if it verifies
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tern_protocol::id::{DeviceId, ProductId};
use tern_protocol::message::{Hello, Versions};
use tern_protocol::tuf::Role;

use super::Fleet;
use super::product::Product;
use crate::core::fact::{Fact, Millis};

/// A comparison that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Since when.
    pub since: Millis,
    /// Why it began.
    pub because: String,
    /// What each device that said hello since then claims.
    pub heard: BTreeMap<DeviceId, Claim>,
    /// Signed files that were taken over.
    pub files: u64,
}

/// What a hello claims. Nobody has signed it, so it moves nothing; it says what to ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The product whose files these are.
    pub product: ProductId,
    /// Versions of the files that the device holds.
    pub versions: Versions,
    /// Release counters that it knows as dead.
    pub halted: Vec<u64>,
    /// Lowest release counter that it accepts: some release file has named it.
    pub floor: u64,
}

impl From<&Hello> for Claim {
    fn from(hello: &Hello) -> Self {
        let Hello { product, versions, halted, floor, .. } = hello;
        Self { product: product.clone(), versions: *versions, halted: halted.clone(), floor: *floor }
    }
}

impl Claim {
    /// Returns the roles whose files would prove what is claimed beyond what `product` has.
    ///
    /// What a device runs is no claim: a factory may ship what was never published here. Nor is an epoch: it rises
    /// with every boot, heard or not.
    pub fn beyond(&self, product: &Product) -> Vec<Role> {
        let held = product.versions();
        let newest = product.published.keys().next_back().copied().unwrap_or(0);
        let more = |role| match role {
            Role::Halt if self.halted.iter().any(|rc| !product.halted.contains(rc)) => true,
            Role::Release if self.floor > newest => true,
            _ => of(&self.versions, role) > of(&held, role),
        };
        Role::ALL.into_iter().filter(|role| more(*role)).collect()
    }
}

/// Returns the version of one role.
pub fn of(versions: &Versions, role: Role) -> u32 {
    match role {
        Role::Root => versions.root,
        Role::Timestamp => versions.timestamp,
        Role::Snapshot => versions.snapshot,
        Role::Targets => versions.targets,
        Role::Release => versions.release,
        Role::Rollout => versions.rollout,
        Role::Halt => versions.halt,
    }
}

impl Fleet {
    /// Takes in a fact of a comparison; others change nothing.
    pub(super) fn compared(&mut self, at: Millis, fact: &Fact) {
        match fact {
            Fact::ComparisonBegan { because, .. } => {
                let because = because.clone();
                self.comparison = Some(Comparison { since: at, because, heard: BTreeMap::new(), files: 0 });
            }
            Fact::FilesPresented { product, files, .. } => {
                if let Some(product) = self.products.get_mut(product) {
                    product.learn(files);
                }
                if let Some(comparison) = &mut self.comparison {
                    comparison.files += files.len() as u64;
                }
            }
            Fact::ComparisonEnded { unproved, .. } => {
                self.comparison = None;
                for device in unproved {
                    if let Some(device) = self.devices.get_mut(device) {
                        device.doubted = true;
                        device.anomaly(at, "claims signed files that it does not present".to_owned());
                    }
                }
                self.products.values_mut().for_each(Product::step_ahead);
                // The report that ended a start may be among those that are lost; it would hold its gate for ever.
                let attempts = self.devices.values_mut().flat_map(|device| device.attempts.values_mut());
                let open = attempts.filter(|attempt| {
                    attempt.outcome.is_none()
                        && !attempt.withdrawn
                        && !attempt.is_silent()
                        && attempt.beside.is_none()
                });
                open.for_each(|mut attempt| attempt.lost = true);
                let devices: Vec<DeviceId> = self.devices.keys().cloned().collect();
                devices.iter().for_each(|device| self.withdraw(device));
            }
            _ => {}
        }
    }

    /// Remembers what a device claims while the service compares.
    pub(super) fn heard(&mut self, device: &DeviceId, hello: &Hello) {
        let claim = Claim::from(hello);
        let proved = self.products.get(&claim.product).is_none_or(|product| claim.beyond(product).is_empty());
        if proved && let Some(device) = self.devices.get_mut(device) {
            device.doubted = false;
        }
        if let Some(comparison) = &mut self.comparison {
            comparison.heard.insert(device.clone(), claim);
        }
    }
}
