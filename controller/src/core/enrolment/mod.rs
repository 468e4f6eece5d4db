//! Who may become a device, and who vouches for it.
//!
//! ```text
//! factory list, signed ──────────────────────────────> device, waits for its first `enrol`
//! claim token ──> enrol with a proof ──> pending ──────> device, active
//!                                          │ approve: by hand, or at once where the claim says so
//!                                          └─ reject
//! active <──> quarantined      active, quarantined ──> revoked      any ──> reset ──> claim or list ──> active
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`claim`] | claims: what a token is good for, and what was made of it |
//! | [`factory`] | factory keys, and what they sign |
//! | [`list`] | factory lists as text |

pub mod claim;
pub mod factory;
pub mod list;
