//! Orders of two writes that nobody has to keep, each with its reason.
//!
//! Both syncs are needed, and each of them alone is missed where it is taken out. Only that one of them comes first is not:
//! nothing between them builds on it. A sync that nobody misses has no place here. It goes.

use super::lie::{Lie, Operation};

use Operation::{Sync, SyncFolder};

/// Returns why the order that the lie turns round may be turned round, if it is one of these.
pub fn free(lie: &Lie) -> Option<&'static str> {
    let Lie::After(first, a, second, b) = lie else { return None };
    match ((*first, a.as_str()), (*second, b.as_str())) {
        ((SyncFolder, "data"), (Sync, "journal")) => {
            Some("a journal that has not got its name yet has promised nothing")
        }
        _ => None,
    }
}
