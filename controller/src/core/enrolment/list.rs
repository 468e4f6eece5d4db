//! A factory list: JSON lines, or one array.

use std::collections::BTreeMap;

use crate::core::fact::DeviceEntry;

/// Reads a list; an error names the line, or the place in the array.
pub fn read(text: &str) -> Result<Vec<DeviceEntry>, String> {
    let entries: Vec<(String, DeviceEntry)> = if text.trim_start().starts_with('[') {
        let values: Vec<serde_json::Value> =
            serde_json::from_str(text).map_err(|e| format!("not a JSON array: {e}"))?;
        (1..)
            .zip(values)
            .map(|(number, value)| one(format!("entry {number}"), serde_json::from_value(value)))
            .collect::<Result<_, _>>()?
    } else {
        (1..)
            .zip(text.lines())
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(number, line)| one(format!("line {number}"), serde_json::from_str(line)))
            .collect::<Result<_, _>>()?
    };
    if entries.is_empty() {
        return Err("it names no device".to_owned());
    }
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (place, entry) in &entries {
        if let Some(first) = seen.insert(entry.device.as_str(), place) {
            return Err(format!("{place}: device {} stands in {first} already", entry.device));
        }
    }
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

fn one(place: String, read: Result<DeviceEntry, serde_json::Error>) -> Result<(String, DeviceEntry), String> {
    match read {
        Ok(entry) => Ok((place, entry)),
        Err(error) => Err(format!("{place}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(device: &str) -> String {
        format!(
            r#"{{"device":"{device}","identity":"04ab","product":"cam","model":"b3","carrier":"none","region":"eu"}}"#
        )
    }

    #[test]
    fn lines_and_an_array_read_alike() {
        let lines = format!("{}\n\n{}\n", line("a"), line("b"));
        let array = format!("[{},\n{}]", line("a"), line("b"));

        let read_lines = read(&lines).unwrap();

        assert_eq!(read_lines.len(), 2);
        assert_eq!(read(&array).unwrap(), read_lines);
    }

    #[test]
    fn a_malformed_line_is_named_by_its_number() {
        let wrong_key = line("b").replace("\"region\"", "\"area\"");
        let text = format!("{}\n\n{wrong_key}\n", line("a"));

        assert!(read(&text).unwrap_err().starts_with("line 3: "));
        assert!(read(&format!("[{},{wrong_key}]", line("a"))).unwrap_err().starts_with("entry 2: "));
        let extra = line("a").replace("{", "{\"colour\":\"red\",");
        assert!(read(&extra).unwrap_err().contains("colour"));
        assert!(read("\n").is_err());
    }

    #[test]
    fn a_device_that_stands_twice_is_named_with_both_places() {
        let twice = format!("{}\n{}\n{}", line("a"), line("b"), line("a"));
        assert_eq!(read(&twice).unwrap_err(), "line 3: device a stands in line 1 already");
    }
}
