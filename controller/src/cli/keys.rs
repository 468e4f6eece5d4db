//! `tern keys`.

mod init;
pub(super) mod present;
pub(super) mod publish;
mod recover;
mod rotate;
mod show;
pub(super) mod sign;
mod status;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::Context;
use super::failure::{Exit, Failure};
use super::passphrase::NewKeys;
use crate::keys::{make_factory, make_key};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make the keys of a product and sign its first files
    #[command(after_help = "Nothing is ever overwritten. Afterwards take the folders of --offline away.\n\
                      Each holder gets a folder: --offline once for each, or once, with a folder inside for each.\n\n\
                      Examples:\n  tern keys init --fleet acme --product cam --data ./tern-data --offline /media/stick\n  \
                      tern keys init --fleet acme --product cam --data ./tern-data --root-keys 3 --root-threshold 2 \\\n    \
                      --offline /media/ann --offline /media/bob --offline /media/cid --release-keys 3 --release-threshold 2")]
    Init(init::Flags),
    /// Make one key, and its public half beside it
    #[command(after_help = "Example:\n  tern keys make /media/dora/release.pem")]
    Make(MakeFlags),
    /// Show a file of root, targets or release: what it changes, who signed, who still has to
    #[command(after_help = "Example:\n  tern keys show new/root.json --previous /media/ann/root.json")]
    Show(show::Flags),
    /// Show what a file changes, then add a signature to it; needs no network
    #[command(
        after_help = "Beside the key, and beside FILE, it looks for root.json and targets.json, which say whose \
                      signatures count; beside the key also for the file signed last, to show what changes.\n\
                      --key exec:PROGRAM runs a program: it gets the bytes on standard input and gives back the \
                      signature in DER on standard output, within 120 s.\n\n\
                      Examples:\n  tern keys sign new/root.json --key /media/ann/root.pem --out new/root.json\n  \
                      tern keys sign new/root.json --key 'exec:openssl dgst -sha256 -sign ann.pem' --previous root.json --out new/root.json"
    )]
    Sign(sign::Flags),
    /// Prepare the next root, targets or release: other keys, another threshold, or only another expiry
    #[command(
        after_help = "What comes out has no signatures; have it signed with `tern keys sign`, then `tern keys publish`.\n\
                      Without --add, --remove and --threshold the file is renewed: same keys, new expiry.\n\
                      Of rollout, halt, snapshot, timestamp and time the new key is made in the data folder, and replaces the old one.\n\
                      Of telemetry it comes beside the old one; devices go over to it, then --remove takes the old one away.\n\n\
                      Examples:\n  tern keys rotate root --product cam --out new                       (renew root)\n  \
                      tern keys rotate release --product cam --add dora=dora.pub --remove ann --out new\n  \
                      tern keys rotate timestamp --product cam --data /var/lib/tern --out new\n  \
                      tern keys rotate telemetry --product cam --remove 1 --out newer"
    )]
    Rotate(rotate::Flags),
    /// Hand signed files of root, targets and release to the service
    #[command(
        after_help = "Refused until enough have signed, and until simulated devices accept the whole set: one that \
                      holds the present files, and one that knows only the first root.\n\n\
                      Example:\n  tern keys publish --product cam new/root.json new/targets.json"
    )]
    Publish(publish::Flags),
    /// Show what expires when, who signed it, and which key lies where
    #[command(
        after_help = "Exit codes, for cron: 0 nothing to do; 1 root, targets or release expires within 30 days, or a \
                      file has expired, or the service compares with its devices; 5 the service could not be reached; \
                      6 it refused the token.\n\n\
                      Examples:\n  tern keys status\n  tern --json keys status --product cam\n  tern keys status --from /media/ann"
    )]
    Status(status::Flags),
    /// Compare the service with its devices after its data folder was restored or lost
    #[command(
        after_help = "A service that finds itself in a copied data folder, or hears of more than it knows, begins by itself.\n\
                      While it compares it signs nothing but kills; every rollout is paused, and is resumed by hand.\n\
                      It ends when every device that was heard within two heartbeats is compared, or with --end.\n\
                      With --status the exit code is 3 for as long as the comparison goes on.\n\n\
                      Examples:\n  tern keys recover --reason 'the virtual machine was set back'\n  \
                      tern keys recover --status\n  tern keys recover --end --yes"
    )]
    Recover(recover::Flags),
    /// Make the key with which a factory signs its lists
    #[command(
        after_help = "Writes FILE (private, mode 600) and FILE with .pub.pem. Nothing is ever overwritten.\n\
                      A line that signs by itself takes its passphrase from a file, or has a key with --no-passphrase.\n\n\
                      Examples:\n  tern keys factory --out line-1.pem\n  tern keys factory --out line-1.pem --passphrase-file /run/secrets/line-1"
    )]
    Factory {
        /// Write the private key here
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        new: NewKeys,
    },
}

#[derive(Debug, Args)]
pub(super) struct MakeFlags {
    /// Write the key here, and its public half beside it with `.pub` at its end
    key: PathBuf,
    #[command(flatten)]
    new: NewKeys,
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Init(flags) => init::run(flags, context),
        Verb::Make(flags) => make(&flags, context),
        Verb::Show(flags) => show::run(&flags, context),
        Verb::Sign(flags) => sign::run(&flags, context),
        Verb::Rotate(flags) => rotate::run(flags, context),
        Verb::Publish(flags) => publish::run(&flags, context),
        Verb::Status(flags) => status::run(&flags, context),
        Verb::Recover(flags) => recover::run(&flags, context),
        Verb::Factory { out, new } => factory(&out, &new, context),
    }
}

fn make(flags: &MakeFlags, context: &Context) -> Result<Exit, Failure> {
    let protections = flags.new.protections(std::slice::from_ref(&flags.key), context)?;
    let protection = protections.first().expect("there is one for each path");
    let (public, key) = make_key(&flags.key, protection)?;
    let value = serde_json::json!({"key": flags.key, "public": public, "id": key.id()});
    context.out.result(&value, |_| {
        let (path, public) = (flags.key.display(), public.display());
        format!("key {}\n  {path}: keep it offline, and a copy in a second place\n  {public}: hand it to whoever runs `tern keys rotate`", key.id())
    });
    Ok(Exit::Done)
}

fn factory(out: &Path, new: &NewKeys, context: &Context) -> Result<Exit, Failure> {
    let protections = new.protections(&[out.to_owned()], context)?;
    let made = make_factory(out, protections.first().expect("there is one for each path"))?;
    context.out.result(&made, |made| {
        format!(
            "keep {} at the factory, and a copy in a safe place\nnext: `tern factory add NAME --key {}` at the service",
            made.private.display(),
            made.public.display()
        )
    });
    Ok(Exit::Done)
}
