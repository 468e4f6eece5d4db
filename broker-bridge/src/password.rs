//! The file of users: who may connect by password.
//!
//! ```text
//! # kind:id:salt:SHA-256(salt ‖ password), hex
//! device:router-17:8f0c…:41aa…
//! site:hut-3:03bd…:9e7f…
//! ```
//! Passwords are drawn by `tern-bridge passwd`: 160 random bits. A slow hash would protect passwords that people
//! choose, and let anybody keep the front busy; there are none, so a salted SHA-256 it is.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tern_protocol::digest::Digest;
use tern_protocol::id::{DeviceId, SiteId};

use crate::policy::{Client, SERVICE};

const SALT: usize = 16;
const PASSWORD: usize = 20;

/// Says what is wrong with a file of users.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The disk.
    #[error("could not {what} the file of users {path}")]
    Io {
        /// What we did.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A line that is none.
    #[error("line {line} of {path} is not kind:id:salt:hash; make lines with `tern-bridge passwd`")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// The name belongs to the service.
    #[error("no device or site may be called {SERVICE:?}: that is the controller's user")]
    Reserved,
    /// No random bytes.
    #[error("could not draw a password")]
    Random(#[source] getrandom::Error),
}

#[derive(Debug, Clone)]
struct User {
    client: Client,
    salt: String,
    hash: Digest,
}

/// The users of one file; read again when the file has changed.
#[derive(Debug)]
pub struct Passwords {
    path: PathBuf,
    state: Mutex<(Option<SystemTime>, HashMap<String, User>)>,
}

impl Passwords {
    /// Opens the file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, PasswordError> {
        let path = path.into();
        let changed = changed(&path);
        let users = read(&path)?;
        Ok(Self { path, state: Mutex::new((changed, users)) })
    }

    /// Returns who `user` is if the password is right. May read the file, so call it where blocking is allowed.
    pub fn check(&self, user: &str, password: &[u8]) -> Option<Client> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = changed(&self.path);
        if now != state.0 {
            match read(&self.path) {
                Ok(users) => *state = (now, users),
                // Half-written, most likely: yesterday's users are better than none.
                Err(error) => {
                    tracing::warn!(%error, "the changed file of users cannot be read; the old users stay")
                }
            }
        }
        let known = state.1.get(user);
        // An unknown user costs as much as a wrong password, so that neither tells which names exist.
        let (salt, hash) = known.map_or(("", Digest([0; 32])), |user| (user.salt.as_str(), user.hash));
        let right = equal(&hashed(salt, password).0, &hash.0);
        known.filter(|_| right).map(|user| user.client.clone())
    }
}

/// Draws a password for `client`, writes its line into the file (replacing an older one) and returns the password.
pub fn set_password(path: &Path, client: &Client) -> Result<String, PasswordError> {
    let mut random = [0; SALT + PASSWORD];
    getrandom::fill(&mut random).map_err(PasswordError::Random)?;
    let (salt, password) = (hex::encode(&random[..SALT]), hex::encode(&random[SALT..]));
    let mut users = if path.exists() { read(path)? } else { HashMap::new() };
    if client.id() == SERVICE {
        return Err(PasswordError::Reserved);
    }
    let hash = hashed(&salt, password.as_bytes());
    users.insert(client.id().to_owned(), User { client: client.clone(), salt, hash });
    write(path, &users)?;
    Ok(password)
}

/// Removes a user; tells whether there was one.
pub fn remove_user(path: &Path, id: &str) -> Result<bool, PasswordError> {
    let mut users = read(path)?;
    let found = users.remove(id).is_some();
    write(path, &users)?;
    Ok(found)
}

fn hashed(salt: &str, password: &[u8]) -> Digest {
    Digest::of_parts(&[salt.as_bytes(), password])
}

/// Compares in time that does not depend on where the difference lies.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PasswordError + 'a {
    move |source| PasswordError::Io { what, path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<HashMap<String, User>, PasswordError> {
    let text = fs::read_to_string(path).map_err(at("read", path))?;
    let mut users = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let user = parse(line).ok_or_else(|| PasswordError::Line { path: path.to_owned(), line: number })?;
        users.insert(user.client.id().to_owned(), user);
    }
    Ok(users)
}

fn parse(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let (kind, id, salt, hash) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let client = match kind {
        "device" => Client::Device(id.parse::<DeviceId>().ok()?),
        "site" => Client::Site(id.parse::<SiteId>().ok()?),
        _ => return None,
    };
    let ok = fields.next().is_none() && id != SERVICE;
    ok.then_some(User { client, salt: salt.to_owned(), hash: hash.parse().ok()? })
}

fn write(path: &Path, users: &HashMap<String, User>) -> Result<(), PasswordError> {
    let mut users: Vec<&User> = users.values().collect();
    users.sort_by(|a, b| a.client.cmp(&b.client));
    let mut text = String::from("# kind:id:salt:hash; kept by tern-bridge passwd\n");
    for User { client, salt, hash } in users {
        let kind = if matches!(client, Client::Site(_)) { "site" } else { "device" };
        writeln!(text, "{kind}:{}:{salt}:{hash}", client.id()).expect("writing to a string does not fail");
    }
    let aside = path.with_extension("new");
    let mut file = private(&aside).map_err(at("create", &aside))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at("write", &aside))?;
    fs::rename(&aside, path).map_err(at("replace", path))
}

fn private(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str) -> Client {
        Client::Device(id.parse().unwrap())
    }

    #[test]
    fn the_drawn_password_opens_and_no_other_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let password = set_password(&path, &device("r-1")).unwrap();
        let other = set_password(&path, &Client::Site("hut".parse().unwrap())).unwrap();

        let users = Passwords::open(&path).unwrap();

        assert_eq!(users.check("r-1", password.as_bytes()), Some(device("r-1")));
        assert_eq!(users.check("hut", other.as_bytes()), Some(Client::Site("hut".parse().unwrap())));
        for (user, password) in [("r-1", other.as_str()), ("r-1", ""), ("r-2", password.as_str()), ("", "")] {
            assert_eq!(users.check(user, password.as_bytes()), None, "{user} {password}");
        }
    }

    #[test]
    fn a_changed_file_counts_at_once_and_a_broken_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let password = set_password(&path, &device("r-1")).unwrap();
        let users = Passwords::open(&path).unwrap();
        let touch = |text: Option<&str>, time| {
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(time);
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };

        touch(Some("rubbish"), 1);
        assert!(users.check("r-1", password.as_bytes()).is_some());
        set_password(&path, &device("r-2")).unwrap_err();
        touch(Some("# nobody\n"), 2);
        assert!(users.check("r-1", password.as_bytes()).is_none());
    }

    #[test]
    fn the_name_of_the_service_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");

        assert!(matches!(set_password(&path, &device(SERVICE)), Err(PasswordError::Reserved)));
    }
}
