//! All components of a device: those that are configured, and those that were and are still tried.

use std::collections::BTreeMap;
use std::path::Path;

use tern_protocol::id::DeviceId;

use super::{Component, ComponentConfig, ComponentError, Installed, Kind};
use crate::core::agent::ComponentFacts;
use crate::record::{self, RecordFile};
use crate::storage::{Disk, Storage};

/// Folders of components that are looked at, also of those that were configured once.
const FOLDERS_MAX: usize = 1024;

/// Opens all components of a device.
pub fn open_all(
    disk: &Disk,
    configs: &[ComponentConfig],
    data_dir: &Path,
    device: &DeviceId,
) -> Result<BTreeMap<String, Component>, ComponentError> {
    let folder = data_dir.join("components");
    let gone = gone(disk, configs, &folder);
    for (config, rc) in &gone {
        tracing::error!(
            component = config.name,
            rc,
            "a component is tried, and not in [[components]] of agent.toml any more; it can be kept, and not taken back"
        );
    }
    let open = |config: &ComponentConfig| {
        let component = Component::on(disk, config.clone(), folder.join(&config.name), device.clone())?;
        Ok((config.name.clone(), component))
    };
    configs.iter().chain(gone.iter().map(|(config, _)| config)).map(open).collect()
}

/// Makes the records of all components durable as they are found, as [`crate::storage::catch_up`] does.
pub(crate) fn catch_up(disk: &dyn Storage, data_dir: &Path) {
    let folder = data_dir.join("components");
    // There is none on a device without components, or whose agent never ran.
    for name in disk.list(&folder, FOLDERS_MAX).unwrap_or_default() {
        record::catch_up(disk, &folder.join(name));
    }
}

/// What is known of each component of a device.
pub type Known = BTreeMap<String, Result<ComponentFacts, ComponentError>>;

/// Looks at all components of a device, and changes nothing: no agent needs to have run, and one may run.
pub fn look_at_all(disk: &Disk, configs: &[ComponentConfig], data_dir: &Path, device: &DeviceId) -> Known {
    let folder = data_dir.join("components");
    let gone = gone(disk, configs, &folder);
    let look = |config: &ComponentConfig| {
        let (config, folder) = (config.clone(), folder.join(&config.name));
        let component = Component { config, disk: disk.clone(), folder, device: device.clone() };
        (component.config.name.clone(), component.seen())
    };
    configs.iter().chain(gone.iter().map(|(config, _)| config)).map(look).collect()
}

/// Returns what is tried, for which release, of components that are not configured any more.
fn gone(disk: &Disk, configs: &[ComponentConfig], folder: &Path) -> Vec<(ComponentConfig, u64)> {
    // Without a component there never was a folder. More in it than anybody has made is not looked at.
    let names = disk.list(folder, FOLDERS_MAX).unwrap_or_default();
    let names = names.into_iter().filter_map(|name| name.into_string().ok());
    let is_configured = |name: &String| configs.iter().any(|config| config.name == *name);
    let tried = |name: String| {
        let record = RecordFile::<Installed>::on(disk, &folder.join(&name), "installed").ok()?;
        let rc = record.load().ok()??.tried?.rc;
        Some((ComponentConfig { name, capacity: 0, version: String::new(), kind: Kind::Gone }, rc))
    };
    names.filter(|name| !is_configured(name)).filter_map(tried).collect()
}
