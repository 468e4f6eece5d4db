//! The section `[transfer]`: how bytes are fetched.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tern_protocol::delta::Profile;

use super::section::Section;
use crate::core::agent::Transfer;
use crate::health::HttpAddress;

/// Every key of `[transfer]`.
pub(super) const TRANSFER_KEYS: [&str; 4] = ["profile", "rate", "http_prefixes", "http_ca"];
/// Prefixes that may be named: each may cost some minutes before the broker's turn comes.
const PREFIXES_MAX: usize = 4;
/// The least rate, bytes a second: below it a chunk takes longer than a broker waits for anything.
const RATE_MIN: u64 = 1024;

/// Where web servers have the packs, and who vouches for them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebConfig {
    /// Asked in this order, before the broker.
    pub prefixes: Vec<WebPrefix>,
    /// Authorities of those at `https://`; without it those of the brokers.
    pub ca: Option<PathBuf>,
}

/// `http://host[:port][/path]`, or `https://` for TLS: what stands before the names of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebPrefix {
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Host, port, and a path that does not end in `/`.
    pub address: HttpAddress,
}

impl FromStr for WebPrefix {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("transfer.http_prefixes: {text:?} {why}; write https://host:port/path, or http://")
        };
        let (tls, rest, port) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest, 80),
            Some(("https", rest)) => (true, rest, 443),
            _ => return Err(wrong("has no scheme that we know")),
        };
        let mut address = HttpAddress::behind_scheme(rest, port).map_err(wrong)?;
        if address.path.contains(['?', '#']) {
            return Err(wrong("has a query; names of files are put behind it"));
        }
        address.path.truncate(address.path.trim_end_matches('/').len());
        Ok(Self { tls, address })
    }
}

impl fmt::Display for WebPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, HttpAddress { host, port, path }) =
            (if self.tls { "https" } else { "http" }, &self.address);
        write!(f, "{scheme}://{host}:{port}{path}")
    }
}

/// Reads `[transfer]`; `has_authorities` if there are some for brokers.
pub(super) fn transfer(section: Section, has_authorities: bool) -> Result<(Transfer, WebConfig), String> {
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
    let web = web(&mut section, has_authorities)?;
    let prefixes = web.prefixes.iter().map(WebPrefix::to_string).collect();
    Ok((Transfer { profiles: profiles.iter().map(|profile| profile.id()).collect(), rate, prefixes }, web))
}

fn web(section: &mut Section, has_authorities: bool) -> Result<WebConfig, String> {
    let prefixes = section.list("http_prefixes")?.unwrap_or_default();
    let prefixes = prefixes.iter().map(|text| text.parse()).collect::<Result<Vec<WebPrefix>, _>>()?;
    let ca = section.text("http_ca")?.map(PathBuf::from);
    let without = |what: &str, feature: &str| {
        format!(
            "transfer.http_prefixes names {what}, but this tern-agent is built without it; install one that is built with the \
                 feature {feature:?}"
        )
    };
    if !prefixes.is_empty() && !cfg!(feature = "http-source") {
        return Err(without("web servers", "http-source"));
    }
    let encrypted = prefixes.iter().any(|prefix| prefix.tls);
    if encrypted && !cfg!(feature = "tls") {
        return Err(without("one at https://", "tls"));
    }
    if encrypted && ca.is_none() && !has_authorities {
        return Err(
            "transfer.http_prefixes names one at https://, and nothing says whom it is vouched for by; name \
                    transfer.http_ca, or [tls] with its ca"
                .into(),
        );
    }
    if prefixes.len() > PREFIXES_MAX {
        return Err(format!("transfer.http_prefixes has more than {PREFIXES_MAX}; name fewer"));
    }
    Ok(WebConfig { prefixes, ca })
}
