//! What kind of device a delta is for.

/// Chooses coder, table sizes, chunk and pack length; the encoder's choice, written in every pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// 8 MB of resident memory in all: the smallest deltas.
    Linux,
    /// 5 MB of resident memory.
    SmallLinux,
    /// Some 250 KiB of tables, chunks of 16 KiB.
    Mcu,
    /// The small coder: some two thirds of the work, a tenth more bytes.
    Fast,
}

/// Table sizes as powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Cells of flags, 2 bytes each.
    pub(super) flags: u32,
    /// Lines of byte models, 32 bytes each.
    pub(super) lines: u32,
    /// Words remembered by target, 12 bytes each for target and neighbourhood; twice.
    pub(super) words: u32,
    /// Bytes of literals remembered, doubled by their index.
    pub(super) history: u32,
    /// The full coder, or the small and fast one.
    pub(super) full: bool,
}

impl Profile {
    /// Every profile, for help texts and tests.
    pub const ALL: [Self; 4] = [Self::Linux, Self::SmallLinux, Self::Mcu, Self::Fast];

    /// Returns the profile's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::SmallLinux => "small-linux",
            Self::Mcu => "mcu",
            Self::Fast => "fast",
        }
    }

    /// Returns the profile with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// Returns the number that stands for the profile in packs and manifests.
    pub const fn id(self) -> u8 {
        match self {
            Self::Linux => 1,
            Self::SmallLinux => 2,
            Self::Mcu => 3,
            Self::Fast => 4,
        }
    }

    /// Returns the profile with this number.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.id() == id)
    }

    /// Returns the sizes of the tables.
    pub(super) const fn sizes(self) -> Sizes {
        match self {
            Self::Linux => Sizes { flags: 18, lines: 16, words: 12, history: 15, full: true },
            Self::SmallLinux => Sizes { flags: 16, lines: 14, words: 12, history: 15, full: true },
            Self::Mcu => Sizes { flags: 13, lines: 11, words: 10, history: 14, full: true },
            Self::Fast => Sizes { flags: 17, lines: 14, words: 12, history: 14, full: false },
        }
    }

    /// Returns log2 of the length of chunks.
    #[cfg(feature = "delta-encode")]
    pub(super) const fn chunk_log2(self) -> u32 {
        match self {
            Self::Mcu => 14,
            _ => 16,
        }
    }
}
