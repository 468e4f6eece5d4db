//! What others make of the same pair: installed programs, and Python packages that `.ci/delta-peers` puts beside the build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use super::Measured;
use super::usage::Usage;

/// Somebody else's scheme: its command lines, with OLD, NEW, PATCH and OUT in place of files.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// What must be there: a program, or a package of Python's.
    pub(crate) wants: &'static str,
    encode: &'static [&'static str],
    decode: &'static [&'static str],
    /// Larger images are not tried: hours, or more memory than there is.
    most: u64,
}

const HDIFF: &str = "import sys, hdiffpatch as h; o, n = (open(p, 'rb').read() for p in sys.argv[1:3]); \
open(sys.argv[3], 'wb').write(h.diff(o, n, h.Lzma2Config.best_compression(), validate=False))";
const HPATCH: &str = "import sys, hdiffpatch as h; o, p = (open(p, 'rb').read() for p in sys.argv[1:3]); \
open(sys.argv[3], 'wb').write(h.apply(o, p))";
const DETOOLS: &str = "import sys, detools; \
f = lambda p, m: open(p, m); detools.create_patch(f(sys.argv[1], 'rb'), f(sys.argv[2], 'rb'), f(sys.argv[3], 'wb'), \
compression=sys.argv[4])";
const DEPATCH: &str = "import sys, detools; detools.apply_patch_filenames(*sys.argv[1:4])";
const MANY: u64 = 1 << 32;

/// Everybody who is asked.
pub(crate) const ALL: &[Peer] = &[
    Peer {
        name: "zstd --patch-from -19",
        wants: "zstd",
        encode: &["zstd", "-q", "-f", "-19", "--long=31", "--patch-from=OLD", "NEW", "-o", "PATCH"],
        decode: &[
            "zstd",
            "-q",
            "-f",
            "-d",
            "--long=31",
            "--memory=2048MB",
            "--patch-from=OLD",
            "PATCH",
            "-o",
            "OUT",
        ],
        most: MANY,
    },
    Peer {
        name: "xdelta3 -9 64 MiB",
        wants: "xdelta3",
        encode: &[
            "xdelta3", "-q", "-f", "-e", "-9", "-S", "djw", "-B", "67108864", "-s", "OLD", "NEW", "PATCH",
        ],
        decode: &["xdelta3", "-q", "-f", "-d", "-B", "67108864", "-s", "OLD", "PATCH", "OUT"],
        most: MANY,
    },
    Peer {
        name: "bsdiff",
        wants: "bsdiff",
        encode: &["bsdiff", "OLD", "NEW", "PATCH"],
        decode: &["bspatch", "OLD", "OUT", "PATCH"],
        most: 300 << 20,
    },
    Peer {
        name: "HDiffPatch lzma2",
        wants: "hdiffpatch",
        encode: &["PYTHON", "-I", "-c", HDIFF, "OLD", "NEW", "PATCH"],
        decode: &["PYTHON", "-I", "-c", HPATCH, "OLD", "PATCH", "OUT"],
        most: MANY,
    },
    Peer {
        name: "detools lzma",
        wants: "detools",
        encode: &["PYTHON", "-I", "-c", DETOOLS, "OLD", "NEW", "PATCH", "lzma"],
        decode: &["PYTHON", "-I", "-c", DEPATCH, "OLD", "PATCH", "OUT"],
        most: 16 << 20,
    },
    Peer {
        name: "detools heatshrink",
        wants: "detools",
        encode: &["PYTHON", "-I", "-c", DETOOLS, "OLD", "NEW", "PATCH", "heatshrink"],
        decode: &["PYTHON", "-I", "-c", DEPATCH, "OLD", "PATCH", "OUT"],
        most: 16 << 20,
    },
];

/// Runs a command and writes what it used: the kernel's figures for that child alone.
const RUN: &str = "import json, os, sys\n\
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)\n\
_, status, used = os.wait4(pid, 0)\n\
json.dump({'cpu_s': used.ru_utime + used.ru_stime, 'rss_mb': used.ru_maxrss * 1024 / 1e6}, open(sys.argv[1], 'w'))\n\
sys.exit(0 if status == 0 else 1)";

/// Measures one, or returns nothing if it is not here or the image is beyond it.
pub(crate) fn measure(
    peer: &Peer,
    pair: &str,
    old: &Path,
    new: &Path,
    folder: &Path,
) -> anyhow::Result<Option<Measured>> {
    let (patch, out) = (folder.join("patch"), folder.join("out"));
    if fs::metadata(new)?.len() > peer.most || !is_here(peer)? {
        return Ok(None);
    }
    let run = |line: &[&str]| -> anyhow::Result<Usage> {
        let file = |word: &str| {
            let path = |p: &Path| p.to_string_lossy().into_owned();
            match word {
                "NEW" => path(new),
                "PATCH" => path(&patch),
                "OUT" => path(&out),
                "PYTHON" => path(&python().unwrap_or_default()),
                word => word.replace("OLD", &path(old)),
            }
        };
        let used = folder.join("used");
        let ran = Command::new("python3")
            .args(["-c", RUN])
            .arg(&used)
            .args(line.iter().map(|word| file(word)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .context("could not start python3, which measures the others")?;
        anyhow::ensure!(ran.status.success(), "{}: {}", peer.name, String::from_utf8_lossy(&ran.stderr));
        Ok(serde_json::from_slice(&fs::read(used)?)?)
    };
    let (encoded, decoded) = (run(peer.encode)?, run(peer.decode)?);
    let ok = fs::read(&out)? == fs::read(new)?;
    let bytes = fs::metadata(&patch)?.len();
    fs::remove_file(&patch)?;
    fs::remove_file(&out)?;
    Ok(Some(Measured {
        pair: pair.to_owned(),
        scheme: peer.name.to_owned(),
        bytes,
        packs: 1,
        encode_cpu_s: encoded.cpu_s,
        encode_rss_mb: encoded.rss_mb,
        decode_cpu_s: decoded.cpu_s,
        decode_rss_mb: decoded.rss_mb,
        ok,
    }))
}

/// The Python of `.ci/delta-peers`: in the build's folder, beside `release`.
fn python() -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?;
    let python = here.parent()?.parent()?.join("delta-peers/bin/python");
    python.exists().then_some(python)
}

fn is_here(peer: &Peer) -> anyhow::Result<bool> {
    if peer.encode.first() == Some(&"PYTHON") {
        let Some(python) = python() else { return Ok(false) };
        let import = format!("import {}", peer.wants);
        return Ok(Command::new(python)
            .args(["-I", "-c", &import])
            .stderr(Stdio::null())
            .status()?
            .success());
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::split_paths(&paths).any(|folder| folder.join(peer.wants).exists()))
}
