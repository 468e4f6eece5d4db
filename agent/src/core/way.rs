//! How an artifact is fetched, and how far: kept in the journal, pack by pack.
//!
//! ```text
//!             ┌─ packs, decoded in order ─┬──► all decoded ─────────────► read back ── differs ──► Mend
//! Open ── Delta ◄── those chunks are here │                                   ▲
//!   │         └─ a pack gives another chunk than it should: a gap             │
//!   ├──── Raw ─── chunks as they are ──────────────────────────► all here ────┤
//!   └──── Mend ── what is there, held against the tree, and only the rest ────┘
//! ```
//! A delta is followed while it is cheaper than what else there is. What it does not give is fetched as chunks, which are
//! verified under the image's own tree; nothing that is right in the slot is fetched again.

use std::fmt::Write as _;

use tern_protocol::chunk::{ChunkSet, chunks_of};
use tern_protocol::delta::{DeltaManifest, ImageId};
use tern_protocol::limits::CHUNK;

use super::machine::fetched;
use super::state::{Event, State, Work};

/// How an artifact is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Way {
    /// What there is, and what costs least, is still to be asked.
    Open,
    /// Chunks as they are; also what a journal meant that does not say.
    #[default]
    Raw,
    /// What is there is compared with the tree piece by piece, and only chunks that differ are fetched.
    Mend,
    /// The packs of a delta, decoded one after the other.
    Delta(Box<Course>),
}

/// How far a delta has been followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// The delta.
    pub manifest: DeltaManifest,
    /// Packs that were decoded, and whose bytes are synced.
    pub decoded: u32,
    /// Chunks of the image, from and to, that the last of them did not give: fetched as they are before the next pack.
    pub gap: Option<(u32, u32)>,
    /// Bytes of all gaps so far.
    pub mended: u64,
    /// The whole image, coded, where that is another way.
    pub whole: Option<DeltaManifest>,
}

impl Way {
    /// Returns how many bytes an artifact of `length` bytes costs by it, in all.
    pub fn bytes(&self, length: u64) -> u64 {
        match self {
            Self::Open | Self::Raw | Self::Mend => length,
            Self::Delta(course) => course.manifest.bytes,
        }
    }
}

impl Course {
    /// Begins to follow a delta.
    pub fn new(manifest: DeltaManifest, whole: Option<DeltaManifest>) -> Self {
        Self { manifest, decoded: 0, gap: None, mended: 0, whole }
    }

    /// Tells whether nothing but its packs is needed.
    pub fn is_whole(&self) -> bool {
        self.manifest.old == ImageId::nothing()
    }

    /// Notes that pack number `pack` went wrong in these chunks of the image.
    fn breaks(mut self, pack: u32, from: u32, to: u32) -> Self {
        self.mended += u64::from(to - from) * CHUNK as u64;
        // As much again in repairs as the other way costs in all: nobody knows what is still to come, and by this rule it
        // is never more than twice the better one.
        if let Some(whole) = self.whole.take_if(|whole| self.mended > whole.bytes) {
            return Self::new(whole, None);
        }
        (self.decoded, self.gap) = (pack + 1, Some((from, to)));
        self
    }
}

/// Returns the state of a download, marked bad, after an event that is about what is fetched.
pub(super) fn fetching(work: Work, at: usize, way: Way, mut have: ChunkSet, event: &Event) -> State {
    let stays = |work, way, have| State::Downloading { work, at, marked: true, way, have };
    match (way, event) {
        (_, Event::Chosen(way)) => stays(work, way.clone(), ChunkSet::default()),
        (Way::Delta(mut course), Event::Decoded(packs)) if course.gap.is_none() => {
            course.decoded = course.decoded.max(*packs);
            goes_on(work, at, course, have)
        }
        (Way::Delta(course), Event::Undecoded { pack, from, to })
            if course.gap.is_none() && *pack >= course.decoded =>
        {
            let course = course.breaks(*pack, *from, *to);
            stays(work, Way::Delta(Box::new(course)), ChunkSet::default())
        }
        (Way::Delta(mut course), Event::Written(chunks)) if course.gap.is_some() => {
            chunks.iter().for_each(|chunk| _ = have.insert(*chunk));
            let (from, to) = course.gap.unwrap_or_default();
            if (from..to).all(|chunk| have.contains(chunk)) {
                course.gap = None;
                return goes_on(work, at, course, ChunkSet::default());
            }
            stays(work, Way::Delta(course), have)
        }
        (way @ (Way::Raw | Way::Mend), Event::Written(chunks)) => {
            chunks.iter().for_each(|chunk| _ = have.insert(*chunk));
            let all = work.offer.artifacts.get(at).and_then(|artifact| chunks_of(artifact.length));
            if Some(have.len()) == all { fetched(work, at) } else { stays(work, way, have) }
        }
        (way, _) => stays(work, way, have),
    }
}

fn goes_on(work: Work, at: usize, course: Box<Course>, have: ChunkSet) -> State {
    if course.decoded >= course.manifest.packs {
        return fetched(work, at);
    }
    State::Downloading { work, at, marked: true, way: Way::Delta(course), have }
}

/// One line: the journal is saved after every pack.
impl From<Way> for String {
    fn from(way: Way) -> Self {
        let course = match way {
            Way::Open => return "open".into(),
            Way::Raw => return "raw".into(),
            Way::Mend => return "mend".into(),
            Way::Delta(course) => course,
        };
        let (from, to) = course.gap.unwrap_or_default();
        let mut text = format!("delta {} {from} {to} {}", course.decoded, course.mended);
        for manifest in [Some(course.manifest), course.whole].into_iter().flatten() {
            // Writing to a string cannot fail.
            _ = write!(text, " {}", hex::encode(manifest.write()));
        }
        text
    }
}

impl TryFrom<String> for Way {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let mut words = text.split(' ');
        match words.next() {
            Some("open") => return Ok(Self::Open),
            Some("raw") => return Ok(Self::Raw),
            Some("mend") => return Ok(Self::Mend),
            Some("delta") => {}
            _ => return Err("no way to fetch that this program knows".into()),
        }
        let mut number = || words.next()?.parse::<u64>().ok();
        let small = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
        let (decoded, from, to) = (small(number()), small(number()), small(number()));
        let mended = number();
        let mut manifests = words.map(|word| DeltaManifest::read(&hex::decode(word).ok()?).ok());
        let (manifest, whole) = (manifests.next().flatten(), manifests.next());
        let (Some(decoded), Some(from), Some(to), Some(mended), Some(manifest)) =
            (decoded, from, to, mended, manifest)
        else {
            return Err("a delta that is not followed as it says".into());
        };
        let gap = (from < to).then_some((from, to));
        Ok(Self::Delta(Box::new(Course { manifest, decoded, gap, mended, whole: whole.flatten() })))
    }
}
