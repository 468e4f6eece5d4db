//! What one device still waits for: bounded, without duplicates, oldest first; pieces before chunks.

use std::collections::VecDeque;
use std::sync::Arc;

use tern_protocol::chunk::PieceId;
use tern_protocol::digest::Digest;
use tern_protocol::limits::{GET_PACKS_MAX, GET_WANTS_MAX};
use tern_protocol::message::{Get, Want};

/// Two full requests: the one being answered and the next. A device that asks for more asks again later.
const PENDING_MAX: usize = 2 * (GET_PACKS_MAX as usize + GET_WANTS_MAX);

/// One pack to be read and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// Where the pack goes: `d/<device>/pack`, in full.
    pub(crate) topic: Arc<str>,
    /// The object; the wanted image where a delta is asked for.
    pub(crate) of: Digest,
    /// Which part of it.
    pub(crate) part: Part,
}

/// What one pack is to hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// The chunk of an image, or the pack of a delta, with this number.
    Chunk(u32),
    /// A piece of the tree.
    Piece(PieceId),
    /// Which delta leads there from an image, for one of these profiles.
    Delta {
        /// Root of the image that is there.
        from: Digest,
        /// Numbers of profiles.
        profiles: Vec<u8>,
    },
}

/// Returns the packs that a request asks for, to be sent to `topic`.
pub(crate) fn jobs(get: &Get, topic: String) -> impl Iterator<Item = Job> + '_ {
    let topic: Arc<str> = topic.into();
    get.want.iter().flat_map(move |want| {
        let (of, ranges, one) = match want {
            Want::Packs { of, ranges } => (*of, ranges.as_slice(), None),
            Want::Piece { of, level, index } => {
                (*of, &[][..], Some(Part::Piece(PieceId { level: *level, index: *index })))
            }
            Want::Delta { from, to, profiles } => {
                (*to, &[][..], Some(Part::Delta { from: *from, profiles: profiles.clone() }))
            }
            Want::File { .. } => (Digest([0; 32]), &[][..], None),
        };
        let chunks = ranges.iter().flat_map(|(from, to)| *from..*to).map(Part::Chunk);
        let topic = topic.clone();
        chunks.chain(one).map(move |part| Job { topic: topic.clone(), of, part })
    })
}

/// The packs that wait.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    jobs: VecDeque<Job>,
}

impl Pending {
    /// Adds what does not wait already. Above the ceiling the oldest go: the device has asked for newer ones since.
    pub(crate) fn add(&mut self, jobs: impl IntoIterator<Item = Job>) {
        for job in jobs {
            if self.jobs.contains(&job) {
                continue;
            }
            match job.part {
                // Without its piece of the tree a device cannot verify a chunk, nor a piece without the one above it; without its
                // delta it asks for none.
                Part::Piece(_) | Part::Delta { .. } => {
                    let first = self.jobs.iter().position(|job| matches!(job.part, Part::Chunk(_)));
                    self.jobs.insert(first.unwrap_or(self.jobs.len()), job);
                }
                Part::Chunk(_) => self.jobs.push_back(job),
            }
            if self.jobs.len() > PENDING_MAX {
                let oldest = self.jobs.iter().position(|job| matches!(job.part, Part::Chunk(_)));
                self.jobs.remove(oldest.unwrap_or(0));
            }
        }
    }

    /// Takes at most `most` of them.
    pub(crate) fn take(&mut self, most: usize) -> Vec<Job> {
        let count = most.min(self.jobs.len());
        self.jobs.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(want: Vec<Want>) -> Get {
        Get::from(want)
    }

    fn packs(from: u32, to: u32) -> Want {
        Want::Packs { of: Digest::of(b"x"), ranges: vec![(from, to)] }
    }

    fn parts(pending: &mut Pending) -> Vec<Part> {
        pending.take(usize::MAX).into_iter().map(|job| job.part).collect()
    }

    #[test]
    fn a_repeated_request_is_answered_once() {
        let mut pending = Pending::default();
        pending.add(jobs(&get(vec![packs(0, 3)]), "t".into()));
        pending.add(jobs(&get(vec![packs(1, 4)]), "t".into()));

        assert_eq!(parts(&mut pending), [0, 1, 2, 3].map(Part::Chunk));
    }

    #[test]
    fn a_piece_of_the_tree_goes_before_the_chunks_that_it_verifies() {
        let piece = PieceId { level: 0, index: 0 };
        let mut pending = Pending::default();
        pending.add(jobs(&get(vec![packs(0, 2), Want::piece(Digest::of(b"x"), piece)]), "t".into()));

        assert_eq!(parts(&mut pending), [Part::Piece(piece), Part::Chunk(0), Part::Chunk(1)]);
    }

    #[test]
    fn pieces_come_in_the_order_in_which_they_are_asked_for() {
        let [top, first] = [1, 0].map(|level| PieceId { level, index: 0 });
        let of = Digest::of(b"x");
        let mut pending = Pending::default();
        pending.add(jobs(&get(vec![packs(0, 1)]), "t".into()));
        pending.add(jobs(&get(vec![packs(1, 2), Want::piece(of, top), Want::piece(of, first)]), "t".into()));

        let pieces = [Part::Piece(top), Part::Piece(first)];
        assert_eq!(parts(&mut pending), [&pieces[..], &[Part::Chunk(0), Part::Chunk(1)]].concat());
    }

    #[test]
    fn however_much_is_asked_a_bounded_list_of_the_newest_waits() {
        let mut pending = Pending::default();
        for start in 0..100 {
            pending.add(jobs(&get(vec![packs(start * 96, start * 96 + 96)]), "t".into()));
        }

        let waiting = parts(&mut pending);

        assert_eq!(waiting.len(), PENDING_MAX);
        assert_eq!(waiting.last(), Some(&Part::Chunk(9599)));
    }
}
