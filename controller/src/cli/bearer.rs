//! Which token the command line shows to the service, and to whom it does not.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::api::client::Client;
use crate::api::trust;
use crate::core::access::Secret;
use crate::token_file::{self, ADMIN, TokenFileError};

/// Where a token may come from; the first that is said wins.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// `--ca` or `TERN_CA`: the authorities of a service that speaks TLS, instead of this machine's.
    pub(super) ca: Option<PathBuf>,
    /// `--token-file`.
    pub(super) flag: Option<PathBuf>,
    /// `TERN_TOKEN_FILE`.
    pub(super) file: Option<PathBuf>,
    /// `TERN_TOKEN`.
    pub(super) text: Option<String>,
    /// Looked at when nothing was said, for a service on this machine alone.
    pub(super) places: Vec<PathBuf>,
}

impl Sources {
    /// Asks the environment.
    pub(super) fn of(flag: Option<PathBuf>, ca: Option<PathBuf>) -> Self {
        let said = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let own = said("XDG_CONFIG_HOME").map(PathBuf::from);
        let own = own.or_else(|| said("HOME").map(|home| Path::new(&home).join(".config")));
        // One's own before that of a service: it says in the ledger who it was.
        let places = own.map(|own| own.join("tern").join("token")).into_iter();
        let data = [Path::new("tern-data"), Path::new("/var/lib/tern")].map(|data| data.join(ADMIN));
        Self {
            ca: ca.or_else(|| said("TERN_CA").map(PathBuf::from)),
            flag,
            file: said("TERN_TOKEN_FILE").map(PathBuf::from),
            text: said("TERN_TOKEN").map(|text| text.to_string_lossy().into_owned()),
            places: places.chain(data).collect(),
        }
    }

    /// Makes a client that shows the token. Trouble with it comes up when the service is asked for something:
    /// many commands ask nobody.
    pub(super) fn client(&self, api: &str, insecure: bool) -> Client {
        let client = if speaks_tls(api) {
            match trust::authorities(self.ca.as_deref()) {
                Ok(authorities) => Client::believing(api, authorities),
                Err(error) => {
                    return Client::new(api).with_trouble(super::failure::chain(&error), error.hint());
                }
            }
        } else {
            Client::new(api)
        };
        match self.find(is_here(api)) {
            Ok(None) => client,
            Ok(Some(_)) if !(insecure || is_here(api) || speaks_tls(api)) => client.with_trouble(
                format!("the token would travel to {api} in the clear"),
                "go through an SSH tunnel to that machine's loopback; or say --insecure-api-without-tls",
            ),
            Ok(Some(token)) => client.with_token(&token),
            Err((what, hint)) => client.with_trouble(what, hint),
        }
    }

    fn find(&self, here: bool) -> Result<Option<Secret>, (String, String)> {
        let told = |error: TokenFileError| (super::failure::chain(&error), error.hint());
        if let Some(path) = self.flag.as_ref().or(self.file.as_ref()) {
            return token_file::read(path).map(Some).map_err(told);
        }
        if let Some(text) = &self.text {
            let wrong = |e| (format!("TERN_TOKEN: {e}"), "copy the token once more, whole".to_owned());
            return text.trim().parse().map(Some).map_err(wrong);
        }
        // A token that happens to lie here is not for other machines.
        for path in self.places.iter().filter(|_| here) {
            match token_file::read(path) {
                Ok(token) => return Ok(Some(token)),
                // Another user's service is none of ours.
                Err(TokenFileError::Read { source, .. })
                    if matches!(
                        source.kind(),
                        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory
                    ) => {}
                Err(error) => return Err(told(error)),
            }
        }
        Ok(None)
    }
}

/// Tells whether an address asks for TLS.
fn speaks_tls(api: &str) -> bool {
    let uri: Option<ureq::http::Uri> = api.parse().ok();
    uri.is_some_and(|uri| uri.scheme_str() == Some("https"))
}

/// Tells whether an address is this machine's.
fn is_here(api: &str) -> bool {
    let uri: Option<ureq::http::Uri> = api.parse().ok();
    let Some(host) = uri.as_ref().and_then(|uri| uri.host()) else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "http://127.0.0.1:7880";
    const AWAY: &str = "http://10.0.0.7:7880";

    fn trouble(sources: &Sources, api: &str, insecure: bool) -> Option<String> {
        let client = sources.client(api, insecure);
        assert!(!client.has_token() || client.trouble().is_none());
        client.trouble()
    }

    #[test]
    fn a_token_goes_to_this_machine_and_elsewhere_only_by_a_word_that_makes_one_stop() {
        let text = Some(token_file::draw().unwrap().reveal().to_string());
        let sources = Sources { text, ..Sources::default() };

        for api in [HERE, "http://localhost:7880", "http://[::1]:7880", "https://tern.example"] {
            assert!(sources.client(api, false).has_token(), "{api}");
        }
        for api in
            [AWAY, "http://tern.example", "http://127.0.0.1.evil.example", "http://127.0.0.1@evil.example:80"]
        {
            assert!(trouble(&sources, api, false).unwrap().contains("in the clear"), "{api}");
        }
        assert!(sources.client(AWAY, true).has_token());
    }

    #[test]
    fn what_is_said_wins_over_what_lies_about_and_that_is_for_this_machine_alone() {
        let home = tempfile::TempDir::new().unwrap();
        let place = home.path().join("admin.token");
        let lying = Sources { places: vec![home.path().join("none"), place.clone()], ..Sources::default() };
        assert!(!lying.client(HERE, false).has_token());
        token_file::write(&place, &token_file::draw().unwrap()).unwrap();

        assert!(lying.client(HERE, false).has_token());
        assert!(!lying.client(AWAY, true).has_token());
        assert_eq!(trouble(&lying, AWAY, false), None);
        let missing =
            Sources { flag: Some(home.path().join("other")), places: vec![place], ..Sources::default() };
        assert!(trouble(&missing, HERE, false).unwrap().contains("could not read"));
        let typo = Sources { text: Some("tern_0".to_owned()), ..Sources::default() };
        assert!(trouble(&typo, HERE, false).unwrap().contains("mistyped"));
    }
}
