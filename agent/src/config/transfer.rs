//! The section `[transfer]`: how bytes are fetched.

use tern_protocol::delta::Profile;

use super::section::Section;
use crate::core::agent::Transfer;

/// Every key of `[transfer]`.
pub(super) const TRANSFER_KEYS: [&str; 2] = ["profile", "rate"];
/// The least rate, bytes a second: below it a chunk takes longer than a broker waits for anything.
const RATE_MIN: u64 = 1024;

/// Reads `[transfer]`.
pub(super) fn transfer(section: Section) -> Result<Transfer, String> {
    let mut section = section.with_keys("transfer", &TRANSFER_KEYS)?;
    let name = section.text("profile")?.unwrap_or_else(|| Profile::Linux.name().to_owned());
    let profiles: &[Profile] = match Profile::named(&name) {
        // A smaller one fits where a larger one does; the fast one is for who has no time for the others.
        Some(Profile::Linux) => &[Profile::Linux, Profile::SmallLinux, Profile::Mcu, Profile::Fast],
        Some(Profile::SmallLinux) => &[Profile::SmallLinux, Profile::Mcu],
        Some(Profile::Mcu) => &[Profile::Mcu],
        Some(Profile::Fast) => &[Profile::Fast],
        None if name == "none" => &[],
        None => {
            let known = Profile::ALL.map(Profile::name).join(", ");
            return Err(format!("transfer.profile is {name:?}; write one of {known}, or none"));
        }
    };
    let rate = section.whole("rate")?.filter(|rate| *rate > 0);
    if let Some(rate) = rate.filter(|rate| *rate < RATE_MIN) {
        return Err(format!("transfer.rate is {rate} bytes a second; it must be 0 or at least {RATE_MIN}"));
    }
    Ok(Transfer { profiles: profiles.iter().map(|profile| profile.id()).collect(), rate })
}
