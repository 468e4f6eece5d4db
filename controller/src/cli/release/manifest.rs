//! A release of several artifacts as a file describes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tern_protocol::id::{CarrierId, ModelId, RegionId, VariantId};
use tern_protocol::limits::ARTIFACTS_MAX;
use tern_protocol::version::Range;

use crate::cli::failure::Failure;

/// A manifest, as it stands in the help.
pub(super) const EXAMPLE: &str = r#"  # release.toml; paths are relative to it
  [[artifact]]
  component = "rootfs"                 # what the devices' slots hold: every release has it
  image     = "rootfs.img"

  [[artifact]]
  component = "modem"
  variant   = "acme"                   # devices take the first that is for them, by name
  image     = "modem-acme.bin"
  version   = "5.1"                    # default: --version
  order     = 1                        # installed first; default 0
  carriers  = ["acme"]                 # default: all; regions likewise
  models    = ["b3"]                   # default: --model
  requires  = { boot = ">=3, <4" }     # of what runs, or of what this release brings

  [[artifact]]                         # without a variant: what all others get
  component = "modem"
  image     = "modem.bin"
  version   = "5.0"
  order     = 1
"#;

/// The artifacts of a release.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// At least one.
    #[serde(rename = "artifact")]
    pub(super) artifacts: Vec<Described>,
}

/// One of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Described {
    /// Which part of the device it is for.
    pub(super) component: String,
    /// Its name among several for the component.
    #[serde(default)]
    pub(super) variant: Option<VariantId>,
    /// The image; relative to the manifest.
    pub(super) image: PathBuf,
    /// Its own version; none: the release's.
    #[serde(default)]
    pub(super) version: Option<String>,
    /// When it is installed.
    #[serde(default)]
    pub(super) order: u8,
    /// Models that may run it; none: those of the command line.
    #[serde(default)]
    pub(super) models: Vec<ModelId>,
    /// Carriers that it is for; empty for all.
    #[serde(default)]
    pub(super) carriers: Vec<CarrierId>,
    /// Regions that it is for; empty for all.
    #[serde(default)]
    pub(super) regions: Vec<RegionId>,
    /// What it requires of other components.
    #[serde(default)]
    pub(super) requires: BTreeMap<String, Range>,
}

impl Manifest {
    /// Reads a manifest, `.json` or TOML; its images are where it says, from where it stands.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::new(format!("could not read {shown}: {e}"), "check the path"))?;
        let json = path.extension().is_some_and(|extension| extension == "json");
        let manifest: Result<Self, String> = if json {
            serde_json::from_str(&text).map_err(|e| e.to_string())
        } else {
            toml::from_str(&text).map_err(|e| e.to_string())
        };
        let hint = "see `tern release create --help` for an example";
        let mut manifest = manifest
            .map_err(|why| Failure::usage(format!("{shown} is not a manifest: {}", why.trim()), hint))?;
        // Before anything is measured, which takes long.
        if manifest.artifacts.len() > ARTIFACTS_MAX {
            let count = manifest.artifacts.len();
            let why = format!("{shown} has {count} artifacts, a release has at most {ARTIFACTS_MAX}");
            return Err(Failure::usage(
                why,
                "split the release, or name several models or carriers in one artifact",
            ));
        }
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        for artifact in &mut manifest.artifacts {
            artifact.image = folder.join(&artifact.image);
        }
        Ok(manifest)
    }

    /// Returns its images, each once.
    pub(super) fn images(self) -> Vec<PathBuf> {
        let mut images: Vec<PathBuf> = self.artifacts.into_iter().map(|artifact| artifact.image).collect();
        images.sort();
        images.dedup();
        images
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Manifest, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Manifest::read(&path)
    }

    #[test]
    fn the_manifest_of_the_help_reads() {
        let manifest = read("release.toml", EXAMPLE).unwrap();

        let [slots, acme, plain] = manifest.artifacts.as_slice() else { panic!("three artifacts") };
        assert_eq!(slots.component, "rootfs");
        assert_eq!(acme.variant.as_ref().map(VariantId::as_str), Some("acme"));
        assert_eq!((acme.order, acme.requires["boot"].to_string()), (1, ">=3, <4".into()));
        assert!(acme.image.ends_with("modem-acme.bin") && acme.image.is_absolute(), "{:?}", acme.image);
        assert_eq!((plain.variant.as_ref(), plain.carriers.len(), plain.models.len()), (None, 0, 0));
        assert_eq!(manifest.images().len(), 3);
        let json = r#"{"artifact": [{"component": "app", "image": "app.img", "requires": {"modem": "=2"}}]}"#;
        assert_eq!(read("release.json", json).unwrap().artifacts.len(), 1);
    }

    #[test]
    fn a_slip_in_a_manifest_is_named() {
        let said = |text: &str| read("release.toml", text).unwrap_err().error;
        let with = |line: &str| format!("[[artifact]]\ncomponent = \"app\"\nimage = \"a\"\n{line}\n");

        assert!(said(&with("carrier = [\"acme\"]")).contains("unknown field `carrier`"));
        assert!(said(&with("requires = { modem = \"3.1\" }")).contains("write =3.1, >=3.1 or <3.1"));
        assert!(said(&with("variant = \"a b\"")).contains("variant id"));
        assert!(said(&with("order = 256")).contains("order"));
        assert!(said("[[artifact]]\ncomponent = \"app\"").contains("missing field `image`"));
        assert!(said("").contains("missing field `artifact`"));
        assert!(said(&with("").repeat(ARTIFACTS_MAX + 1)).contains("at most 8"));
    }
}
