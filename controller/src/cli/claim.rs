//! `tern claim`.

use clap::{Subcommand, ValueEnum};
use tern_protocol::id::{CarrierId, ClaimId, ModelId, ProductId, RegionId};

use super::failure::{Exit, Failure};
use super::output::table;
use super::{Context, words};
use crate::api::types::{ClaimLine, CreatedClaim, DoneBody, NewClaim};
use crate::clock;
use crate::core::enrolment::claim::{Approval, Terms};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a token with which devices enrol that no factory list names
    #[command(
        after_help = "The token is printed once and kept nowhere; put it into the device's claim_file. Whoever has it can enrol\n\
                      as many devices as are left, so hand-approve (the default) unless the token never leaves your hands.\n\n\
                      Examples:\n  tern claim create --product cam --count 50 --expires 30d\n  \
                      tern claim create --product cam --model b3 --region eu --count 1 --expires 2h --approve auto"
    )]
    Create {
        /// Let in devices of this product
        #[arg(long)]
        product: ProductId,
        /// Of this model only
        #[arg(long)]
        model: Option<ModelId>,
        /// In this region only
        #[arg(long)]
        region: Option<RegionId>,
        /// With this carrier only
        #[arg(long)]
        carrier: Option<CarrierId>,
        /// Let in so many devices, at most 10000
        #[arg(long, value_name = "N")]
        count: u64,
        /// End after this time, such as 90m, 12h or 30d
        #[arg(long, value_name = "TIME", value_parser = words::duration)]
        expires: u64,
        /// Who lets the devices in
        #[arg(long, value_enum, default_value_t = By::Hand)]
        approve: By,
        /// Name the claim [default: <product>-claim-<n>]
        #[arg(long)]
        name: Option<ClaimId>,
    },
    /// List claims
    #[command(after_help = "Example:\n  tern claim list")]
    List,
    /// Take a claim back
    #[command(
        after_help = "Devices that it let in stay; those that wait still wait.\n\nExample:\n  tern claim revoke cam-claim-1"
    )]
    Revoke {
        /// The claim
        claim: ClaimId,
    },
}

/// Who lets claimed devices in.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum By {
    /// An operator, with `tern device approve`
    Hand,
    /// The token alone
    Auto,
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Create { product, model, region, carrier, count, expires, approve, name } => {
            let approve = match approve {
                By::Hand => Approval::Hand,
                By::Auto => Approval::Auto,
            };
            let expires = clock::now().saturating_add(expires.saturating_mul(1000));
            let terms = Terms { product, model, region, carrier, count, expires, approve };
            let made: CreatedClaim = context.client.post("/v1/claims", &NewClaim { claim: name, terms })?;
            context.out.note(&format!("claim {}: the token is shown this once", made.claim));
            context.out.result(&made, |made| made.token.0.clone());
        }
        Verb::List => {
            let claims: Vec<ClaimLine> = context.client.get("/v1/claims")?;
            context.out.result(&claims, |claims| lines(claims));
        }
        Verb::Revoke { claim } => {
            let done: DoneBody =
                context.client.post(&format!("/v1/claims/{claim}/revoke"), &serde_json::json!({}))?;
            context.out.result(&done, |done| done.done.clone());
        }
    }
    Ok(Exit::Done)
}

fn lines(claims: &[ClaimLine]) -> String {
    fn any<T: ToString>(of: Option<&T>) -> String {
        of.map_or_else(|| "any".to_owned(), ToString::to_string)
    }
    let rows = claims.iter().map(|line| {
        let terms = &line.terms;
        [
            line.claim.to_string(),
            line.status.clone(),
            terms.product.to_string(),
            any(terms.model.as_ref()),
            any(terms.region.as_ref()),
            any(terms.carrier.as_ref()),
            format!("{} of {}", line.used, terms.count),
            line.waiting.to_string(),
            if terms.approve == Approval::Auto { "auto" } else { "hand" }.to_owned(),
            words::moment(terms.expires),
        ]
    });
    let heading =
        ["claim", "status", "product", "model", "region", "carrier", "used", "waiting", "approve", "expires"];
    table(heading, rows)
}
