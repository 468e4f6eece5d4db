//! Signed bundles as they came: kept on the disk, said again to the site's own broker, and learned from for `get`.
//!
//! Nothing here is made by the site. Devices that come while it is cut off get what it heard last, byte for byte, and
//! judge it themselves; an older bundle than they hold says nothing to them.
//!
//! ```text
//! <dir>/<start of SHA-256 of the topic>     topic, line break, payload
//! <dir>/topics                              what devices have subscribed to, one a line: asked for upstream
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tern_protocol::digest::Digest;
use tern_protocol::id::{DeviceId, FleetId};
use tern_protocol::limits::BUNDLE_MAX;
use tern_protocol::topic::Topic;

/// Topics of products that a site follows: three of each product, and one for each cohort of its devices.
const TOPICS_MAX: usize = 2048;

/// What a site hears for its devices.
#[derive(Debug)]
pub(crate) struct Mirror {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bundles: BTreeMap<String, Vec<u8>>,
    /// Filters below `p/`.
    followed: BTreeSet<String>,
    /// Devices that are connected, or were a short time ago.
    devices: BTreeMap<DeviceId, bool>,
    unsaved: bool,
    /// Counts the changes of what is subscribed to.
    version: u64,
}

impl Mirror {
    /// Reads what was kept in `folder`.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut state = State::default();
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            let content = fs::read(&path)?;
            let break_at = content.iter().position(|byte| *byte == b'\n');
            match path.file_name().and_then(|name| name.to_str()) {
                Some("topics") => {
                    let text = String::from_utf8_lossy(&content);
                    state.followed = text.lines().take(TOPICS_MAX).map(str::to_owned).collect();
                }
                Some(name) if !name.ends_with(".new") => {
                    let parts = break_at
                        .map(|at| (String::from_utf8_lossy(&content[..at]).into_owned(), &content[at + 1..]));
                    if let Some((topic, payload)) = parts.filter(|(topic, _)| file_name(topic) == name) {
                        state.bundles.insert(topic, payload.to_vec());
                    }
                }
                _ => fs::remove_file(&path)?,
            }
        }
        Ok(Self { folder, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in that a device listens to `filter`; tells whether upstream must be asked for more than before.
    pub(crate) fn follow(&self, fleet: &FleetId, filter: &str) -> bool {
        let Ok(topic) = Topic::parse(fleet, filter) else { return false };
        let mut state = self.lock();
        let product = match topic {
            Topic::DeviceIn(device) => {
                let new = state.devices.insert(device, true).is_none();
                state.version += u64::from(new);
                return new;
            }
            Topic::Timestamp(product) | Topic::Head(product) | Topic::Root(product, _) => product,
            Topic::Cohort(..) => return state.add(filter.to_owned()),
            _ => return false,
        };
        let root = format!("{}/+", Topic::Root(product.clone(), 1).render(fleet).trim_end_matches("/1"));
        let [ts, head] =
            [Topic::Timestamp(product.clone()), Topic::Head(product)].map(|topic| topic.render(fleet));
        // Not one after the other by `||`: each is to be added.
        [root, ts, head].into_iter().map(|filter| state.add(filter)).fold(false, |any, new| any | new)
    }

    /// Takes in which devices are connected; forgets those that were gone the last time too.
    pub(crate) fn connected(&self, devices: &BTreeSet<DeviceId>) {
        let mut state = self.lock();
        let before = state.devices.len();
        state.devices.retain(|device, here| std::mem::replace(here, devices.contains(device)) || *here);
        state.version += u64::from(state.devices.len() != before);
    }

    /// Tells apart what [`Mirror::filters`] gives from what it gave.
    pub(crate) fn version(&self) -> u64 {
        self.lock().version
    }

    /// Returns what to subscribe to upstream.
    pub(crate) fn filters(&self, fleet: &FleetId) -> BTreeSet<String> {
        let state = self.lock();
        let devices = state.devices.keys().map(|device| Topic::DeviceIn(device.clone()).render(fleet));
        state.followed.iter().cloned().chain(devices).collect()
    }

    /// Keeps what came on a topic; tells whether it is new.
    pub(crate) fn keep(&self, topic: &str, payload: &[u8]) -> io::Result<bool> {
        {
            let mut state = self.lock();
            if state.bundles.get(topic).is_some_and(|known| known == payload) {
                return Ok(false);
            }
            if payload.len() > BUNDLE_MAX
                || (state.bundles.len() >= 2 * TOPICS_MAX && !state.bundles.contains_key(topic))
            {
                return Ok(true);
            }
            if payload.is_empty() {
                state.bundles.remove(topic);
            } else {
                state.bundles.insert(topic.to_owned(), payload.to_vec());
            }
        }
        let name = file_name(topic);
        if payload.is_empty() {
            return match fs::remove_file(self.folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(true),
            };
        }
        self.write(&name, &[topic.as_bytes(), b"\n", payload].concat()).map(|()| true)
    }

    /// Returns everything that is kept.
    pub(crate) fn bundles(&self) -> Vec<(String, Vec<u8>)> {
        self.lock().bundles.iter().map(|(topic, payload)| (topic.clone(), payload.clone())).collect()
    }

    /// Writes down what devices follow, if that has changed.
    pub(crate) fn save(&self) -> io::Result<()> {
        let text = {
            let mut state = self.lock();
            if !std::mem::take(&mut state.unsaved) {
                return Ok(());
            }
            state.followed.iter().fold(String::new(), |text, filter| text + filter + "\n")
        };
        self.write("topics", text.as_bytes())
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let (aside, path) = (self.folder.join(format!("{name}.new")), self.folder.join(name));
        fs::write(&aside, content)?;
        fs::File::open(&aside)?.sync_all()?;
        fs::rename(&aside, &path)
    }
}

impl State {
    fn add(&mut self, filter: String) -> bool {
        let new = self.followed.len() < TOPICS_MAX && self.followed.insert(filter);
        self.unsaved |= new;
        self.version += u64::from(new);
        new
    }
}

fn file_name(topic: &str) -> String {
    Digest::of(topic.as_bytes()).to_string()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> FleetId {
        "acme".parse().unwrap()
    }

    #[test]
    fn what_was_heard_is_there_after_a_restart_and_what_was_cleared_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(folder.path().into()).unwrap();
        assert!(mirror.keep("ota/v1/acme/p/cam/head", b"TRNB\n\x00").unwrap());
        assert!(!mirror.keep("ota/v1/acme/p/cam/head", b"TRNB\n\x00").unwrap());
        mirror.keep("ota/v1/acme/p/cam/eu/001", b"offer").unwrap();
        mirror.keep("ota/v1/acme/p/cam/eu/001", b"").unwrap();
        assert!(mirror.follow(&fleet(), "ota/v1/acme/p/cam/eu/001"));
        mirror.save().unwrap();
        drop(mirror);

        let mirror = Mirror::open(folder.path().into()).unwrap();

        assert_eq!(mirror.bundles(), [("ota/v1/acme/p/cam/head".to_owned(), b"TRNB\n\x00".to_vec())]);
        assert_eq!(Vec::from_iter(mirror.filters(&fleet())), ["ota/v1/acme/p/cam/eu/001"]);
    }

    #[test]
    fn a_product_is_followed_whole_and_a_device_as_long_as_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(folder.path().into()).unwrap();
        assert!(mirror.follow(&fleet(), "ota/v1/acme/p/cam/ts"));
        assert!(!mirror.follow(&fleet(), "ota/v1/acme/p/cam/head"));
        assert!(mirror.follow(&fleet(), "ota/v1/acme/d/r-1/in"));
        assert!(!mirror.follow(&fleet(), "ota/v1/acme/d/r-1/pack"));
        let p = "ota/v1/acme/p/cam";
        let product = [format!("{p}/head"), format!("{p}/root/+"), format!("{p}/ts")];
        let with = |more: &[&str]| {
            more.iter().map(|m| (*m).to_owned()).chain(product.clone()).collect::<BTreeSet<_>>()
        };
        assert_eq!(mirror.filters(&fleet()), with(&["ota/v1/acme/d/r-1/in"]));

        let here = BTreeSet::from(["r-1".parse().unwrap()]);
        mirror.connected(&here);
        mirror.connected(&BTreeSet::new());
        assert_eq!(mirror.filters(&fleet()), with(&["ota/v1/acme/d/r-1/in"]));
        mirror.connected(&BTreeSet::new());
        assert_eq!(mirror.filters(&fleet()), with(&[]));
    }
}
