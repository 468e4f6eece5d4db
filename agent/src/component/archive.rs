//! A component that is unpacked: a folder for each version, and a link that says which counts.
//!
//! ```text
//! PATH/12/           release 12
//! PATH/13/           release 13
//! PATH/current  ──►  13      turned in one step
//! ```
//! `tar` of the system unpacks, all of it as the agent's own: plain archives everywhere, compressed ones where it knows them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ComponentError, apart, run};
use crate::command::{Context, Program};

/// The link to the version that counts.
const CURRENT: &str = "current";
const PARTLY: &str = ".partly";
const TURNING: &str = ".turning";

fn failed(path: &Path) -> impl Fn(io::Error) -> ComponentError {
    move |source| ComponentError::Io { path: path.to_owned(), source }
}

/// Returns where the link leads.
pub(super) fn before(path: &Path) -> Result<Option<String>, ComponentError> {
    let link = path.join(CURRENT);
    match fs::read_link(&link) {
        Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&link)(error)),
    }
}

/// Unpacks a package and has the link lead there.
pub(super) async fn install(
    context: &Context,
    path: &Path,
    package: &Path,
    deadline: Duration,
    logs: &Path,
) -> Result<(), ComponentError> {
    let name = context.rc.to_string();
    let (whole, partly) = (path.join(&name), path.join(PARTLY));
    // One of that name that does not count is left from a try that was cut short, or of a release that was taken back.
    if before(path)?.as_deref() != Some(&name) {
        let (old, empty) = (whole.clone(), partly.clone());
        let clear = move || {
            remove(&empty)?;
            remove(&old)?;
            make_open(&empty).map_err(failed(&empty)).map(|()| None)
        };
        apart(Box::new(clear)).await?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let command = vec!["tar".to_owned(), "-xof".into(), text(package), "-C".into(), text(&partly)];
        let unpack = Program { name: "tar".into(), command, deadline };
        run(&unpack, "tar", context, &[], logs).await?;
        let path = path.to_owned();
        let name_it = move || {
            // All that was unpacked, before it has its name.
            let folder = File::open(&partly).map_err(failed(&partly))?;
            rustix::fs::syncfs(&folder).map_err(|error| failed(&partly)(error.into()))?;
            fs::rename(&partly, &whole).map_err(failed(&whole))?;
            sync(&path).map(|()| None)
        };
        apart(Box::new(name_it)).await?;
    }
    turn(path, &name)
}

/// Makes a folder, with those above it. Whoever uses it is another user, and the service's umask keeps those out.
fn make_open(folder: &Path) -> io::Result<()> {
    let missing: Vec<_> = folder.ancestors().take_while(|above| !above.exists()).collect();
    fs::create_dir_all(folder)?;
    missing.into_iter().try_for_each(|made| fs::set_permissions(made, fs::Permissions::from_mode(0o755)))
}

/// Has the link lead where it led, or nowhere.
pub(super) fn turn_back(path: &Path, before: Option<&str>) -> Result<(), ComponentError> {
    match before {
        Some(name) => turn(path, name)?,
        None => {
            let link = path.join(CURRENT);
            match fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&link)(error)),
                _ => sync(path)?,
            }
        }
    }
    forget_others(path);
    Ok(())
}

fn turn(path: &Path, name: &str) -> Result<(), ComponentError> {
    let (link, turning) = (path.join(CURRENT), path.join(TURNING));
    remove(&turning)?;
    symlink(name, &turning).map_err(failed(&turning))?;
    fs::rename(&turning, &link).map_err(failed(&link))?;
    sync(path)
}

fn sync(path: &Path) -> Result<(), ComponentError> {
    match File::open(path).and_then(|folder| folder.sync_all()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed(path)),
    }
}

fn remove(path: &Path) -> Result<(), ComponentError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed(path)),
    }
}

/// Removes the versions that do not count. Only what has the name of one: others may keep their own folders there.
pub(super) fn forget_others(path: &Path) {
    let Ok(current) = before(path) else { return };
    let is_version = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let others: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name == PARTLY || is_version(&name) && Some(&*name) != current.as_deref()
        })
        .map(|entry| entry.path())
        .collect();
    for other in others {
        if let Err(error) = remove(&other) {
            tracing::warn!(folder = %other.display(), error = &error as &dyn std::error::Error, "a version stays");
        }
    }
}
