//! The policy bake-off: what decides about a rollout, compared over the same fleets and the same faults.
//!
//! ```text
//!  scenario + seed ──> traits of every device ──┬──> fleet ──> a peer's rule (pure)        ──> outcome
//!                      (drawn once, for all)    └──> ours ───> the real service, by its    ──> outcome
//!                                                              own messages
//! ```
//! Every rule gets devices with the same traits: what differs is when it offers them the release, and when it stops.
//!
//! | module | what it holds |
//! |---|---|
//! | [`scenario`] | how a release really is, and what happens meanwhile |
//! | [`device`] | what a device draws, and what follows from that |
//! | [`rule`] | the rules of others, as pure functions of what they see |
//! | [`fleet`] | a fleet in virtual time under such a rule |
//! | [`ours`] | the same fleet under the product's own service |
//! | [`contest`] | runs of every contestant, in rows |
//! | [`plot`] | the rows as pictures |

pub mod contest;
pub mod device;
pub mod fleet;
pub mod ours;
pub mod plot;
pub mod rule;
pub mod scenario;

/// How one rollout ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ended {
    /// When it was stopped, in virtual milliseconds since its start.
    pub stopped_at: Option<u64>,
    /// Whether that was final: a pause can be resumed.
    pub killed: bool,
    /// What our service said about it; others say nothing.
    pub because: Option<String>,
    /// Bad devices that had started by then.
    pub harmed: u64,
    /// Devices that had started by then.
    pub started: u64,
    /// When everybody was offered the release.
    pub reached_all_at: Option<u64>,
}
