//! A product's repository as the ledger tells it: the newest signed files, and what they say.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tern_protocol::bundle::File;
use tern_protocol::digest::Digest;
use tern_protocol::id::ModelId;
use tern_protocol::message::{Registry, Versions};
use tern_protocol::offer::{Artifact, Candidate, NoneFits, Variant, pick};
use tern_protocol::tuf::Role;
use tern_protocol::tuf::build::Named;
use tern_protocol::tuf::content::{ArtifactContent, HaltContent, RolloutContent};

use super::comparison;
use crate::core::fact::SignedFile;

/// What the service signs itself.
const ONLINE: [Role; 4] = [Role::Timestamp, Role::Snapshot, Role::Rollout, Role::Halt];
/// How far above every known version the service goes on after a restore. Devices that come back later may hold
/// versions that nobody has shown; a heartbeat every six hours takes 250 days to use this up.
pub const AHEAD: u32 = 1000;

/// One product.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Product {
    /// The newest file of each role.
    pub files: BTreeMap<Role, String>,
    /// Every version of root.
    pub roots: BTreeMap<u32, String>,
    /// Release counters that are dead for ever, whether or not a signed file says so yet.
    pub halted: BTreeSet<u64>,
    /// Every release that was ever published, by counter, with the fingerprint of what it was.
    #[serde(default)]
    pub published: BTreeMap<u64, Digest>,
    /// Versions of the newest files; 0 where there is none. Kept because every answer names them.
    versions: Versions,
    /// Versions that were signed for certain, whether or not the files are here: what is signed next goes above. Ahead
    /// of `versions` after the data folder was restored.
    #[serde(default)]
    reached: Versions,
}

/// A release as the release role names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its counter.
    pub rc: u64,
    /// Its version.
    pub version: String,
    /// Its artifacts.
    pub artifacts: Vec<(Named, ArtifactContent)>,
}

impl Release {
    /// Returns the models for which it has something of every component.
    pub fn models(&self) -> BTreeSet<ModelId> {
        let mut components: BTreeMap<&str, BTreeSet<ModelId>> = BTreeMap::new();
        for (_, content) in &self.artifacts {
            components.entry(&content.component).or_default().extend(content.models.iter().cloned());
        }
        let all = components.into_values().reduce(|all, some| all.intersection(&some).cloned().collect());
        all.unwrap_or_default()
    }

    /// Returns what a device takes of it, in the order of installation; nothing: one of its components has nothing that
    /// is for the device.
    pub fn for_device(&self, registry: &Registry) -> Result<Vec<Artifact>, NoneFits<'_>> {
        let of = |(named, content): &'_ (Named, ArtifactContent)| {
            Variant::of_path(&named.path, &content.component)
        };
        // What stands under no path of its component is approved for nobody.
        let (candidates, places): (Vec<Candidate<'_>>, Vec<usize>) = (self.artifacts.iter().enumerate())
            .filter_map(|(at, artifact)| {
                Some((Candidate { variant: of(artifact)?, content: &artifact.1 }, at))
            })
            .unzip();
        let fits =
            |at: usize| candidates[at].content.is_for(&registry.model, &registry.carrier, &registry.region);
        let picked = pick(&candidates, &registry.model, fits)?;
        let artifact = |at: usize| {
            let (named, content) = &self.artifacts[places[at]];
            Artifact::approved(content, named.length, named.sha256)
        };
        Ok(picked.into_iter().map(artifact).collect())
    }

    /// Returns a digest of everything that the release is: paths, lengths, hashes, conditions.
    pub fn fingerprint(&self) -> Digest {
        let mut artifacts: Vec<String> = self
            .artifacts
            .iter()
            .map(|(named, content)| {
                let content = serde_json::to_string(content).expect("what was read as JSON writes as JSON");
                format!("{} {} {} {content}", named.path, named.length, named.sha256)
            })
            .collect();
        artifacts.sort();
        Digest::of(artifacts.join("\n").as_bytes())
    }
}

impl Product {
    /// Takes in newly signed files.
    pub fn take(&mut self, files: &[SignedFile]) {
        for file in files {
            if file.role == Role::Root
                && let Some(version) = version_of(&file.text)
            {
                self.roots.insert(version, file.text.clone());
            }
            if file.role == Role::Release {
                for (rc, release) in releases_in(&file.text) {
                    self.published.entry(rc).or_insert_with(|| release.fingerprint());
                }
            }
            self.files.insert(file.role, file.text.clone());
        }
        let of = |role| self.files.get(&role).and_then(|text| version_of(text)).unwrap_or(0);
        self.versions = Versions {
            root: of(Role::Root),
            timestamp: of(Role::Timestamp),
            snapshot: of(Role::Snapshot),
            targets: of(Role::Targets),
            release: of(Role::Release),
            rollout: of(Role::Rollout),
            halt: of(Role::Halt),
        };
    }

    /// Takes in signed files that devices hold. They may be older than those here, and say something new all the same.
    pub fn learn(&mut self, files: &[SignedFile]) {
        for file in files {
            let part = signed_part(&file.text);
            let version = version_of(&file.text).unwrap_or(0);
            self.reach(file.role, version);
            if file.role == Role::Halt {
                self.halted.extend(halted_by(&file.text));
            }
            // A snapshot or a timestamp names files that nobody here has seen yet.
            let named = part.as_ref().and_then(|part| part.get("meta")?.as_object());
            for (name, meta) in named.into_iter().flatten() {
                let role = name.strip_suffix(".json").and_then(Role::from_name);
                let version = meta.get("version").and_then(Value::as_u64).and_then(|v| u32::try_from(v).ok());
                if let Some((role, version)) = role.zip(version) {
                    self.reach(role, version);
                }
            }
            if version > comparison::of(&self.versions, file.role) {
                self.take(std::slice::from_ref(file));
            }
        }
    }

    /// Leaves room above every version that is known: devices that were not heard may hold somewhat newer ones.
    pub fn step_ahead(&mut self) {
        for role in ONLINE {
            let version = comparison::of(&self.reached(), role);
            self.reach(role, version.saturating_add(AHEAD));
        }
    }

    fn reach(&mut self, role: Role, version: u32) {
        raise(&mut self.reached, role, version);
    }

    /// Returns the highest versions that were signed for certain.
    pub fn reached(&self) -> Versions {
        let mut highest = self.reached;
        for role in Role::ALL {
            raise(&mut highest, role, comparison::of(&self.versions, role));
        }
        highest
    }

    /// Returns the files that people signed and that are not here, with their versions.
    pub fn lacks(&self) -> Vec<(Role, u32)> {
        let offline = [Role::Root, Role::Targets, Role::Release].into_iter();
        offline
            .filter(|role| self.is_behind(*role))
            .map(|role| (role, comparison::of(&self.reached, role)))
            .collect()
    }

    /// Tells whether the newest file of a role is below a version that was signed for certain.
    pub fn is_behind(&self, role: Role) -> bool {
        comparison::of(&self.reached, role) > comparison::of(&self.versions, role)
    }

    /// Returns the newest files in the order in which a client loads them.
    pub fn signed(&self, roles: &[Role]) -> Vec<File> {
        roles
            .iter()
            .filter_map(|role| {
                let text = self.files.get(role)?;
                Some(File { role: *role, bytes: text.clone().into_bytes() })
            })
            .collect()
    }

    /// Returns the versions of the newest files; 0 where there is none.
    pub fn versions(&self) -> Versions {
        self.versions
    }

    /// Returns the releases that the release role names, by counter.
    pub fn releases(&self) -> BTreeMap<u64, Release> {
        self.files.get(&Role::Release).map(|text| releases_in(text)).unwrap_or_default()
    }

    /// Returns the models that a release is for: those for which it has something of every component.
    pub fn models_of(&self, rc: u64) -> BTreeSet<ModelId> {
        self.releases().get(&rc).map(Release::models).unwrap_or_default()
    }

    /// Returns what the newest rollout file says.
    pub fn rollout_content(&self) -> RolloutContent {
        self.extension(Role::Rollout).unwrap_or_default()
    }

    /// Returns what the newest halt file says.
    pub fn halt_content(&self) -> HaltContent {
        self.extension(Role::Halt).unwrap_or_default()
    }

    fn extension<T: DeserializeOwned>(&self, role: Role) -> Option<T> {
        let signed = signed_part(self.files.get(&role)?)?;
        serde_json::from_value(signed.get("x-tern")?.clone()).ok()
    }

    /// Returns when the first of the newest files expires, as its own text says, and the role.
    pub fn expiries(&self) -> Vec<(Role, String)> {
        self.files
            .iter()
            .filter_map(|(role, text)| {
                let signed = signed_part(text)?;
                Some((*role, signed.get("expires")?.as_str()?.to_owned()))
            })
            .collect()
    }
}

/// Warns of a release that lacks a component which every other one brings: it may be what the slots hold. Which that is only
/// the devices know, and they refuse a release without it.
pub fn lacking(releases: &BTreeMap<u64, Release>, rc: u64) -> Option<String> {
    let components = |release: &Release| -> BTreeSet<String> {
        release.artifacts.iter().map(|(_, content)| content.component.clone()).collect()
    };
    let others = releases.values().filter(|release| release.rc != rc).map(components);
    let all = others.reduce(|all, some| all.intersection(&some).cloned().collect())?;
    let lacks: Vec<String> = all.difference(&components(releases.get(&rc)?)).cloned().collect();
    (!lacks.is_empty()).then(|| {
        format!(
            "release {rc} brings nothing for {}, as every other release does: devices whose slots hold that refuse it",
            lacks.join(" and ")
        )
    })
}

/// Reads the releases that a release file names. Artifacts that do not read are left out: no device installs
/// them either.
pub fn releases_in(text: &str) -> BTreeMap<u64, Release> {
    let mut releases: BTreeMap<u64, Release> = BTreeMap::new();
    let Some(signed) = signed_part(text) else { return releases };
    let Some(targets) = signed.get("targets").and_then(Value::as_object) else { return releases };
    for (path, target) in targets {
        let Some((named, content)) = artifact(path, target) else { continue };
        let release = releases.entry(content.rc).or_insert_with(|| Release {
            rc: content.rc,
            version: content.release_version().to_owned(),
            artifacts: Vec::new(),
        });
        release.artifacts.push((named, content));
    }
    releases
}

fn artifact(path: &str, target: &Value) -> Option<(Named, ArtifactContent)> {
    let content: ArtifactContent = serde_json::from_value(target.get("custom")?.clone()).ok()?;
    let sha256: Digest = target.get("hashes")?.get("sha256")?.as_str()?.parse().ok()?;
    let length = target.get("length")?.as_u64()?;
    Some((Named { path: path.to_owned(), length, sha256 }, content))
}

/// Returns the release counters that a halt file halts.
pub fn halted_by(text: &str) -> BTreeSet<u64> {
    let content = signed_part(text).and_then(|part| part.get("x-tern").cloned());
    let content: Option<HaltContent> = content.and_then(|content| serde_json::from_value(content).ok());
    content.into_iter().flat_map(|content| content.halted).collect()
}

fn raise(versions: &mut Versions, role: Role, to: u32) {
    let version = match role {
        Role::Root => &mut versions.root,
        Role::Timestamp => &mut versions.timestamp,
        Role::Snapshot => &mut versions.snapshot,
        Role::Targets => &mut versions.targets,
        Role::Release => &mut versions.release,
        Role::Rollout => &mut versions.rollout,
        Role::Halt => &mut versions.halt,
    };
    *version = to.max(*version);
}

fn signed_part(text: &str) -> Option<Value> {
    let mut file: Value = serde_json::from_str(text).ok()?;
    Some(file.get_mut("signed")?.take())
}

fn version_of(text: &str) -> Option<u32> {
    tern_protocol::tuf::peek(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_warned_of_that_lacks_what_every_other_one_brings() {
        let release = |rc: u64, components: &[&str]| {
            let artifact = |component: &&str| {
                let content =
                    ArtifactContent::new(rc, "1", *component, vec!["m1".parse().unwrap()], Digest([1; 32]));
                (Named { path: format!("cam/{rc}/{component}"), length: 1, sha256: Digest([1; 32]) }, content)
            };
            (rc, Release { rc, version: "1".into(), artifacts: components.iter().map(artifact).collect() })
        };
        let told = |last: &[&str]| {
            let releases = [release(6, &["rootfs"]), release(7, &["rootfs", "modem"]), release(8, last)];
            lacking(&releases.into(), 8)
        };

        assert_eq!((told(&["rootfs"]), told(&["app", "rootfs"])), (None, None));
        let said = told(&["modem"]).unwrap();
        assert!(said.contains("release 8 brings nothing for rootfs, as every other release does"), "{said}");
        assert_eq!(lacking(&[release(8, &["modem"])].into(), 8), None, "nothing is known yet");
    }
}
