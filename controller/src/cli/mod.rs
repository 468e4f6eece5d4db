//! The command line: noun, verb.
//!
//! | module | what it holds |
//! |---|---|
//! | [`serve`], [`demo`] | arguments of the two commands that run something |
//! | `keys`, `release`, `rollout`, `device`, `claim`, `factory`, `ledger` | the other nouns |
//! | `token` | who may use the API |
//! | `bearer` | which token is shown to the service |
//! | `phases` | the little language of `--phases` |
//! | `plan` | from flags to a plan |
//! | `watch` | following a rollout |
//! | `words` | sizes, times and rates as people read them |
//! | `passphrase` | asking for passphrases |
//! | `failure` | errors that say what to do next |
//! | `output` | the only place that prints |

mod bearer;
mod claim;
pub mod demo;
mod device;
mod factory;
mod failure;
mod keys;
mod ledger;
mod output;
mod passphrase;
mod phases;
mod plan;
mod release;
mod rollout;
pub mod serve;
mod token;
mod watch;
mod words;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::bearer::Sources;
use self::failure::{Exit, Failure};
use self::output::Output;
use crate::api::client::Client;

/// Where the service listens unless somebody says otherwise.
const API: &str = "http://127.0.0.1:7880";

const AFTER: &str = "\
The usual way of a release:
  tern keys init --fleet acme --product cam --data ./tern-data --offline /media/stick
  tern serve --data ./tern-data
  tern device add --file factory.jsonl --signature factory.jsonl.sig
  tern release create --product cam --rc 7 --version 2.4.1 --model b3 --image fw.img --out draft.json
  tern release sign draft.json --key /media/stick/release.pem --out signed.json
  tern release publish signed.json --image fw.img
  tern rollout plan --product cam --rc 7 --phases '34@10%,64@5%,all'
  tern rollout start --product cam --rc 7 --phases '34@10%,64@5%,all'
  tern rollout watch cam-7-1

Exit codes:
  0  done; a watched rollout completed
  1  failed; the last lines say why and what to do next
  2  the command line was not understood
  3  a watched rollout is paused
  4  a watched rollout was killed
  5  the service could not be reached
  6  the service refused the token, or its role is too low
  7  `release lint` found something";

/// Push signed releases to fleets of devices, a canary first, and take bad ones back
#[derive(Debug, Parser)]
#[command(name = "tern", version, after_help = AFTER, arg_required_else_help = true)]
struct Cli {
    /// Talk to the service at this address [default: $TERN_API, or http://127.0.0.1:7880]
    #[arg(long, global = true, value_name = "URL")]
    api: Option<String>,
    /// Show the service the token in this file [default: $TERN_TOKEN_FILE, $TERN_TOKEN, ~/.config/tern/token, or
    /// admin.token in the data folder of a service on this machine]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<std::path::PathBuf>,
    /// Believe the authorities in this PEM file when the address is https [default: $TERN_CA, or those of this machine]
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<std::path::PathBuf>,
    /// Let tokens travel in the clear: show one to an http address that is not this machine's; as `tern serve`, listen on such
    #[arg(long, global = true)]
    insecure_api_without_tls: bool,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Make, rotate and watch over keys
    #[command(subcommand)]
    Keys(keys::Verb),
    /// Create, sign, publish and look at releases
    #[command(subcommand)]
    Release(release::Verb),
    /// Plan, start, watch and stop rollouts
    #[command(subcommand)]
    Rollout(rollout::Verb),
    /// Register and look at devices
    #[command(subcommand)]
    Device(device::Verb),
    /// Make and take back tokens with which unlisted devices enrol
    #[command(subcommand)]
    Claim(claim::Verb),
    /// Name the factories whose lists are trusted, and sign lists
    #[command(subcommand)]
    Factory(factory::Verb),
    /// Make, list and take back the tokens of the API
    #[command(subcommand)]
    Token(token::Verb),
    /// Check and read the ledger
    #[command(subcommand)]
    Ledger(ledger::Verb),
    /// Run the service
    Serve(serve::Flags),
    /// Show everything on this machine: a broker, a fleet, a bad release and its end
    Demo(demo::Flags),
    /// Make one delta: what the service runs as a process of its own
    #[command(hide = true)]
    EncodeDelta(crate::deltas::encode::Flags),
    /// Run one of the demo's agents
    #[command(hide = true)]
    DemoAgent {
        #[arg(long)]
        config: std::path::PathBuf,
    },
    /// Judge an image on one of the demo's devices
    #[command(hide = true)]
    DemoProbe {
        #[arg(long)]
        device: String,
        image: std::path::PathBuf,
    },
}

/// What a command gets.
struct Context {
    out: Output,
    client: Client,
    /// Tokens may travel in the clear.
    insecure: bool,
}

/// Runs the command line and returns the process's exit code.
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| not_understood(&error));
    let api = cli.api.or_else(|| std::env::var("TERN_API").ok()).unwrap_or_else(|| API.to_owned());
    let insecure = cli.insecure_api_without_tls;
    let client = Sources::of(cli.token_file, cli.ca).client(&api, insecure);
    let context = Context { out: Output::new(cli.json), client, insecure };
    match run(cli.noun, &context) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            context.out.failure(&failure);
            failure.exit.into()
        }
    }
}

/// Ends with code 2, or after help with 0. Programs get errors in their own words, whatever the error is of.
fn not_understood(error: &clap::Error) -> ! {
    if error.use_stderr() && std::env::args_os().any(|word| word == "--json") {
        let text = error.render().to_string();
        let error = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Output::new(true)
            .failure(&Failure::usage(error, "`tern help`, or --help after the command, shows what it takes"));
        std::process::exit(2);
    }
    error.exit()
}

fn run(noun: Noun, context: &Context) -> Result<Exit, Failure> {
    match noun {
        Noun::Keys(verb) => keys::run(verb, context),
        Noun::Release(verb) => release::run(verb, context),
        Noun::Rollout(verb) => rollout::run(verb, context),
        Noun::Device(verb) => device::run(verb, context),
        Noun::Claim(verb) => claim::run(verb, context),
        Noun::Factory(verb) => factory::run(verb, context),
        Noun::Token(verb) => token::run(verb, context),
        Noun::Ledger(verb) => ledger::run(verb, context),
        Noun::Serve(flags) => Ok(crate::serve::run(flags.args(context.insecure)).map(|()| Exit::Done)?),
        Noun::Demo(flags) => {
            let whole = crate::demo::run(&flags.args(context.out.json()))?;
            Ok(if whole { Exit::Done } else { Exit::Failed })
        }
        Noun::EncodeDelta(flags) => Ok(crate::deltas::encode::run(&flags).map(|()| Exit::Done)?),
        Noun::DemoAgent { config } => Ok(crate::demo::agent(&config).map(|()| Exit::Done)?),
        Noun::DemoProbe { device, image } => Ok(crate::demo::probe(&image, &device).map(|()| Exit::Done)?),
    }
}
