//! What a signed checkpoint says, as C2SP publishes the format (c2sp.org/tlog-checkpoint).
//!
//! ```text
//! tern-ledger/4f1c…        origin: the name of the ledger's key
//! 20852163                 number of frames
//! CsUYapGG…                root of the tree over them, base64
//! …                        a boundary says more (see `boundary`)
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tern_protocol::digest::Digest;

use super::note::{self, NoteError, NoteKey, NoteSigner};

/// A tree head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Number of frames.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Digest,
    /// Further lines.
    pub more: Vec<String>,
}

impl Checkpoint {
    /// Makes one that says nothing but size and root.
    pub fn new(size: u64, root: Digest) -> Self {
        Self { size, root, more: Vec::new() }
    }

    /// Signs it.
    pub fn sign(&self, signer: &NoteSigner) -> String {
        let root = STANDARD.encode(self.root.0);
        let mut text = format!("{}\n{}\n{root}\n", signer.public().name(), self.size);
        for line in &self.more {
            text.push_str(line);
            text.push('\n');
        }
        signer.sign(&text)
    }

    /// Reads one that this key has signed.
    pub fn open(signed: &str, key: &NoteKey) -> Result<Self, NoteError> {
        let text = key.open(signed)?;
        // A key signs for one ledger only.
        if text.lines().next() != Some(key.name()) {
            return Err(NoteError::Form("it is of another ledger"));
        }
        Self::parse(text)
    }

    /// Reads what it says without asking who signed it.
    pub fn unverified(signed: &str) -> Result<Self, NoteError> {
        Self::parse(note::unverified(signed)?)
    }

    fn parse(text: &str) -> Result<Self, NoteError> {
        let bad = NoteError::Form;
        let mut lines = text.lines();
        let (_, size, root) = match (lines.next(), lines.next(), lines.next()) {
            (Some(origin), Some(size), Some(root)) if !origin.is_empty() => (origin, size, root),
            _ => return Err(bad("a checkpoint has three lines")),
        };
        let number: u64 = size.parse().map_err(|_| bad("its second line is no number of frames"))?;
        if number.to_string() != size {
            return Err(bad("its second line is no number of frames"));
        }
        let root = STANDARD.decode(root).ok().and_then(|root| root.try_into().ok());
        let root = Digest(root.ok_or(bad("its third line is no root"))?);
        let more: Vec<String> = lines.map(str::to_owned).collect();
        if more.iter().any(String::is_empty) {
            return Err(bad("it has an empty line"));
        }
        Ok(Self { size: number, root, more })
    }
}

#[cfg(test)]
mod tests {
    use super::super::note::tests::signer;
    use super::*;

    #[test]
    fn a_checkpoint_is_three_lines_and_a_signature_and_comes_back() {
        let made = Checkpoint::new(20_852_163, Digest::of(b"root"));
        let signed = made.sign(&signer(1));
        let lines: Vec<&str> = signed.lines().collect();
        assert_eq!(lines[0], signer(1).public().name());
        assert_eq!(lines[1..4], ["20852163", &STANDARD.encode(made.root.0), ""]);
        assert!(lines[4].starts_with(&format!("— {} ", lines[0])), "{signed}");
        assert_eq!(Checkpoint::open(&signed, signer(1).public()), Ok(made));
    }

    #[test]
    fn what_is_no_checkpoint_of_this_ledger_is_refused_though_the_key_has_signed_it() {
        let key = signer(1);
        let (name, root) = (key.public().name().to_owned(), STANDARD.encode([7; 32]));
        let good = format!("{name}\n5\n{root}\n");
        assert!(Checkpoint::open(&key.sign(&good), key.public()).is_ok());
        for text in [
            format!("other\n5\n{root}\n"),
            format!("{name}\n05\n{root}\n"),
            format!("{name}\n-5\n{root}\n"),
            format!("{name}\n5\n{}\n", STANDARD.encode([7; 31])),
            format!("{name}\n5\n"),
            format!("{name}\n5\n{root}\n\nmore\n"),
        ] {
            assert!(Checkpoint::open(&key.sign(&text), key.public()).is_err(), "{text}");
        }
    }
}
