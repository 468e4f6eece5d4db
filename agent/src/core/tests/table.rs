//! The whole machine on one page. A change of the page is a change of the product: read it before accepting it.

use super::super::state::Event;
use super::super::timing::Timing;
use super::{NOW, after, events, later, show, states};

#[test]
fn every_state_answers_every_event_as_written_down() {
    let mut page = String::new();
    for state in states() {
        let owes = state.owes(NOW, &Timing::default()).map_or("nothing".into(), |owed| format!("{owed:?}"));
        page += &format!("{} (owes {owes})\n", show(&state));
        let mut unmoved = 0;
        for (name, event) in events() {
            let next = after(state.clone(), &event);
            if next == state {
                unmoved += 1;
            } else {
                page += &format!("  | {name} -> {}\n", show(&next));
            }
        }
        for (name, event) in [("time, long after", Event::Time), ("answered, long after", Event::Answered)] {
            let next = later(state.clone(), &event);
            if next != state && next != after(state.clone(), &event) {
                page += &format!("  | {name} -> {}\n", show(&next));
            }
        }
        page += &format!("  = the other {unmoved} events change nothing\n\n");
    }
    insta::assert_snapshot!(page);
}

#[test]
fn every_state_owes_the_same_after_it_was_saved_and_read_again() {
    for state in states() {
        let text = serde_json::to_string(&state).unwrap();
        let read = serde_json::from_str(&text).unwrap();
        assert_eq!(state, read, "{text}");
    }
}

#[test]
fn an_event_that_comes_twice_moves_the_machine_once() {
    for state in states() {
        for (name, event) in events() {
            let once = after(state.clone(), &event);
            let twice = after(once.clone(), &event);
            // Bad bytes and failed writes are facts of one try each; the rest is idempotent.
            let next_step = name == "hooks undone" || name.starts_with("offered") || name.starts_with("time");
            let boot = name.starts_with("booted") || name.starts_with("agent up");
            if !next_step && !boot {
                assert_eq!(show(&once), show(&twice), "{}: {name}", show(&state));
            }
        }
    }
}
