//! Signed files that devices present: asked for, verified one by one, taken over.

use std::collections::BTreeSet;

use tern_protocol::bundle::{Bundle, File};
use tern_protocol::id::DeviceId;
use tern_protocol::limits::PRESENTED_MAX;
use tern_protocol::message::AnswerKind;
use tern_protocol::tuf::content::{HaltContent, ReleaseContent, RolloutContent, Targets, TargetsContent};
use tern_protocol::tuf::metadata::{RootMeta, SnapshotMeta, TimestampMeta};
use tern_protocol::tuf::verify::{Authority, open, open_next_root};
use tern_protocol::tuf::{Role, Trusted, TufError, peek};

use super::{Fact, Line, Service};
use crate::core::fact::{Millis, SignedFile};
use crate::core::fleet::comparison;
use crate::core::fleet::product::{Product, halted_by};

/// Devices that reconnect say hello by themselves; after this the others are asked to.
const PATIENCE: Millis = 30_000;
/// Between two requests to one device, doubled up to the second.
const PAUSE: (Millis, Millis) = (15_000, 10 * 60_000);
/// Requests after which a claim counts as unproved.
pub(super) const ASKS_ENOUGH: u32 = 5;
/// Devices that are asked in one step.
const ASKS_PER_STEP: usize = 64;

/// What one device was asked for last.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    roles: Vec<Role>,
    /// How often in a row.
    pub(super) times: u32,
    at: Millis,
    /// Bundles that it may still send for it: verifying costs, and anybody may fill its topic.
    room: usize,
}

impl Service {
    /// Asks silent devices for a hello, and those that claim more for the files that prove it.
    pub(super) fn ask_devices(&mut self) {
        let Some(comparison) = &self.fleet.comparison else { return };
        let late = self.now >= comparison.since + PATIENCE;
        let mut due = Vec::new();
        for (id, device) in self.fleet.devices.iter() {
            if !device.is_active() || device.telemetry.is_none() {
                continue;
            }
            let roles = match comparison.heard.get(id) {
                Some(claim) => self.beyond(claim),
                None if late => Vec::new(),
                None => continue,
            };
            if roles.is_empty() && comparison.heard.contains_key(id) {
                continue;
            }
            let asked = self.presents.get(id);
            // What a device is to present after its hello is another question than the hello.
            let times =
                asked.filter(|asked| asked.roles.is_empty() == roles.is_empty()).map_or(0, |a| a.times);
            let wait = (PAUSE.0 << times.min(16)).min(PAUSE.1);
            if times == 0 || asked.is_none_or(|asked| self.now.saturating_sub(asked.at) >= wait) {
                due.push((id.clone(), roles, times + 1));
            }
            if due.len() == ASKS_PER_STEP {
                break;
            }
        }
        for (id, roles, times) in due {
            let asked = Asked { roles: roles.clone(), times, at: self.now, room: roles.len() };
            self.presents.insert(id.clone(), asked);
            // Nobody asked, so nobody has said which of our keys is known there: under each that is in force.
            let product = self.fleet.devices.get(&id).map(|device| &device.registry.product);
            let ours = product.and_then(|product| self.keys.get(product));
            let kids: Vec<u32> =
                ours.map(|keys| keys.telemetry.keys().copied().collect()).unwrap_or_default();
            for kid in kids {
                self.answer(&id, Line { kid, epoch: 0 }, AnswerKind::Present { roles: roles.clone() });
            }
        }
    }

    /// Takes a bundle that a device sends where reports come in. Who sent it does not matter: it is signed, or it is
    /// nothing.
    pub(super) fn presented(&mut self, id: &DeviceId, payload: &[u8]) {
        let claim = self.fleet.comparison.as_ref().and_then(|comparison| comparison.heard.get(id)).cloned();
        let asked = self.presents.get_mut(id).filter(|asked| asked.room > 0);
        let (Some(asked), Some(claim), true) = (asked, claim, payload.len() <= PRESENTED_MAX) else {
            self.counters.malformed += 1;
            return;
        };
        asked.room -= 1;
        let wanted = asked.roles.clone();
        let Ok(mut bundle) = Bundle::unpack(payload, None) else {
            self.counters.malformed += 1;
            return;
        };
        bundle.files.retain(|file| wanted.contains(&file.role));
        self.learn(&claim.product, Some(id.clone()), bundle.files);
    }

    /// Takes over what verifies and says something new; returns how many files.
    pub(super) fn learn(
        &mut self,
        product: &tern_protocol::id::ProductId,
        device: Option<DeviceId>,
        files: Vec<File>,
    ) -> usize {
        let Some(state) = self.fleet.products.get(product) else { return 0 };
        let by = device.as_ref().map_or("the operator".to_owned(), |id| format!("device {id}"));
        let (proved, refused) = prove(state, files);
        for (role, error) in refused {
            self.note(format!("product {product}: {role} of {by} proves nothing: {error}"));
        }
        if proved.is_empty() {
            return 0;
        }
        let words: Vec<String> = proved
            .iter()
            .map(|file| format!("{} {}", file.role, peek(file.text.as_bytes()).unwrap_or(0)))
            .collect();
        self.note(format!("product {product}: {by} presents what was lost here: {}", words.join(", ")));
        let roles: Vec<Role> = proved.iter().map(|file| file.role).collect();
        self.record(Fact::FilesPresented { product: product.clone(), device, files: proved });
        self.renewed.insert(product.clone());
        self.conclude(product, &roles);
        roles.len()
    }
}

/// Returns the files that the keys of their roles have signed and that say something new, and why others do not.
///
/// Each by itself: a device that was caught in the middle of an update holds files that do not go together. Expiry is
/// not asked about; it says whether a file may still be acted on, and here only who signed it matters.
fn prove(state: &Product, mut files: Vec<File>) -> (Vec<SignedFile>, Vec<(Role, TufError)>) {
    let (mut proved, mut refused) = (Vec::new(), Vec::new());
    let Ok(own) = Trusted::restore(&state.signed(&[Role::Root, Role::Targets])) else {
        return (proved, refused);
    };
    let mut root = own.root().clone();
    let mut targets = own.targets().cloned();
    // In the order in which they vouch for one another, root by root.
    files.sort_by_key(|file| (file.role, peek(&file.bytes)));
    for file in files {
        let version = peek(&file.bytes).unwrap_or(0);
        let text = String::from_utf8_lossy(&file.bytes);
        let unknown: BTreeSet<u64> = match file.role {
            Role::Halt => halted_by(&text).difference(&state.halted).copied().collect(),
            _ => BTreeSet::new(),
        };
        if version <= comparison::of(&state.versions(), file.role) && unknown.is_empty() {
            continue;
        }
        match verify(&file, &mut root, &mut targets) {
            Ok(()) => proved.extend(SignedFile::new(file.role, &file.bytes)),
            Err(error) => refused.push((file.role, error)),
        }
    }
    (proved, refused)
}

/// Checks who signed a file, and lets a new root or new targets speak for those that follow.
fn verify(
    file: &File,
    root: &mut RootMeta,
    targets: &mut Option<Targets<TargetsContent>>,
) -> Result<(), TufError> {
    let File { role, bytes } = file;
    let delegated = || {
        let targets = targets.as_ref().ok_or_else(|| TufError::NotDelegated((*role).into()))?;
        Authority::delegated(&targets.meta, *role)
    };
    match role {
        Role::Root => *root = open_next_root(bytes, root)?,
        Role::Timestamp => drop(open::<TimestampMeta>(*role, bytes, Authority::top(root, *role)?)?),
        Role::Snapshot => drop(open::<SnapshotMeta>(*role, bytes, Authority::top(root, *role)?)?),
        Role::Targets => *targets = Some(open(*role, bytes, Authority::top(root, *role)?)?),
        Role::Release => drop(open::<Targets<ReleaseContent>>(*role, bytes, delegated()?)?),
        Role::Rollout => drop(open::<Targets<RolloutContent>>(*role, bytes, delegated()?)?),
        Role::Halt => drop(open::<Targets<HaltContent>>(*role, bytes, delegated()?)?),
    }
    Ok(())
}
