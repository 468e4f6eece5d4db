//! Versions of components: their order, and ranges of them in text.
//!
//! The order is rpm's (`rpmvercmp`, with `~` and `^`): of the rules in use it is the one that takes any text that a
//! vendor may have chosen. A version is cut into the longest runs of digits and of ASCII letters; whatever stands
//! between them only separates. Segments are compared from the left, and the first difference decides:
//!
//! ```text
//! ~  <  the end  <  ^  <  letters  <  digits
//! ```
//! Letters compare byte by byte, upper case first; digits as numbers of any length. So `1.9 < 1.10 < 1.10a`, and
//! `2.0~rc1 < 2.0 < 2.0^git3 < 2.0.1`. **What comes before a version is written with `~`**: `2.0-rc1` is *after* 2.0, for
//! a hyphen only separates; and `1` is before `1.0`. Versions that differ in separators and leading zeros alone are the
//! same one: `1.0`, `1_00`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{RANGE_MAX, RANGE_PARTS_MAX, VERSION_MAX};

#[cfg(test)]
mod tests;

/// A text that can be compared: 1 to [`VERSION_MAX`] printable ASCII characters, a letter or digit among them.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a>(&'a str);

impl<'a> Version<'a> {
    /// Reads a version; none if the text is not one.
    pub fn read(text: &'a str) -> Option<Self> {
        let printable = text.len() <= VERSION_MAX && text.bytes().all(|b| (b' '..=b'~').contains(&b));
        (printable && text.bytes().any(|b| b.is_ascii_alphanumeric())).then_some(Self(text))
    }

    /// Returns it as it was written.
    pub fn as_str(&self) -> &'a str {
        self.0
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut own, mut others) = (Segments(self.0.as_bytes()), Segments(other.0.as_bytes()));
        loop {
            let (a, b) = (own.next(), others.next());
            match a.cmp(&b) {
                Ordering::Equal if a == Segment::End => return Ordering::Equal,
                Ordering::Equal => {}
                different => return different,
            }
        }
    }
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As they are ordered, not as they are written.
impl PartialEq for Version<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version<'_> {}

/// In their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Segment<'a> {
    Before,
    End,
    After,
    Letters(&'a [u8]),
    /// Without leading zeros: how many digits, then which.
    Number(usize, &'a [u8]),
}

struct Segments<'a>(&'a [u8]);

impl<'a> Segments<'a> {
    /// Returns the next segment, and the end for ever after the last.
    fn next(&mut self) -> Segment<'a> {
        let begins = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'~' | b'^');
        let Some(start) = self.0.iter().position(begins) else {
            self.0 = &[];
            return Segment::End;
        };
        let rest = &self.0[start..];
        let run = |of: fn(&u8) -> bool| rest.iter().position(|b| !of(b)).unwrap_or(rest.len());
        let (length, segment) = match rest[0] {
            b'~' => (1, Segment::Before),
            b'^' => (1, Segment::After),
            b'0'..=b'9' => {
                let length = run(u8::is_ascii_digit);
                let zeros = rest[..length].iter().take_while(|b| **b == b'0').count();
                (length, Segment::Number(length - zeros, &rest[zeros..length]))
            }
            _ => {
                let length = run(u8::is_ascii_alphabetic);
                (length, Segment::Letters(&rest[..length]))
            }
        };
        self.0 = &rest[length..];
        segment
    }
}

/// A range of versions: `>=1.2, <2` is what is at least 1.2 and below 2; `=3.1` is that one; `*` is any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range {
    /// All of them hold; none: any version.
    parts: Vec<(Bound, Box<str>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Below,
    AtMost,
    Is,
    AtLeast,
    Above,
}

impl Bound {
    /// Longer signs before those that they begin with.
    const ALL: [(&str, Self); 5] = [
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("<", Self::Below),
        (">", Self::Above),
        ("=", Self::Is),
    ];

    fn sign(self) -> &'static str {
        Self::ALL.iter().find(|(_, bound)| *bound == self).map_or("", |(sign, _)| sign)
    }

    fn admits(self, ordering: Ordering) -> bool {
        match self {
            Self::Below => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
            Self::Is => ordering.is_eq(),
            Self::AtLeast => ordering.is_ge(),
            Self::Above => ordering.is_gt(),
        }
    }
}

/// Says why a text is not a range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// It is too long, or has too many parts.
    #[error("a range of versions has at most {RANGE_MAX} characters and {RANGE_PARTS_MAX} parts")]
    Long,
    /// A part does not begin with a sign.
    #[error("{0:?} does not say how it is meant: write ={0}, >={0} or <{0}; * is any version")]
    Sign(String),
    /// What a part compares with is no version.
    #[error(
        "{0:?} is not a version: 1 to {VERSION_MAX} letters, digits and . _ + - : ~ ^, with a letter or digit among them"
    )]
    Version(String),
}

impl Range {
    /// Tells whether a version is in it.
    pub fn contains(&self, version: Version<'_>) -> bool {
        // What was read as a version once reads as one again.
        self.parts.iter().all(|(bound, of)| bound.admits(version.cmp(&Version(of))))
    }

    /// Tells whether every version is in it.
    pub fn is_any(&self) -> bool {
        self.parts.is_empty()
    }

    /// Tells whether two of its parts exclude each other, so that no version is in it.
    pub fn is_contradiction(&self) -> bool {
        let low = |bound| matches!(bound, Bound::Is | Bound::AtLeast | Bound::Above);
        let high = |bound| matches!(bound, Bound::Is | Bound::AtMost | Bound::Below);
        self.parts.iter().filter(|(bound, _)| low(*bound)).any(|(from, low)| {
            self.parts.iter().filter(|(bound, _)| high(*bound)).any(|(to, high)| {
                match Version(low).cmp(&Version(high)) {
                    Ordering::Less => false,
                    Ordering::Equal => *from == Bound::Above || *to == Bound::Below,
                    Ordering::Greater => true,
                }
            })
        })
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        if text.len() > RANGE_MAX || text.split(',').count() > RANGE_PARTS_MAX {
            return Err(RangeError::Long);
        }
        if text.trim() == "*" {
            return Ok(Self { parts: Vec::new() });
        }
        let part = |part: &str| {
            let part = part.trim();
            let sign = Bound::ALL.iter().find_map(|(sign, bound)| Some((*bound, part.strip_prefix(sign)?)));
            let (bound, version) = sign.ok_or_else(|| RangeError::Sign(part.to_owned()))?;
            let version = version.trim();
            // Fewer characters than what devices may report: whatever else stands in a range is a slip.
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-:~^".contains(&b);
            match Version::read(version).filter(|_| version.bytes().all(plain)) {
                Some(_) => Ok((bound, version.into())),
                None => Err(RangeError::Version(version.to_owned())),
            }
        };
        Ok(Self { parts: text.split(',').map(part).collect::<Result<_, _>>()? })
    }
}

impl TryFrom<String> for Range {
    type Error = RangeError;
    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        range.to_string()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parts.is_empty() {
            return f.write_str("*");
        }
        for (number, (bound, version)) in self.parts.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{}{version}", bound.sign())?;
        }
        Ok(())
    }
}
