//! From a path to the one target that somebody may name so.

use std::collections::BTreeSet;

use super::{Client, ClientError};
use crate::tuf::RoleName;
use crate::tuf::metadata::{SnapshotMeta, Target, TargetsMeta};
use crate::tuf::verify::Authority;

/// A repository whose top-level roles are up to date.
pub struct Refreshed<'a> {
    client: Client<'a>,
    snapshot: SnapshotMeta,
    targets: TargetsMeta,
}

impl<'a> Refreshed<'a> {
    pub(super) fn new(client: Client<'a>, snapshot: SnapshotMeta, targets: TargetsMeta) -> Self {
        Self { client, snapshot, targets }
    }

    /// Tells whether the repository publishes files under names that carry their version or hash.
    pub fn consistent_snapshot(&self) -> bool {
        self.client.root.meta.consistent_snapshot
    }

    /// Finds the target that has this path, in the role that comes first in a preorder depth-first search.
    ///
    /// `None`: nobody who may name it does. An unusable role on the way is an error, not a detour: otherwise who
    /// withholds one file would choose the role that answers.
    pub fn find(&mut self, path: &str) -> Result<Option<Target>, ClientError> {
        if let Some(target) = self.targets.targets.get(path) {
            return Ok(Some(target.clone()));
        }
        // 5.6.7 Perform a preorder depth-first search, beginning with targets. `to_visit` holds delegations as
        // (place of the delegator in `read`, place of the delegation in it), the next one last.
        let mut read = vec![self.targets.clone()];
        let mut to_visit = matching(&read[0], 0, path);
        let mut visited = BTreeSet::new();
        while let Some((delegator, place)) = to_visit.pop() {
            let Some(delegations) = &read[delegator].delegations else { continue };
            let delegated = &delegations.roles[place];
            let name = RoleName::delegated(&delegated.name);
            // 5.6.7.2.1 After a terminating delegation nobody else is asked, found or not.
            if delegated.terminating {
                to_visit.clear();
            }
            // 5.6.7.1 A role that was visited is not visited again, so that cycles end; nor are more than a
            // number of roles that the client chooses (beside targets).
            if visited.contains(&name) {
                continue;
            }
            if read.len() > self.client.limits.visited {
                let (path, ceiling) = (path.chars().take(80).collect(), self.client.limits.visited);
                return Err(ClientError::TooManyRoles { path, ceiling });
            }
            let authority = Authority::by(delegations, delegated);
            let named = self.snapshot.of(&name).ok_or_else(|| ClientError::NotNamed(name.clone()))?;
            let targets = self.client.targets_like(&name, named, authority)?;
            if let Some(target) = targets.targets.get(path) {
                return Ok(Some(target.clone()));
            }
            visited.insert(name);
            to_visit.extend(matching(&targets, read.len(), path));
            read.push(targets);
        }
        Ok(None)
    }
}

/// Returns the delegations of a role that cover `path`, the first one last.
fn matching(targets: &TargetsMeta, at: usize, path: &str) -> Vec<(usize, usize)> {
    let roles = targets.delegations.iter().flat_map(|delegations| &delegations.roles).enumerate();
    let mut places: Vec<_> =
        roles.filter(|(_, delegated)| delegated.covers(path)).map(|(place, _)| (at, place)).collect();
    places.reverse();
    places
}
