//! `tern rollout watch`: bars where somebody looks, a line for each change otherwise.

use std::thread;
use std::time::Duration;

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tern_protocol::id::RolloutId;

use super::Context;
use super::failure::{Exit, Failure};
use super::rollout::{path, status};
use crate::api::client::ClientError;
use crate::api::types::{PhaseView, RolloutView};
use crate::core::rollout::record::Status;
use crate::plain;

/// A restart of the service does not end a watch; this many failed looks in a row do.
const PATIENCE: u32 = 30;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The rollout
    rollout: RolloutId,
    /// Look this often
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    every: u64,
}

/// Follows a rollout to its end, or to where somebody has to decide.
pub(super) fn run(flags: &Flags, context: &Context) -> Result<Exit, Failure> {
    let mut screen = context.out.draws().then(Screen::new);
    let mut last = String::new();
    let mut missed = 0;
    loop {
        let view: RolloutView = match context.client.get(&path(&flags.rollout)) {
            Ok(view) => view,
            // Whether it is there at all is known after the first look.
            Err(ClientError::Unreachable { .. }) if !last.is_empty() && missed < PATIENCE => {
                missed += 1;
                thread::sleep(Duration::from_millis(flags.every));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        missed = 0;
        let line = line(&view);
        match &mut screen {
            Some(screen) => screen.show(&view),
            None if line != last => context.out.result(&view, |_| line.clone()),
            None => {}
        }
        last = line;
        if let Some(exit) = ended(&view) {
            if let Some(screen) = screen {
                screen.close();
                context.out.line(&last);
            }
            return Ok(exit);
        }
        thread::sleep(Duration::from_millis(flags.every));
    }
}

fn ended(view: &RolloutView) -> Option<Exit> {
    match view.status {
        // Something newer took its place before everybody had it: not what a script waits for.
        Status::Completed if view.because.contains("superseded by") => Some(Exit::Failed),
        Status::Running => None,
        Status::Paused => Some(Exit::Paused),
        Status::Killed => Some(Exit::Killed),
        Status::Completed => Some(Exit::Done),
    }
}

/// Says everything that matters in one line.
fn line(view: &RolloutView) -> String {
    let total = &view.total;
    let why = plain::line(if view.status == Status::Paused { &view.because } else { &view.explanation });
    format!(
        "{} {} phase {}/{} started {} good {} bad {} pending {} recalled {} of {}: {why}",
        view.rollout,
        status(view.status),
        view.phase,
        view.phases.len(),
        total.started,
        total.good,
        total.confirmed_bad(),
        total.pending(),
        total.recalled,
        view.covered,
    )
}

/// A bar for each phase, and the explanation below.
struct Screen {
    all: MultiProgress,
    bars: Vec<ProgressBar>,
    words: ProgressBar,
}

impl Screen {
    fn new() -> Self {
        let all = MultiProgress::new();
        let words = all.add(ProgressBar::no_length());
        words.set_style(ProgressStyle::with_template("{wide_msg}").expect("a valid template"));
        Self { all, bars: Vec::new(), words }
    }

    fn show(&mut self, view: &RolloutView) {
        while self.bars.len() < view.phases.len() {
            let bar = self.all.insert(self.bars.len(), ProgressBar::new(0));
            let style = "{prefix:8} {bar:20} {wide_msg}";
            bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
            self.bars.push(bar);
        }
        for (bar, phase) in self.bars.iter().zip(&view.phases) {
            bar.set_prefix(format!("phase {}", phase.phase));
            // A bar of nothing is drawn full; a phase that is not open is not done.
            bar.set_length(phase.devices.max(1));
            bar.set_position(resolved(phase));
            bar.set_message(beside(phase));
        }
        self.words.set_message(format!("{}: {}", status(view.status), plain::line(&view.explanation)));
        self.words.tick();
    }

    /// Takes the bars away; the last line says the same and stays.
    fn close(self) {
        self.bars.iter().for_each(ProgressBar::finish_and_clear);
        self.words.finish_and_clear();
    }
}

fn resolved(phase: &PhaseView) -> u64 {
    let counts = &phase.counts;
    counts.started.saturating_sub(counts.deferred).saturating_sub(counts.pending())
}

fn beside(phase: &PhaseView) -> String {
    if !phase.open {
        return "not open".to_owned();
    }
    let counts = &phase.counts;
    format!(
        "{} of {} started, good {} bad {} pending {}",
        counts.started,
        phase.devices,
        counts.good,
        counts.confirmed_bad(),
        counts.pending()
    )
}
