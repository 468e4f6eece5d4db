//! Tern's own delta.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use tern_protocol::chunk::leaf;
use tern_protocol::delta::encode::Options;
use tern_protocol::delta::{Decoder, DeltaManifest, Profile, encode};

use super::Measured;
use super::images::InFile;
use super::usage::{self, Usage};

/// Encodes, has another process decode, compares.
pub(crate) fn measure(
    pair: &str,
    old: &Path,
    new: &Path,
    (profile, pack, threads): (Profile, usize, usize),
    folder: &Path,
) -> anyhow::Result<Measured> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("could not read {}", path.display()));
    let before = usage::own();
    let (old_bytes, new_bytes) = (read(old)?, read(new)?);
    let delta = encode(&old_bytes, &new_bytes, Options { profile, pack, threads });
    let encoded = usage::own();
    drop(old_bytes);
    anyhow::ensure!(delta.packs.iter().all(|p| p.len() <= pack + 49), "a pack above its ceiling");
    fs::write(folder.join("manifest"), delta.manifest.write())?;
    let tree: Vec<u8> = delta.packs.iter().flat_map(|pack| leaf(pack).0).collect();
    fs::write(folder.join("tree"), &tree)?;
    for (n, bytes) in delta.packs.iter().enumerate() {
        fs::write(folder.join(format!("pack-{n}")), bytes)?;
    }

    let out = Command::new(std::env::current_exe()?)
        .args([old, new])
        .arg("--decode")
        .arg(folder)
        .output()
        .context("could not start the decoder's process")?;
    anyhow::ensure!(out.status.success(), "the decoder failed: {}", String::from_utf8_lossy(&out.stderr));
    let decoded: Usage = serde_json::from_slice(&out.stdout).context("the decoder says nothing")?;
    let ok = fs::read(folder.join("new"))? == new_bytes;
    fs::remove_file(folder.join("new"))?;
    Ok(Measured {
        pair: pair.to_owned(),
        scheme: format!("tern {}", profile.name()),
        bytes: delta.manifest.bytes + (tree.len() + delta.manifest.write().len()) as u64,
        packs: delta.packs.len(),
        encode_cpu_s: encoded.cpu_s - before.cpu_s,
        encode_rss_mb: encoded.rss_mb,
        decode_cpu_s: decoded.cpu_s,
        decode_rss_mb: decoded.rss_mb,
        ok,
    })
}

/// Decodes the delta in `folder` over `old` to `folder/new`, and prints what that used.
#[expect(clippy::print_stdout, reason = "read by the process that started this one")]
pub(crate) fn decode(folder: &Path, old: &Path) -> anyhow::Result<()> {
    let manifest = DeltaManifest::read(&fs::read(folder.join("manifest"))?)?;
    let old = InFile(File::open(old)?);
    let slot = File::options().read(true).write(true).create(true).truncate(true).open(folder.join("new"))?;
    let mut slot = InFile(slot);
    slot.0.set_len(manifest.new.length)?;
    let mut decoder = Decoder::new(&manifest);
    let tree = fs::read(folder.join("tree"))?;
    for (n, digest) in tree.chunks_exact(32).enumerate() {
        let pack = fs::read(folder.join(format!("pack-{n}")))?;
        anyhow::ensure!(leaf(&pack).0 == *digest, "pack {n} is not the tree's");
        decoder.decode(&pack, &old, &mut slot)?;
    }
    println!("{}", serde_json::to_string(&usage::own())?);
    Ok(())
}
