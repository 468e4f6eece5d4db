//! Cuts an alignment into chunks and says how each is made.

use super::align::Run;
use crate::delta::pack::{Kind, Segment};

/// How one chunk is made.
#[derive(Debug, Clone)]
pub(super) struct ChunkPlan {
    pub(super) kind: Kind,
    pub(super) segments: Vec<Segment>,
    /// Bytes that the chunk will take in a pack, roughly.
    pub(super) estimate: usize,
}

/// Plans every chunk; a run of moved chunks is planned at its first, those behind have no segments.
pub(super) fn plan(old: &[u8], new: &[u8], runs: &[Run], chunk: usize) -> Vec<ChunkPlan> {
    let mut plans: Vec<ChunkPlan> = Vec::with_capacity(new.len() / chunk + 1);
    let mut next = 0;
    for start in (0..new.len()).step_by(chunk) {
        let end = (start + chunk).min(new.len());
        while runs.get(next).is_some_and(|run| run.at + run.length <= start) {
            next += 1;
        }
        let mut segments = Vec::new();
        let (mut at, mut estimate) = (start, 9usize);
        for run in runs[next..].iter().take_while(|run| run.at < end) {
            let skip = start.saturating_sub(run.at);
            let (begin, stop) = (run.at + skip, (run.at + run.length).min(end));
            let from = run.from + skip;
            let (a, b) = (&new[begin..stop], &old[from..from + stop - begin]);
            let differ = if a == b { 0 } else { a.iter().zip(b).filter(|(a, b)| a != b).count() };
            estimate += (begin - at) * 3 / 4 + differ + 2;
            let copy = stop - begin;
            segments.push(Segment { literals: begin - at, copy, from: from as u64, exact: differ == 0 });
            at = stop;
        }
        estimate += (end - at) * 3 / 4;
        if at < end {
            segments.push(Segment { literals: end - at, copy: 0, from: 0, exact: false });
        }
        let exact = segments.iter().all(|s| s.literals == 0 && s.exact);
        let kind = match segments.as_slice() {
            [one] if exact => Kind::Moved { chunks: 1, from: one.from },
            _ if exact => Kind::Listed,
            _ => Kind::Coded,
        };
        if kind != Kind::Coded {
            estimate = segments.len();
        }
        plans.push(ChunkPlan { kind, segments, estimate });
    }
    join(&mut plans, chunk);
    plans
}

/// Makes one moved run of moved chunks that moved together.
fn join(plans: &mut [ChunkPlan], chunk: usize) {
    let mut first = 0;
    while first < plans.len() {
        let Kind::Moved { from, .. } = plans[first].kind else {
            first += 1;
            continue;
        };
        let mut end = first + 1;
        while plans.get(end).is_some_and(|plan| {
            plan.kind == (Kind::Moved { chunks: 1, from: from + ((end - first) * chunk) as u64 })
        }) {
            end += 1;
        }
        plans[first].kind = Kind::Moved { chunks: (end - first) as u32, from };
        first = end;
    }
}
