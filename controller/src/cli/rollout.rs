//! `tern rollout`. Stopping never asks a question; widening does, where somebody can answer.

use clap::{Args, Subcommand};
use serde_json::json;
use tern_protocol::id::RolloutId;

use super::failure::{Exit, Failure};
use super::output::table;
use super::{Context, phases, plan, watch, words};
use crate::api::types::{
    ApprovePhase, DoneBody, Kill, Preview, Promote, Revert, RolloutLine, RolloutView, StartRollout,
};
use crate::core::rollout::outlook::Outlook;
use crate::core::rollout::record::Status;
use crate::plain;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show what a rollout would do, without starting it
    #[command(after_help = "Example:\n  tern rollout plan --product cam --rc 7 --phases '34@10%,64@5%,all'")]
    Plan(Box<plan::Flags>),
    /// Start a rollout with its first phase
    #[command(
        after_help = "Example:\n  tern rollout start --product cam --rc 7 --phases '34@10%,64@5%,all' --yes"
    )]
    Start {
        #[command(flatten)]
        plan: Box<plan::Flags>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Follow a rollout until it is completed (exit code 0), paused (3) or killed (4)
    #[command(after_help = "Example:\n  tern rollout watch cam-7-1 && echo everybody has it")]
    Watch(watch::Flags),
    /// Stop offering the release; devices that have it keep it
    #[command(after_help = "Example:\n  tern rollout pause cam-7-1")]
    Pause {
        /// The rollout
        rollout: RolloutId,
    },
    /// Go on with a paused rollout; its gate asks for fresh proof
    #[command(after_help = "Example:\n  tern rollout resume cam-7-1")]
    Resume {
        /// The rollout
        rollout: RolloutId,
        #[command(flatten)]
        asked: Asked,
    },
    /// Open the next phase without waiting for the gate
    #[command(after_help = "Example:\n  tern rollout promote cam-7-1 --from-phase 1")]
    Promote {
        /// The rollout
        rollout: RolloutId,
        /// Promote only if it still is in this phase, from 1
        #[arg(long, value_name = "N")]
        from_phase: usize,
        /// Name the request: sent again, it does nothing more
        #[arg(long, value_name = "TEXT")]
        key: Option<String>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Agree, as a second person, that a phase may open
    #[command(
        after_help = "For plans with `approval`: whoever started the rollout cannot be the second person.\n\n\
                            Example:\n  tern rollout approve cam-7-1 --phase 2"
    )]
    Approve {
        /// The rollout
        rollout: RolloutId,
        /// The phase, from 1
        #[arg(long, value_name = "N")]
        phase: usize,
        #[command(flatten)]
        asked: Asked,
    },
    /// Take devices back from a killed release, by a rollout of its own
    #[command(
        after_help = "It goes in the phases and waves of the killed rollout, to the last release that reached everybody before.\n\
                            A device whose other slot still holds that release loads nothing.\n\nExamples:\n  \
                            tern rollout revert cam-7-1\n  tern rollout revert cam-7-1 --to 5 --name back-to-5"
    )]
    Revert {
        /// The rollout that was killed
        rollout: RolloutId,
        /// Go back to the release with this counter
        #[arg(long, value_name = "N")]
        to: Option<u64>,
        /// Name the new rollout [default: <rollout>-revert]
        #[arg(long)]
        name: Option<RolloutId>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Take the release back, for ever
    #[command(after_help = "Example:\n  tern rollout kill cam-7-1 --reason 'modems lose their SIM'")]
    Kill {
        /// The rollout
        rollout: RolloutId,
        /// Write this into the ledger
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Say in one line why the rollout stands where it stands, then what each test has and what would decide it
    #[command(after_help = "Example:\n  tern rollout explain cam-7-1")]
    Explain {
        /// The rollout
        rollout: RolloutId,
    },
    /// List rollouts, the newest first
    List,
}

#[derive(Debug, Args)]
pub(super) struct Asked {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Plan(flags) => {
            let request = flags.request()?;
            let preview = preview(context, &request)?;
            context.out.result(&preview, |preview| plan::text(&request, preview));
            preview.warnings.iter().for_each(|warning| context.out.warning(warning));
            Ok(Exit::Done)
        }
        Verb::Start { plan, asked } => start(plan.request()?, &asked, context),
        Verb::Watch(flags) => watch::run(&flags, context),
        Verb::Pause { rollout } => post(context, &rollout, "pause", &json!({})),
        Verb::Resume { rollout, asked } => {
            confirm(context, &asked, &format!("Offer the release of rollout {rollout} again?"))?;
            post(context, &rollout, "resume", &json!({}))
        }
        Verb::Approve { rollout, phase, asked } => {
            let view: RolloutView = context.client.get(&path(&rollout))?;
            context.out.note(&plain::line(&view.explanation));
            confirm(context, &asked, &format!("May phase {phase} of rollout {rollout} open?"))?;
            post(context, &rollout, "approve", &ApprovePhase { phase })
        }
        Verb::Revert { rollout, to, name, asked } => {
            confirm(context, &asked, &format!("Take devices back from the release of rollout {rollout}?"))?;
            post(context, &rollout, "revert", &Revert { name, to, plan: None })
        }
        Verb::Promote { rollout, from_phase, key, asked } => {
            let view: RolloutView = context.client.get(&path(&rollout))?;
            context.out.note(&plain::line(&view.explanation));
            let next = from_phase + 1;
            confirm(context, &asked, &format!("Open phase {next} of rollout {rollout} all the same?"))?;
            post(context, &rollout, "promote", &Promote { from_phase, key })
        }
        Verb::Kill { rollout, reason } => post(context, &rollout, "kill", &Kill { reason }),
        Verb::Explain { rollout } => {
            let view: RolloutView = context.client.get(&path(&rollout))?;
            context.out.result(&view, explained);
            Ok(Exit::Done)
        }
        Verb::List => {
            let lines: Vec<RolloutLine> = context.client.get("/v1/rollouts")?;
            context.out.result(&lines, |lines| list(lines));
            Ok(Exit::Done)
        }
    }
}

pub(super) fn path(rollout: &RolloutId) -> String {
    format!("/v1/rollouts/{rollout}")
}

fn preview(context: &Context, request: &StartRollout) -> Result<Preview, Failure> {
    Ok(context.client.post("/v1/rollouts/preview", request)?)
}

fn start(request: StartRollout, asked: &Asked, context: &Context) -> Result<Exit, Failure> {
    let name = request.name().map_err(|e| Failure::usage(e.to_string(), "give a shorter one with --name"))?;
    let preview = preview(context, &request)?;
    context.out.note(&plan::text(&request, &preview));
    preview.warnings.iter().for_each(|warning| context.out.warning(warning));
    let first = preview.phases.first().map_or(0, |step| step.devices);
    let reach = preview.phases.first().map(|step| phases::reach(step.phase.reach)).unwrap_or_default();
    confirm(
        context,
        asked,
        &format!("Start rollout {name} with {} ({reach})?", words::count(first, "device")),
    )?;
    // What was shown under this name is what starts.
    let request = StartRollout { rollout: Some(name.clone()), ..request };
    let done: DoneBody = context.out.patiently(|| context.client.post("/v1/rollouts", &request))?;
    let value = json!({"rollout": name, "done": done.done});
    context.out.result(&value, |_| format!("{}\nfollow it with `tern rollout watch {name}`", done.done));
    Ok(Exit::Done)
}

fn confirm(context: &Context, asked: &Asked, question: &str) -> Result<(), Failure> {
    if context.out.confirmed(question, asked.yes) {
        return Ok(());
    }
    Err(Failure::new("nothing was changed", "answer y, or give --yes"))
}

fn post(
    context: &Context,
    rollout: &RolloutId,
    verb: &str,
    body: &impl serde::Serialize,
) -> Result<Exit, Failure> {
    let path = format!("{}/{verb}", path(rollout));
    let done: DoneBody = context.out.patiently(|| context.client.post(&path, body))?;
    context.out.result(&done, |done| done.done.clone());
    Ok(Exit::Done)
}

pub(super) fn status(status: Status) -> &'static str {
    match status {
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Killed => "killed",
        Status::Completed => "completed",
    }
}

/// One line, then one for each test that may still decide.
fn explained(view: &RolloutView) -> String {
    let line = |one: &Outlook| {
        let gap = if one.subject.is_empty() { "" } else { ": " };
        format!("  {}{gap}{}", one.subject, plain::line(&one.line))
    };
    let lines: Vec<String> = std::iter::once(why(view)).chain(view.tests.iter().map(line)).collect();
    lines.join("\n")
}

/// One line; a paused rollout also says who or what paused it.
fn why(view: &RolloutView) -> String {
    let (status, explanation) = (status(view.status), plain::line(&view.explanation));
    if view.status == Status::Paused {
        return format!("{status}: {}; now: {explanation}", plain::line(view.because.trim_end_matches('.')));
    }
    format!("{status}: {explanation}")
}

fn list(lines: &[RolloutLine]) -> String {
    let rows = lines.iter().map(|line| {
        [
            line.rollout.to_string(),
            line.rc.to_string(),
            status(line.status).to_owned(),
            format!("{}/{}", line.phase, line.phases),
            line.total.started.to_string(),
            line.total.good.to_string(),
            line.total.confirmed_bad().to_string(),
            words::moment(line.started_at),
            line.because.clone(),
        ]
    });
    table(["rollout", "rc", "status", "phase", "started", "good", "bad", "since", "because"], rows)
}
