//! What expires when.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tern_protocol::tuf::{Role, time};

const DAY: u64 = 24 * 3600;
/// From when on people are told to sign again, days.
pub const SOON: i64 = 30;

/// When a file expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// The role.
    pub role: Role,
    /// Its version.
    pub version: u32,
    /// When it expires, as it stands there.
    pub expires: String,
    /// Whole days until then; below 0 it has expired.
    pub days: i64,
    /// Whether people have to do something.
    pub due: bool,
}

/// Reads when a file expires; `None` if it is no metadata. The service renews its own files by itself, long before
/// they expire, so those are due only when that did not happen.
pub fn expiry(role: Role, text: &str, now: u64) -> Option<Expiry> {
    let file: Value = serde_json::from_str(text).ok()?;
    let signed = file.get("signed")?;
    let version = u32::try_from(signed.get("version")?.as_u64()?).ok()?;
    let expires = signed.get("expires")?.as_str()?.to_owned();
    let left = i64::try_from(time::read(&expires)?).ok()? - i64::try_from(now).ok()?;
    let days = left.div_euclid(i64::try_from(DAY).ok()?);
    let offline = matches!(role, Role::Root | Role::Targets | Role::Release);
    let due = if offline { days < SOON } else { left < 0 };
    Some(Expiry { role, version, expires, days, due })
}
