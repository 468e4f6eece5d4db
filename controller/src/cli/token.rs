//! `tern token`.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::failure::{Exit, Failure};
use super::output::table;
use super::{Context, words};
use crate::api::types::{CreatedToken, DoneBody, NewToken, TokenLine};
use crate::clock;
use crate::core::access::{Role, TokenName};
use crate::files::{Readers, replace, usable};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a token for a person or a program
    #[command(
        after_help = "The token is shown once and kept nowhere. Its name stands in the ledger beside what its holder did,\n\
                      so make one for each.\n\n\
                      Roles, each of which may do what those before it may:\n  \
                      viewer    look, and read /metrics\n  \
                      operator  publish signed releases; start, widen, pause and kill rollouts\n  \
                      approver  decide who is a device: claims, factories, approvals; read the ledger's frames\n  \
                      admin     make and revoke tokens; hand in new signed keys\n\n\
                      Examples:\n  tern token create ann --role operator\n  \
                      tern token create prometheus --role viewer --expires 90d --out /etc/prometheus/tern.token"
    )]
    Create {
        /// Name it after its holder
        token: TokenName,
        /// What its holder may do
        #[arg(long, value_enum)]
        role: AsRole,
        /// End after this time, such as 12h or 90d [default: never]
        #[arg(long, value_name = "TIME", value_parser = words::duration)]
        expires: Option<u64>,
        /// Write it into this file, for its owner alone to read, instead of showing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List tokens, with when they were last used
    #[command(after_help = "Example:\n  tern token list")]
    List,
    /// Refuse a token from now on
    #[command(after_help = "Example:\n  tern token revoke ann")]
    Revoke {
        /// The token's name
        token: TokenName,
    },
}

/// A role as it is typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum AsRole {
    /// Looks
    Viewer,
    /// Runs rollouts
    Operator,
    /// Decides who is a device
    Approver,
    /// Decides who may use the API
    Admin,
}

impl From<AsRole> for Role {
    fn from(role: AsRole) -> Self {
        match role {
            AsRole::Viewer => Self::Viewer,
            AsRole::Operator => Self::Operator,
            AsRole::Approver => Self::Approver,
            AsRole::Admin => Self::Admin,
        }
    }
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Create { token, role, expires, out } => create(token, role.into(), expires, out, context),
        Verb::List => {
            let tokens: Vec<TokenLine> = context.client.get("/v1/tokens")?;
            context.out.result(&tokens, |tokens| lines(tokens));
            Ok(Exit::Done)
        }
        Verb::Revoke { token } => {
            let done: DoneBody = context.client.post(&format!("/v1/tokens/{token}/revoke"), &json!({}))?;
            context.out.result(&done, |done| done.done.clone());
            Ok(Exit::Done)
        }
    }
}

fn create(
    token: TokenName,
    role: Role,
    expires: Option<u64>,
    out: Option<PathBuf>,
    context: &Context,
) -> Result<Exit, Failure> {
    // Asked before the token is made: one that nobody has seen would be in force.
    if let Some(taken) = out.as_ref().filter(|path| path.symlink_metadata().is_ok()) {
        let error = format!("{} exists already and is not overwritten", taken.display());
        return Err(Failure::new(error, "name another file"));
    }
    if let Some(path) = &out {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        usable(folder).map_err(|e| {
            let error = format!("no file can be made in {}: {e}", folder.display());
            Failure::new(error, "make the folder, or name another file; no token was made")
        })?;
    }
    let expires = expires.map(|seconds| clock::now().saturating_add(seconds.saturating_mul(1000)));
    let made: CreatedToken = context.client.post("/v1/tokens", &NewToken { token, role, expires })?;
    let (name, secret) = (&made.token, made.secret.0.as_str());
    let Some(path) = out else {
        context.out.note(&format!("token {name}, {role}: it is shown this once"));
        context.out.result(&made, |made| made.secret.0.clone());
        return Ok(Exit::Done);
    };
    replace(&path, format!("{secret}\n").as_bytes(), Readers::Owner).map_err(|e| {
        let error = format!("token {name} is made, but could not be written to {}: {e}", path.display());
        Failure::new(error, format!("`tern token revoke {name}`, and make another one"))
    })?;
    let value = json!({"token": name, "role": role, "expires": made.expires, "out": path});
    context.out.result(&value, |_| format!("token {name}, {role}, is in {}", path.display()));
    Ok(Exit::Done)
}

fn lines(tokens: &[TokenLine]) -> String {
    let rows = tokens.iter().map(|line| {
        [
            line.token.to_string(),
            line.role.to_string(),
            line.status.clone(),
            words::moment(line.made_at),
            line.expires.map_or_else(|| "never".to_owned(), words::moment),
            words::maybe(line.used_at),
            line.used_from.map_or_else(|| "-".to_owned(), |from| from.to_string()),
        ]
    });
    table(["token", "role", "status", "made", "expires", "used", "from"], rows)
}
