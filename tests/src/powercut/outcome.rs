//! What a power cut may leave of what was not synced.
//!
//! Writes since the last sync of a place may reach the medium in any order, or not at all; the one that was under way may
//! be torn at any sector, and the sector that was being programmed may hold neither the old bytes nor the new ones. Names
//! are apart from bytes: a file system may have made one durable and not the other. A sector that is not being written
//! keeps what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::medium::{Content, Medium, Naming, Node, Pending, apply, replayed};

/// Bytes that a medium writes whole, or not, or spoils.
pub(super) const SECTOR: usize = 512;

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    /// Nothing that was not synced has arrived.
    None,
    /// Everything has.
    All,
    /// Only what was written last.
    OnlyLast,
    /// All but what was written last.
    ButLast,
    /// All but what was written first.
    ButFirst,
    /// What was written last is torn at this share of its sectors, in quarters, and the sector there is spoiled.
    TornAt(u8),
    /// The same, and nothing else has arrived.
    TornAlone(u8),
    /// Everything in the place that was written last, and nothing elsewhere.
    LastPlace,
    /// Everything elsewhere, and nothing in the place that was written last.
    OtherPlaces,
}

/// What becomes of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// None of those that were not synced has arrived.
    Old,
    /// All have.
    New,
    /// Only the last change of them has.
    OnlyLast,
    /// All but the last change have.
    ButLast,
    /// All have, and what was renamed on FAT has both names.
    Both,
    /// All have, and what was renamed on FAT has neither name.
    Neither,
}

/// What becomes of bytes and names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    bytes: Bytes,
    names: Names,
}

impl Outcome {
    /// Nothing that was not synced has arrived: a reset.
    pub const NOTHING: Self = Self { bytes: Bytes::None, names: Names::Old };

    /// Everything has arrived: an orderly end.
    pub const EVERYTHING: Self = Self { bytes: Bytes::All, names: Names::New };

    /// Returns all of them.
    pub fn all() -> Vec<Self> {
        let mut kinds = vec![Bytes::None, Bytes::All, Bytes::OnlyLast, Bytes::ButLast, Bytes::ButFirst];
        kinds.extend((0..=4).map(Bytes::TornAt));
        kinds.extend((0..=4).map(Bytes::TornAlone));
        kinds.extend([Bytes::LastPlace, Bytes::OtherPlaces]);
        let names = [Names::Old, Names::New, Names::OnlyLast, Names::ButLast];
        kinds.into_iter().flat_map(|bytes| names.map(|names| Self { bytes, names })).collect()
    }

    /// Returns all of them where names are on FAT too, which gives a new name and takes the old one in two steps.
    pub fn on_fat() -> Vec<Self> {
        let torn = [Names::Both, Names::Neither];
        let torn =
            torn.into_iter().flat_map(|names| [Bytes::None, Bytes::All].map(|bytes| Self { bytes, names }));
        Self::all().into_iter().chain(torn).collect()
    }

    /// Tells whether an entry of the boot loader's can be lost by it, and with it the trial that it stood for.
    pub fn can_take_an_entry(self) -> bool {
        self.names == Names::Neither
    }

    /// The worst few, for campaigns that multiply.
    pub fn few() -> Vec<Self> {
        let pairs = [
            (Bytes::None, Names::Old),
            (Bytes::None, Names::New),
            (Bytes::All, Names::Old),
            (Bytes::All, Names::New),
            (Bytes::OnlyLast, Names::New),
            (Bytes::TornAt(2), Names::New),
            (Bytes::TornAt(2), Names::Old),
        ];
        pairs.map(|(bytes, names)| Self { bytes, names }).to_vec()
    }

    /// The same where names are on FAT.
    pub fn few_on_fat() -> Vec<Self> {
        let torn = [Names::Both, Names::Neither].map(|names| Self { bytes: Bytes::All, names });
        Self::few().into_iter().chain(torn).collect()
    }

    /// Returns the disk as it comes up again.
    pub(super) fn of(self, medium: &Medium) -> Medium {
        medium.reborn(&self.bytes.of(medium), &self.names.of(medium))
    }
}

/// Returns what every different outcome leaves of a disk.
pub(super) fn futures(medium: &Medium, outcomes: &[Outcome]) -> Vec<(Outcome, Medium)> {
    let mut contents: Vec<(Bytes, Vec<Content>)> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut futures = Vec::new();
    for outcome in outcomes {
        let known = contents.iter().position(|(bytes, _)| *bytes == outcome.bytes);
        let known = known.unwrap_or_else(|| {
            contents.push((outcome.bytes, outcome.bytes.of(medium)));
            contents.len() - 1
        });
        let future = medium.reborn(&contents[known].1, &outcome.names.of(medium));
        if seen.insert(future.fingerprint()) {
            futures.push((*outcome, future));
        }
    }
    futures
}

impl Names {
    fn of(self, medium: &Medium) -> BTreeMap<PathBuf, usize> {
        let mut names = medium.durable_names.clone();
        let Some((last, before)) = medium.naming.split_last() else { return names };
        match self {
            Self::Old => {}
            Self::OnlyLast => match last {
                // A file whose first name never arrived.
                Naming::Rename(from, to) if !names.contains_key(from) => {
                    names.extend(medium.names.get(to).map(|node| (to.clone(), *node)));
                }
                _ => apply(&mut names, last),
            },
            Self::ButLast => before.iter().for_each(|naming| apply(&mut names, naming)),
            _ => medium.naming.iter().for_each(|naming| self.rename(&mut names, naming)),
        }
        names
    }

    fn rename(self, names: &mut BTreeMap<PathBuf, usize>, naming: &Naming) {
        let Naming::Rename(from, to) = naming else { return apply(names, naming) };
        match self {
            Self::Both if is_fat(from) => {
                if let Some(node) = names.get(from).copied() {
                    names.insert(to.clone(), node);
                }
            }
            Self::Neither if is_fat(from) => drop(names.remove(from)),
            _ => apply(names, naming),
        }
    }
}

impl Bytes {
    fn of(self, medium: &Medium) -> Vec<Content> {
        let is_last = |number| Some(number) == medium.latest;
        medium.nodes.iter().enumerate().map(|(number, node)| self.contents(node, is_last(number))).collect()
    }

    fn contents(self, node: &Node, is_last: bool) -> Content {
        let (pending, durable) = (&node.pending, node.durable.bytes());
        let Some((last, before)) = pending.split_last() else { return node.durable.clone() };
        let bytes = match self {
            Self::None => return node.durable.clone(),
            Self::All => return node.seen.clone(),
            Self::LastPlace if is_last => return node.seen.clone(),
            Self::OtherPlaces if !is_last => return node.seen.clone(),
            Self::LastPlace | Self::OtherPlaces => return node.durable.clone(),
            Self::OnlyLast => replayed(durable, std::slice::from_ref(last)),
            Self::ButLast => replayed(durable, before),
            Self::ButFirst => replayed(durable, &pending[1..]),
            Self::TornAt(quarter) => torn(&replayed(durable, before), last, quarter),
            Self::TornAlone(quarter) => torn(durable, last, quarter),
        };
        Content::new(bytes)
    }
}

/// The partition of the boot loader.
fn is_fat(path: &Path) -> bool {
    path.starts_with("/boot")
}

/// Tears a write: whole sectors before the place, a spoiled one there, and what was there before behind it.
fn torn(old: &[u8], last: &Pending, quarter: u8) -> Vec<u8> {
    let Pending::Write(offset, bytes) = last else { return old.to_vec() };
    let new = replayed(old, std::slice::from_ref(last));
    let (first, end) = (offset / SECTOR, (offset + bytes.len()).div_ceil(SECTOR));
    let at = (first + (end - first) * usize::from(quarter) / 4).min(end - 1) * SECTOR;
    let mut torn = new;
    let rest = at.min(torn.len());
    for (index, byte) in torn.iter_mut().enumerate().skip(rest) {
        let was = old.get(index).copied().unwrap_or(0);
        // Neither the old bytes nor the new ones, and no pattern that could pass for either.
        *byte = if index < at + SECTOR { was ^ 0x5a ^ index.to_le_bytes()[0] } else { was };
    }
    // A sector of which the write holds only a part is programmed whole all the same; nothing beyond it is touched.
    torn
}
