//! kill -9 of agents, service and bridge inside rollouts: five agents, a service and a bridge, each a process.
//!
//! Every round publishes a release, rolls it out and kills one process at a moment that the seed chooses; then the
//! process comes back, as its supervisor would bring it, and the world must come to where it would have come
//! anyway. A round counts only if the rollout was going on when the kill fell. Which state an agent was hit in is
//! read from its disk afterwards, never from what the round meant to hit.
//!
//! A power cut here takes what a device keeps in memory, not what its kernel has not written yet: that is for the
//! simulation, which forgets unsynced bytes.
//!
//! `TERN_KILL9_ROUNDS` asks for the long campaign, `TERN_KILL9_SEED` for another one.

mod moment;
mod proof;
mod round;
mod tally;
mod world;

use tally::Tally;
use tern_tests::sim::clock::Rng;
use world::World;

/// Rounds of the short campaign that every change runs.
const SHORT: u32 = 8;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, not a number")))
}

#[test]
fn whatever_is_killed_inside_a_rollout_everything_converges_and_nothing_is_lost_or_counted_twice() {
    let long = number("TERN_KILL9_ROUNDS").map(|rounds| u32::try_from(rounds).unwrap());
    let (wanted, seed) = (long.unwrap_or(SHORT), number("TERN_KILL9_SEED").unwrap_or(1));
    println!("kill9: seed {seed}, {wanted} rounds that count");
    let mut rng = Rng::of(seed, "kill9");
    let mut world = World::build();
    let mut tally = Tally::new(long.is_some());
    let mut played = 0;

    while tally.counted() < wanted || !tally.complete() {
        played += 1;
        assert!(played <= 3 * wanted, "{played} rounds gave {} that count", tally.counted());
        let target = tally.next(&mut rng);
        let line = round::play(&mut world, target, played, &mut rng, &mut tally);
        println!("{line}");
    }

    println!("{}", tally.table());
    assert!(tally.counted() >= wanted);
}
