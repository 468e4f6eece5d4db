//! Measures deltas: encodes, decodes in a process of its own, compares; beside others on the same pair.
//!
//! The decoder's process reads the old image by offset and writes the new one to a file, as an agent does.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use tern_protocol::delta::Profile;

mod images;
mod ours;
mod peers;
mod usage;

/// Measure the delta between two images
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  delta-bench root-ext4.old root-ext4.new --profile linux --peers --json")]
struct Flags {
    /// The image that a device has
    old: PathBuf,
    /// The image that it should get
    new: PathBuf,
    /// Profile: linux, small-linux, mcu or fast
    #[arg(long, default_value = "linux", value_parser = profile)]
    profile: Profile,
    /// Ceiling of a pack in KiB
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(4..=64))]
    pack: u16,
    /// Threads that encode
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Measure others too, those that are installed
    #[arg(long)]
    peers: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Decode the delta in this folder into it: what the bench runs as a process of its own
    #[arg(long, hide = true)]
    decode: Option<PathBuf>,
}

fn profile(name: &str) -> Result<Profile, String> {
    let names = || Profile::ALL.map(Profile::name).join(", ");
    Profile::named(name).ok_or_else(|| format!("one of {}", names()))
}

/// What one scheme did with one pair.
#[derive(Debug, serde::Serialize)]
struct Measured {
    pair: String,
    scheme: String,
    bytes: u64,
    packs: usize,
    encode_cpu_s: f64,
    encode_rss_mb: f64,
    decode_cpu_s: f64,
    decode_rss_mb: f64,
    ok: bool,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    if let Some(folder) = &flags.decode {
        return ours::decode(folder, &flags.old);
    }
    let folder = tempfile::tempdir().context("no folder for the deltas")?;
    let pair = pair(&flags.new);
    let options = (flags.profile, usize::from(flags.pack) * 1024, flags.threads);
    let mut all_ok = true;
    let mut show = |measured: &Measured| {
        all_ok &= measured.ok;
        print(measured, flags.json)
    };
    show(&ours::measure(&pair, &flags.old, &flags.new, options, folder.path())?)?;
    if flags.peers {
        for peer in peers::ALL {
            match peers::measure(peer, &pair, &flags.old, &flags.new, folder.path())? {
                Some(measured) => show(&measured)?,
                None => absent(peer.name, peer.wants),
            }
        }
    }
    anyhow::ensure!(all_ok, "something came out wrong");
    Ok(())
}

fn pair(new: &Path) -> String {
    new.file_stem().map_or_else(|| "pair".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

#[expect(clippy::print_stdout, reason = "this is the result")]
fn print(measured: &Measured, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(measured)?);
        return Ok(());
    }
    let Measured { pair, scheme, bytes, packs, .. } = measured;
    println!(
        "{pair:16} {scheme:22} {bytes:>10} B {packs:>5} packs  encode {:6.1} s {:6.0} MB  decode {:6.2} s {:6.1} MB  {}",
        measured.encode_cpu_s,
        measured.encode_rss_mb,
        measured.decode_cpu_s,
        measured.decode_rss_mb,
        if measured.ok { "ok" } else { "WRONG" }
    );
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a measurement that was not made must be seen")]
fn absent(name: &str, wants: &str) {
    eprintln!(
        "{name}: NOT MEASURED, {wants} is not here (.ci/delta-peers installs it) or the images are too large for it"
    );
}
