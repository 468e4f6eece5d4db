//! `[[components]]`: what a device has beside its slots.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::program;
use super::section::Section;
use crate::component::{COMPONENTS_MAX, ComponentConfig, Kind};

/// Every key of a component.
pub(super) const COMPONENT_KEYS: [&str; 9] =
    ["name", "kind", "capacity", "version", "path", "mode", "install", "revert", "deadline"];

/// May be a program, like what is in a slot.
const MODE: u32 = 0o755;

/// Flash of a modem takes minutes.
const DEADLINE: Duration = Duration::from_secs(600);

/// Reads all of them; `slots` is the component that the slots hold.
pub(super) fn components(sections: Vec<Section>, slots: &str) -> Result<Vec<ComponentConfig>, String> {
    if sections.len() > COMPONENTS_MAX {
        return Err(format!("more than {COMPONENTS_MAX} components"));
    }
    let mut components: Vec<ComponentConfig> = Vec::new();
    for section in sections {
        let component = component(section)?;
        let name = &component.name;
        if name == slots || components.iter().any(|other| other.name == *name) {
            return Err(format!("component {name:?} is there twice; each has a name of its own"));
        }
        components.push(component);
    }
    Ok(components)
}

fn component(section: Section) -> Result<ComponentConfig, String> {
    let mut section = section.with_keys("components", &COMPONENT_KEYS)?;
    let name = section.needed("name")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(is_plain) {
        return Err(format!(
            "component {name:?} is no word that a release can name: letters, digits, '_', '-' and '.', at most 64"
        ));
    }
    let capacity = section.whole("capacity")?.ok_or_else(|| section.missing("capacity"))?;
    if capacity == 0 {
        return Err(format!(
            "the capacity of component {name:?} is 0; say how many bytes a package may have"
        ));
    }
    let version = section.text("version")?.unwrap_or_default();
    let deadline = section.duration("deadline", DEADLINE)?;
    let path = section.text("path")?.map(PathBuf::from);
    let (install, revert) = (section.list("install")?, section.list("revert")?);
    let mode = section.text("mode")?;
    let kind = section.needed("kind")?;
    if mode.is_some() && kind != "file" {
        return Err(format!("component {name:?} of kind {kind:?} has no mode: that is for a file"));
    }
    let takes = |has_path: bool, has_programs: bool| {
        let fits = path.is_some() == has_path && (install.is_some() && revert.is_some()) == has_programs;
        let needs = if has_path { "a path, and no programs" } else { "install and revert, and no path" };
        let misses = install.is_some() != revert.is_some();
        if fits && !misses { Ok(()) } else { Err(format!("component {name:?} of kind {kind:?} has {needs}")) }
    };
    let absolute = |path: Option<PathBuf>| match path {
        Some(path) if path.is_absolute() && path != Path::new("/") => Ok(path),
        _ => Err(format!("the path of component {name:?} must be absolute")),
    };
    let kind = match kind.as_str() {
        "file" => {
            takes(true, false)?;
            Kind::File { path: absolute(path)?, mode: mode.map_or(Ok(MODE), |mode| octal(&name, &mode))? }
        }
        "archive" => {
            takes(true, false)?;
            Kind::Archive { path: absolute(path)?, deadline }
        }
        "program" => {
            takes(false, true)?;
            let of =
                |command: Option<Vec<String>>| program(name.clone(), command.unwrap_or_default(), deadline);
            Kind::Program { install: of(install)?, revert: of(revert)? }
        }
        other => {
            return Err(format!(
                "unknown variant {other:?} of components.kind, expected one of [\"file\", \"archive\", \"program\"]"
            ));
        }
    };
    if deadline.is_zero() {
        return Err(format!("the deadline of component {name:?} is 0; it could never succeed"));
    }
    Ok(ComponentConfig { name, capacity, version, kind })
}

/// Reads permissions. As a text, because a number of TOML would be decimal.
fn octal(name: &str, mode: &str) -> Result<u32, String> {
    let digits = mode.bytes().all(|byte| byte.is_ascii_digit()) && (3..=4).contains(&mode.len());
    let read = u32::from_str_radix(mode, 8).ok().filter(|_| digits);
    read.ok_or_else(|| {
        format!("the mode of component {name:?} must be octal digits in quotes, such as \"644\"")
    })
}
