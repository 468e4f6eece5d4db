//! From parts of an object to ranges of its files, and from their bytes to packs.

use std::ops::Range;

use tern_protocol::delta::manifest::PACK_EXCESS;
use tern_protocol::limits::CHUNK;
use tern_protocol::message::{Pack, PackKind};
use tern_protocol::object::{self, ObjectFile};
use tokio::sync::mpsc;

use super::connection::{self, lasting};
use super::{Places, Shared};
use crate::core::agent::{Web, WebFailure, WebGet};

/// Packs of whose places is asked at once: 4 KiB, and for most deltas all.
const PLACES: u32 = 512;

/// Who waits for what comes: the number of the request, and the way there.
type Waiting<'a> = (u64, &'a mpsc::Sender<(u64, Web)>);

/// Asks for everything in `get`, in its order.
pub(super) async fn ask(
    shared: &Shared,
    prefix: usize,
    get: &WebGet,
    waiting: Waiting<'_>,
) -> Result<(), WebFailure> {
    for piece in &get.pieces {
        let place =
            object::piece_at(get.parts, *piece).ok_or_else(|| lasting("the tree has no such piece"))?;
        let bytes = whole(shared, prefix, &ObjectFile::Tree.path(&get.of), place).await?;
        give(get, PackKind::Piece(*piece), bytes, waiting).await;
    }
    for (from, to) in &get.ranges {
        let (file, begin) = match get.length {
            Some(length) => {
                let begin = (*from..=*to).map(|chunk| object::chunks_at(length, chunk..chunk).start);
                (ObjectFile::Image, begin.collect())
            }
            None => (ObjectFile::Packs, places(shared, prefix, get, *from..*to).await?),
        };
        parts(shared, prefix, get, (file, *from, &begin), waiting).await?;
    }
    Ok(())
}

async fn give(get: &WebGet, kind: PackKind, payload: Vec<u8>, (request, sender): Waiting<'_>) {
    let pack = Pack { of: get.of.short(), kind, payload };
    // In vain where the process ends.
    drop(sender.send((request, Web::Pack(pack))).await);
}

/// Asks for parts that follow each other, of which the first is `first`; `begin` has one more than there are.
async fn parts(
    shared: &Shared,
    prefix: usize,
    get: &WebGet,
    (file, first, begin): (ObjectFile, u32, &[u64]),
    waiting: Waiting<'_>,
) -> Result<(), WebFailure> {
    let (Some(start), Some(end)) = (begin.first(), begin.last()) else { return Ok(()) };
    let longest = begin.windows(2).map(|place| place[1] - place[0]).max().unwrap_or(0);
    // A server says where packs end; how much of them is taken into memory it does not say.
    if longest > (CHUNK + PACK_EXCESS) as u64 || start >= end {
        return Err(lasting("it says that packs are where none can be"));
    }
    let mut coming = connection::ask(shared, prefix, &file.path(&get.of), &(*start..*end)).await?;
    for (index, place) in (first..).zip(begin.windows(2)) {
        let length = usize::try_from(place[1] - place[0]).unwrap_or(usize::MAX);
        let bytes = coming.part(length).await?;
        give(get, PackKind::Chunk(index), bytes, waiting).await;
    }
    shared.keep(prefix, coming.finish().await?);
    Ok(())
}

/// Asks for a range that is small.
async fn whole(shared: &Shared, prefix: usize, file: &str, range: Range<u64>) -> Result<Vec<u8>, WebFailure> {
    let mut coming = connection::ask(shared, prefix, file, &range).await?;
    let bytes = coming.part(usize::try_from(range.end - range.start).unwrap_or(usize::MAX)).await?;
    shared.keep(prefix, coming.finish().await?);
    Ok(bytes)
}

/// Returns where packs begin and the last one ends, as the server says.
async fn places(
    shared: &Shared,
    prefix: usize,
    get: &WebGet,
    packs: Range<u32>,
) -> Result<Vec<u64>, WebFailure> {
    let known = shared.places().as_ref().and_then(|places| places.of(prefix, get, &packs));
    if let Some(known) = known {
        return Ok(known);
    }
    let more = packs.start..packs.end.max(get.parts.min(packs.start.saturating_add(PLACES)));
    let range = object::ends_at(more.clone());
    let bytes = whole(shared, prefix, &ObjectFile::Packs.path(&get.of), range).await?;
    let begin = object::ends_in(get.parts, more.clone(), &bytes);
    let begin = begin.ok_or_else(|| lasting("it says that packs are where none can be"))?;
    let places = Places { prefix, of: get.of, first: more.start, begin };
    let wanted = places.of(prefix, get, &packs);
    *shared.places() = Some(places);
    wanted.ok_or_else(|| lasting("there are no such packs"))
}

impl Places {
    /// Returns those of some packs, if they are known.
    fn of(&self, prefix: usize, get: &WebGet, packs: &Range<u32>) -> Option<Vec<u64>> {
        let at = |pack: u32| pack.checked_sub(self.first).map(|at| at as usize);
        let is_of = self.prefix == prefix && self.of == get.of;
        let range = at(packs.start)?..at(packs.end)?.checked_add(1)?;
        self.begin.get(range).filter(|_| is_of).map(<[u64]>::to_vec)
    }
}
