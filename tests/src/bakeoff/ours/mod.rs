//! The same fleet under the product's own service: real device cores and the real service, in virtual time.
//!
//! ```text
//!  service <── reports, asks, health ── devices ── a device that the rollout says something to is made when it hears of it
//!     └──> air: retained files, chunk server ──> devices
//! ```
//! What a device is besides its agent, when it is on, how long it boots and probes, whether the release bricks it, is in
//! its traits ([`super::device`]); what it does about it is the agent's. A device to which the rollout says nothing yet
//! has no agent: what it would hear changes nothing for it. One that is idle is handed what was retained since when it has
//! something to do: nothing follows from a heartbeat before.
//!
//! | module | what it holds |
//! |---|---|
//! | `profile` | the plans that the service is given |
//! | `devices` | who they are |
//! | `site` | the service, and what devices begin with |
//! | `air` | retained messages and the chunk server |
//! | `terminal` | one device |
//! | `world` | what happens next |

mod air;
mod devices;
mod profile;
mod site;
mod terminal;
mod world;

use tern_controller::core::fact::Fact;
use tern_controller::core::rollout::record::Status;
use tern_controller::core::service::Input;
use tern_protocol::message::ReportKind;

pub use self::devices::Devices;
pub use self::profile::Profile;
use self::world::{TICK, World};
use super::Ended;
use super::device::Traits;
use super::scenario::Scenario;
use crate::sim::clock::{HOUR, SECOND};

/// Messages within this time are one step of the service: devices repeat themselves after ten seconds.
const STEP: u64 = 8 * SECOND;
/// Fewer than [`tern_controller::core::service::BATCH`]: a full batch puts deadlines off.
const STEP_MOST: usize = 1500;
/// A rollout in which for so long no device began or ended and nothing opened waits for a person: two soaks.
const HOLDS: u64 = 48 * HOUR;
/// When everybody was offered the release, its last deadlines pass within this time after the last such event.
const AFTERMATH: u64 = 7 * HOUR;

/// Plays one rollout to its end.
pub fn play(scenario: &Scenario, fleet: &[Traits], devices: &Devices, profile: Profile, seed: u64) -> Ended {
    let mut world = World::new(scenario, fleet, devices, seed);
    world.site.start(profile.plan());
    world.let_out(0);
    world.widen(0);
    let mut run = Run { world, begun: vec![false; fleet.len()], tick: 0, ended: Ended::default() };
    while run.step() {}
    run.ended
}

/// A rollout, and what has become of it so far.
struct Run<'a> {
    world: World<'a>,
    begun: Vec<bool>,
    tick: u64,
    ended: Ended,
}

impl Run<'_> {
    /// Hands the service what devices say within a moment; false when the rollout is over.
    fn step(&mut self) -> bool {
        let first = self.world.next_at().unwrap_or(self.tick).min(self.tick);
        let mut at = first;
        while let Some(next) = self.world.next_at().filter(|next| *next <= first + STEP)
            && self.world.inputs.len() < STEP_MOST
        {
            at = next.max(at);
            self.world.happen();
        }
        if self.tick <= at {
            self.world.inputs.push(Input::Time);
            self.tick = at + TICK;
        }
        if self.world.inputs.is_empty() {
            return true;
        }
        let inputs = std::mem::take(&mut self.world.inputs);
        let facts = self.world.site.handle(inputs, at);
        let widened = self.take_in(&facts, at);
        if self.ended.stopped_at.is_some() {
            return false;
        }
        self.world.let_out(at);
        if widened {
            self.world.widen(at);
        }
        if self.world.site.rollout().reaches_all() {
            self.ended.reached_all_at.get_or_insert(at);
        }
        let rest = if self.ended.reached_all_at.is_some() { AFTERMATH } else { HOLDS };
        at <= self.world.last_word + rest && self.world.site.rollout().status != Status::Completed
    }

    /// Reads off the ledger what became of the rollout; tells whether it says something else to devices now.
    fn take_in(&mut self, facts: &[Fact], at: u64) -> bool {
        let mut widened = false;
        for fact in facts {
            match fact {
                Fact::PhaseOpened { .. } | Fact::WaveOpened { .. } | Fact::HoldBackEnded { .. } => {
                    widened = true;
                    self.world.speaks(at);
                }
                Fact::Paused { because, .. } | Fact::Killed { because, .. } => {
                    (self.ended.stopped_at, self.ended.killed) =
                        (Some(at), matches!(fact, Fact::Killed { .. }));
                    self.ended.because = Some(because.clone());
                }
                Fact::Reported { device, report, .. } => {
                    let d = self.world.site.number(device);
                    match (report, d) {
                        (ReportKind::Started { .. }, Some(d)) => {
                            self.world.speaks(at);
                            if !std::mem::replace(&mut self.begun[d], true) {
                                self.ended.started += 1;
                                self.ended.harmed += u64::from(self.world.fleet[d].is_bad());
                            }
                        }
                        (ReportKind::Outcome { .. }, _) => self.world.speaks(at),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        widened
    }
}
