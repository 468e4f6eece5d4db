//! Stories about a product's repository and one device.

mod acceptance;
mod arrival;
pub(crate) mod repository;
mod rotation;
