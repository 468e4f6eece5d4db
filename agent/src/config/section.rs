//! Sections that are read key by key, by hand: a derived reader adds 15 kB to the executable for each structure. What is
//! refused is named by section and key.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::timing::seconds;

/// A table of values.
#[derive(Default)]
pub(super) struct Section {
    name: &'static str,
    values: Vec<(String, Value)>,
}

/// A value.
enum Value {
    Text(String),
    Number(f64),
    Flag(bool),
    List(Vec<Value>),
    Table(Section),
}

/// Up to here every whole number is a number of its own in floating point.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

impl Section {
    /// Calls the section `name`, and refuses what is none of its `keys`.
    pub(super) fn with_keys(self, name: &'static str, keys: &[&str]) -> Result<Self, String> {
        match self.values.iter().find(|(key, _)| !keys.contains(&key.as_str())) {
            None => Ok(Self { name, ..self }),
            // As for every other section.
            Some((key, _)) => {
                let (keys, place) = (keys.join("`, `"), Self { name, values: Vec::new() }.place());
                Err(format!("unknown field `{key}`{place}, expected one of `{keys}`"))
            }
        }
    }

    /// Leaves out what is none of these keys.
    pub(super) fn with_only(mut self, keys: &[&str]) -> Self {
        self.values.retain(|(key, _)| keys.contains(&key.as_str()));
        self
    }

    /// Takes a text.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    /// Takes a text that has to be there.
    pub(super) fn needed(&mut self, key: &str) -> Result<String, String> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    /// Takes a path.
    pub(super) fn path(&mut self, key: &str, default: &str) -> Result<PathBuf, String> {
        Ok(self.text(key)?.unwrap_or_else(|| default.to_owned()).into())
    }

    /// Takes a list of texts.
    pub(super) fn list(&mut self, key: &str) -> Result<Option<Vec<String>>, String> {
        let text = |value| if let Value::Text(text) = value { Some(text) } else { None };
        self.list_of(key, "a list of texts", text)
    }

    /// Takes a table.
    pub(super) fn table(&mut self, key: &str) -> Result<Option<Self>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(table)),
            Some(_) => Err(self.wrong(key, "a table")),
        }
    }

    /// Takes a list of tables; an empty one by default.
    pub(super) fn tables(&mut self, key: &str) -> Result<Vec<Self>, String> {
        let table = |value| if let Value::Table(table) = value { Some(table) } else { None };
        Ok(self.list_of(key, "a list of tables", table)?.unwrap_or_default())
    }

    fn list_of<T>(
        &mut self,
        key: &str,
        expected: &str,
        one: fn(Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, String> {
        let list = match self.take(key) {
            None => return Ok(None),
            Some(Value::List(list)) => list.into_iter().map(one).collect::<Option<_>>(),
            Some(_) => None,
        };
        list.map(Some).ok_or_else(|| self.wrong(key, expected))
    }

    /// Takes a number.
    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(number)),
            Some(_) => Err(self.wrong(key, "a number")),
        }
    }

    /// Takes a whole number, 0 or more.
    pub(super) fn whole(&mut self, key: &str) -> Result<Option<u64>, String> {
        match self.number(key)? {
            None => Ok(None),
            Some(number) if (0.0..WHOLE_MAX).contains(&number) && number.fract() == 0.0 =>
            {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "just looked at")]
                Ok(Some(number as u64))
            }
            Some(_) => Err(self.wrong(key, "a whole number, 0 or more")),
        }
    }

    /// Takes a duration.
    pub(super) fn duration(&mut self, key: &str, default: Duration) -> Result<Duration, String> {
        match self.number(key)? {
            None => Ok(default),
            Some(number) => seconds::checked(number).map_err(|why| format!("{}: {why}", self.name_of(key))),
        }
    }

    /// Takes what is on or off.
    pub(super) fn flag(&mut self, key: &str, default: bool) -> Result<bool, String> {
        match self.take(key) {
            None => Ok(default),
            Some(Value::Flag(flag)) => Ok(flag),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// Tells whether a key was written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.iter().any(|(known, _)| known == key)
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.values.iter().position(|(known, _)| known == key)?;
        Some(self.values.swap_remove(at).1)
    }

    /// Says that a key has to be there.
    pub(super) fn missing(&self, key: &str) -> String {
        format!("missing field `{key}`{}", self.place())
    }

    /// Says where a key stands; the file itself has no name.
    fn place(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) }
    }

    fn name_of(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn wrong(&self, key: &str, expected: &str) -> String {
        format!("{} must be {expected}", self.name_of(key))
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
        f.write_str("a text, a number, true, false, a list or a table")
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

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, pairs: A) -> Result<Value, A::Error> {
        Pairs.visit_map(pairs).map(Value::Table)
    }
}
