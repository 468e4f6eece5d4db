//! What a cache may have changed on the way: nothing is believed that does not lead to the signed root.

use tern_protocol::chunk::{ChunkSet, PieceId, TreeShape, leaf, root};
use tern_protocol::digest::Digest;
use tern_protocol::message::Pack;
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
