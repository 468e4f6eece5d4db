//! Codes planned chunks into packs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Options;
use super::plan::ChunkPlan;
use crate::chunk::leaf;
use crate::delta::arith::Writer;
use crate::delta::model::MARGIN;
use crate::delta::pack::{HEADER, Header, Kind, Plan, Session};
use crate::delta::window::Source;

/// Stretches of the image that are coded by themselves; each ends with a pack that may be short.
const STRETCH: usize = 1 << 20;

/// Codes all chunks. The cut into stretches depends on the plans alone, so the packs do not depend on `threads`.
pub(super) fn encode(
    old: &[u8],
    new: &[u8],
    plans: &[ChunkPlan],
    options: Options,
    chunk_log2: u32,
    tell: &(dyn Fn(usize, usize) + Sync),
) -> Vec<Vec<u8>> {
    let stretches = stretches(plans);
    let coded = AtomicUsize::new(0);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![Vec::new(); stretches.len()]));
    std::thread::scope(|scope| {
        for _ in 0..options.threads.clamp(1, stretches.len().max(1)) {
            scope.spawn(|| {
                let mut encoder = Encoder {
                    old,
                    new,
                    plans,
                    options,
                    chunk_log2,
                    session: Session::new(options.profile, chunk_log2),
                };
                while let Some((first, end)) = stretches.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let packs = encoder.stretch(first, end, &|chunks| {
                        tell(coded.fetch_add(chunks, Ordering::Relaxed) + chunks, plans.len());
                    });
                    if let (Ok(mut done), Some(place)) =
                        (done.lock(), stretches.iter().position(|s| s.0 == first))
                    {
                        done[place] = packs;
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_default().into_iter().flatten().collect()
}

fn stretches(plans: &[ChunkPlan]) -> Vec<(usize, usize)> {
    let (mut out, mut first, mut sum) = (Vec::new(), 0, 0);
    let mut chunk = 0;
    while chunk < plans.len() {
        sum += plans[chunk].estimate;
        chunk += match plans[chunk].kind {
            Kind::Moved { chunks, .. } => chunks as usize,
            _ => 1,
        };
        if sum > STRETCH || chunk == plans.len() {
            out.push((first, chunk));
            (first, sum) = (chunk, 0);
        }
    }
    out
}

struct Encoder<'a> {
    old: &'a [u8],
    new: &'a [u8],
    plans: &'a [ChunkPlan],
    options: Options,
    chunk_log2: u32,
    session: Session,
}

impl Encoder<'_> {
    fn stretch(&mut self, first: usize, end: usize, coded: &dyn Fn(usize)) -> Vec<Vec<u8>> {
        let (mut packs, mut chunk) = (Vec::new(), first);
        while chunk < end {
            let (pack, next) = self.pack(chunk, end);
            packs.push(pack);
            coded(next - chunk);
            chunk = next;
        }
        packs
    }

    /// Codes one pack from `first` on, as far as it reaches; returns it and the chunk behind it.
    fn pack(&mut self, first: usize, end: usize) -> (Vec<u8>, usize) {
        self.session.reset();
        let (mut io, mut chunk) = (Writer::default(), first);
        let mut mark = io.mark();
        while chunk < end {
            let next = self.chunk(&mut io, chunk, None);
            if HEADER + io.len() > self.options.pack {
                if chunk > first {
                    break;
                }
                // Not even one chunk: as it is, then.
                self.session.reset();
                io = Writer::default();
                self.chunk(&mut io, chunk, Some(Kind::Raw));
                mark = io.mark();
                chunk += 1;
                break;
            }
            mark = io.mark();
            chunk = next;
        }
        let header = Header {
            profile: self.options.profile,
            chunk_log2: self.chunk_log2,
            first: first as u32,
            chunks: (chunk - first) as u32,
        };
        let mut pack = header.write();
        pack.extend_from_slice(&io.finish_at(mark));
        (pack, chunk)
    }

    /// Codes one chunk, or a run of moved ones; returns the chunk behind.
    fn chunk(&mut self, io: &mut Writer, chunk: usize, kind: Option<Kind>) -> usize {
        let plan = &self.plans[chunk];
        let kind = kind.unwrap_or(plan.kind);
        let at = chunk << self.chunk_log2;
        let place = |chunk: usize| {
            let at = chunk << self.chunk_log2;
            &self.new[at..(at + (1 << self.chunk_log2)).min(self.new.len())]
        };
        let bytes = place(chunk);
        self.session.out[MARGIN..MARGIN + bytes.len()].copy_from_slice(bytes);
        let source =
            Source { old: &self.old, old_length: self.old.len() as u64, new: &self.new, written: at as u64 };
        let digest = if matches!(kind, Kind::Coded | Kind::Raw) { leaf(bytes).short() } else { 0 };
        let plan = Plan { kind, segments: &plan.segments, digest };
        let coded = self.session.chunk(io, &source, (chunk as u32, at as u64, bytes.len()), &plan);
        debug_assert!(coded.is_ok(), "plans are made of what is there");
        let Kind::Moved { chunks, from } = kind else { return chunk + 1 };
        let last = chunk + chunks as usize - 1;
        let bytes = place(last);
        self.session.out[MARGIN..MARGIN + bytes.len()].copy_from_slice(bytes);
        self.session.after_moved(from + ((last - chunk) << self.chunk_log2) as u64, bytes.len());
        last + 1
    }
}
