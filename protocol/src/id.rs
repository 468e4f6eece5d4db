//! Checked names. A value of these types is safe inside a topic, a file name and a log line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::ID_MAX;

/// Says why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty or longer than [`ID_MAX`].
    #[error("{what} must have 1 to {ID_MAX} characters, found {found}")]
    Length {
        /// Kind of name.
        what: &'static str,
        /// Length in bytes.
        found: usize,
    },
    /// The text has a character outside `[A-Za-z0-9_-]`.
    #[error("{what} {text:?} may hold only letters, digits, '_' and '-'")]
    Character {
        /// Kind of name.
        what: &'static str,
        /// The text as it came.
        text: String,
    },
    /// The text is a word that topics use themselves.
    #[error("{what} may not be called {text:?}: topics use that word")]
    Reserved {
        /// Kind of name.
        what: &'static str,
        /// The text as it came.
        text: String,
    },
}

fn check(what: &'static str, text: &str, reserved: &[&str]) -> Result<(), IdError> {
    if text.is_empty() || text.len() > ID_MAX {
        return Err(IdError::Length { what, found: text.len() });
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return Err(IdError::Character { what, text: text.to_owned() });
    }
    if reserved.contains(&text) {
        return Err(IdError::Reserved { what, text: text.to_owned() });
    }
    Ok(())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $reserved:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check($what, text, &$reserved)?;
                Ok(Self(text.into()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }
        // By hand, because every report carries ids: one copy to read one, none to write it.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a ", $what))
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                from.deserialize_str(Text)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// Names the fleet: one service serves one fleet.
    FleetId, "fleet id", [""; 0]
);
id!(
    /// Names a product: one line of devices that share releases, and one TUF repository.
    ProductId, "product id", [""; 0]
);
id!(
    /// Names a region, the widest ring of a rollout.
    RegionId, "region id", ["root", "ts", "head"]
);
id!(
    /// Names one device for its whole life.
    DeviceId, "device id", [""; 0]
);
id!(
    /// Names a site: devices behind one edge.
    SiteId, "site id", [""; 0]
);
id!(
    /// Names a label that operators give to devices.
    TagId, "tag", [""; 0]
);
id!(
    /// Names a hardware model; a stratum of the evidence.
    ModelId, "model id", [""; 0]
);
id!(
    /// Names a carrier (mobile network operator), or `none`.
    CarrierId, "carrier id", [""; 0]
);
id!(
    /// Names one rollout of one release.
    RolloutId, "rollout id", [""; 0]
);
id!(
    /// Names a claim: a token that lets a number of devices enrol.
    ClaimId, "claim id", [""; 0]
);
id!(
    /// Names one of several artifacts that a release has for one component.
    VariantId, "variant id", [""; 0]
);
id!(
    /// Names a factory whose key vouches for lists of devices.
    FactoryId, "factory id", [""; 0]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_topic_is_refused() {
        for bad in ["", "a/b", "+", "#", "$SYS", "ä", "a b", "..", "x".repeat(65).as_str()] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad:?}");
        }
        assert!("router-17_B".parse::<DeviceId>().is_ok());
    }

    #[test]
    fn a_region_may_not_shadow_a_topic_word() {
        assert_eq!(
            "root".parse::<RegionId>(),
            Err(IdError::Reserved { what: "region id", text: "root".into() })
        );
    }

    #[test]
    fn names_are_checked_when_they_are_read_from_json() {
        assert!(serde_json::from_str::<ProductId>("\"a/b\"").is_err());
    }
}
