//! `tern ledger verify` and `tern ledger replay`: a copy is checked from what is in it.

use std::path::Path;

use serde_json::{Value, json};

use super::{folder, key_of, read};
use crate::cli::failure::{Exit, Failure};
use crate::cli::{Context, words};
use crate::core::replay::{Found, RULES, Replay};
use crate::ledger::{Boundary, Examination, Frames, examine, verify};
use crate::retention;

pub(super) fn check(data: &Path, key: Option<&str>, context: &Context) -> Result<Exit, Failure> {
    let folder = folder(data)?;
    let found = examine(&folder, key.map(key_of).transpose()?)?;
    let report = &found.report;
    // Whole frames that say nothing would be as bad as broken ones.
    for frame in Frames::new(&folder, report.first.unwrap_or(report.frames), report.frames)? {
        read(frame?)?;
    }
    context.out.result(&value(&found), |_| text(&found));
    Ok(Exit::Done)
}

fn value(found: &Examination) -> Value {
    let report = &found.report;
    let torn = report.torn.as_ref().map(|cut| json!({"file": cut.file, "at": cut.at, "bytes": cut.bytes}));
    let key =
        found.key.as_ref().map(|key| json!({"name": key.name(), "key": key.hex(), "pinned": found.pinned}));
    json!({
        "frames": report.frames,
        "first": report.first,
        "head": report.head_hash,
        "torn": torn,
        "key": key,
        "vouched": found.vouched,
        "earlier": found.earlier,
        "dropped": found.boundary.as_ref().map(dropped),
    })
}

/// Returns what is to be said about frames that were dropped.
pub(super) fn dropped(boundary: &Boundary) -> Value {
    json!({"below": boundary.first(), "at": boundary.dropped_at, "days": boundary.days})
}

fn text(found: &Examination) -> String {
    let report = &found.report;
    let begin = found.boundary.as_ref().map_or(0, Boundary::first);
    let mut lines =
        vec![format!("{} frames are whole and chained\nhead {}", report.frames - begin, report.head_hash)];
    if let Some(boundary) = &found.boundary {
        lines.push(format!(
            "frames below {begin} were dropped at {} (older than {} days), vouched for by the signed boundary of {begin} frames",
            words::moment(boundary.dropped_at),
            boundary.days
        ));
    }
    match (&found.key, found.vouched) {
        (Some(key), Some(vouched)) => {
            let earlier = words::count(found.earlier, "earlier checkpoint");
            lines.push(format!(
                "the first {vouched} frames are those that {} has signed; {earlier} agree",
                key.name()
            ));
            if found.older_than_boundary > 0 {
                lines.push(format!(
                    "{} of dropped frames: signed, and not compared",
                    words::count(found.older_than_boundary, "checkpoint")
                ));
            }
            if let Some(unsigned) = report.frames.checked_sub(vouched).filter(|count| *count > 0) {
                lines.push(format!("{unsigned} frames after those are chained, and not signed yet"));
            }
            if !found.pinned {
                lines.push(format!(
                    "the key is this copy's own word; name the one that you noted: --key {}",
                    key.hex()
                ));
            }
        }
        _ => lines.push(
            "nothing is signed: that these are the frames that were written is this copy's own word".into(),
        ),
    }
    if let Some(cut) = &report.torn {
        lines.push(format!(
            "{} B after byte {} of {} are not whole; nothing in them was acknowledged",
            cut.bytes,
            cut.at,
            cut.file.display()
        ));
    }
    lines.join("\n")
}

/// One line for each verdict as it is found, then the sums.
pub(super) fn replay(data: &Path, context: &Context) -> Result<Exit, Failure> {
    let folder = folder(data)?;
    let report = verify(&folder)?;
    let boundary = Boundary::find(&folder)?;
    let (mut by, first) = match &boundary {
        Some(boundary) => (retention::snapshot(&folder, boundary)?, boundary.first()),
        None => (Replay::new(), 0),
    };
    let (mut same, mut by_hand, mut differ) = (0u64, 0u64, 0u64);
    for frame in Frames::new(&folder, first, report.frames)? {
        let frame = read(frame?)?;
        let (seq, at) = (frame.seq, frame.entry.at);
        match by.take(&frame.entry) {
            Found::NoVerdict => {}
            Found::ByHand => by_hand += 1,
            Found::Same { rollout, verdict } => {
                same += 1;
                let value =
                    json!({"seq": seq, "at": at, "rollout": rollout, "same": true, "verdict": verdict});
                context.out.result(&value, |_| format!("{seq:>8}  {rollout}: {verdict}"));
            }
            Found::Differs { rollout, ledger, replay } => {
                differ += 1;
                let rules = by.rules();
                let value = json!({
                    "seq": seq, "at": at, "rollout": rollout, "same": false, "verdict": ledger, "replay": replay,
                    "rules": rules,
                });
                let older = if rules == RULES {
                    String::new()
                } else {
                    format!(
                        "\n  it was decided by rules {rules}, and this program knows rules {RULES} alone: replay it with the \
                         version that decided"
                    )
                };
                let said = |_: &_| {
                    format!("{seq:>8}  {rollout}: DIFFERS\n  ledger: {ledger}\n  replay: {replay}{older}")
                };
                context.out.result(&value, said);
            }
        }
    }
    let frames = report.frames - first;
    let value = json!({
        "frames": frames, "same": same, "by_hand": by_hand, "differ": differ, "dropped": boundary.as_ref().map(dropped)
    });
    context.out.result(&value, |_| {
        let verdicts = words::count(same, "verdict");
        let sums = format!("{frames} frames: {verdicts} came out the same, {differ} did not, {by_hand} by hand");
        match &boundary {
            Some(_) => format!(
                "{sums}\nframes below {first} were dropped: the replay began with the state that was kept, and their \
                 verdicts cannot be worked out again"
            ),
            None => sums,
        }
    });
    Ok(if differ == 0 { Exit::Done } else { Exit::Failed })
}
