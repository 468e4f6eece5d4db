//! `tern`: the operator's command line and the service.
fn main() {}
