//! The container in which signed files travel: a bag of files, not a sequence.
//!
//! ```text
//! "TRNB"  format: u8 = 2  root version: u32  dictionary: u32  raw deflate (RFC 1951) of: text   then: values
//!     text = role: u8   text of the file   0x00        … repeated
//! ```
//! Numbers are big endian. A mark in a text stands for one of the values, which nothing would compress; put back, they
//! give exactly the TUF files. `dictionary` is the version of targets whose [`Dictionary`], together with that of root,
//! precedes the text in the window of deflate; 0 is the general one, which everybody has.
//!
//! | module | what it holds |
//! |---|---|
//! | `container` | [`Bundle`]: packing and unpacking |
//! | `dictionary` | [`Dictionary`]: what every holder of the same root and targets knows of files to come |
//! | `skeleton` | files as the signer writes them, with marks where values are |
//! | `values` | what travels beside the text, and the marks that stand for it |
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
