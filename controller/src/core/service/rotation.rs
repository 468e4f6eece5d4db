//! After root or targets changed: which files nobody vouches for any more.

use tern_protocol::tuf::{Role, Trusted};

use crate::core::fleet::product::Product;

/// What must be signed again because of a new root or new targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stale {
    /// Anything at all: then snapshot and timestamp, for they name the rest.
    pub(super) any: bool,
    /// The rollout file.
    pub(super) rollout: bool,
    /// The halt file.
    pub(super) halt: bool,
}

/// Looks at a product's newest files as a device does that starts with them. Verifying costs, so this is asked
/// only after a start and after root or targets came in.
pub(super) fn stale(product: &Product) -> Stale {
    // Without a root there is nothing to sign under.
    let Ok(device) = Trusted::restore(&product.signed(&Role::ALL)) else { return Stale::default() };
    let lost = |role: Role| product.files.contains_key(&role) && device.file(role).is_none();
    Stale { any: device.current().is_none(), rollout: lost(Role::Rollout), halt: lost(Role::Halt) }
}
