//! The admin token that the service writes into its data folder, so that there is always a way in for whoever owns it.
//!
//! A file of mode 600 in that folder is as strong as the folder: its owner holds the ledger and the online keys
//! anyway. An API that was open on loopback until somebody asks would be open to every user of the machine.

use std::path::Path;

use anyhow::Context as _;

use crate::api::access::FirstToken;
use crate::core::access::{Access, Made, Role, TokenName};
use crate::core::service::{Command, MintToken};
use crate::engine::Engine;
use crate::{clock, token_file};

/// Writes an admin token when none is in force, or when a new one is wanted.
pub(super) async fn provide(
    data: &Path,
    first: FirstToken,
    renew: bool,
    engine: &Engine,
) -> anyhow::Result<()> {
    let access = engine.query(|service, _| service.fleet().access.clone()).await?;
    if !(renew || is_wanted(&access, first, clock::now())) {
        return Ok(());
    }
    let path = data.join(token_file::ADMIN);
    let (token, secret) = (free_name(&access)?, token_file::draw().context("could not draw a token")?);
    // The file first: a token in force that nobody has seen would keep the next start from making another.
    token_file::write(&path, &secret).with_context(|| format!("could not write {}", path.display()))?;
    let (id, hash) = (secret.id(), secret.hash());
    let new =
        MintToken { token: token.clone(), role: Role::Admin, expires: None, id, hash, made: Made::File };
    engine.command(Command::CreateToken(new)).await?.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    tracing::warn!(token = %token, file = %path.display(), "a new admin token is in this file, for the service's user alone to read");
    Ok(())
}

/// Once a token was made, the way in is never again by asking from loopback.
fn is_wanted(access: &Access, first: FirstToken, now: u64) -> bool {
    access.live(Some(Role::Admin), now) == 0 && (first == FirstToken::File || access.has_begun())
}

fn free_name(access: &Access) -> anyhow::Result<TokenName> {
    let names = (1..).map(|n| if n == 1 { "admin".to_owned() } else { format!("admin-{n}") });
    let mut free = names.filter_map(|name| name.parse::<TokenName>().ok());
    free.find(|name| !access.tokens().contains_key(name)).context("there is no name left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_in_is_written_when_there_is_no_other_and_only_then() {
        let mut access = Access::default();
        assert!(is_wanted(&access, FirstToken::File, 1));
        assert!(!is_wanted(&access, FirstToken::Loopback, 1));

        let secret = token_file::draw().unwrap();
        let token = free_name(&access).unwrap();
        let made = crate::core::fact::Fact::TokenCreated {
            token: token.clone(),
            role: Role::Admin,
            id: secret.id(),
            hash: secret.hash(),
            expires: None,
            made: Made::File,
        };
        access.apply(1, &made);
        assert!(!is_wanted(&access, FirstToken::File, 2));

        access.apply(2, &crate::core::fact::Fact::TokenRevoked { token });
        assert!(is_wanted(&access, FirstToken::File, 3));
        assert!(is_wanted(&access, FirstToken::Loopback, 3), "loopback never opens again");
        assert_eq!(free_name(&access).unwrap().as_str(), "admin-2");
    }
}
