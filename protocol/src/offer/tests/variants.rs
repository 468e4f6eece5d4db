//! Stories of releases with several components, and of variants.

use proptest::prelude::*;

use super::*;
use crate::tuf::build::{self, Named};

/// An artifact for m1 under a path of release 7; its number is in its hashes.
fn named(part: &str, number: u8) -> (Named, ArtifactContent) {
    let path = format!("cam/7/{part}");
    let component = part.split('@').next().unwrap();
    let models = vec!["m1".parse().unwrap()];
    let content = ArtifactContent::new(7, format!("{number}.0"), component, models, Digest([number; 32]));
    (Named { path, length: 1000, sha256: Digest([number; 32]) }, content)
}

/// A story whose release 7 has these artifacts, numbered from 1.
fn story(parts: &[&str], change: impl Fn(&str, &mut ArtifactContent)) -> Story {
    let mut story = Story::new();
    story.repository.artifacts.clear();
    for (number, part) in (1..).zip(parts) {
        let (named, mut content) = named(part, number);
        change(part, &mut content);
        story.repository.artifacts.push((named, content));
    }
    story.repository.repeated = story.repository.artifacts.iter().map(|(named, _)| named.clone()).collect();
    story
}

/// What is taken, by the number of the artifact, in the order of installation.
fn taken(story: &Story) -> Vec<u8> {
    match story.select() {
        Selection::Offer(offer) => offer.artifacts.iter().map(|artifact| artifact.root.0[0]).collect(),
        other => panic!("{other:?}"),
    }
}

/// Modem images: for carrier c1, for c2 in the region us, and for all others.
const MODEMS: [&str; 3] = ["modem@1-c1", "modem@2-c2us", "modem"];

fn modems(part: &str, content: &mut ArtifactContent) {
    match part {
        "modem@1-c1" => content.carriers = vec!["c1".parse().unwrap()],
        "modem@2-c2us" => {
            content.carriers = vec!["c2".parse().unwrap(), "c1".parse().unwrap()];
            content.regions = vec!["us".parse().unwrap()];
        }
        _ => {}
    }
}

#[test]
fn a_device_takes_the_first_variant_that_is_for_it_and_the_plain_one_last() {
    let mut story = story(&MODEMS, modems);
    for (carrier, region, expected) in
        [("c1", "eu", 1), ("c1", "us", 1), ("c2", "us", 2), ("c2", "eu", 3), ("none", "us", 3)]
    {
        story.device[3] = carrier.into();
        story.device[4] = region.into();
        assert_eq!(taken(&story), [expected], "{carrier} in {region}");
    }
}

#[test]
fn a_device_for_which_a_component_has_nothing_gets_nothing_of_the_release() {
    let mut without_plain = story(&["rootfs", MODEMS[0], MODEMS[1]], modems);
    let none = NothingBecause::NoVariant { rc: 7, component: "modem".into() };
    assert_eq!(without_plain.select(), nothing(none), "carrier none");
    without_plain.device[3] = "c1".into();
    assert_eq!(taken(&without_plain), [2, 1], "a device of a carrier that it is for");

    let other_model = story(&["rootfs", "modem"], |part, content| {
        if part == "modem" {
            content.models = vec!["m2".parse().unwrap()];
        }
    });
    assert_eq!(other_model.select(), nothing(NothingBecause::NotForModel { rc: 7 }));
}

#[test]
fn variants_for_models_are_told_apart_by_the_model() {
    let mut story = story(&["modem@a", "modem@b"], |part, content| {
        content.models = vec![if part == "modem@a" { "m2" } else { "m1" }.parse().unwrap()];
    });
    let Selection::Offer(offer) = story.select() else { panic!("no offer") };
    assert_eq!(offer.artifacts[0].root.0[0], 2);
    assert_eq!(offer.models, vec!["m1".parse().unwrap()], "those of what was taken");

    story.device[2] = "m2".into();
    story.entry().cuts = [("m2".parse().unwrap(), Cut::ALL)].into();
    assert_eq!(taken(&story), [1]);
}

#[test]
fn an_offer_says_what_each_component_is_and_in_which_order() {
    let story = story(&["app", "boot", "modem"], |part, content| {
        content.release = "2026.4".into();
        content.order = if part == "app" { 9 } else { 1 };
        if part == "app" {
            content.requires = [("modem".to_owned(), ">=2".parse().unwrap())].into();
        }
        content.min_from = if part == "boot" { 3 } else { 0 };
    });

    let Selection::Offer(offer) = story.select() else { panic!("no offer") };

    let order: Vec<&str> = offer.artifacts.iter().map(|artifact| artifact.component.as_str()).collect();
    assert_eq!(order, ["boot", "modem", "app"]);
    assert_eq!((offer.version.as_str(), offer.min_from), ("2026.4", 3));
    let app = &offer.artifacts[2];
    assert_eq!(
        (app.version.as_str(), app.order, app.requires["modem"].to_string()),
        ("1.0", 9, ">=2".into())
    );
    let text = serde_json::to_string(&offer).unwrap();
    assert_eq!(serde_json::from_str::<Offer>(&text).unwrap(), offer);
}

#[test]
fn a_variant_that_only_one_of_the_two_roles_names_spoils_the_release() {
    let not_approved = nothing(NothingBecause::NotApproved { rc: 7 });
    for missing in 0..MODEMS.len() {
        let mut rolled_out_less = story(&MODEMS, modems);
        rolled_out_less.repository.repeated.remove(missing);
        assert_eq!(rolled_out_less.select(), not_approved, "whether or not the device would take it");
        let mut approved_less = story(&MODEMS, modems);
        approved_less.repository.artifacts.remove(missing);
        assert_eq!(approved_less.select(), not_approved);
    }
    let mut renamed = story(&MODEMS, modems);
    renamed.repository.repeated[0].path = "cam/7/modem@3".into();
    assert_eq!(renamed.select(), not_approved, "the rollout key does not choose the variant");
}

#[test]
fn a_path_that_is_not_its_component_and_a_variant_is_not_installed() {
    for (part, component, approved) in [
        ("modem@v", "modem", true),
        ("modem@", "modem", false),
        ("modem@a/b", "modem", false),
        ("modem@a@b", "modem", false),
        ("modem@ä", "modem", false),
        ("modem-v", "modem", false),
        ("modemv", "modem", false),
        ("rootfs@v", "modem", false),
        ("modem@v", "modem@v", true),
    ] {
        let story = story(&[part], |_, content| content.component = component.into());
        assert_eq!(matches!(story.select(), Selection::Offer(_)), approved, "{part} of {component}");
    }
}

/// A release as it was signed before there were variants, requirements and orders.
const OLD: &str = r#"{"component":"rootfs","floor":2,"min_from":3,"models":["m1"],"rc":7,"root":"0202020202020202020202020202020202020202020202020202020202020202","version":"1.7"}"#;

#[test]
fn what_was_signed_before_is_read_written_and_selected_as_before() {
    let old: ArtifactContent = serde_json::from_str(OLD).unwrap();
    assert_eq!(serde_json::to_value(&old).unwrap().to_string(), OLD);
    assert_eq!(old, crate::tuf::client::tests::repository::artifact().1);
    let release = build::release(1, 2_000_000_000, &[(named("rootfs", 1).0, old)]);
    assert_eq!(release["targets"]["cam/7/rootfs"]["custom"].to_string(), OLD);

    let Selection::Offer(offer) = Story::new().select() else { panic!("no offer") };
    insta::assert_snapshot!(serde_json::to_string_pretty(&offer).unwrap());
    // What an agent of before has saved of it.
    let mut saved = serde_json::to_value(&offer).unwrap();
    saved["artifacts"][0].as_object_mut().unwrap().remove("version");
    let read: Offer = serde_json::from_value(saved).unwrap();
    assert_eq!(read.artifacts[0], Artifact::new("rootfs", 100_000, Digest([1; 32]), Digest([2; 32])));
}

/// Up to eight artifacts of three components with conditions of all kinds.
fn releases() -> impl Strategy<Value = Vec<(Variant, ArtifactContent)>> {
    let some = |names: [&'static str; 2]| proptest::sample::subsequence(names.to_vec(), 0..=2);
    let one = (
        0..3u8,
        proptest::option::of(0..4u8),
        some(["m1", "m2"]),
        some(["c1", "c2"]),
        some(["r1", "r2"]),
        0..3u8,
    );
    proptest::collection::vec(one, 1..=8).prop_map(|list| {
        let ids = |names: Vec<&str>| names.into_iter().map(|name| name.to_owned()).collect::<Vec<_>>();
        let mut release: BTreeMap<String, (Variant, ArtifactContent)> = BTreeMap::new();
        for (number, (component, variant, models, carriers, regions, order)) in (0..).zip(list) {
            let component = format!("c{component}");
            let part = match variant {
                Some(variant) => format!("{component}@{variant}"),
                None => component.clone(),
            };
            let models = ids(models).iter().map(|name| name.parse().unwrap()).collect();
            let mut content = ArtifactContent::new(7, "1", component.clone(), models, Digest([number; 32]));
            content.carriers = ids(carriers).iter().map(|name| name.parse().unwrap()).collect();
            content.regions = ids(regions).iter().map(|name| name.parse().unwrap()).collect();
            content.order = order;
            release.insert(part.clone(), (Variant::read(&part, &component).unwrap(), content));
        }
        release.into_values().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_device_takes_one_artifact_of_every_component_or_nothing_at_all(
        release in releases(), model in 1..3u8, carrier in 0..3u8, region in 0..3u8, turn in 0..8usize,
    ) {
        let (model, carrier, region): (ModelId, CarrierId, RegionId) = (
            format!("m{model}").parse().unwrap(),
            format!("c{carrier}").parse().unwrap(),
            format!("r{region}").parse().unwrap(),
        );
        let candidates = |release: &'_ [(Variant, ArtifactContent)]| -> Vec<u8> {
            let all: Vec<Candidate<'_>> =
                release.iter().map(|(variant, content)| Candidate { variant: variant.clone(), content }).collect();
            let fits = |at: usize| all[at].content.is_for(&model, &carrier, &region);
            pick(&all, &model, fits).map_or(Vec::new(), |picked| {
                picked.into_iter().map(|at| all[at].content.root.0[0]).collect()
            })
        };
        let components = |of: &mut dyn Iterator<Item = &ArtifactContent>| {
            let mut components: Vec<String> = of.map(|content| content.component.clone()).collect();
            components.sort();
            components
        };
        let picked = candidates(&release);
        let content = |number: &u8| &release.iter().find(|(_, c)| c.root.0[0] == *number).unwrap().1;
        let mut all = components(&mut release.iter().map(|(_, content)| content));
        all.dedup();

        if picked.is_empty() {
            let served = |component: &String| release.iter().any(|(_, content)| {
                content.component == *component && content.is_for(&model, &carrier, &region)
            });
            prop_assert!(!all.iter().all(served), "a release that has something of everything is offered");
        } else {
            prop_assert_eq!(components(&mut picked.iter().map(content)), all, "each component once, none left out");
            prop_assert!(picked.iter().all(|number| content(number).is_for(&model, &carrier, &region)));
            let orders: Vec<_> = picked.iter().map(content).map(|c| (c.order, c.component.clone())).collect();
            prop_assert!(orders.is_sorted(), "{:?}", orders);
        }
        let mut turned = release.clone();
        turned.rotate_left(turn % release.len());
        prop_assert_eq!(candidates(&turned), picked, "whatever the order in which they are named");
    }
}

proptest! {
    // Each case signs a repository.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_one_of_the_two_roles_leaves_out_nothing_of_the_release_is_offered(
        release in releases(), approved in 0..=255u8, repeated in 0..=255u8, both in proptest::bool::ANY,
        carrier in 0..3u8, region in 0..3u8,
    ) {
        let repeated = if both { approved } else { repeated };
        let mut story = Story::new();
        story.device[3] = format!("c{carrier}");
        story.device[4] = format!("r{region}");
        let part = |(at, (variant, content)): (usize, &(Variant, ArtifactContent))| {
            let suffix = variant.name().map_or_else(String::new, |name| format!("@{name}"));
            let path = format!("cam/7/{}{suffix}", content.component);
            (1 << at, Named { path, length: 1000, sha256: Digest([1; 32]) }, content.clone())
        };
        let parts: Vec<(u8, Named, ArtifactContent)> = release.iter().enumerate().map(part).collect();
        let of = |mask: u8| parts.iter().filter(move |(bit, _, _)| mask & bit != 0);
        story.repository.artifacts = of(approved).map(|(_, named, content)| (named.clone(), content.clone())).collect();
        story.repository.repeated = of(repeated).map(|(_, named, _)| named.clone()).collect();
        let names = |mask: u8| of(mask).map(|(bit, _, _)| *bit).collect::<Vec<_>>();

        let selection = story.select();

        if names(approved) != names(repeated) || names(approved).is_empty() {
            prop_assert_eq!(selection, nothing(NothingBecause::NotApproved { rc: 7 }));
        } else if let Selection::Offer(offer) = selection {
            let mut offered: Vec<String> = offer.artifacts.iter().map(|a| a.component.clone()).collect();
            offered.sort();
            let mut all: Vec<String> = of(approved).map(|(_, _, content)| content.component.clone()).collect();
            all.sort();
            all.dedup();
            prop_assert_eq!(offered, all, "each component once, none left out");
        } else {
            let closer = NothingBecause::NotApproved { rc: 7 };
            prop_assert!(matches!(selection, Selection::Nothing(because) if because > closer));
        }
    }
}
