//! `tern ledger`.

mod check;
mod prove;
mod retain;
mod said;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use self::said::said;
use super::failure::{Exit, Failure};
use super::{Context, words};
use crate::api::types::{LedgerFrame, LedgerPage};
use crate::core::fact::Entry;
use crate::ledger::boundary::read_note;
use crate::ledger::{Boundary, Frame, Frames, NoteKey, verify};
use crate::plain;
use crate::retention::DAYS_MAX;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Check every frame, how they are chained, and what was signed
    #[command(
        after_help = "Reads the folder and changes nothing; made for a copy. Without --key the copy's own key is believed.\n\n\
                      Example:\n  mkdir -p /tmp/copy && cp -r ./tern-data/ledger /tmp/copy/ && tern ledger verify --data /tmp/copy"
    )]
    Verify {
        #[command(flatten)]
        copy: Copied,
        /// Believe signatures of this key alone: a file with it, or what `tern ledger key` printed
        #[arg(long, value_name = "FILE|HEX")]
        key: Option<String>,
    },
    /// Work every verdict out again from the frames before it, and compare
    #[command(
        after_help = "Reads the folder and changes nothing; made for a copy. Exit code 1 if a verdict is another.\n\n\
                      Example:\n  tern ledger replay --data /tmp/copy"
    )]
    Replay {
        #[command(flatten)]
        copy: Copied,
    },
    /// Print frames, the service's or those of a folder
    #[command(after_help = "Example:\n  tern ledger show --from 100 --limit 20")]
    Show {
        /// Begin with this frame
        #[arg(long, value_name = "N", default_value_t = 0)]
        from: u64,
        /// Print at most this many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
        /// Read this data folder instead of asking the service
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Print all frames for other programs, one JSON object a line
    #[command(after_help = "The lines are those of `tern --json ledger show`, to the end of the ledger.\n\n\
                      Examples:\n  tern ledger export --from 20000 >> ledger.jsonl\n  tern ledger export --data /tmp/copy | jq 'select(.entry.fact == \"killed\")'")]
    Export {
        /// Begin with this frame
        #[arg(long, value_name = "N", default_value_t = 0)]
        from: u64,
        /// Read this data folder instead of asking the service
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Print the public key that signs the ledger; note it elsewhere
    Key {
        /// Take it from this data folder
        #[arg(long, value_name = "DIR", default_value = "./tern-data")]
        data: PathBuf,
    },
    /// Print a proof that one frame is in the ledger
    #[command(after_help = "Whoever has the key can check it without the ledger.\n\n\
                      Example:\n  tern ledger prove --frame 4711 --data /tmp/copy > 4711.tlog-proof")]
    Prove {
        /// Prove this frame
        #[arg(long, value_name = "N")]
        frame: u64,
        /// Read the ledger in this data folder
        #[arg(long, value_name = "DIR", default_value = "./tern-data")]
        data: PathBuf,
    },
    /// Check a proof, and print the frame that it proves
    #[command(after_help = "Example:\n  tern ledger check-proof 4711.tlog-proof --key 04c2…")]
    CheckProof {
        /// What `tern ledger prove` has printed
        file: PathBuf,
        /// The ledger's key: a file with it, or what `tern ledger key` printed
        #[arg(long, value_name = "FILE|HEX")]
        key: String,
    },
    /// Drop frames older than some days, of a service that does not run
    #[command(
        after_help = "Whole segments go; never one in which a rollout began that runs or is paused. A service that runs \
                      does it by itself: ledger_days in its configuration.\n\n\
                      Example:\n  tern ledger retain --data /var/lib/tern --days 400"
    )]
    Retain {
        /// Drop frames of the ledger in this data folder
        #[arg(long, value_name = "DIR", default_value = "./tern-data")]
        data: PathBuf,
        /// Keep frames for this long
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX))]
        days: u64,
    },
}

/// A data folder, named with or without its flag.
#[derive(Debug, Args)]
pub(super) struct Copied {
    /// The data folder whose ledger is read [default: ./tern-data]
    #[arg(value_name = "DIR", conflicts_with = "data")]
    dir: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Copied {
    fn folder(&self) -> &Path {
        self.dir.as_deref().or(self.data.as_deref()).unwrap_or(Path::new("./tern-data"))
    }
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Verify { copy, key } => check::check(copy.folder(), key.as_deref(), context),
        Verb::Replay { copy } => check::replay(copy.folder(), context),
        Verb::Show { from, limit, data } => {
            each(from, limit, data.as_deref(), context, &|frame| print(context, frame))
        }
        Verb::Export { from, data } => each(from, u64::MAX, data.as_deref(), context, &|frame| {
            context.out.line(&serde_json::to_string(frame).expect("frames are plain data"));
        }),
        Verb::Key { data } => prove::key(&data, context),
        Verb::Prove { frame, data } => prove::prove(&data, frame, context),
        Verb::CheckProof { file, key } => prove::check(&file, &key, context),
        Verb::Retain { data, days } => retain::retain(&data, days, context),
    }
}

/// Hands frames on as they are read, the service's page by page.
fn each(
    from: u64,
    limit: u64,
    data: Option<&Path>,
    context: &Context,
    take: &dyn Fn(&LedgerFrame),
) -> Result<Exit, Failure> {
    if let Some(data) = data {
        let folder = folder(data)?;
        let end = verify(&folder)?.frames;
        let first = Boundary::find(&folder)?.map_or(0, |boundary| boundary.first());
        note_dropped(context, from, first);
        for frame in
            Frames::new(&folder, from.max(first), end)?.take(usize::try_from(limit).unwrap_or(usize::MAX))
        {
            take(&read(frame?)?);
        }
        return Ok(Exit::Done);
    }
    let (mut next, mut left, mut asked) = (Some(from), limit, from);
    while let Some(from) = next.filter(|_| left > 0) {
        let path = format!("/v1/ledger/frames?from={from}&limit={}", left.min(1000));
        let page: LedgerPage = context.client.get(&path)?;
        note_dropped(context, asked, page.first);
        asked = u64::MAX;
        page.frames.iter().for_each(take);
        left = left.saturating_sub(page.frames.len() as u64);
        next = page.next;
    }
    Ok(Exit::Done)
}

fn note_dropped(context: &Context, from: u64, first: u64) {
    if from < first {
        context.out.note(&format!("frames below {first} were dropped"));
    }
}

fn folder(data: &Path) -> Result<PathBuf, Failure> {
    let folder = data.join("ledger");
    if folder.is_dir() {
        return Ok(folder);
    }
    let error = format!("there is no ledger in {}", data.display());
    Err(Failure::new(error, "name the data folder with --data: the one that has the folder `ledger`"))
}

/// Reads a key that was named as itself or as a file.
fn key_of(named: &str) -> Result<NoteKey, Failure> {
    let text = match NoteKey::read(named) {
        Ok(key) => return Ok(key),
        Err(_) => read_note(Path::new(named))?,
    };
    let hint = "name the file ledger.pub, or what `tern ledger key` printed when the service was set up";
    let Some(text) = text else {
        return Err(Failure::usage(format!("{named:?} is neither a key nor a file"), hint));
    };
    NoteKey::read(&text).map_err(|error| Failure::usage(format!("{named}: {error}"), hint))
}

fn read(frame: Frame) -> Result<LedgerFrame, Failure> {
    let entry: Entry = serde_json::from_slice(&frame.payload).map_err(|e| {
        let error = format!("frame {} is not a fact that this version knows: {e}", frame.sequence);
        Failure::new(error, "use the version of `tern` that wrote it, or a newer one")
    })?;
    Ok(LedgerFrame { seq: frame.sequence, hash: frame.hash, entry })
}

fn print(context: &Context, frame: &LedgerFrame) {
    context.out.result(frame, |frame| {
        let hash = frame.hash.to_string();
        let mut said = plain::line(&said(&frame.entry.fact));
        if let Some(actor) = &frame.entry.actor {
            said.push_str(&format!(" [{actor}]"));
        }
        format!("{:>8}  {}  {}  {said}", frame.seq, &hash[..12], words::moment(frame.entry.at))
    });
}
