//! The command line as it is typed.

mod parts;

use std::cell::RefCell;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;

use clap::CommandFactory;
use serde_json::Value;

use super::*;
use crate::api::testing::{World, admin, device};

#[derive(Clone, Default)]
struct Page(Rc<RefCell<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Types a command and returns how it ended and what it printed.
fn typed(api: &str, words: &str) -> (Result<Exit, Failure>, String) {
    let cli = Cli::try_parse_from(words.split_whitespace()).unwrap_or_else(|e| panic!("{words}: {e}"));
    let page = Page::default();
    let context = Context {
        out: Output::into(cli.json, page.clone()),
        client: Client::new(api).with_token(&admin()),
        insecure: false,
    };
    let exit = run(cli.noun, &context);
    let text = String::from_utf8(page.0.borrow().clone()).unwrap();
    (exit, text)
}

fn done(api: &str, words: &str) -> String {
    let (exit, text) = typed(api, words);
    assert_eq!(exit.map_err(|failure| failure.error), Ok(Exit::Done), "{words}");
    text
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_release_goes_from_an_image_to_its_end_by_typed_commands() {
    let world = World::new();
    let (api, home) = (world.client.base().to_owned(), show(world.home.path()));
    let image = show(&world.image(7));
    let list: String =
        (0..250).map(|number| serde_json::to_string(&device(number, "b3")).unwrap() + "\n").collect();
    std::fs::write(world.home.path().join("list.jsonl"), list).unwrap();

    let added = done(&api, &format!("tern device add --unsigned --file {home}/list.jsonl"));
    assert_eq!(added, "250 devices added, 0 renewed\n");
    assert_eq!(done(&api, "tern device list --product cam").lines().count(), 251);
    assert!(done(&api, "tern device show cam-0007").contains("not enrolled yet"));

    let draft = format!("--model b3 --image {image} --out {home}/draft.json");
    done(&api, &format!("tern release create --product cam --rc 7 --version 2.4.1 {draft}"));
    let key = format!("--key {home}/offline/release.pem --out {home}/signed.json --yes");
    // Nobody is asked for anything here: the address leads nowhere.
    done("http://127.0.0.1:1", &format!("tern release sign {home}/draft.json {key}"));
    let (unsigned, _) = typed(&api, &format!("tern release publish {home}/draft.json --image {image}"));
    assert!(unsigned.unwrap_err().hint.contains("release sign"));
    let (without, _) = typed(&api, &format!("tern release publish {home}/signed.json"));
    assert!(without.unwrap_err().hint.contains("--image"));
    done(&api, &format!("tern release publish {home}/signed.json --image {image}"));
    assert!(done(&api, "tern release list").contains("2.4.1"));
    assert!(done(&api, "tern release show --product cam --rc 7").contains("sha256"));

    let plan = done(&api, "tern rollout plan --product cam --rc 7 --phases 34@10%,64@5%,all");
    assert!(plan.contains("250 devices"), "{plan}");
    assert!(plan.contains("above 9."), "34 clean devices rule out a little less than 10 %: {plan}");
    done(&api, "tern rollout start --product cam --rc 7 --phases 34@10%,64@5%,all --yes --at-once");
    let short = done(&api, "tern rollout explain cam-7-1");
    assert!(short.contains("more lines with --all") && !short.contains("hard stop"), "{short}");
    assert!(short.lines().all(|line| line.chars().count() <= 100), "{short}");
    let explained = done(&api, "tern rollout explain cam-7-1 --all");
    assert!(explained.lines().next().unwrap().contains("no device has started"), "{explained}");
    assert!(
        explained.contains("\n  hard stop: 0 bad of the first 10 started; 3 more of those stop it"),
        "{explained}"
    );
    done(&api, "tern rollout pause cam-7-1");
    let (paused, line) = typed(&api, "tern rollout watch cam-7-1");
    assert_eq!(paused.unwrap(), Exit::Paused);
    assert!(line.contains("by root"), "{line}");
    done(&api, "tern rollout resume cam-7-1 --yes");
    done(&api, "tern rollout promote cam-7-1 --from-phase 1 --yes");
    let (stale, _) = typed(&api, "tern rollout promote cam-7-1 --from-phase 1 --yes");
    assert!(stale.unwrap_err().error.contains("not in phase 1"));
    done(&api, "tern rollout kill cam-7-1 --reason dark-modems");
    let (killed, json) = typed(&api, "tern rollout watch cam-7-1 --json");
    assert_eq!(killed.unwrap(), Exit::Killed);
    let view: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(view["status"], "killed");
    assert!(done(&api, "tern rollout list").contains("dark-modems"));

    let shown = done(&api, "tern ledger show --limit 1000");
    let read = done(&api, &format!("tern ledger show --limit 1000 --data {home}/data"));
    assert_eq!(shown, read);
    assert!(shown.contains("rollout cam-7-1 killed"), "{shown}");
    let verified = done(&api, &format!("tern ledger verify --data {home}/data"));
    assert!(verified.starts_with(&format!("{} frames are whole", shown.lines().count())), "{verified}");
}

#[test]
fn a_second_release_continues_the_first_and_is_compared_with_it() {
    let world = World::new();
    let (api, home) = (world.client.base().to_owned(), show(world.home.path()));
    let create = |rc: u64, out: &str| {
        let image = show(&world.image(rc));
        format!(
            "tern release create --product cam --rc {rc} --version 1.{rc} --model b3 --image {image} --out {home}/{out} \
             --previous {home}/offline/release.json"
        )
    };
    let sign = |file: &str| {
        format!(
            "tern release sign {home}/{file} --key {home}/offline/release.pem --out {home}/s-{file} --yes --json"
        )
    };
    done(&api, &create(1, "one"));
    done(&api, &sign("one"));
    done(&api, &create(2, "two"));

    let said: Value = serde_json::from_str(&done(&api, &sign("two"))).unwrap();
    let (again, _) = typed(&api, &sign("one"));

    let changes: Vec<_> = said["artifacts"].as_array().unwrap().iter().map(|a| a["change"].clone()).collect();
    assert_eq!(changes, ["new", "same"]);
    assert!(again.unwrap_err().error.contains("has version 2"), "an old draft must not be signed");
}

#[test]
fn a_ledger_that_was_tampered_with_does_not_verify() {
    let world = World::new();
    world.add_devices(3);
    let copy = world.home.path().join("copy/ledger");
    std::fs::create_dir_all(&copy).unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(world.options.data.join("ledger")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "ledger") {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.len() > 200 {
            files += 1;
            bytes[100] ^= 1;
        }
        std::fs::write(copy.join(path.file_name().unwrap()), bytes).unwrap();
    }

    let api = world.client.base();
    let (said, _) = typed(api, &format!("tern ledger verify --data {}", show(copy.parent().unwrap())));
    let (nothing, _) = typed(api, &format!("tern ledger verify --data {}", show(world.home.path())));

    assert!(files > 0);
    assert!(said.unwrap_err().error.contains("damaged"));
    assert!(nothing.unwrap_err().hint.contains("--data"));
}

#[test]
fn a_service_that_is_not_there_has_an_exit_code_of_its_own() {
    let (said, _) = typed("http://127.0.0.1:1", "tern rollout list");
    let failure = said.unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.hint.contains("tern serve"));
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn help_begins_with_a_capital_verb_and_has_no_full_stop() {
    fn walk(command: &clap::Command) {
        // What is hidden is called by programs alone.
        if command.is_hide_set() {
            return;
        }
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_empty() && !about.ends_with('.'), "{}: {about:?}", command.get_name());
        for argument in command.get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "{} {}", command.get_name(), argument.get_id());
            assert!(!help.ends_with('.'), "{} {}: {help:?}", command.get_name(), argument.get_id());
        }
        command.get_subcommands().for_each(walk);
    }
    walk(&Cli::command());
}

#[test]
fn the_examples_of_the_help_are_commands() {
    let lines = AFTER.lines().map(str::trim).filter(|line| line.starts_with("tern "));
    for line in lines {
        let words = line.split_whitespace().map(|word| word.trim_matches('\''));
        assert!(Cli::try_parse_from(words).is_ok(), "{line}");
    }
}

#[test]
fn a_counter_that_json_readers_would_round_is_refused() {
    let create = |rc: u64| {
        let line =
            format!("tern release create --product cam --rc {rc} --version 1 --model b3 --image i --out o");
        Cli::try_parse_from(line.split_whitespace()).is_ok()
    };
    assert_eq!([0, 1, 1 << 53, (1 << 53) + 1, u64::MAX].map(create), [false, true, true, false, false]);
}
