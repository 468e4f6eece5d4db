//! `get`: a device asks a chunk server for packs, for pieces of a tree, or for signed files it lacks.
//!
//! Unauthenticated: everything that comes back is verified against signed metadata.

use serde::{Deserialize, Serialize};

use crate::bundle::DictionaryId;
use crate::chunk::PieceId;
use crate::digest::Digest;
use crate::id::ProductId;
use crate::limits::{CHUNKS_MAX, GET_MAX, GET_PACKS_MAX, GET_PROFILES_MAX, GET_RANGES_MAX, GET_WANTS_MAX};
use crate::tuf::Role;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// What is wanted.
    pub want: Vec<Want>,
    /// The dictionary that the asker has: files may come packed against it. Without one they come in the general
    /// one, which everybody has.
    #[serde(default, rename = "dict", skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<DictionaryId>,
}

impl From<Vec<Want>> for Get {
    fn from(want: Vec<Want>) -> Self {
        Self { want, dictionary: None }
    }
}

/// One thing wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Want {
    /// Packs of the object whose Merkle root is `of`, as half-open ranges of pack numbers.
    Packs {
        /// The object.
        of: Digest,
        /// Half-open ranges.
        ranges: Vec<(u32, u32)>,
    },
    /// One piece of the tree of the object `of`.
    Piece {
        /// The object.
        of: Digest,
        /// Level of the tree.
        level: u8,
        /// Number of the piece.
        index: u32,
    },
    /// The signed manifest of the smallest delta that leads from one image to another; from the image without bytes
    /// to have the whole one, coded.
    Delta {
        /// Merkle root of the image that is there.
        from: Digest,
        /// Merkle root of the image that is wanted.
        to: Digest,
        /// Numbers of the profiles that the asker decodes.
        profiles: Vec<u8>,
    },
    /// The newest file of a role, or of root the named version.
    File {
        /// The repository.
        product: ProductId,
        /// The role.
        role: Role,
        /// Version, for root.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u32>,
    },
}

/// Says why bytes are not a request.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// Longer than the ceiling.
    #[error("a request of {0} B is above the ceiling of {GET_MAX} B")]
    TooLarge(usize),
    /// Not JSON of this shape.
    #[error("the request is malformed")]
    Malformed(#[from] serde_json::Error),
    /// Asks for more than one request may.
    #[error("the request asks for more than {GET_WANTS_MAX} things or {GET_PACKS_MAX} packs")]
    TooMuch,
}

impl Get {
    /// Reads a request and checks its ceilings.
    pub fn read(bytes: &[u8]) -> Result<Self, GetError> {
        if bytes.len() > GET_MAX {
            return Err(GetError::TooLarge(bytes.len()));
        }
        let get: Self = serde_json::from_slice(bytes)?;
        let mut packs = 0u32;
        for want in &get.want {
            if matches!(want, Want::Delta { profiles, .. } if profiles.len() > GET_PROFILES_MAX) {
                return Err(GetError::TooMuch);
            }
            if let Want::Packs { ranges, .. } = want {
                if ranges.len() > GET_RANGES_MAX {
                    return Err(GetError::TooMuch);
                }
                for (from, to) in ranges {
                    if to <= from || *to > CHUNKS_MAX {
                        return Err(GetError::TooMuch);
                    }
                    packs = packs.saturating_add(to - from);
                }
            }
        }
        if get.want.len() > GET_WANTS_MAX || packs > GET_PACKS_MAX {
            return Err(GetError::TooMuch);
        }
        Ok(get)
    }

    /// Writes the request.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("our own messages serialise")
    }
}

impl Want {
    /// Asks for `piece` of the tree of `of`.
    pub fn piece(of: Digest, piece: PieceId) -> Self {
        Self::Piece { of, level: piece.level, index: piece.index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_the_whole_image_at_once_is_refused() {
        let of = Digest([0; 32]);
        let ask = |ranges| Get::from(vec![Want::Packs { of, ranges }]).write();
        assert!(Get::read(&ask(vec![(0, 96)])).is_ok());
        assert!(matches!(Get::read(&ask(vec![(0, 97)])), Err(GetError::TooMuch)));
        assert!(matches!(Get::read(&ask(vec![(5, 5)])), Err(GetError::TooMuch)));
        assert!(matches!(Get::read(&ask(vec![(0, u32::MAX)])), Err(GetError::TooMuch)));
    }

    #[test]
    fn a_delta_is_asked_for_by_its_ends_and_the_profiles_of_the_asker() {
        let ask = |count| {
            let (from, to) = (Digest([1; 32]), Digest([2; 32]));
            Get::from(vec![Want::Delta { from, to, profiles: vec![1; count] }])
        };
        assert_eq!(Get::read(&ask(2).write()).unwrap(), ask(2));
        assert!(String::from_utf8(ask(2).write()).unwrap().contains("\"profiles\":[1,1]"));
        assert!(Get::read(&ask(GET_PROFILES_MAX).write()).is_ok());
        assert!(matches!(Get::read(&ask(GET_PROFILES_MAX + 1).write()), Err(GetError::TooMuch)));
    }

    #[test]
    fn the_dictionary_is_named_by_two_numbers_and_may_be_absent() {
        let mut get = Get::from(vec![]);
        assert_eq!(get.write(), b"{\"want\":[]}");
        get.dictionary = Some(DictionaryId { root: 2, targets: 3 });
        assert_eq!(get.write(), b"{\"want\":[],\"dict\":[2,3]}");
        assert_eq!(Get::read(&get.write()).unwrap(), get);
    }
}
