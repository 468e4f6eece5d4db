//! What makes an image expensive to send: found in its bytes, and measured beside the image before it. No I/O.
//!
//! | module | what it holds |
//! |---|---|
//! | [`look`] | file systems and kernels by their superblocks and headers |
//! | [`compare`] | what changed since the image before, and whether it looks like chance |

pub mod compare;
pub mod look;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// Something that costs bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Finding {
    /// A squashfs whose data are compressed.
    CompressedSquashfs {
        /// Where it begins in the image.
        at: u64,
        /// With what.
        compression: String,
    },
    /// An erofs whose data are compressed.
    CompressedErofs {
        /// Where it begins in the image.
        at: u64,
        /// With what.
        compression: String,
    },
    /// A kernel that unpacks itself.
    PackedKernel {
        /// Where it begins in the image.
        at: u64,
        /// With what.
        compression: String,
    },
    /// The whole image is a compressed file.
    CompressedFile {
        /// With what.
        compression: String,
    },
    /// The same file system has another identity in each build.
    FileSystemIdentity {
        /// Of what kind.
        system: String,
        /// What differs.
        fields: Vec<String>,
    },
    /// Many chunks differ in a few bytes: time stamps, counters, random names.
    ScatteredChanges {
        /// Chunks that differ in at most [`compare::FEW`] bytes at the same place.
        chunks: u64,
        /// Chunks that differ at all.
        changed: u64,
        /// Chunks of the image.
        all: u64,
    },
}

impl Finding {
    /// Says what it is.
    pub fn what(&self) -> String {
        match self {
            Self::CompressedSquashfs { at, compression } => {
                format!("a squashfs compressed with {compression}, at byte {at}")
            }
            Self::CompressedErofs { at, compression } => {
                format!("an erofs compressed with {compression}, at byte {at}")
            }
            Self::PackedKernel { at, compression } => {
                format!("a kernel packed with {compression}, at byte {at}")
            }
            Self::CompressedFile { compression } => {
                format!("the whole image is compressed with {compression}")
            }
            Self::FileSystemIdentity { system, fields } => {
                format!("the {system} differs from the one before in {}", fields.join(", "))
            }
            Self::ScatteredChanges { chunks, changed, all } => format!(
                "{chunks} of the {changed} changed chunks, of {all}, differ in at most {} bytes",
                compare::FEW
            ),
        }
    }

    /// Says what it costs and what to do. The figures: docs/operating.md, "What makes an image expensive".
    pub fn advice(&self) -> &'static str {
        match self {
            Self::CompressedSquashfs { .. } => {
                "an update takes 7 to 9 times the bytes: make it with `mksquashfs -noI -noId -noD -noF -noX`, and let the \
                 transfer compress"
            }
            Self::CompressedErofs { .. } => {
                "a byte that changes changes its whole cluster: make it without -z, or if the flash is too small with -zlz4 \
                 and the smallest clusters"
            }
            Self::PackedKernel { .. } => {
                "an update of the kernel takes twice the bytes: build it unpacked (CONFIG_KERNEL_UNCOMPRESSED, or Image \
                 instead of Image.gz)"
            }
            Self::CompressedFile { .. } => {
                "a byte that changes changes all behind it: release the unpacked file; the transfer compresses"
            }
            Self::FileSystemIdentity { .. } => {
                "set it in the build: mke2fs -U and -E hash_seed=, SOURCE_DATE_EPOCH, mksquashfs -mkfs-time, mkfs.erofs -T -U"
            }
            Self::ScatteredChanges { .. } => {
                "the build is not reproducible: set SOURCE_DATE_EPOCH, sort what is put together, and look with diffoscope at \
                 two builds of the same source"
            }
        }
    }
}
