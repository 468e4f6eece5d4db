//! The only place that prints: results on stdout, everything else on stderr.
#![expect(clippy::print_stderr, reason = "this is the output module")]

use std::cell::RefCell;
use std::io::{BufRead, IsTerminal, Write};
use std::sync::mpsc;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::failure::Failure;
use crate::plain;

/// How long a command may say nothing.
const SILENCE: Duration = Duration::from_secs(3);

/// Prints for people, or JSON for programs.
pub(super) struct Output {
    json: bool,
    /// Where results go.
    results: RefCell<Box<dyn Write>>,
    /// Somebody looks at stdout.
    watched: bool,
    /// Somebody looks at stderr.
    attended: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            results: RefCell::new(Box::new(std::io::stdout())),
            watched: std::io::stdout().is_terminal(),
            attended: std::io::stderr().is_terminal(),
        }
    }

    /// Prints results elsewhere, and asks nobody.
    #[cfg(test)]
    pub(super) fn into(json: bool, results: impl Write + 'static) -> Self {
        Self { json, results: RefCell::new(Box::new(results)), watched: false, attended: false }
    }

    /// Tells whether programs read along.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// Returns how many columns there are, where somebody looks.
    pub(super) fn width(&self) -> Option<usize> {
        let size = self.watched.then(|| rustix::termios::tcgetwinsize(std::io::stdout()).ok()).flatten();
        size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns >= 40)
    }

    /// Tells whether bars may be drawn.
    pub(super) fn draws(&self) -> bool {
        self.watched && self.attended && !self.json
    }

    /// Prints the result: JSON on one line, or what `text` makes of it.
    pub(super) fn result<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) {
        if self.json {
            self.line(&serde_json::to_string(value).expect("results are plain data"));
        } else {
            self.line(&plain::lines(text(value).trim_end()));
        }
    }

    /// Prints one line, or several, on stdout. Whoever closes the pipe has read enough.
    pub(super) fn line(&self, text: &str) {
        let mut results = self.results.borrow_mut();
        if writeln!(results, "{text}").and_then(|()| results.flush()).is_err() {
            std::process::exit(0);
        }
    }

    /// Tells a person something that is not the result.
    pub(super) fn note(&self, text: &str) {
        if !self.json {
            eprintln!("{}", plain::lines(text));
        }
    }

    /// Does what may take long, and says so once it does: an operator who sees nothing stops trusting the command.
    pub(super) fn patiently<T>(&self, work: impl FnOnce() -> T) -> T {
        let (done, waiting) = mpsc::channel::<()>();
        let said = !self.json;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                if waiting.recv_timeout(SILENCE) == Err(mpsc::RecvTimeoutError::Timeout) && said {
                    eprintln!("waiting for the service");
                }
            });
            let result = work();
            drop(done);
            result
        })
    }

    /// Warns, also when programs read along.
    pub(super) fn warning(&self, text: &str) {
        eprintln!("{} {}", self.coloured("warning:", "33"), plain::lines(text));
    }

    /// Prints why it failed and what to do next.
    pub(super) fn failure(&self, failure: &Failure) {
        if self.json {
            // On standard error: a script that reads standard output gets an answer there or nothing.
            let (error, hint) = (&failure.error, &failure.hint);
            eprintln!("{}", serde_json::json!({"error": error, "hint": hint}));
            return;
        }
        eprintln!("{} {}", self.coloured("error:", "31"), plain::lines(&failure.error));
        if !failure.hint.is_empty() {
            eprintln!("{} {}", self.coloured("hint:", "36"), plain::lines(&failure.hint));
        }
    }

    /// Asks before something that widens; where nobody can answer the command itself was the answer.
    pub(super) fn confirmed(&self, question: &str, yes: bool) -> bool {
        if yes || self.json || !std::io::stdin().is_terminal() || !self.attended {
            return true;
        }
        eprint!("{question} [y/N] ");
        // A prompt that cannot be shown gets no answer either.
        drop(std::io::stderr().flush());
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
    }

    /// A bar over bytes; hidden unless somebody looks.
    pub(super) fn bytes(&self, what: &str, total: u64) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(total), self.target());
        let style = "{msg:12} {bar:32} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
        bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
        bar.set_message(what.to_owned());
        if self.attended && !self.json {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        bar
    }

    /// A bar over parts, which stands behind what it says; hidden unless somebody looks.
    pub(super) fn parts(&self, what: &str, total: u64) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(total), self.target());
        bar.set_style(
            ProgressStyle::with_template("{bar:32} {percent:>3} % {msg}").expect("a valid template"),
        );
        bar.set_message(what.to_owned());
        bar
    }

    fn target(&self) -> ProgressDrawTarget {
        if self.attended && !self.json { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
    }

    fn coloured(&self, text: &str, colour: &str) -> String {
        let plain = std::env::var_os("NO_COLOR").is_some() || !self.attended;
        if plain { text.to_owned() } else { format!("\x1b[1;{colour}m{text}\x1b[0m") }
    }
}

/// Lays out rows under a heading, without lines: it pastes well into a ticket.
pub(super) fn table<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heading);
    for row in rows {
        table.add_row(row.map(|cell| plain::line(&cell)));
    }
    table.trim_fmt()
}
