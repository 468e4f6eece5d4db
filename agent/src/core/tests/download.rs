//! What a cache may have changed on the way: nothing is believed that does not lead to the signed root.

use tern_protocol::chunk::{ChunkSet, PieceId, TreeShape, leaf, root};
use tern_protocol::digest::Digest;
use tern_protocol::message::{Get, Pack, PackKind, Want};
use tern_protocol::offer::Artifact;

use super::super::download::{Accepted, Download};
use super::super::timing::Timing;

const LENGTH: usize = 2 * 65_536 + 100;

#[test]
fn a_poisoned_piece_or_chunk_changes_nothing_and_the_right_one_is_taken_after_it() {
    let image: Vec<u8> = (0..LENGTH).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let chunks: Vec<&[u8]> = image.chunks(65_536).collect();
    let leaves: Vec<Digest> = chunks.iter().map(|chunk| leaf(chunk)).collect();
    let of = root(&leaves);
    let artifact = Artifact::new("rootfs", LENGTH as u64, Digest::of(&image), of);
    let mut download = Download::new(&artifact, &ChunkSet::default(), &Timing::default());
    let piece: PieceId = TreeShape::new(3).piece_of(0);
    assert!(download.request(0).is_some(), "what was not asked for is not looked at");
    let mut poisoned = leaves.clone();
    poisoned[1] = leaf(b"poison");

    assert_eq!(download.accept(Pack::piece(&of, piece, &poisoned), 0), Accepted::Nothing);
    assert_eq!(
        download.accept(Pack::chunk(&of, 1, chunks[1].to_vec()), 0),
        Accepted::Nothing,
        "no piece yet"
    );
    assert_eq!(download.accept(Pack::piece(&of, piece, &leaves), 0), Accepted::Piece);
    let mut flipped = chunks[1].to_vec();
    flipped[7] ^= 1;
    let wrong = [flipped, chunks[0].to_vec(), chunks[1][1..].to_vec(), Vec::new()];
    for bytes in wrong {
        assert!(download.accept(Pack::chunk(&of, 1, bytes), 0) == Accepted::Nothing, "a poisoned chunk");
    }

    let right = Accepted::Chunk { index: 1, bytes: chunks[1].to_vec() };
    assert!(download.accept(Pack::chunk(&of, 1, chunks[1].to_vec()), 0) == right, "the right chunk");
}

/// An image of so many chunks, its leaves, and its name.
fn image(chunks: u32) -> (Vec<Digest>, Artifact) {
    let leaves: Vec<Digest> = (0..chunks).map(|index| leaf(&bytes(index))).collect();
    let length = u64::from(chunks) * 65_536;
    (leaves.clone(), Artifact::new("rootfs", length, Digest::of(b"image"), root(&leaves)))
}

fn bytes(index: u32) -> Vec<u8> {
    let mut bytes = vec![0; 65_536];
    bytes[..4].copy_from_slice(&index.to_be_bytes());
    bytes
}

/// What a request asks for: pieces as (level, index), and chunks.
fn asked(get: Option<Get>) -> (Vec<(u8, u32)>, Vec<u32>) {
    let (mut pieces, mut chunks) = (Vec::new(), Vec::new());
    for want in get.map(|get| get.want).unwrap_or_default() {
        match want {
            Want::Piece { level, index, .. } => pieces.push((level, index)),
            Want::Packs { ranges, .. } => chunks.extend(ranges.into_iter().flat_map(|(from, to)| from..to)),
            other => panic!("{other:?}"),
        }
    }
    (pieces, chunks)
}

/// Answers requests a round trip later until there are no more; returns the chunks in the order in which they came, and
/// how many requests it took.
fn fetch(download: &mut Download, chunks: u32, leaves: &[Digest], of: Digest) -> (Vec<u32>, u64) {
    let shape = TreeShape::new(chunks);
    let (mut round, mut came) = (0, Vec::new());
    loop {
        let (pieces, packs) = asked(download.request(600 * round));
        if pieces.is_empty() && packs.is_empty() {
            return (came, round);
        }
        round += 1;
        for (level, index) in pieces {
            let piece = PieceId { level, index };
            let digests = shape.cut(leaves, piece).unwrap();
            assert_eq!(download.accept(Pack::piece(&of, piece, &digests), 600 * round), Accepted::Piece);
        }
        for index in packs {
            let accepted = download.accept(Pack::chunk(&of, index, bytes(index)), 600 * round);
            assert!(matches!(accepted, Accepted::Chunk { .. }), "chunk {index} came in vain");
            came.push(index);
        }
    }
}

#[test]
fn no_piece_costs_a_round_trip_of_its_own() {
    let (leaves, artifact) = image(600);
    let mut download = Download::new(&artifact, &ChunkSet::default(), &Timing::default());

    let (pieces, packs) = asked(download.request(0));
    assert_eq!((pieces, packs), (vec![(1, 0), (0, 0)], (0..16).collect()), "all in the first request");

    let mut download = Download::new(&artifact, &ChunkSet::default(), &Timing::default());
    let (came, rounds) = fetch(&mut download, 600, &leaves, artifact.root);
    assert_eq!(came, (0..600).collect::<Vec<_>>());
    // 16 and then 96 in each round trip.
    assert!(rounds <= 9, "{rounds} round trips");
}

#[test]
fn an_image_of_one_chunk_needs_no_tree() {
    let (_, artifact) = image(1);
    let mut download = Download::new(&artifact, &ChunkSet::default(), &Timing::default());

    assert_eq!(asked(download.request(0)), (vec![], vec![0]));
    assert!(matches!(download.accept(Pack::chunk(&artifact.root, 0, bytes(0)), 1), Accepted::Chunk { .. }));
}

#[test]
fn what_is_missing_here_and_there_comes_without_the_rest() {
    let (leaves, artifact) = image(1000);
    let mut have = ChunkSet::default();
    let holes: Vec<u32> = (0..1000).filter(|chunk| chunk % 97 == 0 || (300..310).contains(chunk)).collect();
    (0..1000).filter(|chunk| !holes.contains(chunk)).for_each(|chunk| assert!(have.insert(chunk)));
    let mut download = Download::new(&artifact, &have, &Timing::default());

    let (came, _) = fetch(&mut download, 1000, &leaves, artifact.root);

    assert_eq!(came, holes);
}

#[test]
fn after_a_cut_the_same_is_asked_for_at_once_and_what_is_here_is_made_durable() {
    let (leaves, artifact) = image(600);
    let mut download = Download::new(&artifact, &ChunkSet::default(), &Timing::default());
    let of = artifact.root;
    download.request(0);
    let shape = TreeShape::new(600);
    for (level, index) in [(1, 0), (0, 0)] {
        let piece = PieceId { level, index };
        download.accept(Pack::piece(&of, piece, &shape.cut(&leaves, piece).unwrap()), 600);
    }
    for index in [0, 1] {
        download.accept(Pack::chunk(&of, index, bytes(index)), 610);
    }
    assert_eq!((download.to_sync(), asked(download.request(611)).1), (None, vec![16, 17]));

    download.cut();

    assert_eq!(download.to_sync(), Some(vec![0, 1]));
    assert_eq!(asked(download.request(700)), (vec![], (2..18).collect()));
}

#[test]
fn a_link_that_brings_nothing_is_doubted_until_something_comes() {
    let (_, artifact) = image(1);
    let mut download = Download::new(&artifact, &ChunkSet::default(), &Timing::default());
    download.request(0);
    for _ in 0..2 {
        assert!(!download.doubts_link());
        assert!(download.request(download.due()).is_some());
    }

    assert!(download.doubts_link());
    download.accept(Pack::chunk(&artifact.root, 0, bytes(0)), 100_000);
    assert!(!download.doubts_link());
}

#[test]
fn of_a_source_that_answers_in_order_nothing_is_asked_for_twice_until_it_says_that_it_does_not_come() {
    let (leaves, artifact) = image(300);
    let mut download = Download::new(&artifact, &ChunkSet::default(), &Timing::default());
    let (of, shape) = (artifact.root, TreeShape::new(300));

    let (pieces, first) = asked(download.request_in_order(0, 48));
    let (_, early) = asked(download.request_in_order(0, 48));
    assert_eq!(
        (first, early),
        ((0..48).collect(), vec![]),
        "over another connection it would come before its piece"
    );
    for (level, index) in pieces {
        let piece = PieceId { level, index };
        let digests = shape.cut(&leaves, piece).unwrap();
        assert_eq!(download.accept(Pack::piece(&of, piece, &digests), 1), Accepted::Piece);
    }

    // A broker would have been asked again long ago.
    let (again, second) = asked(download.request_in_order(3_600_000, 48));
    assert_eq!((again.len(), second), (0, (48..96).collect()));
    assert_eq!(download.due_in_order(), 0, "there is more to ask for");
    let lie = download.accept(Pack::chunk(&of, 7, bytes(8)), 1);
    assert!(lie == Accepted::Nothing && download.awaits(PackKind::Chunk(7)), "a lie leaves it open");
    download.accept(Pack::chunk(&of, 8, bytes(8)), 1);
    assert!(!download.awaits(PackKind::Chunk(8)), "what is right does not");
    for chunk in 0..48 {
        assert_eq!(download.forget(PackKind::Chunk(chunk)), chunk != 8, "{chunk}");
    }

    let (_, again) = asked(download.request_in_order(3_600_001, 48));
    assert_eq!(again, (0..8).chain(9..48).chain(96..97).collect::<Vec<_>>());
    // By another way all is asked for anew that is not here.
    download.renew();
    let (_, anew) = asked(download.request(3_600_002));
    assert_eq!(anew, (0..17).filter(|chunk| *chunk != 8).collect::<Vec<_>>());
}
