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
use crate::core::rollout::outlook::{Outlook, Tells};
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
        after_help = "For plans with `approval`: whoever started the rollout cannot be the second person. A phase may be approved long\n\
                            before its time; it opens when its time has come.\n\n\
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
        after_help = "It goes in the phases and waves of the killed rollout, then to everybody: back to the last release that reached everybody before.\n\
                            A device whose other slot still holds that release loads nothing.\n\nExamples:\n  \
                            tern rollout revert cam-7-1\n  tern rollout revert cam-7-1 --to 5 --name back-to-5"
    )]
    Revert {
        /// The rollout that was killed
        rollout: RolloutId,
        /// Go back to the release with this counter, one that reached everybody before
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
    #[command(after_help = "Examples:\n  tern rollout explain cam-7-1\n  tern rollout explain cam-7-1 --all")]
    Explain {
        /// The rollout
        rollout: RolloutId,
        /// Show every test, not only the one of each model that is nearest to deciding
        #[arg(long)]
        all: bool,
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
            context.out.note(&stands(&view));
            confirm(context, &asked, &format!("May phase {phase} of rollout {rollout} open?"))?;
            post(context, &rollout, "approve", &ApprovePhase { phase })
        }
        Verb::Revert { rollout, to, name, asked } => {
            confirm(context, &asked, &format!("Take devices back from the release of rollout {rollout}?"))?;
            post(context, &rollout, "revert", &Revert { name, to, plan: None })
        }
        Verb::Promote { rollout, from_phase, key, asked } => {
            let view: RolloutView = context.client.get(&path(&rollout))?;
            context.out.note(&stands(&view));
            let opens = if from_phase < view.phases.len() {
                format!("phase {}", from_phase + 1)
            } else {
                "the next wave, or what was held back,".to_owned()
            };
            confirm(context, &asked, &format!("Open {opens} of rollout {rollout} all the same?"))?;
            post(context, &rollout, "promote", &Promote { from_phase, key })
        }
        Verb::Kill { rollout, reason } => post(context, &rollout, "kill", &Kill { reason }),
        Verb::Explain { rollout, all } => {
            let view: RolloutView = context.client.get(&path(&rollout))?;
            context.out.result(&view, |view| explained(view, all, context.out.width()));
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

/// Where a rollout stands before something is done to it: no result.
fn stands(view: &RolloutView) -> String {
    format!("it stands at: {}", plain::line(&view.explanation))
}

/// One line, then one for the test of each model that is nearest to deciding, or for all of them; wrapped where somebody looks.
fn explained(view: &RolloutView, all: bool, width: Option<usize>) -> String {
    let shown: Vec<&Outlook> = if all { view.tests.iter().collect() } else { nearest(&view.tests) };
    let line = |one: &&Outlook| {
        let gap = if one.subject.is_empty() { "" } else { ": " };
        let text = format!("  {}{gap}{}", one.subject, plain::line(&one.line));
        wrapped(&text, width.unwrap_or(WIDTH))
    };
    // Programs read the verdict as one line.
    let why = width.map_or_else(|| why(view), |width| wrapped(&why(view), width));
    let forced = plan::urgency(view.urgency).map(|line| format!("  {line}"));
    let lines = std::iter::once(why).chain(forced).chain(shown.iter().map(line));
    let mut lines: Vec<String> = lines.collect();
    let hidden = view.tests.len() - shown.len();
    if hidden > 0 {
        lines.push(format!("  {} with --all", words::count(hidden as u64, "more line")));
    }
    lines.join("\n")
}

/// Columns where nobody says how many there are.
const WIDTH: usize = 100;

/// Of each model the test that the fewest bad ones more would decide, and beside it what only counts; whom nothing was heard
/// of yet is left out.
fn nearest(tests: &[Outlook]) -> Vec<&Outlook> {
    let seen = |one: &Outlook| matches!(&one.of, Tells::Test(evidence) if evidence.n > 0);
    let distance = |one: &Outlook| {
        let more = [one.kills, one.pauses].into_iter().flatten();
        more.map(|more| (more.bad, more.of)).min().unwrap_or((u64::MAX, u64::MAX))
    };
    let best = |subject: &str| {
        let theirs = tests.iter().enumerate().filter(|(_, one)| one.subject == subject && seen(one));
        theirs.min_by_key(|(_, one)| distance(one)).map(|(place, _)| place)
    };
    let kept = |(place, one): &(usize, &Outlook)| match one.of {
        Tells::Test(_) => best(&one.subject) == Some(*place),
        Tells::HardStop { .. } | Tells::HarmBudget { .. } => best(&one.subject).is_some(),
        Tells::Gate(_) => true,
    };
    tests.iter().enumerate().filter(kept).map(|(_, one)| one).collect()
}

/// Breaks a line at spaces; what goes on is indented.
fn wrapped(line: &str, width: usize) -> String {
    let indent = &line[..line.len() - line.trim_start().len()];
    let (mut text, mut column) = (indent.to_owned(), indent.len());
    for (number, word) in line.split_whitespace().enumerate() {
        let length = word.chars().count();
        if number > 0 && column + 1 + length > width {
            text.push_str(&format!("\n{indent}    "));
            column = indent.len() + 4;
        } else if number > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rollout::outlook::More;
    use crate::core::rollout::verdict::{Evidence, Test};

    fn test(subject: &str, n: u64, bad: u64) -> Outlook {
        let test = Test::Outcome;
        let evidence = Evidence {
            allowed: None,
            test,
            n,
            f: 0,
            p: 0.05,
            alpha: 0.01,
            weight: 0.5,
            ln_e: 0.0,
            threshold: 1.0,
            after: std::time::Duration::ZERO,
            control: None,
        };
        let kills = Some(More { bad, of: 10 });
        let (subject, line) = (subject.to_owned(), format!("{subject} {bad}"));
        Outlook { subject, of: Tells::Test(evidence), kills, pauses: None, clean: None, line }
    }

    #[test]
    fn of_each_model_the_nearest_test_is_shown_and_none_that_has_seen_nobody() {
        let stop = |subject: &str| Outlook {
            of: Tells::HardStop { bad: 0, most: 3, first: 10 },
            ..test(subject, 0, 0)
        };
        let tests =
            [test("a", 9, 7), test("a", 9, 4), test("a", 0, 1), stop("a"), test("b", 0, 2), stop("b")];
        let shown: Vec<&str> = nearest(&tests).into_iter().map(|one| one.line.as_str()).collect();
        assert_eq!(shown, ["a 4", "a 0"]);
    }

    #[test]
    fn long_lines_are_broken_at_spaces_and_go_on_indented() {
        assert_eq!(wrapped("  one two three four", 12), "  one two\n      three\n      four");
        assert_eq!(wrapped("one two", 7), "one two");
    }
}
