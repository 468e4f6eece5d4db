//! `tern keys`.

use std::path::PathBuf;

use clap::Subcommand;
use tern_protocol::id::{FleetId, ProductId};
use tern_protocol::tuf::time;

use super::Context;
use super::failure::{Exit, Failure};
use crate::clock;
use crate::keys::{InitOptions, InitReport, init, make_factory};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make the keys of a product and sign its first files
    #[command(after_help = "Nothing is ever overwritten. Afterwards take the folder of --offline away.\n\n\
                      Example:\n  tern keys init --fleet acme --product cam --data ./tern-data --offline /media/stick")]
    Init {
        /// Name the fleet; one service serves one fleet
        #[arg(long)]
        fleet: FleetId,
        /// Name the product: devices that share releases
        #[arg(long)]
        product: ProductId,
        /// Put the service's keys and the signed files into this data folder
        #[arg(long, value_name = "DIR", default_value = "./tern-data")]
        data: PathBuf,
        /// Put the keys of root, targets and release here, to be taken offline
        #[arg(long, value_name = "DIR")]
        offline: PathBuf,
        /// Let the signed files live this long [default: 365, release 180]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: Option<u32>,
    },
    /// Make the key with which a factory signs its lists
    #[command(
        after_help = "Writes FILE (private, mode 600) and FILE with .pub.pem. Nothing is ever overwritten.\n\n\
                      Example:\n  tern keys factory --out line-1.pem"
    )]
    Factory {
        /// Write the private key here
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    let (fleet, product, data, offline, days) = match verb {
        Verb::Factory { out } => {
            let made = make_factory(&out)?;
            context.out.result(&made, |made| {
                format!(
                    "keep {} at the factory, and a copy in a safe place\nnext: `tern factory add NAME --key {}` at the service",
                    made.private.display(),
                    made.public.display()
                )
            });
            return Ok(Exit::Done);
        }
        Verb::Init { fleet, product, data, offline, days } => (fleet, product, data, offline, days),
    };
    let options = InitOptions { fleet, product, data, offline, days, now: clock::now() / 1000 };
    let report = init(&options)?;
    context.out.result(&report, text);
    Ok(Exit::Done)
}

fn text(report: &InitReport) -> String {
    let list = |paths: &[PathBuf]| -> String {
        paths.iter().map(|path| format!("  {}\n", path.display())).collect()
    };
    format!(
        "product {} of fleet {} is set up\n\n\
         keep offline, and a copy in a second place:\n{}\n\
         the service holds:\n{}\n\
         signed, public:\n{}\n\
         devices are provisioned with {}\n\
         the first of these files expires at {}; sign it again before\n\
         next: take the offline keys away, then `tern serve`",
        report.product,
        report.fleet,
        list(&report.offline_keys),
        list(&report.online_keys),
        list(&report.files),
        report.root.display(),
        time::write(report.expires),
    )
}
