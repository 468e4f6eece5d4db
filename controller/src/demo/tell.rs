//! The demo's voice: bars on a terminal, plain lines elsewhere, one JSON object with `--json`.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use indicatif::{ProgressBar, ProgressStyle};

use super::story::Summary;

/// Says what happens.
pub(super) struct Teller {
    json: bool,
    terminal: bool,
}

/// A part of the story that takes a while.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    name: String,
    silent: bool,
}

impl Teller {
    pub(super) fn new(json: bool) -> Self {
        Self { json, terminal: std::io::stdout().is_terminal() && !json }
    }

    pub(super) fn title(&self, title: &str, about: &str) {
        if self.terminal {
            line(&format!("\x1b[1m{title}\x1b[0m — {about}\n"));
        } else if !self.json {
            line(&format!("{title}: {about}"));
        }
    }

    pub(super) fn say(&self, who: &str, what: &str) {
        if self.terminal {
            line(&format!("\x1b[36m{who:>9}\x1b[0m  {what}"));
        } else if !self.json {
            line(&format!("{who:>9}  {what}"));
        }
    }

    pub(super) fn progress(&self, name: &str, total: u64) -> Progress {
        let bar = self.terminal.then(|| {
            let style =
                ProgressStyle::with_template("\x1b[36m{prefix:>9}\x1b[0m  {bar:32} {pos:>3}/{len} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(total.max(1)).with_style(style).with_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Progress { bar, name: name.to_owned(), silent: self.json }
    }

    pub(super) fn end(&self, summary: &Summary) -> anyhow::Result<()> {
        if self.json {
            line(&serde_json::to_string(summary)?);
            return Ok(());
        }
        let mut table = Table::new();
        table.load_preset(UTF8_BORDERS_ONLY);
        let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let bad = &summary.bad;
        let mut row = |what: &str, value: String| {
            table.add_row([what.to_owned(), value]);
        };
        row("devices", summary.devices.to_string());
        row("release 2: succeeded / failed", format!("{} / {}", summary.good.succeeded, summary.good.failed));
        row("release 2: time to everybody", format!("{:.1} s", summary.good.seconds));
        row("release 3: verdict", bad.verdict.clone());
        row("release 3: started / bad", format!("{} / {}", bad.started, bad.bad));
        row("release 3: rolled back / recalled", format!("{} / {}", bad.rolled_back, bad.recalled));
        row("release 3: never offered", bad.never_offered.to_string());
        row("kill heard by devices, p50 / p99", format!("{} / {} ms", bad.kill_ms_p50, bad.kill_ms_p99));
        row("stranded devices", summary.stranded.to_string());
        row(
            "payload / on the wire",
            format!("{} / {}", megabytes(summary.bytes_payload), megabytes(summary.bytes_wire)),
        );
        let ledger = &summary.ledger;
        let verified = if ledger.verified { "verified" } else { "NOT VERIFIED" };
        row("ledger", format!("{} frames, {verified}", ledger.frames));
        line(&format!("\n{table}"));
        Ok(())
    }
}

impl Progress {
    pub(super) fn set(&self, position: u64, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(text.to_owned());
        }
    }

    pub(super) fn end(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            line(&format!("\x1b[36m{:>9}\x1b[0m  {text}", self.name));
        } else if !self.silent {
            line(&format!("{:>9}  {text}", self.name));
        }
    }
}

fn line(text: &str) {
    // Whoever read our output may have gone away; the story goes on.
    let _gone = writeln!(std::io::stdout(), "{text}");
}
