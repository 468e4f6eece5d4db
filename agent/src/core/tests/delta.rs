//! Which way is chosen, how a delta is followed pack by pack, and what is fetched in place of what it does not give.

use tern_protocol::chunk::{PieceId, TreeShape, leaf, root};
use tern_protocol::delta::{DeltaManifest, ImageId, Profile};
use tern_protocol::digest::Digest;
use tern_protocol::message::{Get, Pack, Want};
use tern_protocol::offer::Artifact;

use super::super::choice::Choice;
use super::super::packs::Packs;
use super::super::state::{Event, State};
use super::super::timing::Timing;
use super::super::way::{Course, Way};
use super::{NOW, chunks, show, work};

/// Chunks of the image that comes out.
const CHUNKS: u32 = 40;

fn image(seed: &str, length: u64) -> ImageId {
    ImageId { length, root: Digest::of(seed.as_bytes()) }
}

fn artifact() -> Artifact {
    let new = image("new", u64::from(CHUNKS) * 65_536);
    Artifact::new("rootfs", new.length, new.root, new.root)
}

/// Packs of two chunks each, with nothing in them but their headers.
fn packs() -> Vec<Vec<u8>> {
    let pack = |first: u32| {
        let mut pack = vec![1, Profile::Linux.id(), 16];
        pack.extend_from_slice(&(first * 2).to_le_bytes());
        pack.extend_from_slice(&2u32.to_le_bytes());
        pack
    };
    (0..CHUNKS / 2).map(pack).collect()
}

fn leaves() -> Vec<Digest> {
    packs().iter().map(|pack| leaf(pack)).collect()
}

fn manifest(old: ImageId, bytes: u64) -> DeltaManifest {
    let new = image("new", u64::from(CHUNKS) * 65_536);
    let packs = CHUNKS / 2;
    DeltaManifest { profile: Profile::Linux, chunk_log2: 16, old, new, packs, bytes, root: root(&leaves()) }
}

fn base() -> ImageId {
    image("old", 1 << 20)
}

fn choice() -> Choice {
    Choice::new(&artifact(), Some(base()), &[Profile::Linux.id()], &Timing::default())
}

/// Stands for the signatures: whatever reads as a manifest is signed.
fn trusting(signed: &[u8]) -> Option<DeltaManifest> {
    DeltaManifest::read(signed).ok()
}

fn answer(choice: &mut Choice, from: ImageId, delta: Option<DeltaManifest>) {
    let signed = delta.map(|delta| delta.write()).unwrap_or_default();
    choice.take(&Pack::delta(&from.root, &artifact().root, &signed), trusting);
}

#[test]
fn the_way_that_costs_least_is_chosen_once_everything_is_answered() {
    let nothing = ImageId::nothing();
    let (small, whole) = (manifest(base(), 5000), manifest(nothing, 90_000));
    // Only packs that are full are so many bytes.
    let dear = |old| DeltaManifest { packs: 64, ..manifest(old, artifact().length) };
    let by = |delta, whole| Some(Way::Delta(Box::new(Course::new(delta, whole))));
    for (from_base, from_nothing, chosen) in [
        (Some(small), Some(whole), by(small, Some(whole))),
        (Some(small), None, by(small, None)),
        (None, Some(whole), by(whole, None)),
        (Some(dear(base())), Some(whole), by(whole, None)),
        (Some(dear(base())), Some(dear(nothing)), Some(Way::Raw)),
        (None, None, Some(Way::Raw)),
    ] {
        let mut choice = choice();
        let asked = choice.request(0).unwrap();
        let of = |want: &Want| matches!(want, Want::Delta { to, .. } if *to == artifact().root);
        assert!(asked.want.len() == 2 && asked.want.iter().all(of), "{asked:?}");
        assert_eq!(choice.chosen(1), None);

        answer(&mut choice, base(), from_base);
        assert_eq!(choice.chosen(1), None, "the other one is still open");
        answer(&mut choice, nothing, from_nothing);

        assert_eq!(choice.chosen(1), chosen);
    }
}

#[test]
fn what_nobody_signed_or_is_about_something_else_is_no_answer() {
    let mut choice = choice();
    choice.request(0);
    let good = manifest(base(), 5000);
    let other = [
        manifest(image("third", 1 << 20), 5000),
        DeltaManifest { new: image("other", good.new.length), ..good },
        DeltaManifest { new: ImageId { length: 7, ..good.new }, ..good },
        DeltaManifest { profile: Profile::Fast, ..good },
        DeltaManifest { packs: 0, ..good },
    ];

    choice.take(&Pack::delta(&base().root, &artifact().root, &good.write()), |_| None);
    choice.take(&Pack::delta(&base().root, &Digest::of(b"other"), &good.write()), trusting);
    for delta in other {
        answer(&mut choice, base(), Some(delta));
    }
    answer(&mut choice, ImageId::nothing(), None);
    assert_eq!(choice.chosen(1), None, "the base is still open");

    answer(&mut choice, base(), Some(good));
    assert!(matches!(choice.chosen(1), Some(Way::Delta(_))));
}

#[test]
fn a_chunk_server_that_says_nothing_of_deltas_is_asked_twice_and_then_images_are_taken_as_they_are() {
    let timing = Timing::default();
    let mut choice = choice();

    assert!(choice.request(0).is_some() && choice.request(0).is_none());
    assert_eq!(choice.request(timing.get_first).and_then(|get| piece_of(&get)), Some(artifact().root));
    choice.take(&piece(artifact().root), trusting);
    let end = choice.due();
    assert!(choice.request(end).is_none());

    assert_eq!((choice.chosen(end - 1), choice.chosen(end)), (None, Some(Way::Raw)));
    choice.link_lost();
    assert!(choice.chosen(end).is_none() && choice.request(end).is_some(), "lost with the link");
}

#[test]
fn where_nobody_has_even_the_image_it_is_asked_until_somebody_is_there() {
    let mut choice = choice();
    assert_eq!(choice.request(0).and_then(|get| piece_of(&get)), None, "not before it is needed");
    for _ in 0..20 {
        let due = choice.due();
        assert_eq!(choice.chosen(due), None);
        assert!(choice.request(due).is_some_and(|get| piece_of(&get) == Some(artifact().root)));
        choice.take(&piece(Digest::of(b"other")), trusting);
    }
    assert_eq!(choice.chosen(choice.due()), None);

    answer(&mut choice, base(), Some(manifest(base(), 5000)));
    answer(&mut choice, ImageId::nothing(), None);

    assert!(matches!(choice.chosen(choice.due()), Some(Way::Delta(_))));
}

fn piece(of: Digest) -> Pack {
    Pack::piece(&of, PieceId { level: 0, index: 0 }, &[of])
}

/// The object of which a piece is asked for.
fn piece_of(get: &Get) -> Option<Digest> {
    get.want.iter().find_map(|want| if let Want::Piece { of, .. } = want { Some(*of) } else { None })
}

/// Answers what was asked, as a chunk server does.
fn serve(get: Option<Get>) -> Vec<Pack> {
    let of = root(&leaves());
    let mut out = Vec::new();
    for want in get.into_iter().flat_map(|get| get.want) {
        match want {
            Want::Packs { of: asked, ranges } => {
                assert_eq!(asked, of);
                let numbers = ranges.into_iter().flat_map(|(from, to)| from..to);
                out.extend(numbers.map(|number| Pack::chunk(&of, number, packs()[number as usize].clone())));
            }
            Want::Piece { level, index, .. } => {
                let (piece, shape) = (PieceId { level, index }, TreeShape::new(CHUNKS / 2));
                out.push(Pack::piece(&of, piece, &shape.cut(&leaves(), piece).unwrap()));
            }
            other => panic!("{other:?}"),
        }
    }
    out
}

#[test]
fn packs_come_some_ahead_in_any_order_and_are_handed_on_in_theirs() {
    let course = Course { decoded: 3, ..Course::new(manifest(base(), 5000), None) };
    let mut packs = Packs::new(&course, &Timing::default());
    let (mut handed, mut asked, mut syncs) = (Vec::new(), Vec::new(), 0);
    for now in 0..200 {
        let mut came = serve(packs.request(now, u32::MAX));
        // The other way round, and each twice.
        came.reverse();
        for pack in came.into_iter().flat_map(|pack| [pack.clone(), pack]) {
            if packs.accept(pack.clone(), now) > 0 {
                asked.push(pack);
            }
        }
        assert!(asked.len() <= handed.len() + 9, "more than eight beyond the one that is decoded");
        if let Some(due) = packs.next() {
            handed.push(due.number);
            syncs += u32::from(due.syncs);
            packs.decoded(due.number, due.syncs);
        }
    }

    assert_eq!(handed, (3..CHUNKS / 2).collect::<Vec<_>>());
    assert_eq!(asked.len(), handed.len(), "each was fetched once");
    assert_eq!(syncs, 5, "after every fourth and the last");
}

fn following(course: Course) -> State {
    State::Downloading {
        work: work(),
        at: 0,
        marked: true,
        way: Way::Delta(Box::new(course)),
        have: chunks(&[]),
    }
}

fn way_of(state: &State) -> Option<&Course> {
    match state {
        State::Downloading { way: Way::Delta(course), .. } => Some(course),
        _ => None,
    }
}

#[test]
fn what_a_pack_does_not_give_is_fetched_as_chunks_and_the_delta_goes_on_behind_it() {
    let timing = Timing::default();
    let state = following(Course { decoded: 1, ..Course::new(manifest(base(), 5000), None) });

    let broken = state.after(&Event::Undecoded { pack: 3, from: 7, to: 8 }, NOW, &timing);
    assert_eq!(way_of(&broken).map(|course| (course.decoded, course.gap)), Some((4, Some((7, 8)))));
    let early = broken.clone().after(&Event::Decoded(6), NOW, &timing);
    assert_eq!(show(&early), show(&broken), "nothing is decoded over a gap");

    let filled = broken.after(&Event::Written(vec![7]), NOW, &timing);
    assert_eq!(way_of(&filled).map(|course| (course.decoded, course.gap)), Some((4, None)));
    let done = filled.after(&Event::Decoded(CHUNKS / 2), NOW, &timing);
    assert_eq!(done.name(), tern_protocol::state::StateName::Verifying);
}

#[test]
fn once_repairs_have_cost_as_much_as_the_whole_image_the_whole_image_is_taken() {
    let timing = Timing::default();
    let whole = manifest(ImageId::nothing(), 3 * 65_536);
    let course = Course::new(manifest(base(), 5000), Some(whole));

    let once = following(course).after(&Event::Undecoded { pack: 0, from: 0, to: 2 }, NOW, &timing);
    assert_eq!(way_of(&once).map(|course| course.mended), Some(2 * 65_536));
    let filled = once.after(&Event::Written(vec![0, 1]), NOW, &timing);
    let twice = filled.after(&Event::Undecoded { pack: 1, from: 2, to: 4 }, NOW, &timing);

    assert_eq!(way_of(&twice), Some(&Course::new(whole, None)));
}

#[test]
fn a_way_survives_the_journal_and_one_without_means_chunks() {
    let course =
        Course { decoded: 4, gap: Some((7, 9)), mended: 99, ..Course::new(manifest(base(), 5), None) };
    let whole = Course { whole: Some(manifest(ImageId::nothing(), 9)), ..course.clone() };
    let deltas = [course, whole].map(|course| Way::Delta(Box::new(course)));
    for way in [Way::Open, Way::Raw, Way::Mend].into_iter().chain(deltas) {
        assert_eq!(Way::try_from(String::from(way.clone())), Ok(way));
    }
    for text in ["", "delta", "delta 1 2 3 4", "delta 1 2 3 4 00", "by-pigeon"] {
        assert!(Way::try_from(text.to_owned()).is_err(), "{text}");
    }

    let state = State::Downloading { work: work(), at: 0, marked: true, way: Way::Raw, have: chunks(&[1]) };
    let mut saved = serde_json::to_value(&state).unwrap();
    assert!(saved.as_object_mut().unwrap().remove("way").is_some());
    assert_eq!(serde_json::from_value::<State>(saved).unwrap(), state);
}
