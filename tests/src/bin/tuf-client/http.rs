//! Plain HTTP, with a ceiling on every answer and on every wait.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tern_protocol::tuf::RoleName;
use tern_protocol::tuf::client::{BoxError, Source};

/// The longest wait for one file.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of files on a web server.
pub(crate) struct Http {
    base: String,
    agent: ureq::Agent,
}

impl Http {
    pub(crate) fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .max_redirects(0)
            .proxy(None)
            .build();
        Self { base: base.trim_end_matches('/').to_owned(), agent: config.into() }
    }

    /// Gets a file of at most `most` bytes; `None` if the server has none.
    pub(crate) fn get(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>> {
        let url = format!("{}/{name}", self.base);
        let mut answer = self.agent.get(&url).call().with_context(|| format!("could not get {url}"))?;
        match answer.status().as_u16() {
            200 => {}
            // Stores of files that may not be listed answer 403 for what is not there.
            403 | 404 => return Ok(None),
            status => bail!("{url} was answered with status {status}"),
        }
        // One byte more than allowed is enough to see that there is more.
        let mut bytes = Vec::new();
        let ceiling = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
        let mut body = answer.body_mut().as_reader().take(ceiling);
        body.read_to_end(&mut bytes).with_context(|| format!("could not read {url}"))?;
        if bytes.len() > most {
            bail!("{url} is longer than the {most} B that it may have");
        }
        Ok(Some(bytes))
    }
}

impl Source for Http {
    fn fetch(
        &mut self,
        role: &RoleName,
        version: Option<u32>,
        most: usize,
    ) -> Result<Option<Vec<u8>>, BoxError> {
        let role = role.quoted();
        let name = version.map_or_else(|| format!("{role}.json"), |version| format!("{version}.{role}.json"));
        Ok(self.get(&name, most)?)
    }
}
