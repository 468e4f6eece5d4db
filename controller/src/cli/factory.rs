//! `tern factory`.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;
use tern_protocol::id::{FactoryId, FleetId};
use tern_protocol::tuf::Signer as _;
use tern_protocol::tuf::content::point_hex;
use tern_protocol::tuf::key::{P256Signer, PublicKey};

use super::failure::{Exit, Failure};
use super::output::table;
use super::passphrase::asker;
use super::{Context, words};
use crate::api::types::{DoneBody, FactoryLine, TrustFactory};
use crate::core::enrolment::{factory, list};
use crate::files::{Readers, replace};
use crate::keys;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Trust the lists that a factory signs
    #[command(
        after_help = "Compare the key with the factory by another way than the one on which it came.\n\n\
                      Example:\n  tern factory add line-1 --key line-1.pub.pem"
    )]
    Add {
        /// Name the factory
        factory: FactoryId,
        /// Its public key (PEM, BEGIN PUBLIC KEY)
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// List factories
    #[command(after_help = "Example:\n  tern factory list")]
    List,
    /// Refuse the lists of a factory from now on
    #[command(after_help = "The devices of its lists stay.\n\nExample:\n  tern factory revoke line-1")]
    Revoke {
        /// The factory
        factory: FactoryId,
    },
    /// Sign a list, at the factory
    #[command(after_help = "Talks to nobody. The same signature comes from\n  \
                      { printf 'tern-factory-v1\\nacme\\n'; cat LIST; } | openssl dgst -sha256 -sign KEY > LIST.sig\n\n\
                      Example:\n  tern factory sign factory.jsonl --fleet acme --key line-1.pem --out factory.jsonl.sig")]
    Sign {
        /// The list
        list: PathBuf,
        /// The fleet that the devices are for
        #[arg(long)]
        fleet: FleetId,
        /// The factory's private key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Open an encrypted key with the first line of this file [default: ask]
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// Write the signature here
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Debug, Serialize)]
struct Signed {
    devices: usize,
    out: PathBuf,
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Add { factory, key } => {
            let pem = read(&key)?;
            let point = std::str::from_utf8(&pem).ok().and_then(|pem| PublicKey::from_pem(pem).ok());
            let point = point.and_then(|key| key.point()).ok_or_else(|| {
                let error = format!("{} is not a P-256 public key in PEM", key.display());
                Failure::new(error, "name the file with BEGIN PUBLIC KEY that `tern keys factory` made")
            })?;
            let key = point_hex(&p256::PublicKey::from(point));
            let done: DoneBody = context.client.post("/v1/factories", &TrustFactory { factory, key })?;
            context.out.result(&done, |done| done.done.clone());
        }
        Verb::List => {
            let factories: Vec<FactoryLine> = context.client.get("/v1/factories")?;
            context.out.result(&factories, |factories| {
                let rows = factories.iter().map(|line| {
                    [
                        line.factory.to_string(),
                        if line.revoked { "revoked" } else { "trusted" }.to_owned(),
                        words::moment(line.added_at),
                        line.key.clone(),
                    ]
                });
                table(["factory", "status", "since", "key"], rows)
            });
        }
        Verb::Revoke { factory } => {
            let path = format!("/v1/factories/{factory}/revoke");
            let done: DoneBody = context.client.post(&path, &serde_json::json!({}))?;
            context.out.result(&done, |done| done.done.clone());
        }
        Verb::Sign { list, fleet, key, passphrase_file, out } => {
            let signer = keys::load_signer_asking(&key, &asker(passphrase_file.as_deref()))?;
            let signed = sign(list, &fleet, &signer, out)?;
            context.out.result(&signed, |signed| {
                format!("{} devices signed; the signature is in {}", signed.devices, signed.out.display())
            });
        }
    }
    Ok(Exit::Done)
}

fn sign(path: PathBuf, fleet: &FleetId, signer: &P256Signer, out: PathBuf) -> Result<Signed, Failure> {
    let bytes = read(&path)?;
    let shown = path.display();
    let hint = "correct the list; nothing was signed";
    if bytes.len() > factory::LIST_MAX {
        let error = format!("{shown} has {} bytes, allowed are {}", bytes.len(), factory::LIST_MAX);
        return Err(Failure::new(error, "cut it into several"));
    }
    // What the service would refuse must not be signed first.
    let text = std::str::from_utf8(&bytes).map_err(|e| Failure::new(format!("{shown}: {e}"), hint))?;
    let devices = list::read(text).map_err(|why| Failure::new(format!("{shown}: {why}"), hint))?;
    let signature = signer
        .sign(&factory::signing_input(fleet, &bytes))
        .map_err(|e| Failure::new(e.to_string(), "check the key"))?;
    replace(&out, &signature, Readers::All).map_err(|e| {
        Failure::new(
            format!("could not write {}: {e}", out.display()),
            "check the path and the room on the disk",
        )
    })?;
    Ok(Signed { devices: devices.len(), out })
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|e| Failure::new(format!("could not read {}: {e}", path.display()), "check the path"))
}
