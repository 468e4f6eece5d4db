//! Sections that are read key by key, by hand: a derived reader adds 15 kB to the executable for each structure.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::timing::seconds;

/// A table of simple values.
#[derive(Default)]
pub(super) struct Section {
    name: &'static str,
    values: Vec<(String, Value)>,
}

/// A simple value.
enum Value {
    Text(String),
    Number(f64),
    Flag(bool),
    List(Vec<String>),
}

impl Section {
    /// Calls the section `name`, and refuses what is none of its `keys`.
    pub(super) fn with_keys(self, name: &'static str, keys: &[&str]) -> Result<Self, String> {
        match self.values.iter().find(|(key, _)| !keys.contains(&key.as_str())) {
            None => Ok(Self { name, ..self }),
            // As for every other section.
            Some((key, _)) => {
                let keys = keys.join("`, `");
                Err(format!("unknown field `{key}` in {name}, expected one of `{keys}`"))
            }
        }
    }

    /// Takes a text.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    /// Takes a path.
    pub(super) fn path(&mut self, key: &str, default: &str) -> Result<PathBuf, String> {
        Ok(self.text(key)?.unwrap_or_else(|| default.to_owned()).into())
    }

    /// Takes a list of texts.
    pub(super) fn list(&mut self, key: &str) -> Result<Option<Vec<String>>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(_) => Err(self.wrong(key, "a list of texts")),
        }
    }

    /// Takes a number.
    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(number)),
            Some(_) => Err(self.wrong(key, "a number")),
        }
    }

    /// Takes a duration.
    pub(super) fn duration(&mut self, key: &str, default: Duration) -> Result<Duration, String> {
        self.number(key)?.map_or(Ok(default), seconds::checked)
    }

    /// Takes what is on or off; off by default.
    pub(super) fn flag(&mut self, key: &str) -> Result<bool, String> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Flag(flag)) => Ok(flag),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.values.iter().position(|(known, _)| known == key)?;
        Some(self.values.swap_remove(at).1)
    }

    fn wrong(&self, key: &str, expected: &str) -> String {
        format!("{}.{key} must be {expected}", self.name)
    }
}

impl<'de> Deserialize<'de> for Section {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Pairs)
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Section;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Section, A::Error> {
        let mut section = Section::default();
        while let Some(pair) = pairs.next_entry()? {
            section.values.push(pair);
        }
        Ok(section)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Simple)
    }
}

struct Simple;

impl<'de> Visitor<'de> for Simple {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true, false or a list of texts")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(text) = texts.next_element()? {
            list.push(text);
        }
        Ok(Value::List(list))
    }
}
