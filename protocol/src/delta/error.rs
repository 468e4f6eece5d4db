//! Why a pack or a manifest is refused.

use std::io;

/// Says why a pack did not become chunks. What was handed to the slot before is right, chunk by chunk.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The pack is of a format or profile that this program does not know, or not of this delta.
    #[error("a pack of an unknown or another format; update the agent, or take the full image")]
    Unknown,
    /// The pack breaks a rule of the format. A pack whose digest was right never does.
    #[error("chunk {chunk}: {what}; verify the pack's digest before decoding")]
    Malformed {
        /// The chunk that was being decoded.
        chunk: u32,
        /// The rule.
        what: &'static str,
    },
    /// What came out is not what was meant: the old image is not the one the delta was made for.
    #[error("chunk {chunk} does not match its digest; fetch it, and the rest of the pack, as raw chunks")]
    WrongChunk {
        /// The first chunk that came out wrong.
        chunk: u32,
    },
    /// The old image, or what was written of the new one, could not be read.
    #[error("could not read what chunk {chunk} is made from")]
    Read {
        /// The chunk that was being decoded.
        chunk: u32,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// The slot did not take a chunk.
    #[error("could not write chunk {chunk}")]
    Write {
        /// The chunk that was decoded.
        chunk: u32,
        /// What the slot said.
        #[source]
        source: io::Error,
    },
}

/// Says why bytes are not a delta manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeltaManifestError {
    /// Of a version or profile that this program does not know.
    #[error("a delta manifest of an unknown version or profile; update the agent, or take the full image")]
    Unknown,
    /// Its length is not that of a manifest.
    #[error("a delta manifest of {0} B has not the length of one")]
    Length(usize),
    /// An image or the list of packs is above its ceiling.
    #[error("a delta manifest above the ceilings of images or packs")]
    Ceiling,
}

/// Says why bytes are not a signed delta manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignedDeltaError {
    /// Not of this shape.
    #[error("a signed delta manifest is cut off or too long")]
    Malformed,
    /// What was signed is no manifest.
    #[error(transparent)]
    Manifest(#[from] DeltaManifestError),
    /// Too few of the keys that may sign did.
    #[error("a delta manifest that the keys of the rollout role did not sign")]
    Unsigned,
}
