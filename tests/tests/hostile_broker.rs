//! A hostile broker over real sockets: real agents and a real service, and between them somebody who by a seed loses,
//! holds back, repeats, bends, swaps, clears and makes up messages, serves an old state whole and another product's
//! files, and cuts connections. The simulation has more seeds (`sim_hostile`); here nothing is virtual.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use tern_tests::lab::{Making, Manner, Siege, Stopwatch, image};

/// What it does at least before it is told to behave: an update is some ten messages each way.
const ACTS: u64 = 40;
const KINDS: usize = 6;

fn war(seed: u64) {
    let siege = Siege::lay(seed, &Making::default());
    siege.middleman.set(Manner::Hostile);
    siege.lab.roll_out(2, "r2", "all", 86_400);

    siege.until("enough mischief", |siege| {
        let acts = siege.middleman.acts();
        let enough = acts.values().sum::<u64>() >= ACTS && acts.len() >= KINDS;
        // Who has finished all the same says little more.
        let ended = |device| siege.sent(device, "report", r#""t":"outcome""#) > 0;
        enough || (siege.is_quiet() && siege.devices.iter().all(ended))
    });
    assert_eq!(siege.inventions("r2"), Vec::<String>::new(), "seed {seed}");
    siege.lab.json(&["rollout", "kill", "r2"]);
    let after = siege.middleman.acts().values().sum::<u64>() + ACTS / 3;
    siege.until("more mischief", |siege| {
        siege.middleman.acts().values().sum::<u64>() >= after || siege.is_quiet()
    });
    assert_eq!(siege.inventions("r2"), Vec::<String>::new(), "seed {seed}");
    let acts = siege.middleman.acts();
    assert!(acts.values().sum::<u64>() >= ACTS / 3, "it did nothing to speak of: {acts:?}");
    siege.middleman.behave();

    let peace = Stopwatch::start();
    siege.rest();
    let said = format!("seed {seed}: {acts:?}; at rest {:?} after it behaved\n", peace.read());
    let _shown = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
    assert_eq!(siege.unsafe_devices(&[1, 2], &[1, 2]), Vec::<String>::new(), "seed {seed}");
    assert_eq!(siege.lies("r2"), Vec::<String>::new(), "seed {seed}: {acts:?}");
    siege.lab.publish(3, &image(&siege.lab, 3));
    siege.lab.roll_out(3, "r3", "all", 0);
    let view = siege.lab.wait_for_status("r3", "completed", Duration::from_secs(60));
    assert_eq!(view["total"]["good"], 3, "{view}");
    siege.rest();
    assert_eq!(siege.unsafe_devices(&[1, 2, 3], &[1, 2, 3]), Vec::<String>::new(), "seed {seed}");
    assert_eq!(siege.lies("r3"), Vec::<String>::new(), "seed {seed}");
}

#[test]
fn whoever_stands_between_real_agents_and_the_service_can_delay_and_nothing_else() {
    war(1);
}

#[test]
fn whoever_stands_between_real_agents_and_the_service_can_delay_and_nothing_else_once_more() {
    war(2);
}

#[test]
fn whoever_stands_between_real_agents_and_the_service_can_delay_and_nothing_else_a_third_time() {
    war(3);
}
