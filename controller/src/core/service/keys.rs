//! The keys shared with one device, worked out as seldom as possible.

use p256::SecretKey;
use tern_protocol::id::{DeviceId, FleetId};
use tern_protocol::mac::{Direction, MacKey, PairSecret};

/// What the service shares with one device, once for each telemetry key of ours that it was heard under: nearly always
/// one. A tree would take room for eleven, 6 kB a device.
#[derive(Default)]
pub(super) struct Agreed(Vec<DeviceKeys>);

impl Agreed {
    pub(super) fn get(&self, kid: u32) -> Option<&DeviceKeys> {
        self.0.iter().find(|keys| keys.kid == kid)
    }

    pub(super) fn get_mut(&mut self, kid: u32) -> Option<&mut DeviceKeys> {
        self.0.iter_mut().find(|keys| keys.kid == kid)
    }

    pub(super) fn retain(&mut self, wanted: impl Fn(u32, &DeviceKeys) -> bool) {
        self.0.retain(|keys| wanted(keys.kid, keys));
    }

    /// Puts keys in, in place of those of the same telemetry key of ours.
    pub(super) fn insert(&mut self, fresh: DeviceKeys) {
        self.0.retain(|keys| keys.kid != fresh.kid);
        self.0.reserve_exact(1);
        self.0.push(fresh);
    }
}

/// What the service and one device share.
pub(super) struct DeviceKeys {
    /// The device's telemetry key, hex, as the fleet holds it.
    telemetry: String,
    /// Number of the controller's telemetry key.
    kid: u32,
    secret: PairSecret,
    /// The key used last in each direction, with its epoch: a device stays in one for as long as it is up.
    up: Option<(u64, MacKey)>,
    down: Option<(u64, MacKey)>,
}

impl DeviceKeys {
    /// Does the curve operation; `None` if `telemetry` is no key.
    pub(super) fn agree(telemetry: &str, own: &SecretKey, kid: u32) -> Option<Self> {
        let peer = p256::PublicKey::from_sec1_bytes(&hex::decode(telemetry).ok()?).ok()?;
        let secret = PairSecret::agree(own, &peer);
        Some(Self { telemetry: telemetry.to_owned(), kid, secret, up: None, down: None })
    }

    /// Tells whether this is still the device's key.
    pub(super) fn is_of(&self, telemetry: &str) -> bool {
        self.telemetry == telemetry
    }

    /// Returns the key of one direction and epoch; counts in `derived` when it is not at hand.
    pub(super) fn key(
        &mut self,
        direction: Direction,
        fleet: &FleetId,
        device: &DeviceId,
        epoch: u64,
        derived: &mut u64,
    ) -> &MacKey {
        let place = match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        };
        if place.as_ref().is_some_and(|(of, _)| *of != epoch) {
            *place = None;
        }
        let derive = || {
            *derived += 1;
            (epoch, self.secret.key(direction, fleet, device, self.kid, epoch))
        };
        let (_, key) = place.get_or_insert_with(derive);
        key
    }
}
