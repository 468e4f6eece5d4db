//! Stories about a product's repository and one device.

mod acceptance;
mod arrival;
mod contents;
mod opened;
pub(crate) mod repository;
mod rotation;
mod theft;
