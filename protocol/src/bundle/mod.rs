//! The container in which signed files travel: a bag of files, not a sequence.
//!
//! ```text
//! "TRNB"  format: u8 = 1  root version: u32  dictionary: u32  raw deflate (RFC 1951) of:
//!     role: u8   length: u32   bytes        … repeated
//! ```
//! Numbers are big endian. The inflated bytes are exactly the TUF files. `dictionary` is the version of targets
//! whose [`Dictionary`], together with that of root, precedes them in the window of deflate; 0 means none.
//!
//! | module | what it holds |
//! |---|---|
//! | `container` | [`Bundle`]: packing and unpacking |
//! | `dictionary` | [`Dictionary`]: what every holder of the same root and targets knows of files to come |
//! | `deflate` | the compressed stream, and the one place that names its library |

mod container;
mod deflate;
mod dictionary;
#[cfg(test)]
mod measured;
mod skeleton;
mod values;

pub use container::{Bundle, BundleError, File};
pub use dictionary::{Dictionary, DictionaryId};
