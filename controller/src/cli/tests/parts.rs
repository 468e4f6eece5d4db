//! A release of several components, as it is typed.

use tern_protocol::id::CarrierId;

use super::*;
use crate::core::fact::DeviceEntry;
use crate::release::{ReleaseDocument, summarise};

/// Modems for two carriers, and an app that needs one of them and a boot loader that no release brings.
const MANIFEST: &str = r#"
[[artifact]]
component = "modem"
variant = "acme"
image = "acme.bin"
version = "5.1"
order = 1
carriers = ["acme"]

[[artifact]]
component = "modem"
variant = "best"
image = "best.bin"
version = "5.0"
order = 1
carriers = ["best"]
regions = ["eu"]

[[artifact]]
component = "app"
image = "app.bin"
version = "2.4.1"
order = 2
requires = { modem = ">=5, <6", boot = ">=3" }
"#;

fn write(world: &World, name: &str, text: &str) {
    std::fs::write(world.home.path().join(name), text).unwrap();
}

/// A fleet of 100 on carrier acme, 30 on best and 20 on another one.
fn fleet(world: &World) {
    let carrier = |number: u64| -> CarrierId {
        match number {
            0..100 => "acme",
            100..130 => "best",
            _ => "other",
        }
        .parse()
        .unwrap()
    };
    let entry = |number: u64| {
        let mut entry: DeviceEntry = device(number, "b3");
        entry.registry.carrier = carrier(number);
        serde_json::to_string(&entry).unwrap() + "\n"
    };
    write(world, "list.jsonl", &(0..150).map(entry).collect::<String>());
    let home = show(world.home.path());
    done(world.client.base(), &format!("tern device add --unsigned --file {home}/list.jsonl"));
}

#[test]
fn a_release_of_several_components_goes_from_its_manifest_to_a_plan() {
    let world = World::new();
    let (api, home) = (world.client.base().to_owned(), show(world.home.path()));
    fleet(&world);
    write(&world, "release.toml", MANIFEST);
    for (name, length) in [("acme.bin", 300), ("best.bin", 200), ("app.bin", 100)] {
        std::fs::write(world.home.path().join(name), vec![7; length * 1024]).unwrap();
    }

    let create = format!("--manifest {home}/release.toml --model b3 --out {home}/draft.json");
    let drafted = done(&api, &format!("tern release create --product cam --rc 7 --version 2026.4 {create}"));
    assert!(drafted.contains("(2026.4): 3 artifacts\n  modem@acme 5.1: 300.0 KiB, sha256"), "{drafted}");
    let key = format!("--key {home}/offline/release.pem --out {home}/signed.json --yes");
    let draft = ReleaseDocument::open(&world.home.path().join("draft.json")).unwrap().0;
    let approved = release::summary(&summarise(&draft, None).unwrap());
    assert!(approved.contains("7 (2026.4)") && approved.contains("modem@best"), "{approved}");
    assert!(approved.contains("app: requires boot >=3 and modem >=5, <6; order 2"), "{approved}");
    assert!(approved.contains("modem@best: only on carrier best; only in region eu; order 1"), "{approved}");
    done(&api, &format!("tern release sign {home}/draft.json {key}"));
    let (without, _) =
        typed(&api, &format!("tern release publish {home}/signed.json --image {home}/app.bin"));
    assert!(without.unwrap_err().error.contains("cam/7/modem@acme"), "each variant is stored");
    done(&api, &format!("tern release publish {home}/signed.json --manifest {home}/release.toml"));

    let listed = done(&api, "tern release list");
    assert!(listed.contains("2026.4") && listed.contains("modem app"), "{listed}");
    let shown = done(&api, "tern release show --product cam --rc 7");
    assert!(
        shown.starts_with("release 7 (2026.4)\n  modem@acme 5.1: 300.0 KiB for b3; only on carrier acme"),
        "{shown}"
    );
    let (_, json) = typed(&api, "tern release show --product cam --rc 7 --json");
    let view: Value = serde_json::from_str(&json).unwrap();
    let app = &view["artifacts"][2];
    assert_eq!((&app["component"], &app["order"]), (&"app".into(), &2.into()));
    assert_eq!(app["requires"], serde_json::json!({"boot": ">=3", "modem": ">=5, <6"}));

    let plan = done(&api, "tern rollout plan --product cam --rc 7 --phases 34@10%,64@5%,all");
    assert!(plan.contains("400.0 KiB each"), "an app and the larger modem: {plan}");
    let (_, json) = typed(&api, "tern rollout plan --product cam --rc 7 --phases 34@10%,64@5%,all --json");
    let preview: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&preview["no_variant"], &preview["unmet"]), (&20.into(), &130.into()));
    let warned = preview["warnings"].to_string();
    for said in [
        "20 of them are offered nothing: no modem for model b3, carrier other, region eu (20)",
        "130 of them refuse the release: app 2.4.1 requires boot >=3, and no version of boot is known (130)",
    ] {
        assert!(warned.contains(said), "{warned}");
    }

    write(&world, "app.toml", "[[artifact]]\ncomponent = \"app\"\nimage = \"app.bin\"\n");
    let create = format!("--manifest {home}/app.toml --model b3 --out {home}/draft.json");
    done(&api, &format!("tern release create --product cam --rc 8 --version 2026.5 {create}"));
    done(&api, &format!("tern release sign {home}/draft.json {key}"));
    done(&api, &format!("tern release publish {home}/signed.json --manifest {home}/app.toml"));
    let (_, json) = typed(&api, "tern rollout plan --product cam --rc 8 --phases 34@10%,64@5%,all --json");
    let preview: Value = serde_json::from_str(&json).unwrap();
    let warned = preview["warnings"].to_string();
    assert!(warned.contains("release 8 brings nothing for modem, as every other release does"), "{warned}");
}

#[test]
fn the_two_forms_of_a_release_are_not_mixed_and_a_slip_says_what_to_write() {
    let world = World::new();
    let (api, home) = (world.client.base().to_owned(), show(world.home.path()));
    let create = |rest: &str| {
        format!(
            "tern release create --product cam --rc 7 --version 1 --previous {home}/offline/release.json --out {home}/d {rest}"
        )
    };
    let parses = |rest: &str| Cli::try_parse_from(create(rest).split_whitespace()).is_ok();
    assert!(parses("--model b3 --image i") && parses("--manifest m"));
    for mixed in ["--model b3", "--image i", "--manifest m --image i", "--manifest m --component app"] {
        assert!(!parses(mixed), "{mixed}");
    }

    std::fs::write(world.home.path().join("app.bin"), b"app").unwrap();
    let refused = |manifest: &str, model: &str| {
        write(&world, "m.toml", manifest);
        typed(&api, &create(&format!("--manifest {home}/m.toml {model}"))).0.unwrap_err()
    };
    let app = "[[artifact]]\ncomponent = \"app\"\nimage = \"app.bin\"\n";
    let no_model = refused(app, "");
    assert!(no_model.error.contains("app names no model"), "{no_model:?}");
    let bare = refused(&format!("{app}requires = {{ modem = \"3.1\" }}"), "--model b3");
    assert!(bare.error.contains("write =3.1, >=3.1 or <3.1") && bare.hint.contains("--help"), "{bare:?}");
    let none = refused(&app.replace("app.bin", "none.bin"), "--model b3");
    assert!(none.error.contains("none.bin"), "{none:?}");
    let modem = "[[artifact]]\ncomponent = \"modem\"\nimage = \"app.bin\"\nversion = \"3.0\"\n";
    let contradiction = refused(&format!("{app}requires = {{ modem = \">=3.1\" }}\n{modem}"), "--model b3");
    assert!(contradiction.error.contains("the release brings \"3.0\""), "{contradiction:?}");
    assert!(!world.home.path().join("d").exists());
}
