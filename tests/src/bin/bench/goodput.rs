//! `--goodput`: its cases, and its table.

use std::fmt::Write as _;
use std::time::Duration;

use tern_tests::bench::{Case, Goodput, goodput};
use tern_tests::lab::Terms;

/// The marks between which the table stands.
pub(super) const MARKS: [&str; 2] =
    ["<!-- printed by bench --goodput: begin -->", "<!-- printed by bench --goodput: end -->"];

/// 600 ms there and back.
const DELAY: Duration = Duration::from_millis(300);
const CUT: Duration = Duration::from_secs(30);

/// Rates in bits a second; image without cuts, image with cuts, in bytes; seconds for the others without cuts.
const LINKS: [(u64, usize, usize, u64); 3] = [
    (64_000, 512 << 10, 1 << 20, 90),
    (1_000_000, 12 << 20, 16 << 20, 30),
    (50_000_000, 192 << 20, 384 << 20, 30),
];

/// Measures, the slow links side by side and the fast ones after one another, and returns the table.
pub(super) fn table(quick: bool) -> String {
    let cases: Vec<Case> = LINKS
        .iter()
        .take(if quick { 2 } else { 3 })
        .flat_map(|(rate, plain, cut, peers)| {
            let terms = Terms::plain(*rate, DELAY);
            let scale = if quick { 4 } else { 1 };
            let peers = Duration::from_secs(*peers / scale);
            [
                Case::new(terms.clone(), plain / usize::try_from(scale).unwrap_or(1), peers),
                Case::new(terms, cut / usize::try_from(scale).unwrap_or(1), 3 * CUT + CUT / 2).cut_every(CUT),
            ]
        })
        .collect();
    let (slow, fast): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.terms.rate < 10_000_000);
    let mut measured: Vec<Goodput> = std::thread::scope(|scope| {
        let threads: Vec<_> = slow.into_iter().map(|case| scope.spawn(|| measure(case))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it is measured")).collect()
    });
    measured.extend(fast.into_iter().map(measure));
    goodput_table(&measured)
}

/// Measures, and tells at once: ten minutes without a word are long.
fn measure(case: &Case) -> Goodput {
    let measured = goodput(case, "");
    super::print(&format!("{}\n", row(&measured)));
    measured
}

fn goodput_table(rows: &[Goodput]) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes everything");
    line("**Goodput** over a link with 600 ms there and back, as parts of its rate:\n".into());
    line("| link | cut every | image, MB | seconds | goodput | asked for | connections | MQTT bytes down / image | up / image | one chunk a round trip | HTTP, ranges of 64 KiB | HTTP, one request |".into());
    line("|---|---|---|---|---|---|---|---|---|---|---|---|".into());
    rows.iter().for_each(|measured| line(row(measured)));
    out
}

fn row(row: &Goodput) -> String {
    let rate = match row.case.terms.rate {
        rate if rate < 1_000_000 => format!("{} kbit/s", rate / 1000),
        rate => format!("{} Mbit/s", rate / 1_000_000),
    };
    let cut = row.case.cut_every.map_or("never".to_owned(), |pause| format!("{} s", pause.as_secs()));
    format!(
        "| {rate} | {cut} | {:.1} | {:.1} | **{:.3}** | {:.3} | {} | {:.3} | {:.4} | {:.3} | {:.3} | {:.3} |",
        row.case.image as f64 / 1e6,
        row.seconds,
        row.part,
        row.case.bound(),
        row.connections,
        row.down,
        row.up,
        row.one_chunk,
        row.ranges,
        row.whole
    )
}
