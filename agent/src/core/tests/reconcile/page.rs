//! The table on a page of the documentation, printed anew by the code.

use std::path::Path;

use super::super::super::SlotName;
use super::super::super::reconcile::{Content, Seen, mend};
use super::super::super::state::{Event, State};
use super::super::{after, show, states, whole};

/// Set to write the page instead of comparing it.
const WRITE: &str = "TERN_WRITE_PAGES";

/// Situations in which the attempt's slot, b, can be found. The last two letters of a name say what it holds.
fn situations() -> Vec<(&'static str, SlotName, SlotName, Option<SlotName>, bool)> {
    use SlotName::{A, B};
    vec![
        ("new slot runs, confirmed", B, B, None, true),
        ("new slot runs on trial", B, A, Some(B), true),
        ("new slot runs, neither", B, A, None, true),
        ("old slot runs, trial armed, agent restarted", A, A, Some(B), false),
        ("old slot booted, trial armed", A, A, Some(B), true),
        ("old slot runs, no trial, agent restarted", A, A, None, false),
        ("old slot booted, no trial", A, A, None, true),
        ("old slot booted, new one confirmed", A, B, None, true),
    ]
}

fn row(
    state: &State,
    situation: &(&str, SlotName, SlotName, Option<SlotName>, bool),
    new: Content,
) -> String {
    let (_, slot, active, trial, rebooted) = *situation;
    let seen = Seen { slot, active, trial, contents: [whole(1), new] };
    let next = after(state.clone(), &Event::Booted { seen, rebooted });
    let mend = mend(&next, &seen).map_or(String::new(), |mend| format!(" + {mend:?}").to_lowercase());
    let next = if next == *state { "stays".to_owned() } else { show(&next) };
    format!("{next}{mend}")
}

fn page() -> String {
    let mut page = include_str!("page.md").to_owned();
    for state in states() {
        page += &format!(
            "\n**{}**\n\n| found | new slot whole | new slot not whole |\n|---|---|---|\n",
            show(&state)
        );
        for situation in situations() {
            let cells = [whole(2), Content::Bad].map(|new| row(&state, &situation, new));
            if cells.iter().any(|cell| cell != "stays") {
                page += &format!("| {} | {} | {} |\n", situation.0, cells[0], cells[1]);
            }
        }
    }
    page
}

#[test]
fn the_page_of_the_documentation_is_the_table_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reconciliation.md");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, page()).unwrap();
    }

    let written = std::fs::read_to_string(&path).unwrap_or_default();

    assert!(
        written == page(),
        "docs/reconciliation.md is not what the code does; read the difference, then run the tests once with {WRITE}=1"
    );
}
