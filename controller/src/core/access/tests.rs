//! The life of a token, as the ledger tells it.

use std::net::IpAddr;

use super::register::{KEPT_MAX, PEERS_MAX};
use super::*;
use crate::core::fact::{Fact, Millis};

const HOUR: Millis = 3_600_000;

fn secret(n: u8) -> Secret {
    Secret::new([n; 6], [n; 32])
}

fn name(text: &str) -> TokenName {
    text.parse().unwrap()
}

fn peer(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

fn created(token: &str, role: Role, secret: &Secret, expires: Option<Millis>) -> Fact {
    let (id, hash) = (secret.id(), secret.hash());
    Fact::TokenCreated { token: name(token), role, id, hash, expires, made: Made::Token }
}

fn used(token: &str, n: u8) -> Fact {
    Fact::TokenUsed { token: name(token), role: Role::Viewer, peer: peer(n) }
}

#[test]
fn a_token_is_good_from_its_making_to_its_end() {
    let mut access = Access::default();
    assert_eq!(access.check(&secret(1), 0), Err(Denied::Unknown));
    assert!(!access.has_begun());

    access.apply(10, &created("ann", Role::Operator, &secret(1), Some(100)));
    access.apply(10, &created("bob", Role::Admin, &secret(2), None));

    assert!(access.has_begun());
    let ann = Holder { name: name("ann"), role: Role::Operator };
    assert_eq!(access.check(&secret(1), 99), Ok(ann));
    assert_eq!(access.check(&secret(1), 100), Err(Denied::Expired(name("ann"))));
    assert_eq!(access.check(&secret(3), 99), Err(Denied::Unknown));
    // The right id with another secret is told nothing, not even that the id is there.
    assert_eq!(access.check(&Secret::new([1; 6], [9; 32]), 100), Err(Denied::Unknown));

    access.apply(50, &Fact::TokenRevoked { token: name("bob") });
    access.apply(60, &Fact::TokenRevoked { token: name("bob") });
    assert_eq!(access.check(&secret(2), 51), Err(Denied::Revoked(name("bob"))));
    assert_eq!(access.tokens()[&name("bob")].revoked_at, Some(50));
    assert_eq!((access.live(None, 51), access.live(None, 100)), (1, 0));
    assert_eq!(access.role_of(&name("bob"), 51), None);
}

#[test]
fn a_token_in_constant_use_costs_the_ledger_a_frame_an_hour() {
    let mut access = Access::default();
    access.apply(0, &created("ann", Role::Viewer, &secret(1), None));
    let mut frames = 0;
    for minute in 0..24 * 60 {
        let now = 5 * HOUR + minute * 60_000;
        if access.owes_use(&name("ann"), peer(1), now) {
            access.apply(now, &used("ann", 1));
            frames += 1;
        }
    }
    assert_eq!(frames, 24);

    // A token that is passed around does not make more of it than a few.
    let now = 100 * HOUR;
    let noted = (0..200).filter(|n| {
        let owes = access.owes_use(&name("ann"), peer(*n), now);
        if owes {
            access.apply(now, &used("ann", *n));
        }
        owes
    });
    assert_eq!(noted.count(), PEERS_MAX);
    assert_eq!(access.tokens()[&name("ann")].used_at, Some(now));
    assert!(!access.owes_use(&name("nobody"), peer(1), now));
}

#[test]
fn those_that_ended_longest_ago_are_forgotten_first_and_live_ones_never() {
    let mut access = Access::default();
    access.apply(0, &created("old", Role::Admin, &secret(1), None));
    for n in 0..KEPT_MAX as u64 + 20 {
        let secret = Secret::new([7; 6], [7; 32]);
        access.apply(n, &created(&format!("t-{n}"), Role::Viewer, &secret, Some(n + 1)));
    }

    assert_eq!(access.tokens().len(), KEPT_MAX);
    assert!(access.tokens().contains_key(&name("old")));
    assert!(!access.tokens().contains_key(&name("t-0")));
}

#[test]
fn a_slip_of_the_fingers_is_told_from_a_token_of_nobody() {
    let text = secret(1).reveal().to_string();
    assert_eq!(text.len(), secret::TEXT);
    assert_eq!(text.parse::<Secret>().unwrap().hash(), secret(1).hash());

    // Every character counts.
    for at in 0..text.len() {
        for other in ['0', '7', 'f', '_', 'F', 'g', ' '] {
            let mut slip: Vec<char> = text.chars().collect();
            if slip[at] == other {
                continue;
            }
            slip[at] = other;
            let slip: String = slip.into_iter().collect();
            let wanted = if at < secret::PREFIX.len() { SecretError::NotOne } else { SecretError::Mistyped };
            assert_eq!(slip.parse::<Secret>().err(), Some(wanted), "{slip}");
        }
    }
    for cut in 0..text.len() {
        assert!(text[..cut].parse::<Secret>().is_err());
    }
    for odd in
        [format!("{text}0"), format!(" {text}"), text.to_uppercase(), "tern_ä".repeat(20), String::new()]
    {
        assert!(odd.parse::<Secret>().is_err(), "{odd}");
    }
}

#[test]
fn a_token_does_not_print_itself_and_is_no_name() {
    let shown = format!("{:?}", secret(0xab));
    assert!(!shown.contains(&"ab".repeat(32)) && shown.contains("hidden"), "{shown}");
    let text = secret(1).reveal().to_string();
    assert!(text.parse::<TokenName>().is_err() && text[..60].parse::<TokenName>().is_err());
    for odd in ["", "a b", "a/b", "..", "a\n", &"x".repeat(200)] {
        assert!(odd.parse::<TokenName>().is_err(), "{odd:?}");
    }
}

#[test]
fn roles_stand_in_a_row() {
    assert!(Role::ALL.is_sorted());
    let words: Vec<_> = Role::ALL.iter().map(|role| serde_json::to_value(role).unwrap()).collect();
    assert_eq!(words, Role::ALL.map(Role::word));
}
