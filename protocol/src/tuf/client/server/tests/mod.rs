//! Stories about a client that asks a server.

mod agreement;
mod look_ups;
mod refreshes;
mod refusals;
mod server;
mod world;
