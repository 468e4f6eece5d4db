//! Stories about one device and what the metadata offers it.

mod requirements;
mod variants;

use super::*;
use crate::position::{Position, Salt};
use crate::tuf::client::Trusted;
use crate::tuf::client::tests::repository::{Repository, artifact};

/// A fleet's metadata with one entry for release 7 that includes everybody, and one device in it.
struct Story {
    repository: Repository,
    device: [String; 5],
    running: u64,
}

impl Story {
    fn new() -> Self {
        let device = ["dev-1", "cam", "m1", "none", "eu"].map(str::to_owned);
        let repository = Repository { entries: vec![entry("r7", 7)], ..Repository::default() };
        Self { repository, device, running: 1 }
    }

    fn entry(&mut self) -> &mut Entry {
        &mut self.repository.entries[0]
    }

    fn artifact(&mut self) -> &mut ArtifactContent {
        &mut self.repository.artifacts[0].1
    }

    fn trusted(&self) -> Trusted {
        self.repository.device()
    }

    fn select(&self) -> Selection {
        let [id, product, model, carrier, region] = &self.device;
        let id: DeviceId = id.parse().unwrap();
        let running = self.running;
        let device = Device {
            id: &id,
            product: &product.parse().unwrap(),
            model: &model.parse().unwrap(),
            carrier: &carrier.parse().unwrap(),
            region: &region.parse().unwrap(),
            running,
        };
        select(&self.trusted().current().unwrap(), &device)
    }

    fn offered(&self) -> Option<u64> {
        match self.select() {
            Selection::Offer(offer) => Some(offer.attempt.rc),
            _ => None,
        }
    }
}

fn entry(rollout: &str, rc: u64) -> Entry {
    Entry {
        rollout: rollout.parse().unwrap(),
        rc,
        kind: EntryKind::Update,
        attempt: 2,
        regions: vec![],
        models: vec![],
        carriers: vec![],
        salt: Salt([5; 16]),
        cuts: [("m1".parse().unwrap(), Cut::ALL)].into(),
        hold_back: None,
        schedule: None,
        from: vec![],
        list: vec![],
        spread: 60,
        arm: Arm::Acked,
        urgency: Urgency::Soft,
    }
}

fn nothing(because: NothingBecause) -> Selection {
    Selection::Nothing(because)
}

/// Names a second release the way the first is named.
fn add_release(story: &mut Story, rc: u64) {
    let (mut named, mut content) = artifact();
    named.path = format!("cam/{rc}/rootfs");
    content.rc = rc;
    story.repository.repeated.push(named.clone());
    story.repository.artifacts.push((named, content));
}

#[test]
fn an_included_device_is_offered_exactly_what_was_signed() {
    let Selection::Offer(offer) = Story::new().select() else { panic!("no offer") };

    assert_eq!(
        offer,
        Offer {
            attempt: Attempt { rc: 7, rollout: "r7".parse().unwrap(), attempt: 2 },
            kind: EntryKind::Update,
            version: "1.7".into(),
            artifacts: vec![Artifact {
                version: "1.7".into(),
                ..Artifact::new("rootfs", 100_000, Digest([1; 32]), Digest([2; 32]))
            }],
            models: vec!["m1".parse().unwrap()],
            min_from: 3,
            floor: 2,
            arm: Arm::Acked,
            urgency: Urgency::Soft,
            spread: 60,
            schedule: None,
            from: vec![],
        }
    );
    let text = serde_json::to_string(&offer).unwrap();
    assert_eq!(serde_json::from_str::<Offer>(&text).unwrap(), offer);
}

#[test]
fn what_only_one_of_the_two_roles_names_is_not_installed() {
    let not_approved = nothing(NothingBecause::NotApproved { rc: 7 });
    let mut release_only = Story::new();
    release_only.repository.repeated.clear();
    assert_eq!(release_only.select(), not_approved);

    let mut rollout_only = Story::new();
    rollout_only.repository.artifacts.clear();
    assert_eq!(rollout_only.select(), not_approved);

    let mut neither = Story::new();
    neither.repository.artifacts.clear();
    neither.repository.repeated.clear();
    assert_eq!(neither.select(), not_approved);

    let mut other_bytes = Story::new();
    other_bytes.repository.repeated[0].sha256 = Digest([9; 32]);
    assert_eq!(other_bytes.select(), not_approved);

    let mut other_length = Story::new();
    other_length.repository.repeated[0].length += 1;
    assert_eq!(other_length.select(), not_approved);

    let mut a_part = Story::new();
    let (mut named, mut content) = artifact();
    (named.path, content.component) = ("cam/7/modem".into(), "modem".into());
    a_part.repository.repeated.push(named.clone());
    assert_eq!(a_part.select(), not_approved);
    a_part.repository.artifacts.push((named.clone(), content));
    assert_eq!(a_part.offered(), Some(7));
    a_part.repository.repeated.pop();
    assert_eq!(a_part.select(), not_approved);
}

#[test]
fn a_release_cannot_borrow_another_ones_counter_or_product() {
    let not_approved = nothing(NothingBecause::NotApproved { rc: 7 });
    let mut relabelled = Story::new();
    relabelled.artifact().rc = 8;
    assert_eq!(relabelled.select(), not_approved);

    let mut renamed = Story::new();
    renamed.artifact().component = "modem".into();
    assert_eq!(renamed.select(), not_approved);

    // Neither role was delegated paths of another product.
    let mut foreign = Story::new();
    foreign.device[1] = "router".into();
    foreign.repository.repeated[0].path = "router/7/rootfs".into();
    foreign.repository.artifacts[0].0.path = "router/7/rootfs".into();
    assert_eq!(foreign.select(), not_approved);
}

#[test]
fn an_image_that_has_no_chunks_or_too_many_is_not_approved() {
    let most = u64::from(crate::limits::CHUNKS_MAX) * crate::limits::CHUNK as u64;
    for (length, offered) in [(0, None), (1, Some(7)), (most, Some(7)), (most + 1, None)] {
        let mut story = Story::new();
        story.repository.repeated[0].length = length;
        story.repository.artifacts[0].0.length = length;
        assert_eq!(story.offered(), offered, "{length}");
    }
}

#[test]
fn a_halted_release_gives_way_to_the_next_entry() {
    let mut story = Story::new();
    story.repository.halted = vec![7];
    assert_eq!(story.select(), nothing(NothingBecause::Halted { rc: 7 }));

    add_release(&mut story, 6);
    story.repository.entries.push(Entry { kind: EntryKind::Base, ..entry("r6", 6) });
    assert_eq!(story.offered(), Some(6));
}

#[test]
fn the_first_entry_that_includes_the_device_wins() {
    let mut story = Story::new();
    add_release(&mut story, 8);
    story.repository.entries.push(entry("r8", 8));
    assert_eq!(story.offered(), Some(7));

    story.entry().cuts = [("m1".parse().unwrap(), Cut(1))].into();
    assert_eq!(story.offered(), Some(8));
}

#[test]
fn filters_leave_out_other_regions_models_and_carriers() {
    let not_covered = nothing(NothingBecause::NotCovered { rollout: "r7".parse().unwrap() });
    for filter in [
        |e: &mut Entry, own| e.regions = vec![if own { "eu" } else { "us" }.parse().unwrap()],
        |e: &mut Entry, own| e.models = vec![if own { "m1" } else { "m2" }.parse().unwrap()],
        |e: &mut Entry, own| e.carriers = vec![if own { "none" } else { "c1" }.parse().unwrap()],
    ] as [fn(&mut Entry, bool); 3]
    {
        let mut story = Story::new();
        filter(story.entry(), false);
        assert_eq!(story.select(), not_covered);
        filter(story.entry(), true);
        assert_eq!(story.offered(), Some(7));
    }
}

#[test]
fn a_model_that_an_artifact_leaves_out_is_offered_nothing() {
    let mut story = Story::new();
    story.artifact().models = vec!["m2".parse().unwrap()];
    assert_eq!(story.select(), nothing(NothingBecause::NotForModel { rc: 7 }));
}

#[test]
fn the_cut_of_the_devices_own_model_decides() {
    let mut story = Story::new();
    let own = position(Salt([5; 16]), &"dev-1".parse().unwrap());
    let beyond = nothing(NothingBecause::NotIncluded { rollout: "r7".parse().unwrap() });
    for (model, cut, included) in
        [("m1", Cut(own.0 + 1), true), ("m1", Cut(own.0), false), ("m2", Cut::ALL, false)]
    {
        story.entry().cuts = [(model.parse().unwrap(), cut)].into();
        assert_eq!(story.offered().is_some(), included, "{model} {cut:?}");
        assert_eq!(story.select() == beyond, !included);
    }
}

#[test]
fn what_takes_devices_back_is_for_those_alone_that_run_what_it_names() {
    let mut story = Story::new();
    let entry = story.entry();
    (entry.kind, entry.from) = (EntryKind::Revert, vec![9]);
    let base =
        Entry { from: vec![], kind: EntryKind::Base, rollout: "base".parse().unwrap(), ..entry.clone() };
    story.repository.entries.push(base);
    let kind = |story: &Story| match story.select() {
        Selection::Offer(offer) => offer.kind,
        other => panic!("{other:?}"),
    };

    assert_eq!(kind(&story), EntryKind::Base, "the next entry is looked at");
    story.running = 9;
    assert_eq!(kind(&story), EntryKind::Revert);
}

#[test]
fn a_held_back_device_is_control_until_it_is_listed() {
    let mut story = Story::new();
    let own = position(Salt([5; 16]), &"dev-1".parse().unwrap());
    story.entry().hold_back = Some((own, Position(own.0 + 1)));
    assert!(matches!(story.select(), Selection::Control(offer) if offer.attempt.rc == 7));

    story.entry().hold_back = Some((Position(own.0 + 1), Position(own.0 + 2)));
    assert_eq!(story.offered(), Some(7));
    story.entry().hold_back = Some((Position(0), own));
    assert_eq!(story.offered(), Some(7));

    story.entry().hold_back = Some((own, Position(own.0 + 1)));
    story.entry().cuts = [("m1".parse().unwrap(), Cut(1))].into();
    assert!(matches!(story.select(), Selection::Control(_)), "beyond the cut, beside the first wave");
    story.entry().cuts.clear();
    assert!(matches!(story.select(), Selection::Nothing(_)), "before the rollout reaches its model");
    story.entry().list = vec![listed(&"dev-1".parse().unwrap())];
    assert_eq!(story.offered(), Some(7));
}

#[test]
fn the_closest_entry_says_why_there_is_nothing() {
    let mut story = Story::new();
    story.repository.entries.clear();
    assert_eq!(story.select(), nothing(NothingBecause::NoEntry));

    let mut elsewhere = entry("r5", 5);
    elsewhere.regions = vec!["us".parse().unwrap()];
    let narrow = Entry { cuts: Default::default(), ..entry("r7", 7) };
    story.repository.entries = vec![narrow, elsewhere];
    let beyond = NothingBecause::NotIncluded { rollout: "r7".parse().unwrap() };
    assert_eq!(story.select(), nothing(beyond));
}
