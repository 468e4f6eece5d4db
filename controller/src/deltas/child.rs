//! The process that makes one delta, from outside: started, bounded in time, read, and not believed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tern_protocol::delta::manifest::{DELTA_PACKS_MAX, MANIFEST_LENGTH, PACK_EXCESS};
use tern_protocol::delta::{DeltaManifest, encode};
use tern_protocol::limits::CHUNK;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

use super::book::Key;

/// Of what the process complains so much is kept.
const COMPLAINT_MAX: u64 = 4096;

/// What is to be encoded, and how.
#[derive(Debug, Clone)]
pub struct Order {
    /// The program; it understands `encode-delta`.
    pub program: PathBuf,
    /// Which delta.
    pub key: Key,
    /// File of the old image, unless the whole one is coded.
    pub old: Option<PathBuf>,
    /// File of the new image.
    pub new: PathBuf,
    /// Where the process writes.
    pub out: PathBuf,
    /// Threads at once.
    pub threads: usize,
    /// Ceiling of its memory in bytes.
    pub memory: u64,
    /// How long it may take.
    pub patience: Duration,
}

/// Says why there is no delta.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The estimate is above the ceiling.
    #[error(
        "encoding takes about {} MiB of memory and may take {} MiB: raise deltas.memory_mib, or split the image",
        .needs >> 20,
        .may >> 20
    )]
    Memory {
        /// Estimate in bytes.
        needs: u64,
        /// Ceiling in bytes.
        may: u64,
    },
    /// It could not be started or heard.
    #[error("the encoder could not be run")]
    Run(#[source] io::Error),
    /// It took too long.
    #[error("the encoder took longer than {} minutes: raise deltas.minutes or deltas.threads", .0.as_secs() / 60)]
    Late(Duration),
    /// It failed.
    #[error("the encoder ended with {status}: {complaint}")]
    Failed {
        /// How.
        status: std::process::ExitStatus,
        /// What it said.
        complaint: String,
    },
    /// What it wrote is not what was asked for.
    #[error("the encoder wrote something else than the delta that it was asked for")]
    Other,
    /// What it wrote does not read.
    #[error("what the encoder wrote does not read")]
    Read(#[source] io::Error),
}

/// How it ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// What it wrote lies in [`Order::out`].
    Delta(DeltaManifest),
    /// Nothing was written: it would save nothing.
    Useless {
        /// About how many bytes it would have.
        bytes: u64,
    },
}

impl Order {
    /// Runs the process to its end; `told` hears the percentage. What it wrote lies in [`Order::out`].
    pub async fn run(&self, told: impl Fn(u8)) -> Result<Made, ChildError> {
        let needs = encode::memory(self.key.old().length, self.key.new.length, self.threads);
        if needs > self.memory {
            return Err(ChildError::Memory { needs, may: self.memory });
        }
        let ended = tokio::time::timeout(self.patience, self.attend(told)).await;
        if let Some(bytes) = ended.map_err(|_| ChildError::Late(self.patience))?? {
            return Ok(Made::Useless { bytes });
        }
        let file = File::open(&self.out).map_err(ChildError::Read)?;
        let (manifest, _) = packs(io::BufReader::new(file)).map_err(ChildError::Read)?;
        let Key { new, profile, .. } = self.key;
        if (manifest.old, manifest.new, manifest.profile) == (self.key.old(), new, profile) {
            Ok(Made::Delta(manifest))
        } else {
            Err(ChildError::Other)
        }
    }

    /// Returns how many bytes it would have, if it saves nothing.
    async fn attend(&self, told: impl Fn(u8)) -> Result<Option<u64>, ChildError> {
        let mut command = Command::new(&self.program);
        command.arg("encode-delta").arg("--new").arg(&self.new).arg("--out").arg(&self.out);
        if let Some(old) = &self.old {
            command.arg("--old").arg(old);
        }
        command.args(["--profile", self.key.profile.name()]);
        command.args(["--threads", &self.threads.to_string(), "--memory", &self.memory.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(ChildError::Run)?;
        // Held to the end: it is how the process notices that we are gone.
        let _input = child.stdin.take();
        let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(ChildError::Run(io::ErrorKind::BrokenPipe.into()));
        };
        let listen = async {
            let mut lines = BufReader::new(output.take(COMPLAINT_MAX)).lines();
            let mut useless = None;
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(bytes) = line.strip_prefix("useless ") {
                    useless = bytes.parse().ok();
                } else if let Ok(percent) = line.trim().parse() {
                    told(percent);
                }
            }
            useless
        };
        let complain = async {
            let mut complaint = Vec::new();
            let mut errors = errors.take(COMPLAINT_MAX);
            // What cannot be read of it is missing from a log line, no more.
            drop(errors.read_to_end(&mut complaint).await);
            String::from_utf8_lossy(&complaint).trim().to_owned()
        };
        let (useless, complaint, status) = tokio::join!(listen, complain, child.wait());
        let status = status.map_err(ChildError::Run)?;
        if status.success() { Ok(useless) } else { Err(ChildError::Failed { status, complaint }) }
    }
}

/// Reads what the process wrote: the manifest, and the packs one by one.
pub fn packs<R: Read>(mut from: R) -> io::Result<(DeltaManifest, impl Iterator<Item = io::Result<Vec<u8>>>)> {
    let mut head = [0; MANIFEST_LENGTH];
    from.read_exact(&mut head)?;
    let manifest = DeltaManifest::read(&head).map_err(io::Error::other)?;
    let packs = (0..manifest.packs.min(DELTA_PACKS_MAX)).map(move |_| {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > CHUNK + PACK_EXCESS {
            return Err(io::Error::other("a pack above its ceiling"));
        }
        let mut pack = vec![0; length];
        from.read_exact(&mut pack)?;
        Ok(pack)
    });
    Ok((manifest, packs))
}

/// Returns the program that runs: also when its file was replaced meanwhile.
pub fn own_program() -> PathBuf {
    let running = Path::new("/proc/self/exe");
    if running.exists() { running.to_owned() } else { std::env::current_exe().unwrap_or_default() }
}
