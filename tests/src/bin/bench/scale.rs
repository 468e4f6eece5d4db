//! The table of a large fleet.

use std::fmt::Write as _;

use tern_tests::bench::{Scale, Timed};

/// What the engine is to need of a device for each rollout, bytes.
const HOT: f64 = 16.0;

pub(super) fn scale_table(found: &Scale) -> String {
    let Scale { devices, reports, per_core_second, bytes, resident, whole, restart } = found;
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes everything");
    line(format!(
        "**A fleet of {devices} devices**, one rollout under way, half of the devices confirmed:\n"
    ));
    line("| what | found | target |".into());
    line("|---|---|---|".into());
    line(format!(
        "| reports counted in a second of one core, of {reports} | {per_core_second:.0} | 500000 |"
    ));
    for (what, bytes) in bytes {
        let target = if what.starts_with("attempt record") { format!("{HOT:.0}") } else { String::new() };
        line(format!("| bytes a device: {what} | {bytes:.0} | {target} |"));
    }
    line(format!("| bytes a device: the process with its fleet | {resident:.0} | |"));
    line(format!("| records kept whole: the first ten of the model, and the unusual | {whole} | |"));
    let Some(restart) = restart else { return out };
    let (frames, length) = restart.ledger;
    line(format!("| ledger: {frames} frames, MB | {:.0} | |", length as f64 / 1e6));
    line(format!("| checkpoint, MB on the disk | {:.0} | |", restart.store as f64 / 1e6));
    let mut timed = |what: &str, took: Timed, target: &str| {
        line(format!("| {what}, s (CPU s) | {:.1} ({:.1}) | {target} |", took.wall, took.cpu));
    };
    timed("replay of the ledger alone", restart.replay, "");
    timed("checkpoint of every device", restart.checkpoint, "");
    timed("restart: the ledger is walked and its hashes checked", restart.walk, "");
    timed("restart: that, and the fleet is read", restart.open, "");
    timed("restart: the service and its deadlines", restart.service, "");
    let sum = |f: fn(&Timed) -> f64| f(&restart.open) + f(&restart.service);
    timed("restart, all of it", Timed { wall: sum(|t| t.wall), cpu: sum(|t| t.cpu) }, "10");
    line("\nLive, replayed and restarted fleets were the same fleet.".into());
    out
}
