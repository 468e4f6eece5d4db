//! Entries of systemd-boot as text: their names, what stands in them, and what both together say.
//!
//! ```text
//! tern-a.conf         the slot boots, uncounted            tern-b+2.conf       on trial, two tries left
//!                                                          tern-b+1-1.conf     one left, one taken (renamed by the loader)
//! # tern rc 7         the release, for people              tern-b+0-2.conf     used up: sorted behind all others
//! sort-key tern
//! version 12          the serial number: of two entries that may boot, the loader takes the higher one
//! options tern.trial=1 that it is a trial, for units that guard one; 0 in an uncounted entry
//! options … tern.slot=b
//! linux /b/linux      the switch: with '#' in place of its first letter the loader sees no entry here
//! ```

use crate::boot::kernel::slot_in;
use crate::boot::{BootRecord, Trial};
use crate::slot::SlotName;

/// Ceiling on an entry's bytes, and on those of a template.
pub(super) const SIZE_MAX: usize = 4096;
/// What the names of our entries begin with; `default tern-*` in `loader.conf` means them.
const PREFIX: &str = "tern-";
const SUFFIX: &str = ".conf";
/// What a line begins with that the loader passes over.
const OFF: u8 = b'#';
/// Keys that name what is booted: without one of them there is no entry.
const SWITCHES: [&[u8]; 3] = [b"linux", b"efi", b"uki"];
const RC: &[u8] = b"# tern rc ";

/// A name that means a slot to us, and a counter to the loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// The slot.
    pub slot: SlotName,
    /// Its counter; without one it boots uncounted.
    pub counter: Option<Counter>,
}

/// A counter in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// Boots left.
    pub left: u8,
    /// Boots that were taken.
    pub done: u8,
}

impl Name {
    /// Reads a name, in any case: FAT makes no difference there.
    pub fn parse(file: &str) -> Option<Self> {
        let file = file.to_ascii_lowercase();
        let middle = file.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (slot, counter) = match middle.split_once('+') {
            None => (middle, None),
            Some((slot, counter)) => {
                let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
                (slot, Some(Counter { left: number(left)?, done: number(done)? }))
            }
        };
        Some(Self { slot: crate::boot::kernel::named(slot)?, counter })
    }

    /// Returns the name as we write it.
    pub fn file(&self) -> String {
        let slot = self.slot;
        match self.counter {
            None => format!("{PREFIX}{slot}{SUFFIX}"),
            Some(Counter { left, done: 0 }) => format!("{PREFIX}{slot}+{left}{SUFFIX}"),
            Some(Counter { left, done }) => format!("{PREFIX}{slot}+{left}-{done}{SUFFIX}"),
        }
    }
}

/// Digits alone: `parse` would take a sign too.
fn number(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// What stands in an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Its serial number.
    pub serial: u64,
    /// Counter of the release, 0 if it does not say.
    pub rc: u64,
    /// The slot that its kernel is told.
    pub slot: Option<SlotName>,
    /// Where the lines begin that make it an entry.
    pub switches: Vec<u64>,
}

impl Content {
    /// Reads as the loader does: line by line, key and value; what is no entry to it has no switches.
    pub fn read(bytes: &[u8]) -> Self {
        let mut content = Self { serial: 0, rc: 0, slot: None, switches: Vec::new() };
        for (at, line) in lines(bytes) {
            if let Some(rc) = line.strip_prefix(RC) {
                content.rc = String::from_utf8_lossy(rc).trim().parse().unwrap_or(0);
            }
            let Some((key, value)) = pair(line) else { continue };
            match key {
                b"version" => content.serial = String::from_utf8_lossy(value).parse().unwrap_or(0),
                // The loader joins several such lines.
                b"options" => content.slot = slot_in(&String::from_utf8_lossy(value)).or(content.slot),
                _ if SWITCHES.contains(&key) => content.switches.push(at as u64),
                _ => {}
            }
        }
        content
    }
}

/// Lines with where the text of each begins, past its white space.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut next = 0;
    bytes.split(|byte| matches!(byte, b'\n' | b'\r')).map(move |line| {
        let begin = next;
        next += line.len() + 1;
        let text = line.trim_ascii_start();
        (begin + line.len() - text.len(), text.trim_ascii_end())
    })
}

/// Key and value of a line; none of a comment, or of a key alone.
fn pair(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = line.iter().position(u8::is_ascii_whitespace)?;
    let (key, value) = line.split_at(end);
    (!key.starts_with(&[OFF])).then(|| (key, value.trim_ascii_start()))
}

/// Says why a template makes no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The lines that name what is booted.
    #[error("it needs one line `linux …` or `efi …`, and has {0}")]
    Switches(usize),
    /// The kernel would not know its slot.
    #[error("its `options` do not say tern.slot={0}, so nobody would know which slot came up")]
    Slot(SlotName),
    /// What we write ourselves.
    #[error("it has a line `sort-key` or `version`; take that out, the agent orders the entries by them")]
    Order,
    /// It is too long.
    #[error("it has more than {SIZE_MAX} bytes")]
    Long,
}

/// An entry that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// All of it, switched on.
    pub on: Vec<u8>,
    /// Where its switch is.
    pub switch: u64,
}

impl Text {
    /// Makes an entry of this name of the lines of a template.
    pub fn of(template: &[u8], name: Name, serial: u64, rc: u64) -> Result<Self, TemplateError> {
        let keys: Vec<_> = lines(template).filter_map(|(_, line)| pair(line)).map(|(key, _)| key).collect();
        if keys.iter().any(|key| [&b"sort-key"[..], b"version"].contains(key)) {
            return Err(TemplateError::Order);
        }
        let mut on = Vec::new();
        on.extend_from_slice(RC);
        let trial = u8::from(name.counter.is_some());
        let head = format!("{rc}\nsort-key tern\nversion {serial}\noptions tern.trial={trial}\n");
        on.extend_from_slice(head.as_bytes());
        on.extend_from_slice(template);
        if !on.ends_with(b"\n") {
            on.push(b'\n');
        }
        if on.len() > SIZE_MAX {
            return Err(TemplateError::Long);
        }
        let content = Content::read(&on);
        let [switch] = content.switches[..] else {
            return Err(TemplateError::Switches(content.switches.len()));
        };
        if content.slot != Some(name.slot) {
            return Err(TemplateError::Slot(name.slot));
        }
        Ok(Self { on, switch })
    }

    /// Returns it switched off.
    pub fn off(&self) -> Vec<u8> {
        let mut off = self.on.clone();
        if let Some(byte) = usize::try_from(self.switch).ok().and_then(|at| off.get_mut(at)) {
            *byte = OFF;
        }
        off
    }
}

/// A file of the entries' folder that is named as ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name as it stands there.
    pub file: String,
    /// What the name says.
    pub name: Name,
    /// What stands in it.
    pub content: Content,
}

impl Entry {
    /// Tells whether it boots the slot of its name.
    pub fn is_on(&self) -> bool {
        !self.content.switches.is_empty() && self.content.slot == Some(self.name.slot)
    }

    fn boots_uncounted(&self) -> bool {
        self.is_on() && self.name.counter.is_none()
    }
}

/// Returns the entry of the confirmed slot: the uncounted one that the loader sorts first.
pub fn confirmed(entries: &[Entry]) -> Option<&Entry> {
    entries.iter().filter(|entry| entry.boots_uncounted()).max_by_key(|entry| entry.content.serial)
}

/// Returns the entries of the slot on trial: newer than the confirmed one, or the trial is over. More than one after a
/// power cut in the loader's renaming.
pub fn on_trial(entries: &[Entry]) -> Vec<&Entry> {
    let confirmed = confirmed(entries).map(|entry| entry.content.serial);
    let counted = entries.iter().filter(|entry| entry.is_on() && entry.name.counter.is_some());
    let newer: Vec<_> = counted.filter(|entry| confirmed < Some(entry.content.serial)).collect();
    let Some(newest) = newer.iter().max_by_key(|entry| entry.content.serial).map(|entry| entry.name.slot)
    else {
        return Vec::new();
    };
    newer.into_iter().filter(|entry| entry.name.slot == newest).collect()
}

/// Returns the boot record that the entries stand for; none where the loader finds none of ours.
pub fn record(entries: &[Entry]) -> Option<BootRecord> {
    let trial = on_trial(entries);
    // A try that was taken under one of two names was taken.
    let fewest =
        trial.iter().filter_map(|entry| Some((entry.name.counter?.left, entry))).min_by_key(|it| it.0);
    let trial =
        fewest.map(|(tries_left, entry)| Trial { slot: entry.name.slot, rc: entry.content.rc, tries_left });
    // Where the confirmed one is lost: a trial is of the other slot.
    let active = confirmed(entries).map(|entry| entry.name.slot);
    let active = active.or_else(|| trial.as_ref().map(|trial| trial.slot.other()))?;
    Some(BootRecord { active, trial })
}

/// Returns a serial number above all others.
pub fn next_serial(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.content.serial).max().unwrap_or(0).saturating_add(1)
}
