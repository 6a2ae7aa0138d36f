//! Bytes of state values: a format version, then bincode. The only place that names bincode.
//!
//! A value is `[version: u8][bincode standard configuration]`. Bytes of every released version stay in `tests/fixtures`.
//!
//! What a value has only sometimes stands behind it, under a version of its own: without it the bytes are what they always were.

use std::borrow::Cow;

use bincode::{BorrowDecode, Encode};

/// Version of the values that this build writes.
pub const FORMAT_VERSION: u8 = 1;

/// Version of a value that another one follows.
pub const EXTENDED_VERSION: u8 = 2;

/// Bytes that are no value of this format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorruptValue {
    /// No bytes at all.
    #[error("the value is empty")]
    Empty,
    /// Written by a newer build.
    #[error("format version {found}, this build does not read it here: use the build that wrote it, or a newer one")]
    Version {
        /// The version found.
        found: u8,
    },
    /// The version is right, the rest is not.
    #[error("{0}")]
    Malformed(String),
}

fn configuration() -> impl bincode::config::Config {
    // The limit bounds what a damaged length can make us allocate.
    bincode::config::standard().with_limit::<{ 64 << 20 }>()
}

/// Encodes a value behind its version byte.
///
/// # Panics
/// Never for the types of this crate: they encode into memory without a length limit of their own.
#[must_use]
pub fn encode(value: &impl Encode) -> Vec<u8> {
    versioned(FORMAT_VERSION, value)
}

/// Encodes a value, and behind it another one, if there is one.
#[must_use]
pub fn encode_extended(value: &impl Encode, extension: Option<&impl Encode>) -> Vec<u8> {
    match extension {
        None => encode(value),
        Some(extension) => versioned(EXTENDED_VERSION, &(value, extension)),
    }
}

#[expect(clippy::expect_used, reason = "encoding derived types into a Vec has no failing path")]
fn versioned(version: u8, value: &impl Encode) -> Vec<u8> {
    let mut bytes = vec![version];
    let size = bincode::encode_into_std_write(value, &mut bytes, bincode::config::standard()).expect("encoding into memory cannot fail");
    debug_assert_eq!(size + 1, bytes.len());
    bytes
}

/// Decodes a value that [`encode`] wrote. It may borrow from the bytes.
///
/// # Errors
/// When the bytes are empty, of a newer version, or malformed; trailing bytes are malformed too.
pub fn decode<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<T, CorruptValue> {
    let (&version, rest) = bytes.split_first().ok_or(CorruptValue::Empty)?;
    if version != FORMAT_VERSION {
        return Err(CorruptValue::Version { found: version });
    }
    whole(rest)
}

/// Decodes what [`encode_extended`] wrote.
///
/// # Errors
/// As [`decode`].
pub fn decode_extended<'a, T: BorrowDecode<'a, ()>, E: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<(T, Option<E>), CorruptValue> {
    match bytes.split_first() {
        Some((&EXTENDED_VERSION, rest)) => whole(rest).map(|(value, extension)| (value, Some(extension))),
        _ => decode(bytes).map(|value| (value, None)),
    }
}

fn whole<'a, T: BorrowDecode<'a, ()>>(rest: &'a [u8]) -> Result<T, CorruptValue> {
    let (value, read) = bincode::borrow_decode_from_slice(rest, configuration()).map_err(|e| CorruptValue::Malformed(e.to_string()))?;
    if read != rest.len() {
        return Err(CorruptValue::Malformed(format!("{} bytes follow the value", rest.len() - read)));
    }
    Ok(value)
}

/// Appends a text component to a key: its bytes with 0x00 escaped as 0x00 0xFF, then 0x00 0x00. So components sort as texts do, and no text
/// can run into the next component.
pub fn put_component(key: &mut Vec<u8>, text: &str) {
    for &byte in text.as_bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(0xFF);
        }
    }
    key.extend_from_slice(&[0, 0]);
}

/// Splits a key behind its first text component: the inverse of [`put_component`]. `None` when there is none.
#[must_use]
pub fn take_component(key: &[u8]) -> Option<(Cow<'_, str>, &[u8])> {
    let mut escaped = Vec::new();
    let mut rest = key;
    loop {
        let end = rest.iter().position(|&byte| byte == 0)?;
        let (part, after) = rest.split_at(end);
        match after {
            [0, 0, after @ ..] if escaped.is_empty() => return Some((Cow::Borrowed(std::str::from_utf8(part).ok()?), after)),
            [0, 0, after @ ..] => {
                escaped.extend_from_slice(part);
                return Some((Cow::Owned(String::from_utf8(escaped).ok()?), after));
            }
            [0, 0xFF, after @ ..] => {
                escaped.extend_from_slice(&rest[..=end]);
                rest = after;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn component_reads_back_and_keys_sort_as_their_texts(a in any::<String>(), b in "[\\x00-\\x02]{0,6}", rest in any::<Vec<u8>>()) {
            for text in [&a, &b] {
                let mut key = Vec::new();
                put_component(&mut key, text);
                key.extend_from_slice(&rest);
                let (read, after) = take_component(&key).unwrap();
                prop_assert_eq!((&*read, after), (text.as_str(), rest.as_slice()));
                prop_assert_eq!(matches!(read, Cow::Borrowed(_)), !text.contains('\0'), "copied only for what is escaped");
            }
            let key = |text| {
                let mut key = Vec::new();
                put_component(&mut key, text);
                key
            };
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        }

        #[test]
        fn damaged_bytes_are_an_error_and_never_a_panic(bytes in any::<Vec<u8>>()) {
            let decoded = decode::<Vec<(u64, Option<String>)>>(&bytes);
            if let Ok(value) = decoded {
                prop_assert_eq!(decode(&encode(&value)), Ok(value));
            }
        }
    }

    #[test]
    fn newer_version_empty_value_and_trailing_bytes_are_told_apart() {
        assert_eq!(decode::<u64>(&[]), Err(CorruptValue::Empty));
        assert_eq!(
            decode::<u64>(&[FORMAT_VERSION + 1, 0]),
            Err(CorruptValue::Version { found: FORMAT_VERSION + 1 })
        );
        assert_eq!(
            decode::<u64>(&[FORMAT_VERSION, 0, 0]),
            Err(CorruptValue::Malformed("1 bytes follow the value".to_owned()))
        );
        assert_eq!(decode::<u64>(&encode(&7_u64)), Ok(7));
    }

    #[test]
    fn value_without_an_extension_has_the_bytes_that_it_always_had() {
        assert_eq!(encode_extended(&7_u64, None::<&u8>), encode(&7_u64));
        assert_eq!(decode_extended::<u64, u8>(&encode(&7_u64)), Ok((7, None)));
        let extended = encode_extended(&7_u64, Some(&"x".to_owned()));
        assert_eq!(extended, [EXTENDED_VERSION, 7, 1, b'x']);
        assert_eq!(decode_extended(&extended), Ok((7_u64, Some("x".to_owned()))));
        assert_eq!(decode::<u64>(&extended), Err(CorruptValue::Version { found: EXTENDED_VERSION }));
        assert!(matches!(decode_extended::<u64, String>(&extended[..3]), Err(CorruptValue::Malformed(_))));
        assert_eq!(
            decode_extended::<u64, u8>(&[EXTENDED_VERSION + 1, 7]),
            Err(CorruptValue::Version { found: EXTENDED_VERSION + 1 })
        );
    }
}
