//! What an agent's executable is made of: bytes by area, from the symbols of a build that keeps its names.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// One area of the executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub name: &'static str,
    /// Its largest crates, with their bytes.
    pub crates: Vec<(String, u64)>,
    /// Code and constants, bytes.
    pub bytes: u64,
    /// Why it is there.
    pub reason: &'static str,
}

/// Areas: name, crates, reason. A crate that stands nowhere counts to the last one.
const AREAS: [(&str, &[&str], &str); 12] = [
    (
        "Agent",
        &["tern_agent"],
        "update machine, download, slots, boot record, journal, link, hooks and probes",
    ),
    (
        "Shared with the service",
        &["tern_protocol", "miniz_oxide"],
        "the client's side of TUF, bundles, offers, messages, topics",
    ),
    (
        "TLS",
        &["rustls", "webpki", "tokio_rustls", "rustls_pki_types"],
        "TLS 1.3 and 1.2, checks of certificates; brokers in the field are old and new",
    ),
    (
        "Cryptography of TLS",
        &["ring", ASSEMBLY],
        "AES-GCM, ChaCha20, RSA, P-256 (a table of 150 kB), P-384, X25519, Ed25519, each for several kinds of CPU",
    ),
    (
        "Cryptography of Tern",
        &[
            "base16ct",
            "base64ct",
            "block_buffer",
            "const_oid",
            "crc",
            "crypto_bigint",
            "der",
            "digest",
            "ecdsa",
            "elliptic_curve",
            "ff",
            "generic_array",
            "getrandom",
            "group",
            "hkdf",
            "hmac",
            "p256",
            "pem_rfc7468",
            "pkcs8",
            "primeorder",
            "rfc6979",
            "sec1",
            "sha2",
            "signature",
            "spki",
            "subtle",
            "zeroize",
        ],
        "signatures of P-256, agreement on keys, authentication codes, key files, digests",
    ),
    ("MQTT", &["rumqttc", "bytes", "flume", "futures_util", "tokio_util"], "MQTT 3.1.1"),
    ("Runtime", &["tokio", "mio", "socket2", "signal_hook_registry"], "timers, sockets, processes, signals"),
    (
        "JSON",
        &["serde", "serde_core", "serde_json", "itoa", "zmij", "memchr", "base64", "hex"],
        "signed files, messages and records are JSON",
    ),
    (
        "Configuration",
        &["toml", "toml_parser", "toml_datetime", "serde_spanned", "tz", "winnow"],
        "TOML, with the line of a slip in syntax and the key of any other; time zones",
    ),
    (
        "Command line and log",
        &[
            "anyhow",
            "anstream",
            "anstyle",
            "clap",
            "clap_builder",
            "clap_lex",
            "log",
            "sharded_slab",
            "strsim",
            "thread_local",
            "tracing",
            "tracing_core",
            "tracing_subscriber",
        ],
        "events with fields, filtered by TERN_LOG; the command line itself is read by the agent",
    ),
    ("C library", &[C_LIBRARY], "memory, threads, names of hosts; what Rust's library stands on"),
    (
        "Standard library and the rest",
        &[],
        "collections, formatting, sorting, files, processes; instances for no crate in particular",
    ),
];

/// Symbols that neither Rust code nor the C library made: here nearly all are ring's.
const ASSEMBLY: &str = "assembly and C";
/// Symbols of the C library.
const C_LIBRARY: &str = "musl";
/// Sequences that the compiler found in several functions, of any crates, and made one function of.
const SHARED: &str = "shared sequences";
/// Crates whose generics count to the first crate that they were made for.
const STANDARD: [&str; 4] = ["core", "alloc", "std", "hashbrown"];

/// Returns the areas of a program that keeps its names, largest first; then what no symbol stands for. `library` is the C
/// library that it was linked with.
///
/// # Panics
/// When binutils are not there.
pub(super) fn parts(program: &Path, library: &Path) -> Vec<Part> {
    let ran = |tool: &str, flags: &[&str], file: &Path| {
        let output = Command::new(tool).args(flags).arg(file).output();
        let output = output.unwrap_or_else(|error| panic!("{tool} of binutils: {error}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let of_c = ran("nm", &["--defined-only", "--format=just-symbols"], library);
    let of_c: BTreeSet<&str> = of_c.lines().collect();
    let mut parts = by_area(&symbols(&ran("nm", &["--print-size", "--demangle"], program), &of_c));
    let named: u64 = parts.iter().map(|part| part.bytes).sum();
    let text = ran("size", &["--format=sysv", "--radix=10"], program);
    let sections = sections(&text);
    let of = |wanted: fn(&str) -> bool| {
        sections.iter().filter(|(name, _)| wanted(name)).map(|(_, bytes)| bytes).sum::<u64>()
    };
    let places = of(|name| name.starts_with(".rel"));
    let rest = of(|name| !name.starts_with(".rel")).saturating_sub(named);
    let unnamed = |name, bytes, reason| Part { name, crates: Vec::new(), bytes, reason };
    parts.push(unnamed(
        "Texts and tables",
        rest,
        "messages, vtables, places of panics; no symbol names them",
    ));
    parts.push(unnamed("Relocations", places, "where the address differs at every start (ASLR)"));
    parts.retain(|part| part.bytes > 0);
    parts
}

/// Returns name and size of each section that is loaded from the file.
fn sections(text: &str) -> Vec<(&str, u64)> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, bytes, address) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        let in_the_file = name.starts_with('.') && !name.ends_with("bss") && name != ".relro_padding";
        (in_the_file && address != "0").then_some((name, bytes))
    });
    lines.collect()
}

/// Returns crate and size of each symbol that takes room in the file; equal functions share theirs, under several names.
fn symbols<'a>(text: &'a str, of_c: &BTreeSet<&str>) -> Vec<(&'a str, u64)> {
    let mut taken = BTreeSet::new();
    let lines = text.lines().filter_map(|line| {
        let mut words = line.splitn(4, ' ');
        let (address, bytes) = (words.next()?, u64::from_str_radix(words.next()?, 16).ok()?);
        let (kind, name) = (words.next()?, words.next()?);
        (!kind.eq_ignore_ascii_case("b") && taken.insert(address)).then(|| (crate_of(name, of_c), bytes))
    });
    lines.collect()
}

/// Returns the crate that a symbol counts to: the first one in its name that is not the standard library.
fn crate_of<'a>(symbol: &'a str, of_c: &BTreeSet<&str>) -> &'a str {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut standard = None;
    for (at, _) in symbol.match_indices("::") {
        let head = &symbol[..at];
        let name = &head[head.rfind(|c| !word(c)).map_or(0, |before| before + 1)..];
        // `a::b::c` names one crate; what follows another `::` is inside it, and `<T as …>::f` ends in no word.
        let inner = head[..head.len() - name.len()].ends_with("::");
        if name.is_empty() || inner || name.starts_with(|c: char| c.is_ascii_uppercase()) {
            continue;
        }
        if !STANDARD.contains(&name) {
            return name;
        }
        standard.get_or_insert(name);
    }
    standard.unwrap_or_else(|| match symbol {
        _ if of_c.contains(symbol) => C_LIBRARY,
        _ if symbol.starts_with("OUTLINED_FUNCTION") => SHARED,
        _ => ASSEMBLY,
    })
}

fn by_area(symbols: &[(&str, u64)]) -> Vec<Part> {
    let mut parts: Vec<Part> =
        AREAS.iter().map(|(name, _, reason)| Part { name, crates: Vec::new(), bytes: 0, reason }).collect();
    for (name, bytes) in symbols {
        let area = AREAS.iter().position(|(_, crates, _)| crates.contains(name)).unwrap_or(AREAS.len() - 1);
        let part = &mut parts[area];
        part.bytes += bytes;
        match part.crates.iter_mut().find(|(other, _)| other == name) {
            Some((_, sum)) => *sum += bytes,
            None => part.crates.push(((*name).to_owned(), *bytes)),
        }
    }
    for part in &mut parts {
        part.crates.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        part.crates.truncate(4);
    }
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_counts_to_the_first_crate_in_it_that_is_not_the_standard_library() {
        for (symbol, expected) in [
            ("tern_agent::run::run::{closure#0}", "tern_agent"),
            ("<alloc::vec::Vec<tern_protocol::id::DeviceId>>::push", "tern_protocol"),
            ("<toml::de::Value as serde_core::de::Deserializer>::any::<tern_agent::File>", "toml"),
            ("<&str as core::fmt::Display>::fmt", "core"),
            ("<std::fs::File>::open::<&std::path::Path>", "std"),
            ("core::ptr::drop_in_place::<rustls::client::Config>", "rustls"),
            ("aes_gcm_enc_update_vaes_avx2", ASSEMBLY),
            ("memcpy", C_LIBRARY),
            ("OUTLINED_FUNCTION_17", SHARED),
        ] {
            assert_eq!(crate_of(symbol, &BTreeSet::from(["memcpy"])), expected, "{symbol}");
        }
    }

    #[test]
    fn symbols_without_room_of_their_own_in_the_file_do_not_count() {
        let text = "00001000 00000010 t tern_agent::main\n00001000 00000010 t toml::equal\n\
                    00002000 00000020 b std::LOCK\n         U write\n";
        assert_eq!(symbols(text, &BTreeSet::new()), [("tern_agent", 16)]);
    }

    #[test]
    fn sections_that_are_not_loaded_do_not_count() {
        let text = "section  size  addr\n.text  100  4096\n.bss  7  8192\n.symtab  50  0\nTotal  157\n";
        assert_eq!(sections(text), [(".text", 100)]);
    }
}
