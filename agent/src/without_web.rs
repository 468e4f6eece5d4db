//! Stands in for web servers in an agent that is built without them: the configuration refuses every prefix.

use crate::config::Config;
use crate::core::agent::{Web, WebGet};
use crate::link::LinkError;

/// None.
pub(crate) struct WebServers;

impl WebServers {
    pub(crate) fn new(_: &Config, _: u64) -> Result<Self, LinkError> {
        Ok(Self)
    }

    pub(crate) fn ask(&mut self, _: u64, _: usize, _: WebGet) {}

    pub(crate) fn stop(&mut self, _: u64) {}

    pub(crate) fn rest(&self) {}

    pub(crate) async fn said(&mut self) -> (u64, Web) {
        std::future::pending().await
    }
}
