//! `tern release deltas`, and waiting for them.

use std::time::Duration;

use indicatif::ProgressBar;
use tern_protocol::id::ProductId;

use crate::api::types::DeltaView;
use crate::cli::failure::Failure;
use crate::cli::output::table;
use crate::cli::{Context, words};
use crate::deltas::State;

/// Between two looks, at first and at last: small images take less than a second, large ones many minutes.
const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(2);

/// Asks how it is with the deltas of a release.
pub(super) fn of(context: &Context, product: &ProductId, rc: u64) -> Result<Vec<DeltaView>, Failure> {
    Ok(context.client.get(&format!("/v1/products/{product}/releases/{rc}/deltas"))?)
}

/// Waits until all are made, found useless or refused. Whoever ends this ends the waiting alone.
pub(super) fn wait(context: &Context, product: &ProductId, rc: u64) -> Result<(), Failure> {
    let mut pause = FIRST;
    let mut bar: Option<ProgressBar> = None;
    loop {
        let found = of(context, product, rc)?;
        let left = found.iter().filter(|delta| delta.state.is_unfinished()).count();
        if left == 0 {
            bar.inspect(ProgressBar::finish_and_clear);
            tell(context, &found);
            return Ok(());
        }
        let bar = bar.get_or_insert_with(|| context.out.parts("deltas", found.len() as u64 * 100));
        let percent = |delta: &DeltaView| match delta.state {
            State::Encoding { percent } => u64::from(percent.min(99)),
            State::Waiting => 0,
            _ => 100,
        };
        bar.set_position(found.iter().map(percent).sum());
        bar.set_message(format!("{left} of {} deltas to make; they go on without this", found.len()));
        std::thread::sleep(pause);
        pause = (pause * 2).min(LAST);
    }
}

fn tell(context: &Context, found: &[DeltaView]) {
    for delta in found {
        if let State::Refused { why } = &delta.state {
            let from = delta.from.map_or_else(|| "nothing".to_owned(), |rc| format!("release {rc}"));
            let what = format!("no delta of {} from {from}: {why}", delta.component);
            context.out.warning(&format!("{what}; devices take the full image"));
        }
    }
    context.out.note(sizes(found).trim_end());
}

/// Writes a line for each.
pub(super) fn list(found: &[DeltaView]) -> String {
    if found.is_empty() {
        return "no deltas: the service makes none for this release (`[deltas]` in its configuration)"
            .to_owned();
    }
    let rows = found.iter().map(|delta| {
        [
            delta.component.clone(),
            delta.from.map_or_else(|| "-".to_owned(), |rc| rc.to_string()),
            delta.profile.clone(),
            if delta.from.is_some() { delta.devices.to_string() } else { "-".to_owned() },
            words::bytes(delta.full),
            state(delta),
        ]
    });
    table(["component", "from", "profile", "devices", "full", "delta"], rows)
}

fn state(delta: &DeltaView) -> String {
    match &delta.state {
        State::Waiting => "waits".to_owned(),
        State::Encoding { percent } => format!("{percent} % encoded"),
        State::Ready { bytes } => part(*bytes, delta.full),
        State::Useless { bytes } => format!("none: it would have {}", words::bytes(*bytes)),
        State::Refused { why } => format!("none: {why}"),
        State::NotMade => "not made; it is when a rollout starts".to_owned(),
    }
}

/// Writes, for a person, what devices fetch.
pub(super) fn sizes(found: &[DeltaView]) -> String {
    let mut text = String::new();
    for delta in found {
        if let State::Ready { bytes } = delta.state {
            let from = delta.from.map_or_else(|| "coded whole".to_owned(), |rc| format!("from release {rc}"));
            let part = part(bytes, delta.full);
            text.push_str(&format!("  {} {from}, {}: {part}\n", delta.component, delta.profile));
        }
    }
    if text.is_empty() { text } else { format!("deltas:\n{text}") }
}

pub(super) fn part(bytes: u64, full: u64) -> String {
    let hundredths = bytes.saturating_mul(10_000) / full.max(1);
    format!(
        "{}, {}.{:02} % of {}",
        words::bytes(bytes),
        hundredths / 100,
        hundredths % 100,
        words::bytes(full)
    )
}
