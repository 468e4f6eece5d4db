//! A report as one flat object, read in one pass.
//!
//! Reading [`Report`] by its tag would copy every message into a tree of values first; a controller reads a hundred
//! thousand reports a second, most of which are transitions. The names are those of [`ReportKind`]'s fields. What a
//! report says is read the same way where it stands alone, in a device's journal and in the ledger.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Attempt, Hello, Nonce, Proof, Report, ReportKind, Reports, Versions};
use crate::id::{CarrierId, ModelId, ProductId, RegionId, RolloutId};
use crate::limits::REPORTS_MAX;
use crate::state::{Outcome, StateName};

#[derive(Deserialize)]
pub(super) struct FlatReport<'a> {
    e: Option<u64>,
    k: Option<u32>,
    n: Option<u64>,
    low: Option<u64>,
    #[serde(borrow)]
    t: Cow<'a, str>,
    nonce: Option<Nonce>,
    rc: Option<u64>,
    rollout: Option<RolloutId>,
    attempt: Option<u32>,
    from: Option<StateName>,
    to: Option<StateName>,
    state: Option<StateName>,
    outcome: Option<Outcome>,
    reason: Option<String>,
    metrics: Option<BTreeMap<String, u64>>,
    running: Option<u64>,
    agent: Option<String>,
    product: Option<ProductId>,
    model: Option<ModelId>,
    carrier: Option<CarrierId>,
    region: Option<RegionId>,
    floor: Option<u64>,
    versions: Option<Versions>,
    #[serde(default)]
    halted: Vec<u64>,
    #[serde(default)]
    components: BTreeMap<String, String>,
    proof: Option<Proof>,
    #[serde(default)]
    more: Vec<FlatReport<'a>>,
}

/// Says why an object is no report.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FlatError {
    /// A newer device must not be half understood.
    #[error("a report of kind {0:?} is unknown here")]
    Kind(String),
    #[error("missing field `{0}`")]
    Missing(&'static str),
    #[error("more reports than one where one is read")]
    Several,
    #[error("more than {REPORTS_MAX} reports, a hello or a message among them")]
    More,
}

macro_rules! need {
    ($from:ident . $field:ident) => {
        $from.$field.take().ok_or(FlatError::Missing(stringify!($field)))?
    };
}

impl TryFrom<FlatReport<'_>> for Report {
    type Error = FlatError;

    fn try_from(mut flat: FlatReport<'_>) -> Result<Self, FlatError> {
        if !flat.more.is_empty() {
            return Err(FlatError::Several);
        }
        let (e, k, n, low) = (need!(flat.e), need!(flat.k), need!(flat.n), need!(flat.low));
        Ok(Self { e, k, n, low, kind: flat.try_into()? })
    }
}

impl TryFrom<FlatReport<'_>> for Reports {
    type Error = FlatError;

    fn try_from(mut flat: FlatReport<'_>) -> Result<Self, FlatError> {
        let more = std::mem::take(&mut flat.more);
        let first = Report::try_from(flat)?;
        if more.is_empty() {
            return Ok(first.into());
        }
        let (e, k, low) = (first.e, first.k, first.low);
        let is_plain = |flat: &FlatReport<'_>| flat.more.is_empty() && flat.t != "hello";
        if more.len() >= REPORTS_MAX
            || matches!(first.kind, ReportKind::Hello(_))
            || !more.iter().all(is_plain)
        {
            return Err(FlatError::More);
        }
        let more = (1..).zip(more).map(|(place, mut flat): (u64, FlatReport<'_>)| {
            let n = first.n.checked_add(place).ok_or(FlatError::More)?;
            // All three or none: half an attempt of its own would be counted for another one.
            if (&flat.rc, &flat.rollout, &flat.attempt) == (&None, &None, &None)
                && flat.t != "health"
                && let Some(Attempt { rc, rollout, attempt }) = first.kind.attempt()
            {
                (flat.rc, flat.rollout, flat.attempt) = (Some(*rc), Some(rollout.clone()), Some(*attempt));
            }
            Ok(Report { e, k, n, low, kind: flat.try_into()? })
        });
        let more = more.collect::<Result<_, FlatError>>()?;
        Ok(Self { first, more })
    }
}

impl TryFrom<FlatReport<'_>> for ReportKind {
    type Error = FlatError;

    fn try_from(mut flat: FlatReport<'_>) -> Result<Self, FlatError> {
        let flat = &mut flat;
        Ok(match &*flat.t {
            "hello" => ReportKind::Hello(Box::new(flat.hello()?)),
            "ask" => ReportKind::Ask { nonce: need!(flat.nonce), attempt: flat.attempt()? },
            "started" => ReportKind::Started { nonce: need!(flat.nonce), attempt: flat.attempt()? },
            "control-start" => ReportKind::ControlStart { attempt: flat.attempt()? },
            "transition" => ReportKind::Transition {
                attempt: flat.attempt()?,
                from: need!(flat.from),
                to: need!(flat.to),
                reason: flat.reason.take(),
            },
            "outcome" => ReportKind::Outcome {
                attempt: flat.attempt()?,
                outcome: need!(flat.outcome),
                reason: flat.reason.take(),
            },
            "health" => ReportKind::Health { rc: need!(flat.rc), metrics: need!(flat.metrics) },
            "halted" => ReportKind::Halted { attempt: flat.attempt()?, state: need!(flat.state) },
            other => return Err(FlatError::Kind(other.chars().take(40).collect())),
        })
    }
}

impl FlatReport<'_> {
    fn attempt(&mut self) -> Result<Attempt, FlatError> {
        Ok(Attempt { rc: need!(self.rc), rollout: need!(self.rollout), attempt: need!(self.attempt) })
    }

    fn hello(&mut self) -> Result<Hello, FlatError> {
        Ok(Hello {
            running: need!(self.running),
            agent: need!(self.agent),
            product: need!(self.product),
            model: need!(self.model),
            carrier: need!(self.carrier),
            region: need!(self.region),
            floor: need!(self.floor),
            versions: need!(self.versions),
            halted: std::mem::take(&mut self.halted),
            components: std::mem::take(&mut self.components),
            proof: self.proof.take(),
        })
    }
}
