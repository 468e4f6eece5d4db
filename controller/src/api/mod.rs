//! The HTTP API under `/v1`: [`types`] are its request and response shapes, [`routes`] serves them.

pub mod client;
pub mod routes;
pub mod types;
