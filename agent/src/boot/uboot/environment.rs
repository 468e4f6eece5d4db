//! The bytes of U-Boot's redundant environment, without any I/O.
//!
//! ```text
//! a copy:   CRC-32 u32 (little endian) ‖ flag u8 ‖ data
//! data:     name=value NUL … name=value NUL NUL, then padding; the CRC is over all of it, padding included
//! ```
//! The flag is one more than that of the copy before it, modulo 256. Two readers share these bytes with us, U-Boot and
//! libubootenv, so which copy counts is decided by their rules to the letter, also where another rule were wiser: two
//! parties that believe different copies are worse off than with either.

use crc::{CRC_32_ISO_HDLC, Crc, Table};

/// U-Boot's own, by a table of 1 KiB.
const CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);
/// Bytes before the data: the checksum and the flag.
const HEADER: usize = 5;
/// Ceiling on a copy: a slip in the configuration must not become a buffer. U-Boot's are 8 KiB to 256 KiB.
pub const SIZE_MAX: usize = 1024 * 1024;

/// The variables, in the order in which they stand in the medium.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    /// `name=value`, each without its NUL and never empty. Those that are not ours pass through byte for byte.
    entries: Vec<Vec<u8>>,
}

/// The copy that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// Which of the two.
    pub index: usize,
    /// Its flag.
    pub flag: u8,
    /// What it says.
    pub environment: Environment,
}

/// Index and bytes of the copy to write, if any.
pub type Rewrite = Option<(usize, Vec<u8>)>;

/// Says that the variables do not fit a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the environment needs {needed} bytes and a copy has {size}")]
pub struct TooLarge {
    /// Bytes needed.
    pub needed: usize,
    /// Bytes of a copy.
    pub size: usize,
}

impl Environment {
    /// Returns the value of `name`. Of several the last counts, as for U-Boot.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.entries.iter().rev().find_map(|entry| value_of(entry, name))
    }

    /// Gives `name` a value, or takes it out. All other variables stay as and where they are.
    ///
    /// A new one goes before the first that is greater: a medium that libubootenv or U-Boot wrote is sorted, and this
    /// keeps it so.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        debug_assert!(!name.is_empty() && !name.contains(['=', '\0']), "{name:?} is no name");
        let is_it = |entry: &Vec<u8>| value_of(entry, name).is_some();
        let Some(value) = value else { return self.entries.retain(|entry| !is_it(entry)) };
        let entry = format!("{name}={value}").into_bytes();
        match self.entries.iter().rposition(is_it) {
            Some(last) => {
                self.entries[last] = entry;
                let mut index = 0;
                self.entries.retain(|entry| {
                    index += 1;
                    index > last || !is_it(entry)
                });
            }
            None => {
                let greater = |other: &Vec<u8>| name_of(other) > name.as_bytes();
                let at = self.entries.iter().position(greater).unwrap_or(self.entries.len());
                self.entries.insert(at, entry);
            }
        }
    }

    /// Writes a copy of `size` bytes.
    pub fn encode(&self, flag: u8, size: usize) -> Result<Vec<u8>, TooLarge> {
        // At least two NULs, also when there is nothing: readers of old take the first for an entry.
        let text: usize = self.entries.iter().map(|entry| entry.len() + 1).sum();
        let needed = HEADER + text.max(1) + 1;
        if needed > size {
            return Err(TooLarge { needed, size });
        }
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(&[0; HEADER]);
        for entry in &self.entries {
            bytes.extend_from_slice(entry);
            bytes.push(0);
        }
        // Padded as U-Boot pads.
        bytes.resize(size, 0);
        let checksum = CRC.checksum(&bytes[HEADER..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes[4] = flag;
        Ok(bytes)
    }

    /// Reads a copy: flag and variables, or nothing if its checksum is wrong.
    ///
    /// The checksum alone decides. Variables that end without their NULs are taken as far as they go: a copy that the
    /// boot loader believes and we do not would have each of us follow another record.
    pub fn decode(copy: &[u8]) -> Option<(u8, Self)> {
        let (header, data) = copy.split_first_chunk::<HEADER>()?;
        let [checksum @ .., flag] = *header;
        if u32::from_le_bytes(checksum) != CRC.checksum(data) {
            return None;
        }
        let entries = data.split(|byte| *byte == 0).take_while(|entry| !entry.is_empty());
        Some((flag, Self { entries: entries.map(<[u8]>::to_vec).collect() }))
    }
}

/// Returns the copy that counts, or nothing if neither is whole.
pub fn newest(copies: [&[u8]; 2]) -> Option<Newest> {
    let (index, (flag, environment)) = match copies.map(Environment::decode) {
        [None, None] => return None,
        [Some(first), None] => (0, first),
        [None, Some(second)] => (1, second),
        [Some(first), Some(second)] => match newer([first.0, second.0]) {
            0 => (0, first),
            _ => (1, second),
        },
    };
    Some(Newest { index, flag, environment })
}

/// Works out what `change` comes down to: the copy to write, and its bytes. Nothing if the variables stay the same.
///
/// It is the copy that does not count, damaged or older: whatever a power cut leaves of it, the other one stands.
pub fn rewrite(
    found: Newest,
    size: usize,
    change: impl FnOnce(&mut Environment),
) -> Result<Rewrite, TooLarge> {
    let mut environment = found.environment.clone();
    change(&mut environment);
    if environment == found.environment {
        return Ok(None);
    }
    let bytes = environment.encode(found.flag.wrapping_add(1), size)?;
    Ok(Some((1 - found.index, bytes)))
}

/// Works out what has both copies say the same: `other`, the copy that does not count, to be written anew; nothing if it
/// does say so already.
pub fn settled(found: &Newest, other: &[u8], size: usize) -> Result<Rewrite, TooLarge> {
    if Environment::decode(other).is_some_and(|(_, environment)| environment == found.environment) {
        return Ok(None);
    }
    let bytes = found.environment.encode(found.flag.wrapping_add(1), size)?;
    Ok(Some((1 - found.index, bytes)))
}

/// Tells which of two flags is the newer one: the greater, but 0 follows 255. The first of two equal ones, which a
/// factory writes.
fn newer(flags: [u8; 2]) -> usize {
    match flags {
        [255, 0] => 1,
        [0, 255] => 0,
        [first, second] => usize::from(second > first),
    }
}

fn name_of(entry: &[u8]) -> &[u8] {
    entry.split(|byte| *byte == b'=').next().unwrap_or(entry)
}

fn value_of<'a>(entry: &'a [u8], name: &str) -> Option<&'a [u8]> {
    entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
#[path = "tests/environment.rs"]
mod tests;
