//! `--wire OLD NEW`: its table.

use std::fmt::Write as _;
use std::path::Path;

use tern_protocol::delta::Profile;
use tern_tests::bench::{Wire, wire};

/// The marks between which the tables of all pairs stand.
pub(super) const MARKS: [&str; 2] =
    ["<!-- printed by bench --wire: begin -->", "<!-- printed by bench --wire: end -->"];

/// Counts for each pair of images, and returns the tables.
pub(super) fn tables(images: &[String]) -> String {
    let mut out = String::new();
    for pair in images.chunks_exact(2) {
        let name = Path::new(&pair[1]).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        out += &table(&name, &wire(pair[0].as_ref(), pair[1].as_ref(), Profile::Linux));
    }
    out
}

fn table(name: &str, wire: &Wire) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes everything");
    let of = |bytes: u64| bytes as f64 / wire.delta as f64;
    line(format!(
        "**{name}**: an image of {} B, a delta of {} B in {} packs, its manifest included.\n",
        wire.image, wire.delta, wire.packs
    ));
    line("| packet | packets | bytes |".into());
    line("|---|---|---|".into());
    for (kind, (count, bytes)) in &wire.kinds {
        line(format!("| `{kind}` | {count} | {bytes} |"));
    }
    line(format!(
        "| **all MQTT, both ways** | | **{}, {:.4} of the delta** (at most 1.04) |",
        wire.mqtt(),
        of(wire.mqtt())
    ));
    line(format!("| under TLS, with its handshakes | | {}, {:.4} |", wire.tls(), of(wire.tls())));
    let (segments, ip) = (wire.segments(), wire.ip());
    line(format!("| with TCP and IP at 1500 B, reckoned | {segments} | {ip}, {:.4} |\n", of(ip)));
    out
}
