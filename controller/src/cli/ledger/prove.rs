//! `tern ledger key`, `prove` and `check-proof`: one frame, shown to somebody who does not have the ledger.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::json;

use super::{folder, key_of, read, said};
use crate::cli::failure::{Exit, Failure};
use crate::cli::{Context, words};
use crate::ledger::proof::PROOF_MAX;
use crate::ledger::{Proof, ProofError, notary, prove as proof_of};
use crate::plain;

/// Prints the public key.
pub(super) fn key(data: &Path, context: &Context) -> Result<Exit, Failure> {
    let folder = folder(data)?;
    let Some(key) = notary::public_key(&folder)? else {
        return Err(ProofError::NoKey { dir: folder }.into());
    };
    let value = json!({"name": key.name(), "key": key.hex(), "verifier_key": key.verifier_key()});
    context.out.result(&value, |_| format!("{}\n{}", key.hex(), key.verifier_key()));
    Ok(Exit::Done)
}

/// Prints a proof.
pub(super) fn prove(data: &Path, frame: u64, context: &Context) -> Result<Exit, Failure> {
    let folder = folder(data)?;
    let text = proof_of(&folder, frame)?.text();
    context.out.result(&json!({"frame": frame, "proof": text}), |_| text.clone());
    Ok(Exit::Done)
}

/// Checks a proof that was printed, as text or as JSON.
pub(super) fn check(file: &Path, key: &str, context: &Context) -> Result<Exit, Failure> {
    let key = key_of(key)?;
    let text = proof_text(file)?;
    let proof = Proof::read(&text).map_err(ProofError::Proof)?;
    let proved = proof.check(&key)?;
    let size = proved.checkpoint.size;
    let frame = read(proved.frame)?;
    let value = json!({"frame": frame, "size": size, "key": {"name": key.name(), "key": key.hex()}});
    context.out.result(&value, |_| {
        let mut fact = plain::line(&said(&frame.entry.fact));
        if let Some(actor) = &frame.entry.actor {
            fact.push_str(&format!(" [{actor}]"));
        }
        format!(
            "frame {} of {size} that {} has signed\n{}  {fact}",
            frame.seq,
            key.name(),
            words::moment(frame.entry.at)
        )
    });
    Ok(Exit::Done)
}

fn proof_text(file: &Path) -> Result<String, Failure> {
    let hint = "name the file that `tern ledger prove` has printed";
    let failed = |e: std::io::Error| Failure::new(format!("could not read {}: {e}", file.display()), hint);
    // Both forms have the frame in it once; a program may have indented the JSON.
    let most = 2 * PROOF_MAX as u64;
    let mut bytes = Vec::new();
    File::open(file).and_then(|file| file.take(most + 1).read_to_end(&mut bytes)).map_err(failed)?;
    let wrong = || Failure::new(format!("{} is no proof", file.display()), hint);
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    if text.len() as u64 > most {
        return Err(wrong());
    }
    if text.trim().is_empty() {
        let what = format!("{} is empty", file.display());
        return Err(Failure::new(
            what,
            "`tern ledger prove` may have failed when it was to write there; look at its error",
        ));
    }
    if !text.trim_start().starts_with('{') {
        return Ok(text);
    }
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|_| wrong())?;
    value["proof"].as_str().map(str::to_owned).ok_or_else(wrong)
}
