//! Values out of a file's text, and back into it.
//!
//! Signatures, hashes, salts, times and large numbers are most of a signed file, and look random to deflate, which
//! pays for them as text: a hexadecimal digit costs more than half a byte, and each of them ends the match that
//! surrounds it. So they travel as bytes of their own, behind the stream, and a mark stands in their place:
//!
//! ```text
//!   0  end of the file             no value
//!   1  64 hexadecimal digits       32 bytes
//!   2  32 hexadecimal digits       16 bytes
//!   3  a signature, hex of DER     64 bytes: r, s
//!   4  YYYY-MM-DDTHH:MM:SSZ        u32, unix seconds
//!   5  8 to 10 decimal digits      u32
//!   6  a byte below 7              that byte
//! ```
//! Which values are taken out is the packer's choice; what comes back is always the file, byte for byte.

use p256::ecdsa::Signature;

use crate::tuf::time;

/// Ends a file.
pub(super) const END: u8 = 0;
const DIGITS_64: u8 = 1;
const DIGITS_32: u8 = 2;
const SIGNATURE: u8 = 3;
const TIME: u8 = 4;
const NUMBER: u8 = 5;
const BYTE: u8 = 6;

/// Says why a file does not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueError {
    /// A value is missing, or is not what its mark says.
    Value,
    /// Longer than the ceiling.
    TooLong,
}

/// Appends the text of `file`, without its end, to `text` and its values to `values`. A string of which `stays`
/// is true is left in the text: one that the window of deflate knows already costs less there.
pub(super) fn take_out(file: &[u8], stays: impl Fn(&[u8]) -> bool, text: &mut Vec<u8>, values: &mut Vec<u8>) {
    let mut rest = file;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            END..=BYTE => {
                text.push(BYTE);
                values.push(*byte);
                continue;
            }
            _ => text.push(*byte),
        }
        let length = match byte {
            b'"' => rest.iter().position(|b| *b == b'"').unwrap_or(0),
            b':' => rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(0),
            _ => continue,
        };
        let (word, after) = rest.split_at(length);
        let found = if *byte == b':' { number(word) } else { string(word) };
        let Some((mark, value)) = found.filter(|_| !stays(word)) else { continue };
        text.push(mark);
        values.extend_from_slice(&value);
        rest = after;
    }
}

/// Puts the values back into the text of one file; `values` moves past those that were used.
pub(super) fn put_back(text: &[u8], values: &mut &[u8], ceiling: usize) -> Result<Vec<u8>, ValueError> {
    let mut file = Vec::with_capacity(text.len().min(ceiling));
    for byte in text {
        match *byte {
            DIGITS_64 => file.extend(hex::encode(take::<32>(values)?).bytes()),
            DIGITS_32 => file.extend(hex::encode(take::<16>(values)?).bytes()),
            SIGNATURE => {
                let signature = Signature::from_slice(&take::<64>(values)?).map_err(|_| ValueError::Value)?;
                file.extend(hex::encode(signature.to_der().as_bytes()).bytes());
            }
            TIME => file.extend(time::write(u32::from_be_bytes(take(values)?).into()).bytes()),
            NUMBER => file.extend(u32::from_be_bytes(take(values)?).to_string().bytes()),
            BYTE => file.extend(take::<1>(values)?),
            byte => file.push(byte),
        }
        if file.len() > ceiling {
            return Err(ValueError::TooLong);
        }
    }
    Ok(file)
}

fn take<const N: usize>(values: &mut &[u8]) -> Result<[u8; N], ValueError> {
    let (value, rest) = values.split_first_chunk::<N>().ok_or(ValueError::Value)?;
    *values = rest;
    Ok(*value)
}

/// Returns a string's mark and value, if writing the value gives the string again.
fn string(word: &[u8]) -> Option<(u8, Vec<u8>)> {
    let text = std::str::from_utf8(word).ok()?;
    if word.len() == 20 {
        let unix = u32::try_from(time::read(text)?).ok()?;
        return (time::write(unix.into()) == text).then(|| (TIME, unix.to_be_bytes().into()));
    }
    let bytes = hex::decode(word).ok().filter(|bytes| hex::encode(bytes) == text)?;
    match bytes.len() {
        32 => Some((DIGITS_64, bytes)),
        16 => Some((DIGITS_32, bytes)),
        _ => {
            let signature = Signature::from_der(&bytes).ok()?;
            (signature.to_der().as_bytes() == bytes).then(|| (SIGNATURE, signature.to_bytes().to_vec()))
        }
    }
}

fn number(word: &[u8]) -> Option<(u8, Vec<u8>)> {
    let text = std::str::from_utf8(word).ok().filter(|text| text.len() >= 8)?;
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then(|| (NUMBER, number.to_be_bytes().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(file: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut text, mut values) = (Vec::new(), Vec::new());
        take_out(file, |_| false, &mut text, &mut values);
        let mut left = values.as_slice();
        assert_eq!(put_back(&text, &mut left, file.len()).as_deref(), Ok(file));
        assert!(left.is_empty());
        (text, values)
    }

    #[test]
    fn every_kind_of_value_comes_back() {
        let hash = "ab".repeat(32);
        let salt = "0c".repeat(16);
        let file = format!(
            r#"{{"a":"{hash}","b":"{salt}","c":"3006020101020101","d":"2027-11-23T19:21:58Z","e":4294967295}}"#
        );

        let (text, values) = there_and_back(file.as_bytes());

        assert_eq!(text, b"{\"a\":\"\x01\",\"b\":\"\x02\",\"c\":\"\x03\",\"d\":\"\x04\",\"e\":\x05}");
        assert_eq!(values.len(), 32 + 16 + 64 + 4 + 4);
    }

    #[test]
    fn what_only_resembles_a_value_stays_text() {
        for text in [
            "AB".repeat(32),
            "ab".repeat(31),
            format!("{}é", "ab".repeat(31)),
            "300702020001020101".into(),
            "2027-02-30T00:00:00Z".into(),
            "1969-11-23T19:21:58Z".into(),
            "2200-01-01T00:00:00Z".into(),
        ] {
            let file = format!("{{\"a\":\"{text}\"}}");
            assert_eq!(there_and_back(file.as_bytes()), (file.clone().into_bytes(), vec![]), "{text}");
        }
        for number in ["0123456789", "4294967296", "1234567", "12345678901"] {
            let file = format!("{{\"a\":{number}}}");
            assert_eq!(there_and_back(file.as_bytes()), (file.clone().into_bytes(), vec![]), "{number}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        there_and_back(&all);
        there_and_back(b"\"");
        there_and_back(b":");
        there_and_back(b"\"\x01\"");
    }

    #[test]
    fn a_missing_or_false_value_is_an_error() {
        for (text, values) in [(&[1][..], &[0; 31][..]), (&[3], &[0; 64]), (&[3], &[255; 64]), (&[6], &[])] {
            assert_eq!(put_back(text, &mut &*values, 1000), Err(ValueError::Value));
        }
        assert_eq!(put_back(&[4; 10], &mut &[0; 40][..], 199), Err(ValueError::TooLong));
    }
}
