//! What proves a part: a piece its parent, a chunk its leaf, all of it the root by which it was asked for. Pure.
//!
//! A site is told nothing about an object, not even how many chunks it has. It finds out: level-0 piece 0 of an object of
//! up to 256 chunks hashes to the root itself; of a larger one, level 1 does, and vouches for level 0. Only who wants the
//! object knows which of the two it is, so a piece is taken for the one that was asked for.

use std::collections::BTreeMap;

use tern_protocol::chunk::{self, PIECE, PieceId};
use tern_protocol::delta::signed::read_unverified;
use tern_protocol::digest::Digest;
use tern_protocol::limits::CHUNK;

use super::key::Key;
use crate::chunks::pending::Part;

/// Trees in memory. More objects are seldom on their way to one site at once; what is forgotten is read and verified again.
const TREES_MAX: usize = 64;
/// Pieces in memory, of all trees: 8 MiB.
const PIECES_MAX: usize = 1024;
/// A pack of a delta may be longer than its chunk by its frame (docs/delta-format.md).
const PACK_MAX: usize = CHUNK + 1024;

/// What is known of the truth of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is what was asked for.
    Good,
    /// It is not.
    Bad,
    /// It cannot be told before this piece is here.
    Needs(Key),
}

/// The verified pieces of the objects that are being fetched and served. Most recently used last.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    trees: Vec<(Digest, Tree)>,
}

#[derive(Debug, Default)]
struct Tree {
    /// Level 1, piece 0.
    above: Option<Vec<Digest>>,
    leaves: BTreeMap<u32, Vec<Digest>>,
}

impl Proofs {
    /// Judges a part, and remembers a piece that is good.
    pub(crate) fn judge(&mut self, key: &Key, content: &[u8]) -> Verdict {
        match &key.part {
            Part::Piece(piece) => match digests(content) {
                Some(digests) => self.judge_piece(key.of, *piece, digests),
                None => Verdict::Bad,
            },
            Part::Chunk(index) => {
                if content.is_empty() || content.len() > PACK_MAX {
                    return Verdict::Bad;
                }
                if let Some(need) = self.needs(key) {
                    return Verdict::Needs(need);
                }
                match self.leaf(&key.of, *index) {
                    Some(leaf) if leaf == chunk::leaf(content) => Verdict::Good,
                    _ => Verdict::Bad,
                }
            }
            // Signed by a role whose keys only devices know for sure: they judge it.
            Part::Delta { .. } if content.is_empty() => Verdict::Good,
            Part::Delta { from, profiles } => match read_unverified(content) {
                Ok(delta)
                    if (delta.old.root, delta.new.root) == (*from, key.of)
                        && profiles.contains(&delta.profile.id()) =>
                {
                    Verdict::Good
                }
                _ => Verdict::Bad,
            },
        }
    }

    fn judge_piece(&mut self, of: Digest, piece: PieceId, digests: Vec<Digest>) -> Verdict {
        let root = chunk::root(&digests);
        let known = self.tree(of);
        match (piece.level, known.above.as_ref()) {
            (1, _) if piece.index == 0 && digests.len() > 1 && root == of => {
                // What was taken for leaves because it hashes to the root is then none.
                let first = digests[0];
                known.leaves.retain(|index, leaves| *index > 0 || chunk::root(leaves) == first);
                known.above = Some(digests);
            }
            (0, Some(above)) if above.get(piece.index as usize) == Some(&root) => {
                known.leaves.insert(piece.index, digests);
            }
            (0, None) if piece.index == 0 && root == of => {
                known.leaves.insert(0, digests);
            }
            (0, None) => return Verdict::Needs(Key::piece(of, 1, 0)),
            _ => return Verdict::Bad,
        }
        self.bound();
        Verdict::Good
    }

    /// Returns the piece without which a part cannot be judged when it comes.
    pub(crate) fn needs(&self, key: &Key) -> Option<Key> {
        let tree = self.trees.iter().find(|(of, _)| *of == key.of).map(|(_, tree)| tree);
        let above = tree.is_some_and(|tree| tree.above.is_some());
        match &key.part {
            Part::Piece(PieceId { level: 0, index: 1.. }) if !above => Some(Key::piece(key.of, 1, 0)),
            Part::Chunk(index) => {
                let piece = index / PIECE;
                if tree.is_some_and(|tree| tree.leaves.contains_key(&piece)) {
                    None
                } else if piece > 0 && !above {
                    Some(Key::piece(key.of, 1, 0))
                } else {
                    Some(Key::piece(key.of, 0, piece))
                }
            }
            _ => None,
        }
    }

    fn leaf(&mut self, of: &Digest, index: u32) -> Option<Digest> {
        self.tree(*of).leaves.get(&(index / PIECE))?.get((index % PIECE) as usize).copied()
    }

    fn tree(&mut self, of: Digest) -> &mut Tree {
        match self.trees.iter().position(|(known, _)| *known == of) {
            Some(place) => self.trees[place..].rotate_left(1),
            None => self.trees.push((of, Tree::default())),
        }
        if self.trees.len() > TREES_MAX {
            self.trees.remove(0);
        }
        let last = self.trees.len() - 1;
        &mut self.trees[last].1
    }

    fn bound(&mut self) {
        let pieces = |tree: &Tree| tree.leaves.len() + usize::from(tree.above.is_some());
        let mut total: usize = self.trees.iter().map(|(_, tree)| pieces(tree)).sum();
        while total > PIECES_MAX && self.trees.len() > 1 {
            total -= pieces(&self.trees.remove(0).1);
        }
    }
}

fn digests(bytes: &[u8]) -> Option<Vec<Digest>> {
    let (digests, rest) = bytes.as_chunks::<32>();
    let fits = rest.is_empty() && !digests.is_empty() && digests.len() <= PIECE as usize;
    fits.then(|| digests.iter().map(|digest| Digest(*digest)).collect())
}

#[cfg(test)]
mod tests {
    use tern_protocol::chunk::TreeShape;

    use super::*;

    struct Object {
        leaves: Vec<Digest>,
        root: Digest,
    }

    fn content(index: u32) -> Vec<u8> {
        index.to_be_bytes().to_vec()
    }

    impl Object {
        fn of(chunks: u32) -> Self {
            let leaves: Vec<Digest> = (0..chunks).map(|i| chunk::leaf(&content(i))).collect();
            let root = chunk::root(&leaves);
            Self { leaves, root }
        }

        fn piece(&self, key: &Key) -> Vec<u8> {
            let Part::Piece(piece) = key.part else { panic!("{key:?} is no piece") };
            let shape = TreeShape::new(self.leaves.len().try_into().unwrap());
            shape.cut(&self.leaves, piece).unwrap_or_default().iter().flat_map(|d| d.0).collect()
        }

        fn chunk(&self, index: u32) -> Key {
            Key { of: self.root, part: Part::Chunk(index) }
        }
    }

    #[test]
    fn every_chunk_of_every_shape_is_proved_by_what_is_asked_for() {
        for chunks in [1, 2, 256, 257, 600] {
            let object = Object::of(chunks);
            for index in [0, chunks / 2, chunks - 1] {
                let mut proofs = Proofs::default();
                let mut asked = 0;
                let verdict = loop {
                    match proofs.judge(&object.chunk(index), &content(index)) {
                        Verdict::Needs(mut piece) => {
                            while let Verdict::Needs(other) = proofs.judge(&piece, &object.piece(&piece)) {
                                piece = other;
                            }
                        }
                        verdict => break verdict,
                    }
                    asked += 1;
                    assert!(asked < 4, "{chunks} {index}");
                };
                assert_eq!(verdict, Verdict::Good, "{chunks} {index}");
                assert_eq!(proofs.judge(&object.chunk(index), b"other"), Verdict::Bad);
            }
        }
    }

    #[test]
    fn a_piece_that_does_not_lead_to_the_root_is_bad_or_waits_for_the_one_above() {
        let (object, other) = (Object::of(600), Object::of(601));
        let mut proofs = Proofs::default();
        let (above, second) = (Key::piece(object.root, 1, 0), Key::piece(object.root, 0, 1));

        assert_eq!(proofs.judge(&above, &other.piece(&above)), Verdict::Bad);
        assert_eq!(proofs.judge(&second, &object.piece(&second)), Verdict::Needs(above.clone()));
        assert_eq!(proofs.judge(&above, &object.piece(&above)), Verdict::Good);
        let third = Key::piece(object.root, 0, 2);
        assert_eq!(proofs.judge(&third, &other.piece(&third)), Verdict::Bad);
        assert_eq!(proofs.judge(&third, &object.piece(&third)), Verdict::Good);
    }

    #[test]
    fn level_one_in_the_place_of_the_leaves_is_found_out_when_level_one_itself_comes() {
        let object = Object::of(600);
        let mut proofs = Proofs::default();
        let (above, first) = (Key::piece(object.root, 1, 0), Key::piece(object.root, 0, 0));
        let swapped = object.piece(&above);
        assert_eq!(proofs.judge(&first, &swapped), Verdict::Good);
        assert_eq!(proofs.judge(&object.chunk(0), &content(0)), Verdict::Bad);

        assert_eq!(proofs.judge(&above, &swapped), Verdict::Good);

        assert_eq!(proofs.judge(&object.chunk(0), &content(0)), Verdict::Needs(first.clone()));
        assert_eq!(proofs.judge(&first, &object.piece(&first)), Verdict::Good);
        assert_eq!(proofs.judge(&object.chunk(0), &content(0)), Verdict::Good);
    }

    #[test]
    fn however_many_objects_there_are_a_bounded_number_is_remembered() {
        let mut proofs = Proofs::default();
        for chunks in 1..200 {
            let object = Object::of(chunks);
            let piece = Key::piece(object.root, 0, 0);
            assert_eq!(proofs.judge(&piece, &object.piece(&piece)), Verdict::Good);
        }
        assert_eq!(proofs.trees.len(), TREES_MAX);
    }
}
