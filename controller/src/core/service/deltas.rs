//! What is needed to sign deltas, handed out: signing may take long, and no device waits for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tern_protocol::digest::Digest;
use tern_protocol::tuf::content::{Targets, TargetsContent};
use tern_protocol::tuf::{Role, Signer};

use super::Service;

/// Who signs the deltas of a product, and who is believed.
#[derive(Clone)]
pub struct DeltaKeys {
    /// Signs as the rollout role.
    pub signer: Arc<dyn Signer + Send + Sync>,
    /// Says whose signatures count.
    pub targets: Targets<TargetsContent>,
    /// Roots of the images that the product's releases name.
    pub images: BTreeSet<Digest>,
}

impl Service {
    /// Returns who signs deltas, by product; nothing while the service compares itself with its devices and signs nothing but kills.
    pub fn delta_keys(&self) -> Vec<DeltaKeys> {
        if self.is_comparing() {
            return Vec::new();
        }
        let of = |(product, keys): (_, &super::OnlineKeys)| {
            let state = self.fleet.products.get(product)?;
            let targets = super::offline::part(state, Role::Targets).ok()?;
            let releases = state.releases().into_values();
            let images = releases.flat_map(|release| release.artifacts).map(|(_, content)| content.root);
            Some(DeltaKeys { signer: keys.rollout.clone(), targets, images: images.collect() })
        };
        self.keys.iter().filter_map(of).collect()
    }
}
