//! The process that makes one delta, from inside: encodes, writes, reads back, decodes, compares.
//!
//! ```text
//! tern encode-delta --new FILE [--old FILE] --out FILE --profile NAME --threads N --memory BYTES
//! standard output: a line with the percentage whenever it grows; `useless`, and about how many bytes, if it saves nothing
//! out: manifest, then for each pack its length u32 and bytes
//! ```
//! It ends when its standard input does: it must not outlive the service.
#![expect(clippy::print_stdout, reason = "the service reads along")]

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context as _, ensure};
use clap::Args;
use rustix::process::{Resource, Rlimit, nice, setrlimit};
use tern_protocol::delta::encode::Options;
use tern_protocol::delta::{Decoder, Delta, DeltaManifest, Profile, ReadAt, Slot, encode_if_it_saves};

/// Room beyond the estimate: what the allocator keeps, and threads' stacks that are never touched.
const SLACK: u64 = 256 << 20;

/// What the process is told.
#[derive(Debug, Args)]
pub struct Flags {
    /// The image that devices run; without it the whole new one is coded
    #[arg(long, value_name = "FILE")]
    old: Option<PathBuf>,
    /// The image that they should run
    #[arg(long, value_name = "FILE")]
    new: PathBuf,
    /// Write manifest and packs here
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Kind of device
    #[arg(long)]
    profile: String,
    /// Threads at once
    #[arg(long)]
    threads: usize,
    /// Take no more memory than this
    #[arg(long, value_name = "BYTES")]
    memory: u64,
}

/// Makes the delta.
pub fn run(flags: &Flags) -> anyhow::Result<()> {
    std::thread::spawn(end_with_input);
    // Whatever the service does for devices goes first.
    nice(19).context("could not step back behind other processes")?;
    let most = Some(flags.memory.saturating_add(SLACK));
    setrlimit(Resource::As, Rlimit { current: most, maximum: most }).context("could not bound the memory")?;
    let profile = Profile::named(&flags.profile).context("no such profile")?;
    let options = Options { threads: flags.threads, ..Options::new(profile) };
    let manifest = {
        let old = flags.old.as_deref().map(read).transpose()?.unwrap_or_default();
        let new = read(&flags.new)?;
        let delta = match encode_if_it_saves(&old, &new, options, &tell()) {
            Ok(delta) => delta,
            Err(bytes) => {
                println!("useless {bytes}");
                return Ok(());
            }
        };
        write(&flags.out, &delta).with_context(|| format!("could not write {}", flags.out.display()))?;
        delta.manifest
    };
    check(flags, &manifest)
}

fn end_with_input() {
    // Whether it ends or breaks, nobody is there any more.
    drop(io::copy(&mut io::stdin(), &mut io::sink()));
    std::process::exit(1);
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("could not read {}", path.display()))
}

/// Says how far it is, at each percent once.
fn tell() -> impl Fn(usize, usize) + Sync {
    let told = AtomicU8::new(0);
    move |coded, all| {
        let percent = u8::try_from(coded * 100 / all.max(1)).unwrap_or(100);
        if told.fetch_max(percent, Ordering::Relaxed) < percent {
            println!("{percent}");
        }
    }
}

fn write(path: &Path, delta: &Delta) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(&delta.manifest.write())?;
    for pack in &delta.packs {
        let length = u32::try_from(pack.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(pack)?;
    }
    out.flush()
}

/// Decodes what was written, as a device would, and compares every byte with the new image.
fn check(flags: &Flags, manifest: &DeltaManifest) -> anyhow::Result<()> {
    let old = flags.old.as_deref().map(OnDisk::open).transpose()?;
    let nothing: &[u8] = &[];
    let old: &dyn ReadAt = old.as_ref().map_or(&nothing as &dyn ReadAt, |old| old);
    let mut same = Same { new: OnDisk::open(&flags.new)?, end: 0 };
    let mut decoder = Decoder::new(manifest);
    for pack in super::child::packs(BufReader::new(File::open(&flags.out)?))?.1 {
        decoder.decode(&pack?, old, &mut same).context("the delta does not decode again")?;
    }
    ensure!(same.end == manifest.new.length, "the delta ends before the image does");
    Ok(())
}

struct OnDisk(File);

impl OnDisk {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("could not open {}", path.display()));
        Ok(Self(file?))
    }
}

impl ReadAt for OnDisk {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }
}

/// A slot that holds the new image already, and takes nothing else: nothing has to be written to compare.
struct Same {
    new: OnDisk,
    end: u64,
}

impl ReadAt for Same {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.new.read_at(offset, into)
    }
}

impl Slot for Same {
    fn write_chunk(&mut self, chunk: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut expected = vec![0; bytes.len()];
        self.new.read_at(offset, &mut expected)?;
        if offset != self.end || bytes != expected {
            return Err(io::Error::other(format!("chunk {chunk} is not the image's")));
        }
        self.end += bytes.len() as u64;
        Ok(())
    }
}
