//! Releases of several components, and of variants.

use tern_protocol::offer::Variant;

use super::*;

/// An artifact for b3; `change` says what else.
fn part(home: &Home, component: &str, change: impl FnOnce(&mut NewArtifact)) -> NewArtifact {
    let mut artifact = NewArtifact { component: component.into(), ..home.new_release(1).artifacts.remove(0) };
    change(&mut artifact);
    artifact
}

fn variant(name: &str, carrier: &str) -> impl FnOnce(&mut NewArtifact) {
    move |artifact| {
        artifact.variant = Some(name.parse().unwrap());
        artifact.carriers = carrier.split_whitespace().map(|carrier| carrier.parse().unwrap()).collect();
    }
}

fn requires(version: &str, needs: &str, range: &str) -> impl FnOnce(&mut NewArtifact) {
    move |artifact| {
        artifact.version = Some(version.into());
        artifact.requires = [(needs.to_owned(), range.parse().unwrap())].into();
    }
}

fn drafted(home: &Home, artifacts: Vec<NewArtifact>) -> Result<ReleaseDocument, String> {
    let new = NewRelease { artifacts, ..home.new_release(7) };
    let (bytes, _) = draft(&home.last(), &new).map_err(|error| error.to_string())?;
    Ok(ReleaseDocument::read("draft", &bytes).unwrap())
}

#[test]
fn a_release_of_one_image_is_written_as_it_always_was() {
    let home = Home::new();
    let document = drafted(&home, home.new_release(7).artifacts).unwrap();

    let mut custom = document.signed["targets"]["cam/7/rootfs"]["custom"].clone();
    let root = custom.as_object_mut().unwrap().remove("root").unwrap();
    assert!(root.is_string());
    assert_eq!(
        custom.to_string(),
        r#"{"component":"rootfs","floor":0,"min_from":0,"models":["b3"],"rc":7,"version":"1.7.0"}"#
    );
}

#[test]
fn several_artifacts_stand_under_their_paths_with_all_that_was_said_of_them() {
    let home = Home::new();
    let artifacts = vec![
        part(&home, "app", |artifact| {
            requires("5.0", "modem", ">=4")(artifact);
            artifact.order = 2;
        }),
        part(&home, "modem", |artifact| {
            variant("acme", "acme")(artifact);
            artifact.version = Some("4.1".into());
            artifact.regions = vec!["eu".parse().unwrap()];
        }),
        part(&home, "modem", |artifact| artifact.version = Some("4.0".into())),
    ];

    let document = drafted(&home, artifacts).unwrap();
    let summary = summarise(&document, None).unwrap();

    let paths: Vec<&String> = document.release.content.keys().collect();
    assert_eq!(paths, ["cam/7/app", "cam/7/modem", "cam/7/modem@acme"]);
    assert!(document.release.content.values().all(|content| content.release_version() == "1.7.0"));
    let lines: Vec<String> =
        summary.artifacts.iter().map(|line| format!("{} {}", line.component, line.version)).collect();
    assert_eq!(lines, ["modem 4.0", "modem 4.1", "app 5.0"], "in the order of installation");
    let acme = &summary.artifacts[1];
    assert_eq!(acme.variant.as_ref().map(|name| name.as_str()), Some("acme"));
    assert_eq!((acme.carriers.len(), acme.regions.len()), (1, 1));
    assert_eq!(summary.artifacts[2].requires["modem"].to_string(), ">=4");
    let of = |path: &str| Variant::of_path(path, "modem").unwrap();
    assert!(of("cam/7/modem@acme") < of("cam/7/modem"), "the one without a name comes last");
}

#[test]
fn a_release_whose_own_artifacts_contradict_each_other_is_refused() {
    let home = Home::new();
    let app = |range: &str| part(&home, "app", requires("5.0", "modem", range));
    let modem = |version: &str| part(&home, "modem", |artifact| artifact.version = Some(version.into()));

    let refused = drafted(&home, vec![app(">=4"), modem("3.9")]).unwrap_err();

    assert!(refused.contains("app 5.0 requires modem >=4, and the release brings \"3.9\""), "{refused}");
    drafted(&home, vec![app(">=4"), modem("4")]).unwrap();
    drafted(&home, vec![app(">=4")]).unwrap();
}

#[test]
fn a_contradiction_on_some_devices_alone_is_found_and_one_on_none_is_not() {
    let home = Home::new();
    let modem = |name: &str, version: &str, carrier: &str| {
        part(&home, "modem", |artifact| {
            variant(name, carrier)(artifact);
            artifact.version = Some(version.into());
        })
    };
    let app = |carriers: &str, range: &str| {
        part(&home, "app", |artifact| {
            variant(if carriers.is_empty() { "z" } else { "a" }, carriers)(artifact);
            artifact.requires = [("modem".to_owned(), range.parse().unwrap())].into();
        })
    };
    let modems = || vec![modem("x", "3", "acme"), modem("y", "4", "")];

    let mut wrong = modems();
    wrong.push(app("", ">=4"));
    let refused = drafted(&home, wrong).unwrap_err();
    assert!(refused.contains("carrier acme") && refused.contains("brings \"3\""), "{refused}");

    let mut right = modems();
    right.extend([app("acme", "<4"), app("", ">=4")]);
    drafted(&home, right).unwrap();
}

#[test]
fn an_artifact_that_no_device_would_take_is_refused() {
    let home = Home::new();
    let named = |name: &str, carriers: &str| part(&home, "modem", variant(name, carriers));
    let never = |artifacts: Vec<NewArtifact>| drafted(&home, artifacts).unwrap_err();

    let shadowed = never(vec![named("a", ""), named("b", "acme")]);
    assert!(shadowed.contains("no device would take modem@b"), "{shadowed}");
    let by_two = never(vec![named("a", "acme"), named("b", "best"), named("c", "acme best")]);
    assert!(by_two.contains("no device would take modem@c"), "{by_two}");
    let app = part(&home, "app", |artifact| artifact.carriers = vec!["best".parse().unwrap()]);
    let without_app = never(vec![named("a", "acme"), app]);
    assert!(without_app.contains("no device would take"), "{without_app}");
    drafted(&home, vec![named("a", "acme"), named("b", "")]).unwrap();
    drafted(&home, vec![named("a", "acme"), part(&home, "modem", |_| {})]).unwrap();
}

#[test]
fn a_slip_in_an_artifact_is_named_before_anybody_signs_it() {
    let home = Home::new();
    let one = |component: &str, change: &dyn Fn(&mut NewArtifact)| {
        drafted(&home, vec![part(&home, component, change)]).unwrap_err()
    };
    let version = |version: &str| {
        let version = version.to_owned();
        one("app", &move |artifact| artifact.version = Some(version.clone()))
    };
    let needs = |needs: &str, range: &str| {
        let (needs, range) = (needs.to_owned(), range.to_owned());
        one("app", &move |artifact| requires("1", &needs, &range)(artifact))
    };

    assert!(one("a@b", &|_| {}).contains("a component has"));
    assert!(one(".app", &|_| {}).contains("no . in front"));
    assert!(one("app", &|artifact| artifact.models.clear()).contains("app names no model"));
    assert!(version("1 2").contains("a version has") && version("...").contains("a letter or digit"));
    assert!(needs("app", ">=1").contains("--min-from"));
    assert!(needs("mo/dem", ">=1").contains("a component has"));
    assert!(needs("modem", ">=2, <1").contains("no version is in that range"));
    let twice = drafted(&home, vec![part(&home, "app", |_| {}), part(&home, "app", |_| {})]).unwrap_err();
    assert!(twice.contains("app is there twice"), "{twice}");
    let nine: Vec<NewArtifact> = (0..9).map(|n| part(&home, &format!("c{n}"), |_| {})).collect();
    assert!(drafted(&home, nine[..8].to_vec()).is_ok());
    assert!(drafted(&home, nine).unwrap_err().contains("1 to 8 artifacts"));
    assert!(drafted(&home, vec![]).unwrap_err().contains("this has 0"));
}
