//! States that several tests need.

use tern_protocol::digest::Digest;
use tern_protocol::message::Attempt;
use tern_protocol::offer::{Artifact, Offer};
use tern_protocol::tuf::content::{Arm, EntryKind};

use crate::core::SlotName;
use crate::core::state::{State, Tries, Work};
use crate::core::timing::Stamp;

/// Release 2, into slot b.
pub(crate) fn work() -> Work {
    let digest = Digest::of(b"release 2");
    let offer = Offer {
        attempt: Attempt { rc: 2, rollout: "r2".parse().unwrap(), attempt: 1 },
        kind: EntryKind::Update,
        version: "2.0".into(),
        artifacts: vec![Artifact::new("rootfs", 1, digest, digest)],
        models: vec![],
        min_from: 0,
        floor: 0,
        arm: Arm::Acked,
        spread: 0,
        urgency: tern_protocol::tuf::content::Urgency::Soft,
        schedule: None,
        from: vec![],
    };
    Work { offer, slot: SlotName::B, tries: Tries::default() }
}

/// A trial of it since then, with its first probes passed or not.
pub(crate) fn trial(since: Stamp, probed: bool) -> State {
    State::VerifyPost { work: work(), since, probed, heard: false }
}
