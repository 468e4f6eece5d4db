//! User data lives where no slot writer can name it, and where nothing of the agent's own is taken back with it.
//!
//! Looked at under every name: links are followed, a folder that is mounted in two places is known by its number, and an
//! area on a slot's block device by that device.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::{BootConfig, Config};
use crate::component::{ComponentConfig, Kind};

/// Areas of one device.
const AREAS_MAX: usize = 32;

/// Refuses areas of user data that meet slots, boot record or the agent's own folders.
pub(super) fn check(config: &Config) -> Result<(), String> {
    if config.data.len() > AREAS_MAX {
        return Err(format!("data.areas has more than {AREAS_MAX} areas; name the folder above them"));
    }
    for area in &config.data {
        let shown = area.display();
        let text = area.to_str().filter(|text| !text.contains([':', '\n']));
        if !area.is_absolute() || text.is_none() {
            return Err(format!(
                "data.areas: {shown:?} must be an absolute path without ':', which divides them in TERN_DATA"
            ));
        }
        let components = config.components.iter().filter_map(path).map(|path| ("component", path));
        for (what, place) in places(config).chain(components) {
            if meet(area, place) {
                let place = place.display();
                return Err(format!(
                    "data.areas: {shown} and {what} {place} are not apart: an update, or its undo, would write over \
                     the other; move one of them"
                ));
            }
        }
    }
    Ok(())
}

/// Refuses components that are installed into what is not theirs.
pub(super) fn check_components(config: &Config) -> Result<(), String> {
    for component in &config.components {
        let Some(path) = path(component) else { continue };
        for (what, place) in places(config) {
            if meet(path, place) {
                let (path, place) = (path.display(), place.display());
                return Err(format!(
                    "component {:?}: {path} and {what} {place} are not apart; install it elsewhere",
                    component.name
                ));
            }
        }
    }
    Ok(())
}

fn path(component: &ComponentConfig) -> Option<&Path> {
    match &component.kind {
        Kind::File { path, .. } | Kind::Archive { path, .. } => Some(path),
        Kind::Program { .. } | Kind::Gone => None,
    }
}

fn places(config: &Config) -> impl Iterator<Item = (&'static str, &Path)> {
    let boot: Vec<(&'static str, &Path)> = match &config.boot {
        BootConfig::File | BootConfig::Script(_) => Vec::new(),
        BootConfig::Uboot(uboot) => {
            uboot.medium.copies.iter().map(|copy| ("boot copy", copy.path.as_path())).collect()
        }
        BootConfig::SystemdBoot(loader) => {
            vec![("boot.entries", &loader.entries), ("boot.templates", &loader.templates)]
        }
    };
    let slots = config.slots.paths.iter().flatten().map(|path| ("slot", path.as_path()));
    let own = [
        ("slots.dir", config.slots.dir.as_path()),
        ("data_dir", config.data_dir.as_path()),
        ("runtime_dir", config.runtime_dir.as_path()),
    ];
    own.into_iter().chain(slots).chain(boot)
}

fn meet(area: &Path, place: &Path) -> bool {
    let (area, place) = (canonical(area), canonical(place));
    if area.starts_with(&place) || place.starts_with(&area) {
        return true;
    }
    // The same folder under another name, which no link shows: a bind mount.
    let number = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let above = |path: &Path, other: &Path| {
        number(path).is_some_and(|it| other.ancestors().any(|above| number(above) == Some(it)))
    };
    if above(&area, &place) || above(&place, &area) {
        return true;
    }
    // A file system on a slot's own device.
    let device = fs::metadata(&place).ok().filter(|found| found.file_type().is_block_device());
    device.zip(fs::metadata(&area).ok()).is_some_and(|(slot, area)| slot.rdev() == area.dev())
}

/// Follows links as far as the path exists; the rest is made later.
fn canonical(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    for existing in path.ancestors() {
        if let Ok(found) = existing.canonicalize() {
            return rest.into_iter().rev().fold(found, |path, name| path.join(name));
        }
        rest.extend(existing.file_name());
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(config: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        fs::write(&path, config).unwrap();
        Config::load(&path).err().map(|error| error.to_string())
    }

    fn config(base: &Path, area: &Path) -> String {
        let (base, area) = (base.display(), area.display());
        format!(
            "fleet = 'acme'\ndevice = 'r-1'\nproduct = 'ap'\nmodel = 'm1'\nregion = 'eu'\nbrokers = ['mqtt://localhost']\n\
             data_dir = '{base}/tern'\nruntime_dir = '{base}/run'\nslots = {{ dir = '{base}/slots', capacity = 1000 }}\n\
             data = {{ areas = ['{area}'] }}\n"
        )
    }

    #[test]
    fn user_data_is_apart_from_slots_and_from_the_agents_own_folders() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        for folder in ["tern", "slots/app", "data"] {
            fs::create_dir_all(base.join(folder)).unwrap();
        }
        std::os::unix::fs::symlink(base.join("slots"), base.join("linked")).unwrap();

        for good in ["data", "data/app", "not/there/yet", "slots-2"] {
            assert_eq!(refused(&config(base, &base.join(good))), None, "{good}");
        }
        for bad in
            ["", "slots", "slots/app", "tern", "tern/x", "run", "linked", "linked/new", "data/../slots"]
        {
            let said = refused(&config(base, &base.join(bad))).unwrap_or_default();
            assert!(said.contains("are not apart"), "{bad}: {said}");
        }
        for bad in ["relative", "/with:colon"] {
            let said = refused(&config(base, Path::new(bad))).unwrap_or_default();
            assert!(said.contains("absolute path"), "{bad}: {said}");
        }
    }

    #[test]
    fn a_file_system_on_a_slot_is_no_place_for_user_data() {
        // Every mounted file system of this machine that is on a device with a name.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for line in mounts.lines() {
            let mut words = line.split(' ');
            let (Some(device), Some(folder)) = (words.next(), words.next()) else { continue };
            let is_block = |path| fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
            if is_block(device) {
                let same =
                    fs::metadata(device).unwrap().rdev() == fs::metadata(folder).map_or(0, |f| f.dev());
                assert_eq!(meet(Path::new(folder), Path::new(device)), same, "{line}");
            }
        }
        assert!(!meet(Path::new("/proc"), Path::new("/dev/null")));
    }
}
