//! The tables of the cores: authentications, junk, a push.

use std::fmt::Write as _;

use tern_tests::bench::{Authentication, JUNK, Junk, Push};

pub(super) fn authentication_table(found: &Authentication) -> String {
    let Authentication { bytes, hmac, authenticated, read, derived, handled, ratio } = found;
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes everything");
    line(format!("**Authentications**, reports of {bytes} B, in a second of one core's time:\n"));
    line("| what | each second | target |".into());
    line("|---|---|---|".into());
    line(format!("| HMAC-SHA256 of the same bytes, nothing else | {hmac:.0} | |"));
    line(format!("| epoch read, tag checked, body handed on | {authenticated:.0} | 200000 |"));
    line(format!("| the same, body read as a report | {read:.0} | |"));
    line(format!("| first of its epoch: the key derived as well | {derived:.0} | |"));
    line(format!("| the service's whole step, without the ledger's sync | {handled:.0} | |"));
    line(format!("\nMedian authenticated / bare HMAC: **{ratio:.2}**.\n"));
    out
}

pub(super) fn junk_table(found: &[Junk]) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes everything");
    line(format!("**Junk** of {JUNK} B, from its topic's text until it is dropped:\n"));
    line("| junk | µs of one core | target |".into());
    line("|---|---|---|".into());
    for Junk { kind, keyless, seconds } in found {
        line(format!("| {kind} | {:.2} | {} |", seconds * 1e6, if *keyless { "1" } else { "" }));
    }
    line(String::new());
    out
}

pub(super) fn push_table(found: &[Push]) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes everything");
    line("**A push** to a device, from its bundle to the decision:\n".into());
    line("| push | bundle, B | files verified | ms of one core | worst | target |".into());
    line("|---|---|---|---|---|---|".into());
    for Push { kind, bytes, files, seconds, worst } in found {
        line(format!("| {kind} | {bytes} | {files} | {:.2} | {:.2} | 5 |", seconds * 1e3, worst * 1e3));
    }
    out
}
