//! The table of attacks in docs/security.md names, for every attack, tests that show it fail. A name that no test has
//! any more is a promise that nobody keeps.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where the table begins in the page.
const HEADING: &str = "## Attacks and the tests that show it";
/// Fewer rows than this mean that the table was not read, or that somebody cut it.
const ROWS_MIN: usize = 20;

/// One attack with its tests, each as `file` and `name`.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    attack: String,
    tests: Vec<(String, String)>,
}

/// Reads the rows of the table; the last cell holds `file::name` in backticks.
fn rows(page: &str) -> Vec<Row> {
    let section = page.split_once(HEADING).map_or("", |(_, after)| after);
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with('|'));
    // The first two are the head and the rule below it.
    lines.skip(2).map(row).collect()
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let quoted = cells.last().unwrap_or(&"").split('`').skip(1).step_by(2);
    let tests = quoted.map(|test| {
        let (file, name) = test.split_once("::").unwrap_or(("", test));
        (file.to_owned(), name.to_owned())
    });
    Row { attack: cells[0].to_owned(), tests: tests.collect() }
}

/// Returns the names of the functions that a test attribute stands above; one that is ignored shows nothing in CI.
fn tests_in(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let (mut is_test, mut is_ignored) = (false, false);
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.starts_with("#[ignore") {
            is_ignored = true;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            let line = line.strip_prefix("async ").unwrap_or(line);
            let name = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next());
            if let Some(name) = name.filter(|_| is_test && !is_ignored) {
                found.insert(name.to_owned());
            }
            (is_test, is_ignored) = (false, false);
        }
    }
    found
}

/// Says what is wrong with the table; `source` gives a file's text.
fn faults(rows: &[Row], source: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for row in rows {
        if row.tests.is_empty() {
            faults.push(format!("{}: no test", row.attack));
        }
        for (file, name) in &row.tests {
            match source(file) {
                None => faults.push(format!("{}: no file {file:?} for {name}", row.attack)),
                Some(text) if !tests_in(&text).contains(name) => {
                    faults.push(format!("{}: no test {name} in {file}", row.attack));
                }
                Some(_) => {}
            }
        }
    }
    faults
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn every_attack_has_a_test_that_exists() {
    let page = std::fs::read_to_string(root().join("docs/security.md")).unwrap();

    let rows = rows(&page);

    assert!(rows.len() >= ROWS_MIN, "only {} rows", rows.len());
    let faults = faults(&rows, |file| std::fs::read_to_string(root().join(file)).ok());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_missing_an_ignored_and_a_nameless_test_are_noticed() {
    let page = format!(
        "{HEADING}\n\n| attack | what stops it | tests |\n|---|---|---|\n| a | x | `f.rs::kept` |\n| b | x | `f.rs::gone` |\n\
         | c | x | `f.rs::asleep` |\n| d | x | |\n| e | x | `g.rs::kept` |\n| f | x | `f.rs::helper` |\n\n## Next\n| z | | |\n"
    );
    let source = "#[test]\nfn kept() {}\n#[test]\n#[ignore = \"long\"]\nfn asleep() {}\nfn helper() {}\n";

    let rows = rows(&page);
    let faults = faults(&rows, |file| (file == "f.rs").then(|| source.to_owned()));

    let who: Vec<&str> = faults.iter().map(|fault| &fault[..1]).collect();
    assert_eq!((rows.len(), who), (6, vec!["b", "c", "d", "e", "f"]));
}
