//! `tern keys recover`: the comparison with the devices after a restore.

use clap::Args;
use serde_json::json;

use crate::api::types::{DoneBody, RecoverView};
use crate::cli::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::words;

/// Device ids on one line.
const NAMED_MAX: usize = 10;

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// Only show how far the comparison is
    #[arg(long, conflicts_with_all = ["end", "reason"])]
    status: bool,
    /// End the comparison now, whoever was not heard
    #[arg(long, conflicts_with = "reason")]
    end: bool,
    /// Do not ask
    #[arg(long, short, requires = "end")]
    yes: bool,
    /// Why, for the ledger
    #[arg(long, default_value = "")]
    reason: String,
}

pub(super) fn run(flags: &Flags, context: &Context) -> Result<Exit, Failure> {
    let view = |context: &Context| context.client.get::<RecoverView>("/v1/recover");
    if flags.end {
        let present = view(context)?;
        context.out.note(&text(&present));
        if !context.out.confirmed("End the comparison? What nobody has shown is then lost.", flags.yes) {
            return Err(Failure::new("nothing was changed", "answer y, or give --yes"));
        }
        let done: DoneBody = context.client.post("/v1/recover/end", &json!({}))?;
        context.out.result(&done, |done| done.done.clone());
        return Ok(Exit::Done);
    }
    if !flags.status {
        let _begun: DoneBody = context.client.post("/v1/recover", &json!({"reason": flags.reason}))?;
    }
    let view = view(context)?;
    context.out.result(&view, text);
    // A script that waits for the end asks for this code.
    Ok(if flags.status && view.comparing { Exit::Paused } else { Exit::Done })
}

pub(super) fn text(view: &RecoverView) -> String {
    if !view.comparing {
        return "no comparison goes on: the service signs as always".to_owned();
    }
    let mut lines = vec![
        format!(
            "the service compares itself with its devices since {}: {}",
            words::moment(view.since),
            view.because
        ),
        "until the end it signs nothing but kills and answers nobody, and every rollout is paused".to_owned(),
        format!(
            "{} of {} devices heard, {} compared, {} signed files taken over",
            view.heard, view.devices, view.compared, view.files
        ),
    ];
    for (what, devices) in [
        ("claim more and are asked for the files that prove it", &view.waiting),
        ("claim more and present nothing that proves it", &view.unproved),
    ] {
        if !devices.is_empty() {
            let named: Vec<String> = devices.iter().take(NAMED_MAX).map(ToString::to_string).collect();
            let more = devices.len().saturating_sub(NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            lines.push(format!("{}{more} {what}", named.join(", ")));
        }
    }
    for file in &view.lacking {
        lines.push(format!(
            "product {}: {} {} was signed and nobody has shown it; publish it again: `tern keys publish --product {} {}.json`",
            file.product, file.role, file.version, file.product, file.role
        ));
    }
    let end = words::moment(view.until);
    if view.compared >= view.devices && view.devices > 0 && view.lacking.is_empty() {
        lines.push(format!(
            "every device is compared: end it with `tern keys recover --end`, or wait until {end}"
        ));
    } else {
        lines.push(format!("it ends by itself at {end}, or later if somebody is still asked"));
    }
    lines.join("\n")
}
