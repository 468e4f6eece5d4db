//! Every ceiling on a length, count or wait that somebody else chooses.
//!
//! Bytes unless the name says otherwise. A value above a ceiling is refused before a buffer is made for it.

/// Characters of an id.
pub const ID_MAX: usize = 64;
/// A report, sealed.
pub const REPORT_MAX: usize = 4096;

/// Reports in one message.
pub const REPORTS_MAX: usize = 8;
/// A bundle with one signed file, on the topic of reports: a device presents it when the service asks.
pub const PRESENTED_MAX: usize = 16 * 1024;
/// An answer on `d/<device>/in`, sealed.
pub const ANSWER_MAX: usize = 4096;
/// A `get` request.
pub const GET_MAX: usize = 2048;
/// Wants in one `get` request.
pub const GET_WANTS_MAX: usize = 8;
/// Ranges in one want.
pub const GET_RANGES_MAX: usize = 64;
/// Profiles of deltas that one want may name.
pub const GET_PROFILES_MAX: usize = 8;
/// Packs that one `get` request may ask for.
pub const GET_PACKS_MAX: u32 = 96;
/// An enrolment message.
pub const ENROL_MAX: usize = 4096;
/// A presence message.
pub const PRESENCE_MAX: usize = 256;
/// A site's status message.
pub const SITE_STATUS_MAX: usize = 64 * 1024;
/// Devices in the list of the revoked; with 8 bytes each it fills one message.
pub const REVOKED_MAX: usize = 8192;
/// A bundle as it travels.
pub const BUNDLE_MAX: usize = 64 * 1024;
/// A bundle's files, inflated.
pub const BUNDLE_INFLATED_MAX: usize = 160 * 1024;
/// Files in a bundle.
pub const BUNDLE_FILES_MAX: usize = 40;
/// Root metadata file.
pub const ROOT_MAX: usize = 16 * 1024;
/// Timestamp metadata file.
pub const TIMESTAMP_MAX: usize = 2 * 1024;
/// Snapshot metadata file.
pub const SNAPSHOT_MAX: usize = 16 * 1024;
/// Targets, release, rollout or halt metadata file.
pub const ROLE_MAX: usize = 32 * 1024;
/// Roots that one refresh walks through.
pub const ROOT_CHAIN_MAX: u32 = 32;
/// Delegated roles that one look-up visits.
pub const DELEGATIONS_MAX: usize = 32;
/// Signatures on one file.
pub const SIGNATURES_MAX: usize = 16;
/// Nesting of a metadata file.
pub const JSON_DEPTH_MAX: usize = 16;
/// Releases named by one release role.
pub const RELEASES_MAX: usize = 5;
/// Artifacts of one release.
pub const ARTIFACTS_MAX: usize = 8;
/// Other components that one artifact requires.
pub const REQUIRES_MAX: usize = 8;
/// Carriers, and regions, that one artifact is for.
pub const CONDITIONS_MAX: usize = 32;
/// Bytes of a component's name.
pub const COMPONENT_MAX: usize = 64;
/// Components of one device.
pub const COMPONENTS_MAX: usize = 16;
/// Bytes of a component's version.
pub const VERSION_MAX: usize = 64;
/// Bytes of a range of versions.
pub const RANGE_MAX: usize = 128;
/// Parts of a range of versions.
pub const RANGE_PARTS_MAX: usize = 4;
/// Entries of the rollout role.
pub const ENTRIES_MAX: usize = 8;
/// Devices in an entry's list.
pub const LIST_MAX: usize = 200;
/// Halted release counters in the halt role.
pub const HALTED_MAX: usize = 1024;
/// Releases that one revert takes back.
pub const FROM_MAX: usize = 16;
/// Telemetry keys of the service that one targets role names.
pub const TELEMETRY_KEYS_MAX: usize = 4;
/// A chunk of an image; fixed.
pub const CHUNK: usize = 64 * 1024;
/// Chunks of an image (4 GiB).
pub const CHUNKS_MAX: u32 = 65_536;
/// A pack frame as it travels: header and at most one chunk.
pub const PACK_FRAME_MAX: usize = CHUNK + 64;
/// The largest MQTT packet that any part of Tern accepts.
pub const MQTT_PACKET_MAX: usize = 80 * 1024;
/// Reports that a device keeps until the controller's ack.
pub const OUTBOX_MAX: usize = 256;
/// Counter values reserved at once.
pub const COUNTER_BLOCK: u64 = 256;
/// Figures of one report of health.
pub const METRICS_MAX: usize = 16;
/// Bytes of the name of such a figure.
pub const METRIC_NAME_MAX: usize = 32;
/// Text that a device may put into a report as a reason.
pub const REASON_MAX: usize = 512;

/// What a TUF client takes from a repository: lengths in bytes, and how far it follows.
///
/// A value, for a client at a desk may afford more than a device; the checks are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TufLimits {
    /// Root metadata file.
    pub root: usize,
    /// Timestamp metadata file.
    pub timestamp: usize,
    /// Snapshot metadata file.
    pub snapshot: usize,
    /// Metadata file of targets, or of a delegated role.
    pub targets: usize,
    /// Roots that one refresh walks through.
    pub roots: u32,
    /// Delegated roles that one look-up visits.
    pub visited: usize,
}

impl TufLimits {
    /// A device's.
    pub const DEVICE: Self = Self {
        root: ROOT_MAX,
        timestamp: TIMESTAMP_MAX,
        snapshot: SNAPSHOT_MAX,
        targets: ROLE_MAX,
        roots: ROOT_CHAIN_MAX,
        visited: DELEGATIONS_MAX,
    };

    /// Returns the largest file whose `_type` is `kind`.
    pub fn of_kind(&self, kind: &str) -> usize {
        match kind {
            "root" => self.root,
            "timestamp" => self.timestamp,
            "snapshot" => self.snapshot,
            _ => self.targets,
        }
    }
}
