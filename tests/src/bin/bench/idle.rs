//! `--idle`: its table.

use std::fmt::Write as _;

use tern_tests::bench::{Idle, idle};

/// The marks between which the table stands.
pub(super) const MARKS: [&str; 2] =
    ["<!-- printed by bench --idle: begin -->", "<!-- printed by bench --idle: end -->"];

/// Counts, and returns the table.
pub(super) fn table() -> String {
    idle_table(&idle())
}

fn idle_table(idle: &Idle) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes everything");
    line("| packet | counted | bytes of one | a day | bytes a day |".into());
    line("|---|---|---|---|---|".into());
    for kind in &idle.kinds {
        let one = kind.bytes as f64 / kind.counted.max(1) as f64;
        line(format!("| `{}` | {} | {one:.1} | {} | {} |", kind.name, kind.counted, kind.a_day, kind.day()));
    }
    line(format!("| **all MQTT** (at most 3000) | | | | **{}** |", idle.day()));
    line(format!(
        "\nThe same day with TLS, {:.1} B a packet: {:.0} B in records; with TCP and IP, {:.2} of their packets for one: {:.0} B. A new \
         connection, with all that is retained, hello and what comes until the next heartbeat: {} B of MQTT.\n",
        idle.tls_each,
        idle.tls(),
        idle.segments_each,
        idle.ip(),
        idle.connecting
    ));
    match &idle.polling {
        Some(polling) => {
            let a_day = polling.a_day();
            line(format!(
                "A client that polls goosebit every {} s, as it asks for: {} B of HTTP a poll, **{} B a day**; over TLS, a \
                 connection a poll: {} B a poll, {} B a day.",
                polling.every,
                polling.http,
                polling.http * a_day,
                polling.tls,
                polling.tls * a_day
            ));
        }
        None => line("A client that polls goosebit: not measured; `.ci/idle-peer` installs it.".into()),
    }
    out
}
