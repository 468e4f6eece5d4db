//! The Merkle tree over the frames' hashes (RFC 6962, section 2.1), kept as a compact range.
//!
//! ```text
//! leaf = SHA-256(0x00 ‖ hash of the frame)      node = SHA-256(0x01 ‖ left ‖ right)
//!
//! 7 frames:        root          A compact range keeps a, e and the leaf g: one hash for each bit of 7.
//!                 /    \         A frame costs one leaf and, on average, one node.
//!                a      .
//!               / \    / \
//!              .   .  e   g
//! ```
//!
//! A leaf is made of the frame's hash and not of its bytes: that hash covers the bytes already, and a frame may be large.

use tern_protocol::chunk;
use tern_protocol::digest::Digest;

/// Hashes of one frame's siblings at most: a tree has fewer than 2⁶⁴ leaves.
pub const PATH_MAX: usize = 64;

/// Returns the leaf of a frame.
pub fn leaf(frame: Digest) -> Digest {
    chunk::leaf(&frame.0)
}

fn node(left: Digest, right: Digest) -> Digest {
    Digest::of_parts(&[&[1], &left.0, &right.0])
}

/// Everything that must be kept of a tree to let it grow: the roots of its largest whole subtrees, the widest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompactRange {
    size: u64,
    hashes: Vec<Digest>,
}

impl CompactRange {
    /// Puts a range together that was written down; none if that many hashes belong to no tree of this size.
    pub fn restored(size: u64, hashes: Vec<Digest>) -> Option<Self> {
        (u32::try_from(hashes.len()) == Ok(size.count_ones())).then_some(Self { size, hashes })
    }

    /// Returns the number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the hashes, to be written down.
    pub fn hashes(&self) -> &[Digest] {
        &self.hashes
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Digest) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.hashes.pop().expect("there is a hash for each bit of the size");
            hash = node(left, hash);
        }
        self.hashes.push(hash);
        self.size += 1;
    }

    /// Returns the root; the empty tree's is SHA-256 of nothing.
    pub fn root(&self) -> Digest {
        let joined = self.hashes.iter().rev().copied().reduce(|right, left| node(left, right));
        joined.unwrap_or_else(|| Digest::of(&[]))
    }

    /// Returns what lies from leaf `from` on, as a tree of its own; none if `from` is inside a subtree whose parts are
    /// not known any more.
    pub fn from(&self, from: u64) -> Option<Self> {
        let mut start = 0;
        let mut widths = (0..u64::BITS).rev().map(|bit| 1u64 << bit).filter(|width| self.size & width != 0);
        let mut skipped = 0;
        while start < from {
            start += widths.next()?;
            skipped += 1;
        }
        (start == from).then(|| Self {
            size: self.size - from,
            hashes: self.hashes.get(skipped..).unwrap_or(&[]).to_vec(),
        })
    }
}

/// Returns the subtrees beside the way from a leaf to the root, the leaf's own sibling first, as first leaf and end.
pub fn siblings(index: u64, size: u64) -> Vec<(u64, u64)> {
    let (mut low, mut high) = (0, size);
    let mut found = Vec::new();
    while high.saturating_sub(low) > 1 {
        // The largest power of two below the number of leaves.
        let split = low + (high - low).next_power_of_two() / 2;
        if index < split {
            found.push((split, high));
            high = split;
        } else {
            found.push((low, split));
            low = split;
        }
    }
    found.reverse();
    found
}

/// Tells whether `path` leads from a leaf to the root of a tree (RFC 9162, section 2.1.3.2).
pub fn includes(root: Digest, size: u64, index: u64, leaf: Digest, path: &[Digest]) -> bool {
    // 1. Compare leaf_index from the inclusion proof against tree_size.
    if index >= size {
        return false;
    }
    // 2. Set fn to leaf_index and sn to tree_size - 1. 3. Set r to hash.
    let (mut first, mut last, mut found) = (index, size - 1, leaf);
    // 4. For each value p in the inclusion_path array:
    for sibling in path {
        // 4.1. If sn is 0, then stop the iteration and fail.
        if last == 0 {
            return false;
        }
        // 4.2. If LSB(fn) is set, or if fn is equal to sn, …
        if first & 1 == 1 || first == last {
            found = node(*sibling, found);
            // … then until either LSB(fn) is set or fn is 0, right-shift both.
            while first & 1 == 0 && first != 0 {
                first >>= 1;
                last >>= 1;
            }
        } else {
            found = node(found, *sibling);
        }
        // 4.3. Finally, right-shift both.
        first >>= 1;
        last >>= 1;
    }
    // 5. Compare sn to 0 and r against the root_hash.
    last == 0 && found == root
}

/// Works out the path of one leaf while the tree's leaves go by: as many compact ranges as the path has hashes.
#[derive(Debug)]
pub struct PathFinder {
    parts: Vec<(u64, u64, CompactRange)>,
}

impl PathFinder {
    /// Begins with what is known of the leaves before the first one that will go by; none if `index` is among them.
    pub fn new(index: u64, size: u64, known: &CompactRange) -> Option<Self> {
        let begin = |(low, high): (u64, u64)| {
            let range = match known.size() {
                known_size if known_size <= low => CompactRange::default(),
                // Whole subtrees before the index are among the known hashes, for whatever is around them is not.
                known_size => {
                    let mut range = known.from(low)?;
                    if known_size > high {
                        range.hashes.truncate((high - low).count_ones() as usize);
                        range = CompactRange::restored(high - low, range.hashes)?;
                    }
                    range
                }
            };
            Some((low, high, range))
        };
        if index < known.size() {
            return None;
        }
        Some(Self { parts: siblings(index, size).into_iter().map(begin).collect::<Option<_>>()? })
    }

    /// Takes the leaf with this index.
    pub fn take(&mut self, index: u64, leaf: Digest) {
        let part = self.parts.iter_mut().find(|(low, high, _)| (*low..*high).contains(&index));
        if let Some((_, _, range)) = part {
            range.push(leaf);
        }
    }

    /// Returns the path; none if leaves are missing.
    pub fn path(&self) -> Option<Vec<Digest>> {
        let whole = self.parts.iter().all(|(low, high, range)| range.size() == high - low);
        whole.then(|| self.parts.iter().map(|(_, _, range)| range.root()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The leaves and roots with which the reference implementation of RFC 6962 is tested.
    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    /// The path of the first leaf in the tree of eight, from the same place.
    const PATH: [&str; 3] = [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ];

    fn range(leaves: &[Digest]) -> CompactRange {
        let mut range = CompactRange::default();
        leaves.iter().for_each(|leaf| range.push(*leaf));
        range
    }

    fn published() -> Vec<Digest> {
        LEAVES.map(|leaf| chunk::leaf(&hex::decode(leaf).unwrap())).into()
    }

    fn numbered(count: u64) -> Vec<Digest> {
        (0..count).map(|n| leaf(Digest::of(&n.to_be_bytes()))).collect()
    }

    fn path(leaves: &[Digest], index: u64, known: u64) -> Option<Vec<Digest>> {
        let known_leaves = usize::try_from(known).unwrap();
        let mut finder = PathFinder::new(index, leaves.len() as u64, &range(&leaves[..known_leaves]))?;
        (known..).zip(&leaves[known_leaves..]).for_each(|(n, leaf)| finder.take(n, *leaf));
        finder.path()
    }

    #[test]
    fn the_roots_are_those_of_rfc_6962() {
        let leaves = published();
        assert_eq!(
            CompactRange::default().root().to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        for (size, root) in (1..).zip(ROOTS) {
            assert_eq!(range(&leaves[..size]).root().to_string(), root, "{size} leaves");
        }
        let found: Vec<String> = path(&leaves, 0, 0).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, PATH);
    }

    #[test]
    fn every_range_has_the_root_of_the_tree_that_is_built_from_all_leaves() {
        let leaves = numbered(300);
        for size in 0..=leaves.len() {
            let range = range(&leaves[..size]);
            assert_eq!(range.root(), chunk::root(&leaves[..size]), "{size} leaves");
            assert_eq!(CompactRange::restored(range.size(), range.hashes().to_vec()), Some(range));
        }
        assert_eq!(CompactRange::restored(3, vec![leaves[0]]), None);
    }

    #[test]
    fn every_leaf_of_every_tree_is_proved_also_when_the_first_ones_are_gone() {
        let leaves = numbered(33);
        for size in 1..=leaves.len() as u64 {
            let leaves = &leaves[..usize::try_from(size).unwrap()];
            let root = chunk::root(leaves);
            for index in 0..size {
                let own = leaves[usize::try_from(index).unwrap()];
                let whole = path(leaves, index, 0).unwrap();
                assert!(includes(root, size, index, own, &whole), "{index} of {size}");
                for known in 0..=index {
                    assert_eq!(
                        path(leaves, index, known).as_ref(),
                        Some(&whole),
                        "{index} of {size}, {known} gone"
                    );
                }
                assert_eq!(path(leaves, index, index + 1), None, "its own leaf is gone");
            }
        }
    }

    #[test]
    fn a_proof_holds_for_one_leaf_at_one_place_of_one_tree() {
        let leaves = numbered(13);
        let root = chunk::root(&leaves);
        for index in 0..13u64 {
            let (own, way) = (leaves[usize::try_from(index).unwrap()], path(&leaves, index, 0).unwrap());
            for other in (0..20).filter(|other| *other != index) {
                assert!(!includes(root, 13, other, own, &way), "{index} as {other}");
            }
            assert!(!includes(root, 13, index, leaf(own), &way));
            for (place, _) in way.iter().enumerate() {
                let mut changed = way.clone();
                changed[place].0[7] ^= 1;
                assert!(!includes(root, 13, index, own, &changed));
                changed.remove(place);
                assert!(!includes(root, 13, index, own, &changed));
            }
            assert!(!includes(root, 13, index, own, &[&way[..], &way[..1]].concat()));
            assert!(!includes(root, 0, index, own, &way));
        }
    }
}
