//! What a site fetches and keeps: one part of one object, and how it is written down.

use std::sync::Arc;

use tern_protocol::chunk::{PIECE, PieceId};
use tern_protocol::digest::Digest;
use tern_protocol::limits::{CHUNKS_MAX, GET_MAX, GET_PACKS_MAX, GET_RANGES_MAX, GET_WANTS_MAX};
use tern_protocol::message::{Get, Pack, PackKind, Want};

use crate::chunks::pending::{Job, Part};

/// One thing that a chunk server sends in one frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Root of the object; of a delta, of the image that it leads to.
    pub(crate) of: Digest,
    /// Which part of it.
    pub(crate) part: Part,
}

impl Key {
    pub(crate) fn piece(of: Digest, level: u8, index: u32) -> Self {
        Self { of, part: Part::Piece(PieceId { level, index }) }
    }

    /// Returns what a job asks for.
    pub(crate) fn of(job: &Job) -> Self {
        Self { of: job.of, part: job.part.clone() }
    }

    /// Returns the job of sending this to `topic`.
    pub(crate) fn job(&self, topic: Arc<str>) -> Job {
        Job { topic, of: self.of, part: self.part.clone() }
    }

    /// Tells whether a frame can be the answer to this.
    pub(crate) fn is_answered_by(&self, pack: &Pack) -> bool {
        let part = match &self.part {
            Part::Piece(piece) => pack.kind == PackKind::Piece(*piece),
            Part::Chunk(index) => pack.kind == PackKind::Chunk(*index),
            Part::Delta { from, .. } => pack.as_delta().is_some_and(|(given, _)| given == *from),
        };
        part && pack.of == self.of.short()
    }

    /// Tells whether an answer to this could be taken for one to `other`: about a delta it does not say for which profiles.
    pub(crate) fn is_confused_with(&self, other: &Self) -> bool {
        match (&self.part, &other.part) {
            (Part::Delta { from, .. }, Part::Delta { from: theirs, .. }) => {
                (self.of, from) == (other.of, theirs)
            }
            _ => false,
        }
    }

    /// Returns what of a frame is kept.
    pub(crate) fn content(&self, pack: Pack) -> Vec<u8> {
        match self.part {
            // The root that it leads from is in the key.
            Part::Delta { .. } => pack.payload.get(32..).unwrap_or_default().to_vec(),
            _ => pack.payload,
        }
    }

    /// Returns the frame that a device expects.
    pub(crate) fn frame(&self, content: Vec<u8>) -> Vec<u8> {
        let kind = match &self.part {
            Part::Piece(piece) => PackKind::Piece(*piece),
            Part::Chunk(index) => PackKind::Chunk(*index),
            Part::Delta { from, .. } => return Pack::delta(from, &self.of, &content).write(),
        };
        Pack { of: self.of.short(), kind, payload: content }.write()
    }

    /// Returns the name of the file in which it is kept.
    pub(crate) fn file_name(&self) -> String {
        let of = self.of;
        match &self.part {
            Part::Piece(piece) => format!("{of}-p{}.{}", piece.level, piece.index),
            Part::Chunk(index) => format!("{of}-c{index}"),
            Part::Delta { from, profiles } => {
                format!("{of}-d{}", Digest::of_parts(&[&from.0, profiles.as_slice()]))
            }
        }
    }

    /// Tells whether a device may ask for it at all.
    pub(crate) fn is_possible(&self) -> bool {
        match &self.part {
            Part::Piece(piece) => piece.level <= 1 && piece.index < CHUNKS_MAX / PIECE,
            Part::Chunk(index) => *index < CHUNKS_MAX,
            Part::Delta { .. } => true,
        }
    }
}

/// Writes requests for all of `keys`, as few as the ceilings of one allow.
pub(crate) fn requests(mut keys: Vec<Key>) -> Vec<Get> {
    keys.sort();
    let mut requests = Vec::new();
    let (mut wants, mut packs) = (Vec::<Want>::new(), 0);
    for key in keys {
        if packs == GET_PACKS_MAX || !add(&mut wants, &key) {
            requests.push(Get::from(std::mem::take(&mut wants)));
            packs = 0;
            add(&mut wants, &key);
        }
        packs += u32::from(matches!(key.part, Part::Chunk(_)));
    }
    if !wants.is_empty() {
        requests.push(Get::from(wants));
    }
    requests
}

/// Adds a key to what one request wants, if there is room.
fn add(wants: &mut Vec<Want>, key: &Key) -> bool {
    if let (Part::Chunk(index), Some(Want::Packs { of, ranges })) = (&key.part, wants.last_mut())
        && *of == key.of
    {
        let room = ranges.len() < GET_RANGES_MAX;
        match ranges.last_mut() {
            Some(last) if last.1 == *index => last.1 += 1,
            _ if room => ranges.push((*index, index + 1)),
            _ => return false,
        }
        return true;
    }
    let more = match &key.part {
        Part::Chunk(index) => Want::Packs { of: key.of, ranges: vec![(*index, index + 1)] },
        Part::Piece(piece) => Want::piece(key.of, *piece),
        Part::Delta { from, profiles } => Want::Delta { from: *from, to: key.of, profiles: profiles.clone() },
    };
    wants.push(more);
    // 64 ranges of two numbers of five digits, and 8 wants of two roots: both fit, but not together.
    let fits = wants.len() <= GET_WANTS_MAX && Get::from(wants.clone()).write().len() <= GET_MAX - 1024;
    if !fits && wants.len() > 1 {
        wants.pop();
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(object: &[u8], index: u32) -> Key {
        Key { of: Digest::of(object), part: Part::Chunk(index) }
    }

    #[test]
    fn a_request_holds_as_much_as_one_may_and_a_reader_takes_each() {
        let mut keys: Vec<Key> = (0..200).map(|n| chunk(b"a", n * 2)).collect();
        keys.extend((0..20).map(|n| Key::piece(Digest::of(&[n]), 0, 0)));
        keys.extend((0..97).map(|n| chunk(b"b", n)));
        let profiles = vec![1, 4];
        keys.push(Key { of: Digest::of(b"a"), part: Part::Delta { from: Digest::of(b"b"), profiles } });

        let requests = requests(keys.clone());

        let mut asked = 0;
        for request in &requests {
            let read = Get::read(&request.write()).expect("a request within every ceiling");
            for want in read.want {
                asked += match want {
                    Want::Packs { ranges, .. } => ranges.iter().map(|(from, to)| to - from).sum(),
                    _ => 1,
                };
            }
        }
        assert_eq!(asked as usize, keys.len());
        assert!(requests.len() < 12, "{}", requests.len());
    }

    #[test]
    fn frames_come_back_as_they_went_in() {
        let of = Digest::of(b"x");
        let from = Digest::of(b"y");
        for (key, frame) in [
            (chunk(b"x", 3), Pack::chunk(&of, 3, vec![1, 2]).write()),
            (Key::piece(of, 1, 0), Pack::piece(&of, PieceId { level: 1, index: 0 }, &[of, from]).write()),
            (
                Key { of, part: Part::Delta { from, profiles: vec![1] } },
                Pack::delta(&from, &of, b"s").write(),
            ),
        ] {
            let pack = Pack::read(&frame).unwrap();
            assert!(key.is_answered_by(&pack));
            assert!(!chunk(b"x", 4).is_answered_by(&pack));
            assert_eq!(key.frame(key.content(pack)), frame);
        }
    }
}
