//! What tells one disk that is off from every other one, to the agent and its boot loaders.
//!
//! Most of it is every byte. Of what is kept in two copies it is what a reader makes of them: a copy that is not whole says
//! nothing, of two that are whole it only counts which is the newer one, wherever it lies and whatever their numbers, and
//! past its length nobody reads. So two ways to the same point come together again, though one took a save more.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tern_agent::boot::uboot::environment::{Environment, newest};
use tern_agent::record::is_whole;
use tern_protocol::digest::Digest;

use super::board::{COPY, ENVIRONMENT, SECOND};
use super::medium::{Medium, Node};

/// Where the generation of a record stands, and where its length and its value.
const GENERATION: std::ops::Range<usize> = 8..16;
const LENGTH: std::ops::Range<usize> = 16..20;
const VALUE: usize = 24;
/// What a boot of the files board is called: drawn anew at each, so that no later boot is the one that is kept.
const BOOT: &str = "\"boot_id\":\"";

/// What a reader makes of a copy: its generation, and what it says. Nothing of one that is not whole.
pub(super) type Said = Option<(u64, Digest)>;

fn record(bytes: &[u8]) -> Said {
    if !is_whole(bytes) {
        return None;
    }
    let generation = bytes[GENERATION].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
    let length = bytes[LENGTH].iter().fold(0, |all, byte| all << 8 | usize::from(*byte));
    let value = String::from_utf8_lossy(&bytes[VALUE..VALUE + length]).into_owned();
    let value = match value.split_once(BOOT) {
        Some((head, tail)) => format!("{head}{}", tail.split_once('"').map_or("", |(_, tail)| tail)),
        None => value,
    };
    Some((generation, Digest::of(value.as_bytes())))
}

impl Medium {
    /// Returns it as one value.
    pub(super) fn fingerprint(&self) -> Digest {
        let mut text = format!("{:?} {:?}\n", self.folders, self.room);
        let mut records: BTreeMap<PathBuf, Vec<(Said, String)>> = BTreeMap::new();
        for (path, number) in &self.durable_names {
            let Node { is_device, read_only, worn, durable, .. } = &self.nodes[*number];
            let mut rest = format!("{is_device} {read_only} {}", durable.bytes().len());
            let is_worn = !worn.is_empty();
            if is_copy(path) && !is_worn {
                records.entry(path.with_extension("")).or_default().push((durable.said(record), rest));
                continue;
            }
            if path == Path::new(ENVIRONMENT) && !is_worn {
                rest.push_str(&format!("{:?}", durable.said(environment)));
            } else {
                rest.push_str(&format!("{worn:?} {}", durable.digest()));
            }
            text.push_str(&format!("{path:?} {rest}\n"));
        }
        for (path, mut copies) in records {
            // Of two that are as new the first one counts: the order stays.
            copies.sort_by_key(|(said, _)| Reverse(said.map(|(generation, _)| generation)));
            let said: Vec<_> =
                copies.iter().map(|(said, rest)| (said.map(|(_, value)| value), rest)).collect();
            text.push_str(&format!("{path:?} {said:?}\n"));
        }
        Digest::of(text.as_bytes())
    }
}

fn is_copy(path: &Path) -> bool {
    path.extension().is_some_and(|number| number == "0" || number == "1")
}

/// What counts in the copies of U-Boot's environment, and then what stands in the other one.
fn environment(bytes: &[u8]) -> Said {
    let copy = |from: u64| usize::try_from(from).ok().and_then(|from| bytes.get(from..from + COPY));
    let copies = [copy(0)?, copy(SECOND)?];
    let found = newest(copies)?;
    let other = Environment::decode(copies[1 - found.index]).map(|(_, environment)| environment);
    Some((0, Digest::of(format!("{:?} {other:?}", found.environment).as_bytes())))
}
