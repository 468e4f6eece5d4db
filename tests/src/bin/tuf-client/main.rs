//! A TUF client with the command line of the public conformance suite (its CLIENT-CLI.md).
//!
//! The workflow is `tern_protocol::tuf::Client`, whose checks are the agent's; only HTTP, a folder and the clock are
//! added here. `.ci/long tuf-conformance` runs the suite against it; docs/security.md has the figures.

mod folder;
mod http;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use tern_agent::clock;
use tern_protocol::limits::TufLimits;
use tern_protocol::tuf::client::{Client, Refreshed};
use tern_protocol::tuf::metadata::Target;
use tern_protocol::tuf::quote;

use folder::Folder;
use http::Http;

/// The most that a target may have, in bytes.
const TARGET_MAX: usize = 64 << 20;

/// Follow a TUF repository over plain HTTP
#[derive(Debug, Parser)]
struct Flags {
    /// Folder of the metadata that is trusted
    #[arg(long)]
    metadata_dir: PathBuf,
    /// Where the repository's metadata is
    #[arg(long)]
    metadata_url: Option<String>,
    /// Path of a target to download; may be repeated
    #[arg(long)]
    target_name: Vec<String>,
    /// Where the repository's targets are
    #[arg(long)]
    target_base_url: Option<String>,
    /// Folder for downloaded targets
    #[arg(long)]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trust a root
    Init {
        /// File of the root
        root: PathBuf,
    },
    /// Bring the top-level metadata up to date
    Refresh,
    /// Bring the metadata up to date and download targets
    Download,
}

fn main() -> Result<()> {
    let flags = Flags::parse();
    let mut store = Folder::new(&flags.metadata_dir);
    if let Command::Init { root } = &flags.command {
        let bytes = fs::read(root).with_context(|| format!("could not read {}", root.display()))?;
        return Ok(Client::init(&mut store, &bytes, &TufLimits::DEVICE)?);
    }
    let mut metadata = Http::new(flags.metadata_url.as_deref().context("--metadata-url is missing")?);
    let client = Client::new(&mut metadata, &mut store, TufLimits::DEVICE, clock::wall())?;
    let mut repository = client.refresh()?;
    if matches!(flags.command, Command::Download) {
        let targets = Http::new(flags.target_base_url.as_deref().context("--target-base-url is missing")?);
        let folder = flags.target_dir.as_deref().context("--target-dir is missing")?;
        for path in &flags.target_name {
            download(&mut repository, &targets, folder, path)?;
        }
    }
    Ok(())
}

/// 5.7 Fetch target.
fn download(repository: &mut Refreshed<'_>, targets: &Http, folder: &Path, path: &str) -> Result<()> {
    // 5.7.2 A path that nobody may name is reported.
    let target = repository.find(path)?.with_context(|| format!("no role names {path}"))?;
    let file = folder.join(quote(path));
    if fs::read(&file).is_ok_and(|bytes| target.matches(&bytes)) {
        return Ok(());
    }
    let most = usize::try_from(target.length).unwrap_or(usize::MAX);
    if most > TARGET_MAX {
        bail!("{path} of {most} B is above the ceiling of {TARGET_MAX} B");
    }
    let name = published_name(path, &target, repository.consistent_snapshot())?;
    let bytes = targets.get(&name, most)?.with_context(|| format!("the repository has no {name}"))?;
    // 5.7.3 The file MUST have the length and the hashes that its role names.
    if !target.matches(&bytes) {
        bail!("{path} does not have the length and the hashes that its role names");
    }
    folder::replace(&file, &bytes).with_context(|| format!("could not write {}", file.display()))
}

/// Returns the name under which the repository publishes a target: `<folder>/<hash>.<name>` with consistent snapshots.
fn published_name(path: &str, target: &Target, consistent: bool) -> Result<String> {
    let quoted = path.split('/').map(quote).collect::<Vec<_>>().join("/");
    if !consistent {
        return Ok(quoted);
    }
    let known = ["sha256", "sha512", "sha384"].into_iter().find_map(|kind| target.hashes.get(kind));
    let hash = quote(known.with_context(|| format!("{path} has no hash of a kind that is known here"))?);
    Ok(match quoted.rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/{hash}.{name}"),
        None => format!("{hash}.{quoted}"),
    })
}
