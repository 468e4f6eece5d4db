//! Canonical JSON as TUF signs it (OLPC), and a reader that refuses what has no canonical form.
//!
//! Canonical: keys sorted by code point, no white space, only `"` and `\` escaped, integers only. Nothing that
//! Tern invented is signed this way; those messages are authenticated over raw bytes.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::limits::JSON_DEPTH_MAX;

/// Says why bytes or a value have no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, a key twice in one object, a number that is no integer, or nested too deeply.
    #[error("not strict JSON: {0}")]
    Malformed(String),
    /// A value to be written holds a number that is no integer.
    #[error("canonical JSON knows only integers, found {0}")]
    NotAnInteger(String),
}

/// Reads JSON and refuses duplicate keys, floats, and nesting beyond [`JSON_DEPTH_MAX`].
///
/// Two readers must never see two things in one signed file, so what others tolerate is an error here.
pub fn read(bytes: &[u8]) -> Result<Value, JsonError> {
    let malformed = |e: serde_json::Error| JsonError::Malformed(e.to_string());
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }.deserialize(&mut reader).map_err(malformed)?;
    reader.end().map_err(malformed)?;
    Ok(value)
}

/// Writes the canonical form: what a signature covers and what a key id is the hash of.
pub fn write(value: &Value) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    write_value(value, &mut out)?;
    Ok(out)
}

fn write_value(value: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(n) if n.is_i64() || n.is_u64() => out.extend_from_slice(n.to_string().as_bytes()),
        Value::Number(n) => return Err(JsonError::NotAnInteger(n.to_string())),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_value(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(map) => {
            // Sorted here, for a map keeps insertion order if any crate of the build asks serde_json for that.
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            out.push(b'{');
            for (i, (key, item)) in fields.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_string(key, out);
                out.push(b':');
                write_value(item, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' || byte == b'\\' {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Builds a [`Value`] and counts how deep it is.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn inside<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == JSON_DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {JSON_DEPTH_MAX}")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without floats")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.inside()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.inside()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let item = access.next_value_seed(inner)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key {key:?} appears twice")));
            }
            map.insert(key, item);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_is_the_one_of_olpc() {
        let value =
            read("{\"b\":[1,-2,true,null],\"a\":\"q\\\" b\\\\ n\\n ü\",\"A\":{}}".as_bytes()).unwrap();
        let written = write(&value).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "{\"A\":{},\"a\":\"q\\\" b\\\\ n\n ü\",\"b\":[1,-2,true,null]}"
        );
    }

    #[test]
    fn floats_duplicate_keys_and_trailing_bytes_are_refused() {
        for bad in ["1.0", "[1e3]", "-0", "99999999999999999999", "{\"a\":1,\"a\":1}", "{} {}", "[", ""] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
        let why = read(b"1.5").unwrap_err().to_string();
        assert!(why.contains("JSON without floats"), "{why}");
        assert!(read(br#"{"a":18446744073709551615,"b":{"a":1}}"#).is_ok());
        assert_eq!(write(&serde_json::json!({"a": 1.5})), Err(JsonError::NotAnInteger("1.5".into())));
    }

    #[test]
    fn nesting_stops_at_the_ceiling() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(nested(JSON_DEPTH_MAX).as_bytes()).is_ok());
        assert!(read(nested(JSON_DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(read("{\"a\":".repeat(JSON_DEPTH_MAX + 1).as_bytes()).is_err());
    }
}
