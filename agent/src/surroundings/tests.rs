use std::time::Duration;

use super::*;
use crate::slot::SlotName;

fn context() -> Context {
    Context {
        slot: SlotName::B,
        slot_path: "/slots/b.img".into(),
        rc: 7,
        version: "7".into(),
        device: "r-1".parse().unwrap(),
    }
}

fn shell(script: &str) -> Program {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Program { name: "asked".into(), command, deadline: Duration::from_secs(20) }
}

/// A folder of supplies, each with its files.
fn supplies(written: &[(&str, &[(&str, &str)])]) -> Power {
    let folder = tempfile::tempdir().unwrap();
    for (supply, files) in written {
        let place = folder.path().join(supply);
        fs::create_dir(&place).unwrap();
        for (name, text) in *files {
            fs::write(place.join(name), format!("{text}\n")).unwrap();
        }
    }
    super::supplies(folder.path())
}

#[test]
fn power_is_what_the_kernel_says_of_its_supplies() {
    let ac = |online| ("AC", [("type", "Mains"), ("online", online)]);
    let battery = |percent| ("BAT0", [("type", "Battery"), ("capacity", percent)]);
    let mouse = ("mouse", [("type", "Battery"), ("scope", "Device"), ("capacity", "3")]);
    let second = ("BAT1", [("type", "Battery"), ("present", "0"), ("capacity", "0")]);
    for (online, found) in [("1", Power::Mains), ("0", Power::Battery(23))] {
        let (ac, battery) = (ac(online), battery("23"));
        let all: [(&str, &[(&str, &str)]); 4] =
            [(ac.0, &ac.1), (battery.0, &battery.1), (mouse.0, &mouse.1), (second.0, &second.1)];
        assert_eq!(supplies(&all), found);
    }
    assert_eq!(supplies(&[]), Power::Mains, "without a battery it lives on mains");
    assert!(
        matches!(supplies(&[("BAT0", &[("type", "Battery")])]), Power::Unknown(why) if why.contains("BAT0"))
    );
    assert!(matches!(super::supplies(Path::new("/no/such/folder")), Power::Unknown(_)));
}

#[tokio::test]
async fn consent_is_a_file_that_names_the_release_or_a_program_that_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("consent");
    let file = Source::File(path.clone());
    assert_eq!(consent(&file, &context()).await, Consent::NotYet);
    for (text, given) in
        [("7\n", true), ("all", true), ("6 7", true), ("6", false), ("77", false), ("", false)]
    {
        fs::write(&path, text).unwrap();
        assert_eq!(consent(&file, &context()).await == Consent::Given, given, "{text:?}");
    }
    let asked =
        |script: &'static str| async move { consent(&Source::Program(shell(script)), &context()).await };
    assert_eq!(asked("test $TERN_RC = 7").await, Consent::Given);
    assert_eq!(asked("exit 75").await, Consent::NotYet);
    let refused = Consent::Refused("asked: exit code 1, saying \"no\"".to_owned());
    assert_eq!(asked("echo no; exit 1").await, refused);
}

#[tokio::test]
async fn a_link_that_nobody_can_tell_anything_about_counts_as_metered() {
    for (script, dear) in [("exit 0", true), ("exit 1", false), ("exit 2", true), ("kill -9 $$", true)] {
        assert_eq!(metered(&Source::Program(shell(script)), &context()).await, dear, "{script}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("link");
    assert!(!metered(&Source::File(path.clone()), &context()).await);
    fs::write(&path, "metered\n").unwrap();
    assert!(metered(&Source::File(path), &context()).await);
    assert!(metered(&Source::File(folder.path().into()), &context()).await, "a folder says nothing");
}

#[tokio::test]
async fn only_what_the_stage_is_judged_by_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let asked =
        |name: &str| shell(&format!("touch {}; echo in a call; exit 75", folder.path().join(name).display()));
    let sources = Sources {
        power_supply: "/no/such/folder".into(),
        consent: Some(Source::Program(asked("consent"))),
        metered: Some(Source::Program(asked("metered"))),
        load: Some(asked("load")),
    };
    let conditions = Conditions { battery_min: Some(1), ..Conditions::default() };

    let around = look(&sources, &conditions, Stage::Download(1), &context()).await;
    assert_eq!(around, Surroundings { metered: true, ..Surroundings::default() });
    assert!(!folder.path().join("consent").exists() && !folder.path().join("load").exists());

    let around = look(&sources, &conditions, Stage::Install, &context()).await;
    assert_eq!((around.consent, around.busy.as_deref()), (Consent::NotYet, Some("in a call")));
    assert!(matches!(around.power, Power::Unknown(_)) && !around.metered);
}

/// Opening a pipe that nobody writes would hold whoever does for ever.
#[tokio::test]
async fn a_pipe_in_place_of_an_answer_keeps_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    let pipe = Source::File(path);

    let Consent::Refused(why) = consent(&pipe, &context()).await else { panic!("an answer") };

    assert!(why.contains("it is no file"), "{why}");
    assert!(metered(&pipe, &context()).await, "what nobody can tell counts as dear");
}
