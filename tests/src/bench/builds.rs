//! The static agents that devices get, for each processor, with TLS and without, as `.ci/static-agent` builds them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::memory::{Link, Memory, memory};
use super::size::{Part, parts};
use crate::lab::program_in;

/// One agent.
#[derive(Debug, Clone)]
pub struct Build {
    /// Its processor, and how it was linked.
    pub name: String,
    /// Whether it speaks TLS.
    pub link: Link,
    /// Size of the file, bytes.
    pub bytes: u64,
    /// What a static one may have at most.
    pub limit: Option<u64>,
    /// What it keeps in memory; none where it does not run here.
    pub memory: Option<Memory>,
}

/// Processors as Debian names them, and as we do.
const PROCESSORS: [(&str, &str); 2] = [("arm64", "arm64"), ("amd64", "x86_64")];

/// Builds all static ones into `folder` and measures them, and the one with shared libraries if it was built; those for this
/// machine take an update to an image of `image` bytes. Returns the areas of the first one too: arm64 with TLS.
///
/// # Panics
/// When one cannot be built, or does not do the update.
pub fn builds(folder: &Path, image: usize) -> (Vec<Build>, Vec<Part>) {
    let mut found = Vec::new();
    let mut areas = Vec::new();
    for (debian, processor) in PROCESSORS {
        for (link, limit) in [(Link::Tls, 2_800_000), (Link::Plain, 2_000_000)] {
            let program = built(folder, debian, link);
            if found.is_empty() {
                let library = folder.join("rust/usr/lib/aarch64-linux-musl/libc.a");
                areas = parts(&program.with_added_extension("named"), &library);
            }
            let memory = (processor == std::env::consts::ARCH).then(|| memory(&program, link, image));
            let (name, bytes) = (format!("{processor}, static"), size(&program));
            found.push(Build { name, link, bytes, limit: Some(limit), memory });
        }
    }
    if let Some(program) = program_in("agent", "tern-agent") {
        let (name, link) = (format!("{}, shared libraries", std::env::consts::ARCH), Link::Tls);
        let memory = Some(memory(&program, link, image));
        found.push(Build { name, link, bytes: size(&program), limit: None, memory });
    }
    (found, areas)
}

fn size(program: &Path) -> u64 {
    std::fs::metadata(program).expect("a file that was just built").len()
}

fn built(folder: &Path, debian: &str, link: Link) -> PathBuf {
    let mut command = Command::new(".ci/static-agent");
    command.arg(folder).arg(debian).stderr(Stdio::inherit());
    if link == Link::Plain {
        command.arg("without-tls");
    }
    let output = command.output().expect("run it in the repository's folder");
    assert!(output.status.success(), ".ci/static-agent built nothing for {debian}");
    let said = String::from_utf8(output.stdout).expect("a path of ours");
    PathBuf::from(said.trim())
}
