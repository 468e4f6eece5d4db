//! The rows as pictures: SVG that reads on light and on dark pages, written by hand, for there are three of them.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use super::contest::{Contestant, Row};

/// One colour for each rule, told apart on white and on black, also by most who see few colours.
const COLOURS: [&str; 9] =
    ["#8c8c8c", "#5b9bd5", "#2f6fb0", "#e0a030", "#c9781c", "#8f5a10", "#9a6fc4", "#2fa36b", "#d1495b"];
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#24292f}.t{font-size:15px;font-weight:600}\
.g{stroke:#8884;stroke-width:1}.a{stroke:#888;stroke-width:1}.m{fill:#6a737d}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.m{fill:#9aa4af}}";

/// Writes every picture into a folder.
pub fn write(rows: &[Row], folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    for (name, picture) in [
        ("bakeoff-harm.svg", harm(rows)),
        ("bakeoff-time.svg", time(rows)),
        ("bakeoff-false-stops.svg", false_stops(rows)),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, picture).with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(())
}

/// What was found, by scenario and rule, in the order in which they came.
struct Grid<'a> {
    rows: Vec<&'a Row>,
    scenarios: Vec<&'a str>,
    rules: Vec<&'a str>,
}

impl<'a> Grid<'a> {
    fn of(rows: &'a [Row], wanted: impl Fn(&Row) -> bool) -> Self {
        let mut rules = distinct(rows.iter().map(|row| row.rule.as_str()));
        // Colours and letters stay the same, whatever was run first.
        rules.sort_by_key(|rule| Contestant::ALL.iter().position(|known| known.name() == *rule));
        let rows: Vec<&Row> = rows.iter().filter(|row| wanted(row)).collect();
        let scenarios = distinct(rows.iter().map(|row| row.scenario.as_str()));
        Self { rows, scenarios, rules }
    }

    fn row(&self, scenario: &str, rule: &str) -> Option<&'a Row> {
        self.rows.iter().copied().find(|row| row.scenario == scenario && row.rule == rule)
    }

    fn colour(&self, rule: &str) -> &'static str {
        let index = self.rules.iter().position(|known| *known == rule).unwrap_or(0);
        COLOURS[index % COLOURS.len()]
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

/// Marks by rule, so that a picture without colours can be read: a letter on each.
fn letter(index: usize) -> char {
    char::from(b'a' + u8::try_from(index % 26).unwrap_or(0))
}

struct Picture {
    text: String,
    width: f64,
    height: f64,
}

impl Picture {
    fn new(width: f64, height: f64, title: &str, below: &str) -> Self {
        let mut picture = Self { text: String::new(), width, height };
        picture.label(16.0, 24.0, "t", "start", title);
        picture.label(16.0, 42.0, "m", "start", below);
        picture
    }

    fn label(&mut self, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let line = writeln!(
            self.text,
            r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">{text}</text>"#
        );
        line.expect("a string grows");
    }

    fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let line = writeln!(
            self.text,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#
        );
        line.expect("a string grows");
    }

    fn shape(&mut self, shape: &str, colour: &str, tip: &str) {
        let line = writeln!(self.text, r#"<{shape} fill="{colour}"><title>{tip}</title></{}>"#, word(shape));
        line.expect("a string grows");
    }

    /// A dot with the letter of its rule in it.
    fn mark(&mut self, (x, y): (f64, f64), index: usize, colour: &str, tip: &str) {
        self.shape(&format!(r#"circle cx="{x:.1}" cy="{y:.1}" r="7""#), colour, tip);
        let line = writeln!(
            self.text,
            r##"<text x="{x:.1}" y="{:.1}" text-anchor="middle" style="font-size:10px;fill:#fff">{}</text>"##,
            y + 3.5,
            letter(index)
        );
        line.expect("a string grows");
    }

    fn legend(&mut self, grid: &Grid<'_>, x: f64, mut y: f64) {
        for (index, rule) in grid.rules.iter().enumerate() {
            self.mark((x, y), index, grid.colour(rule), rule);
            self.label(x + 14.0, y + 4.0, "", "start", rule);
            y += 20.0;
        }
    }

    fn finish(self) -> String {
        let Self { text, width, height } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" role=\"img\">\n<style>{STYLE}</style>\n{text}</svg>\n"
        )
    }
}

fn word(shape: &str) -> &str {
    shape.split(' ').next().unwrap_or(shape)
}

/// An axis of powers of ten from 1 to 100,000; 0 lies where 1 does.
fn decades(value: f64, from: f64, to: f64) -> f64 {
    from + libm::log10(value.max(1.0)).min(5.0) / 5.0 * (to - from)
}

const DECADES: [(f64, &str); 6] =
    [(1.0, "≤ 1"), (10.0, "10"), (100.0, "100"), (1e3, "1000"), (1e4, "10 000"), (1e5, "100 000")];

/// Devices harmed, by scenario and rule.
fn harm(rows: &[Row]) -> String {
    let grid = Grid::of(rows, |row| row.bad);
    let (left, right, top, each) = (130.0, 770.0, 66.0, 66.0);
    let bottom = top + each * grid.scenarios.len() as f64;
    let mut picture = Picture::new(
        930.0,
        bottom + 52.0,
        "Devices that a bad release harmed before it was stopped",
        "median of the runs; the tail ends at 95 %; tiny-bad is a fleet of 40",
    );
    for (value, text) in DECADES {
        let x = decades(value, left, right);
        picture.line("g", (x, top), (x, bottom));
        picture.label(x, bottom + 18.0, "m", "middle", text);
    }
    picture.label(f64::midpoint(left, right), bottom + 38.0, "", "middle", "devices harmed (log scale)");
    for (row, scenario) in grid.scenarios.iter().enumerate() {
        let y = top + each * (row as f64 + 0.5);
        picture.label(left - 12.0, y + 4.0, "", "end", scenario);
        picture.line("g", (left, y + each / 2.0), (right, y + each / 2.0));
        for (index, rule) in grid.rules.iter().enumerate() {
            let Some(found) = grid.row(scenario, rule) else { continue };
            // A lane each, for many lie at the same place.
            let lane = y + (index as f64 - (grid.rules.len() as f64 - 1.0) / 2.0) * 5.6;
            let (x, tail) = (
                decades(found.harmed_median as f64, left, right),
                decades(found.harmed_p95 as f64, left, right),
            );
            let colour = grid.colour(rule);
            picture.shape(
                &format!(r#"rect x="{x:.1}" y="{:.1}" width="{:.1}" height="2""#, lane - 1.0, tail - x),
                colour,
                rule,
            );
            let tip = format!("{rule}, {scenario}: {} ({})", found.harmed_median, found.harmed_p95);
            picture.mark((x, lane), index, colour, &tip);
        }
    }
    picture.legend(&grid, right + 28.0, top + 8.0);
    picture.finish()
}

/// What speed costs: hours until everybody is offered a good release, beside what a bad one harms.
fn time(rows: &[Row]) -> String {
    let grid = Grid::of(rows, |row| row.bad && row.devices > 1000);
    let healthy = |rule: &str| rows.iter().find(|row| row.scenario == "healthy" && row.rule == rule);
    let (left, right, top, bottom) = (90.0, 730.0, 84.0, 420.0);
    let mut picture = Picture::new(
        930.0,
        bottom + 52.0,
        "Time to reach everybody, and harm",
        "up: geometric mean, over the bad scenarios, of the median harmed; marks that would overlap are moved to the right",
    );
    let longest = rows.iter().filter_map(|row| row.full_hours_median).fold(72.0, f64::max);
    let days = libm::ceil(longest / 24.0).min(28.0);
    let across = |hours: f64| left + (hours / (24.0 * days)).min(1.0) * (right - left);
    for hours in (0..29).map(|day| 24.0 * f64::from(day)).take_while(|hours| *hours <= 24.0 * days) {
        let x = across(hours);
        picture.line("g", (x, top), (x, bottom));
        picture.label(x, bottom + 18.0, "m", "middle", &format!("{hours:.0}"));
    }
    for (value, text) in DECADES {
        let y = decades(value, bottom, top);
        picture.line("g", (left, y), (right, y));
        picture.label(left - 8.0, y + 4.0, "m", "end", text);
    }
    let below = "hours until everybody is offered a healthy release";
    picture.label(f64::midpoint(left, right), bottom + 40.0, "", "middle", below);
    picture.label(left, top - 8.0, "", "start", "devices harmed (log scale)");
    let mut placed: Vec<(f64, f64)> = Vec::new();
    for (index, rule) in grid.rules.iter().enumerate() {
        let Some(hours) = healthy(rule).and_then(|row| row.full_hours_median) else { continue };
        let harmed: Vec<f64> = grid
            .scenarios
            .iter()
            .filter_map(|scenario| grid.row(scenario, rule))
            .map(|row| libm::log10((row.harmed_median as f64).max(1.0)))
            .collect();
        if harmed.is_empty() {
            continue;
        }
        let mean = libm::pow(10.0, harmed.iter().sum::<f64>() / harmed.len() as f64);
        let (mut x, y) = (across(hours), decades(mean, bottom, top));
        // Whoever would lie on another is moved aside.
        while placed.iter().any(|(a, b)| (a - x).abs() < 14.0 && (b - y).abs() < 14.0) {
            x += 15.0;
        }
        placed.push((x, y));
        picture.mark((x, y), index, grid.colour(rule), &format!("{rule}: {hours:.1} h, {mean:.0} harmed"));
    }
    picture.legend(&grid, right + 48.0, top + 8.0);
    picture.finish()
}

/// How often a healthy release was stopped.
fn false_stops(rows: &[Row]) -> String {
    let grid = Grid::of(rows, |row| !row.bad);
    let (left, top, wide, high) = (150.0, 90.0, 124.0, 30.0);
    let (right, bottom) = (left + wide * grid.scenarios.len() as f64, top + high * grid.rules.len() as f64);
    let mut picture = Picture::new(
        right.max(700.0) + 30.0,
        bottom + 40.0,
        "How often a healthy release was stopped",
        "share of the runs; the part that was for ever is dark, a pause is light",
    );
    for (column, scenario) in grid.scenarios.iter().enumerate() {
        let x = left + wide * (column as f64 + 0.5);
        picture.label(x, top - 12.0, "m", "middle", scenario);
    }
    for (line, rule) in grid.rules.iter().enumerate() {
        let y = top + high * line as f64;
        picture.label(left - 12.0, y + 19.0, "", "end", rule);
        picture.line("g", (left, y + high), (right, y + high));
        for (column, scenario) in grid.scenarios.iter().enumerate() {
            let Some(found) = grid.row(scenario, rule) else { continue };
            let x = left + wide * column as f64;
            let share = |count: u64| count as f64 / found.runs.max(1) as f64;
            let (stopped, killed) = (share(found.stopped), share(found.killed));
            let bar = |part: f64| {
                format!(
                    r#"rect x="{x:.1}" y="{:.1}" width="{:.1}" height="18""#,
                    y + 6.0,
                    part * (wide - 54.0)
                )
            };
            let tip = format!("{rule}, {scenario}: {} of {} stopped", found.stopped, found.runs);
            picture.shape(&bar(stopped), "#e9a3ac", &tip);
            picture.shape(&bar(killed), "#d1495b", &tip);
            let text = format!("{:.0} %", stopped * 100.0);
            picture.label(
                x + stopped * (wide - 54.0) + 5.0,
                y + 20.0,
                if stopped > 0.0 { "" } else { "m" },
                "start",
                &text,
            );
        }
    }
    picture.label(left, bottom + 24.0, "m", "start", "share of runs, 0 to 100 % in each column");
    picture.finish()
}
