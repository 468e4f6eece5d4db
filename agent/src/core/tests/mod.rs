//! Tests of the update machine as a value: every state against every event.

mod conditions;
mod delta;
mod download;
mod eligibility;
mod fresh;
mod gather;
mod hold;
mod kill;
mod machine;
mod reader;
mod reconcile;
mod soak;
mod table;
mod thief;
mod unread;

use tern_protocol::chunk::ChunkSet;
use tern_protocol::delta::{DeltaManifest, ImageId, Profile};
use tern_protocol::digest::Digest;
use tern_protocol::message::Attempt;
use tern_protocol::offer::{Artifact, Offer};
use tern_protocol::state::Outcome;
use tern_protocol::tuf::content::{Arm, EntryKind, Urgency};

use super::SlotName;
use super::port::Held;
use super::reconcile::{Content, Seen};
use super::state::{Event, RetryTo, RollbackStep, State, Then, Tries, UpdatingStep, Work};
use super::timing::{Stamp, Timing};
use super::way::{Course, Way};

/// The moment at which everything happens: the third boot, a minute in.
const NOW: Stamp = Stamp { epoch: 3, uptime: 60_000 };
/// Longer ago than any wait, in the same boot.
const LONG: u64 = 100 * 24 * 3_600_000;

fn offer(rc: u64, attempt: u32) -> Offer {
    let digest = Digest::of(&rc.to_be_bytes());
    Offer {
        attempt: Attempt { rc, rollout: format!("r{rc}").parse().unwrap(), attempt },
        kind: EntryKind::Update,
        version: format!("{rc}.0"),
        artifacts: vec![Artifact::new("rootfs", 3 * 65_536, digest, digest)],
        models: vec!["B3".parse().unwrap()],
        min_from: 0,
        floor: 0,
        arm: Arm::Acked,
        urgency: Urgency::Soft,
        spread: 0,
        schedule: None,
        from: vec![],
    }
}

/// Release 2, from slot a into slot b.
fn work() -> Work {
    Work { offer: offer(2, 1), slot: SlotName::B, tries: Tries::default() }
}

fn chunks(numbers: &[u32]) -> ChunkSet {
    let mut set = ChunkSet::default();
    for number in numbers {
        set.insert(*number);
    }
    set
}

/// A delta of three packs that leads to release 2.
fn delta() -> DeltaManifest {
    let (old, root) = (ImageId::nothing(), Digest::of(b"packs"));
    let new = ImageId { length: 3 * 65_536, root };
    DeltaManifest { profile: Profile::Linux, chunk_log2: 16, old, new, packs: 3, bytes: 9, root }
}

fn updating(step: UpdatingStep) -> State {
    State::Updating { work: work(), step }
}

fn rollback(step: RollbackStep) -> State {
    let reason = "a probe failed".into();
    State::Rollback { work: work(), outcome: Outcome::RolledBack, reason, step }
}

fn trial(probed: bool, heard: bool) -> State {
    State::VerifyPost { work: work(), since: NOW, probed, heard }
}

/// Every state, with every step and flag that changes what may follow.
fn states() -> Vec<State> {
    let downloading = |marked, way: Way, have: &[u32]| State::Downloading {
        work: work(),
        at: 0,
        marked,
        way,
        have: chunks(have),
    };
    let following = |gap| Way::Delta(Box::new(Course { decoded: 1, gap, ..Course::new(delta(), None) }));
    let retry = |to| State::Retry { work: work(), to, since: NOW, wait: 30_000 };
    let verifying = |hashed| State::Verifying { work: work(), at: 0, hashed };
    let pre = |undo| State::PreUpdating { work: work(), undo };
    let fail = || Then::Fail("no space".into());
    vec![
        State::Idle { not_before: None },
        State::Idle { not_before: Some(NOW) },
        State::Checking { work: work() },
        downloading(false, Way::Open, &[]),
        downloading(true, Way::Open, &[]),
        downloading(true, Way::Raw, &[0]),
        downloading(true, Way::Mend, &[0]),
        downloading(true, following(None), &[]),
        downloading(true, following(Some((1, 2))), &[]),
        verifying(false),
        verifying(true),
        pre(None),
        pre(Some(Then::Retry)),
        pre(Some(fail())),
        pre(Some(Then::Recall)),
        pre(Some(Then::Defer)),
        updating(UpdatingStep::Announce { since: NOW }),
        updating(UpdatingStep::Install),
        updating(UpdatingStep::Reask { since: NOW }),
        updating(UpdatingStep::Arm),
        updating(UpdatingStep::Reboot),
        updating(UpdatingStep::Disarm(fail())),
        updating(UpdatingStep::Disarm(Then::Recall)),
        updating(UpdatingStep::Undo(fail())),
        updating(UpdatingStep::Undo(Then::Recall)),
        updating(UpdatingStep::Undo(Then::Defer)),
        trial(false, false),
        trial(true, false),
        trial(true, true),
        State::Success { work: work() },
        retry(RetryTo::Downloading),
        retry(RetryTo::PreUpdating),
        State::Failed { work: work(), reason: "no space".into(), again: None },
        State::Failed { work: work(), reason: "nobody".into(), again: Some(NOW) },
        rollback(RollbackStep::Record),
        rollback(RollbackStep::Reboot),
        rollback(RollbackStep::Undo),
    ]
}

/// A boot of a device whose confirmed slot is a, and whose slot b holds what the attempt wrote.
fn booted(slot: SlotName, armed: bool, rebooted: bool) -> Event {
    let seen = Seen {
        slot,
        active: SlotName::A,
        trial: armed.then_some(SlotName::B),
        contents: [Content::Unknown, whole(2)],
    };
    Event::Booted { seen, rebooted }
}

/// What a slot with a release holds.
fn whole(rc: u64) -> Content {
    Content::Whole(Held::of(&offer(rc, 1).artifacts[0]))
}

/// Every event, with every fact in it that changes what follows. `Time` is tried twice: now, and long after.
fn events() -> Vec<(&'static str, Event)> {
    use Event as E;
    let offered = |rc, attempt| E::Offered { offer: offer(rc, attempt), slot: SlotName::B };
    let because = || "because".to_owned();
    vec![
        ("offered the same", offered(2, 1)),
        ("offered attempt 2", offered(2, 2)),
        ("offered release 3", offered(3, 1)),
        ("withdrawn", E::Withdrawn),
        ("halted", E::Halted),
        ("eligible", E::Eligible { present: false }),
        ("eligible, image present", E::Eligible { present: true }),
        ("ineligible", E::Ineligible(because())),
        ("postponed", E::Postponed(because())),
        ("slot marked", E::SlotMarked),
        ("written one", E::Written(vec![1])),
        ("written the rest", E::Written(vec![1, 2])),
        ("chosen", E::Chosen(Way::Raw)),
        ("decoded 2", E::Decoded(2)),
        ("decoded all", E::Decoded(3)),
        ("undecoded", E::Undecoded { pack: 2, from: 1, to: 3 }),
        ("held", E::Held),
        ("write failed", E::WriteFailed(because())),
        ("hash matches", E::Hashed { matches: true }),
        ("hash differs", E::Hashed { matches: false }),
        ("answered", E::Answered),
        ("hooks done", E::HooksDone),
        ("hooks not now", E::HooksPostponed(because())),
        ("hooks failed", E::HooksFailed(because())),
        ("hooks undone", E::Undone),
        ("installed", E::Installed),
        ("install not now", E::InstallPostponed(because())),
        ("install failed", E::InstallFailed(because())),
        ("armed", E::Armed),
        ("arm failed", E::ArmFailed(because())),
        ("disarm failed in a", E::DisarmFailed { running: SlotName::A, reason: because() }),
        ("disarm failed in b", E::DisarmFailed { running: SlotName::B, reason: because() }),
        ("disarmed in a", E::Disarmed { running: SlotName::A }),
        ("disarmed in b", E::Disarmed { running: SlotName::B }),
        ("agent up in a", booted(SlotName::A, false, false)),
        ("agent up in a, armed", booted(SlotName::A, true, false)),
        ("agent up in b, armed", booted(SlotName::B, true, false)),
        ("booted a", booted(SlotName::A, false, true)),
        ("booted a, armed", booted(SlotName::A, true, true)),
        ("booted b, armed", booted(SlotName::B, true, true)),
        ("booted b", booted(SlotName::B, false, true)),
        ("probes passed", E::ProbesPassed),
        ("probe failed", E::ProbeFailed(because())),
        ("no way back", E::NoWayBack),
        ("confirmed", E::Confirmed),
        ("confirm failed", E::ConfirmFailed(because())),
        ("time", E::Time),
    ]
}

/// Returns when an event happens: a boot opens an epoch.
fn moment(event: &Event) -> Stamp {
    match event {
        Event::Booted { rebooted: true, .. } => Stamp { epoch: NOW.epoch + 1, uptime: 5000 },
        _ => NOW,
    }
}

fn after(state: State, event: &Event) -> State {
    state.after(event, moment(event), &Timing::default())
}

fn later(state: State, event: &Event) -> State {
    state.after(event, Stamp { epoch: NOW.epoch, uptime: LONG }, &Timing::default())
}

/// Writes a state in one line.
fn show(state: &State) -> String {
    let name = state.name();
    match state {
        State::Idle { not_before: None } => name.to_string(),
        State::Idle { not_before: Some(_) } => format!("{name}, deferred"),
        State::Checking { work } => format!("{name} release {}", work.offer.attempt.rc),
        State::Success { .. } => name.to_string(),
        State::Downloading { marked, way, have, .. } => {
            let way = match way {
                Way::Delta(course) => format!("pack {} of 3, gap {:?}", course.decoded, course.gap),
                other => format!("{other:?}"),
            };
            let marked = if *marked { "marked" } else { "to be marked" };
            format!("{name}, {marked}, {way}, {} of 3", have.len())
        }
        State::Verifying { hashed, .. } => {
            format!("{name}, {}", if *hashed { "hashed" } else { "to be hashed" })
        }
        State::PreUpdating { undo: None, .. } => name.to_string(),
        State::PreUpdating { undo: Some(then), .. } => format!("{name}, undo then {then:?}"),
        State::Updating { step, .. } => match step {
            UpdatingStep::Announce { .. } => format!("{name}, announce"),
            UpdatingStep::Reask { .. } => format!("{name}, ask again"),
            step => format!("{name}, {step:?}"),
        },
        State::VerifyPost { probed, heard, .. } => {
            let flag = |on: &bool, what| if *on { format!(", {what}") } else { String::new() };
            format!("{name}{}{}", flag(probed, "probed"), flag(heard, "heard"))
        }
        State::Retry { work, to, .. } => {
            let tries = work.tries.download + work.tries.hooks;
            format!("{name} {to:?} (try {tries})")
        }
        State::Failed { reason, .. } => format!("{name}: {reason}"),
        State::Rollback { outcome, step, reason, .. } => format!("{name}, {step:?}, {outcome}: {reason}"),
    }
}
