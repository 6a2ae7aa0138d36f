//! A strict, one-pass scanner of JSON objects (RFC 8259).
//!
//! ```text
//! bytes --UTF-8 once--> top-level fields: name, scalar --visit--> decoder
//! ```
//!
//! - Strict everywhere, in fields that nobody asked for too: no byte order mark, no NaN, no lone surrogates, no control characters in strings, at
//!   most [`MAX_DEPTH`] levels, nothing after the object.
//! - No recursion and no allocation: nesting is a bit per level. Strings are decoded only when they are asked for.
//!
//! It builds no tree and converts no number: what a field means is the decoder's.

use std::borrow::Cow;

use crate::record::{MAX_DEPTH, Rejected};

/// The value of a top-level field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it stands there.
    Number(&'a str),
    /// A string.
    Text(RawText<'a>),
    /// An array or an object.
    Nested,
}

/// A string as it stands between its quotes: valid, perhaps with escapes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RawText<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> RawText<'a> {
    /// The string's content; allocates only if there are escapes in it.
    #[must_use]
    pub fn content(&self) -> Cow<'a, str> {
        if self.escaped {
            Cow::Owned(unescape(self.raw))
        } else {
            Cow::Borrowed(self.raw)
        }
    }
}

/// Scans one JSON object and visits its top-level fields in order, duplicates included.
///
/// # Errors
/// When the bytes are anything but one JSON object. What was visited by then is to be forgotten.
pub fn scan_object<'a>(value: &'a [u8], mut visit: impl FnMut(RawText<'a>, Scalar<'a>)) -> Result<(), Rejected> {
    if value.is_empty() {
        return Err(Rejected::Empty);
    }
    let text = simdutf8::basic::from_utf8(value).or_else(|_| std::str::from_utf8(value).map_err(|e| Rejected::NotUtf8 { at: e.valid_up_to() }))?;
    let mut scanner = Scanner { text, bytes: value, at: 0 };
    scanner.skip_space();
    match scanner.peek() {
        Some(b'{') => scanner.at += 1,
        None => return Err(scanner.malformed("white space only")),
        Some(_) => {
            let at = scanner.at;
            return Err(Rejected::NotAnObject {
                at,
                found: text[at..].chars().next().unwrap_or('?'),
            });
        }
    }
    scanner.skip_space();
    if scanner.peek() == Some(b'}') {
        scanner.at += 1;
    } else {
        loop {
            scanner.expect(b'"', "expected a field name")?;
            let name = scanner.string()?;
            scanner.skip_space();
            scanner.expect(b':', "expected `:`")?;
            scanner.skip_space();
            let scalar = scanner.value()?;
            visit(name, scalar);
            scanner.skip_space();
            match scanner.next() {
                Some(b',') => scanner.skip_space(),
                Some(b'}') => break,
                _ => return Err(scanner.malformed_before("expected `,` or `}`")),
            }
        }
    }
    scanner.skip_space();
    if scanner.at == value.len() {
        Ok(())
    } else {
        Err(scanner.malformed("something follows the object"))
    }
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.at += 1;
        byte
    }

    fn malformed(&self, what: &'static str) -> Rejected {
        Rejected::Malformed {
            at: self.at.min(self.bytes.len()),
            what,
        }
    }

    /// The fault is the byte that was just taken.
    fn malformed_before(&self, what: &'static str) -> Rejected {
        Rejected::Malformed {
            at: (self.at - 1).min(self.bytes.len()),
            what,
        }
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Rejected> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.malformed(what))
        }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// A value at the top level of the object: scalars are given, containers are checked and skipped.
    fn value(&mut self) -> Result<Scalar<'a>, Rejected> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(Scalar::Text(self.string()?))
            }
            Some(b'{' | b'[') => {
                self.container()?;
                Ok(Scalar::Nested)
            }
            _ => self.plain(),
        }
    }

    /// A number or a literal.
    fn plain(&mut self) -> Result<Scalar<'a>, Rejected> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => {
                let start = self.at;
                self.number()?;
                Ok(Scalar::Number(&self.text[start..self.at]))
            }
            Some(b't') => self.literal("true").map(|()| Scalar::Bool(true)),
            Some(b'f') => self.literal("false").map(|()| Scalar::Bool(false)),
            Some(b'n') => self.literal("null").map(|()| Scalar::Null),
            Some(_) => Err(self.malformed("expected a value")),
            None => Err(self.malformed("the value ends early")),
        }
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Rejected> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.malformed("expected true, false or null"))
        }
    }

    fn number(&mut self) -> Result<(), Rejected> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Rejected> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > start {
            Ok(())
        } else {
            Err(self.malformed("expected a digit"))
        }
    }

    /// The rest of a string, after its opening quote.
    fn string(&mut self) -> Result<RawText<'a>, Rejected> {
        let start = self.at;
        let mut escaped = false;
        loop {
            match self.next() {
                Some(b'"') => {
                    return Ok(RawText {
                        raw: &self.text[start..self.at - 1],
                        escaped,
                    });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0..=0x1F) => return Err(self.malformed_before("a control character in a string")),
                Some(_) => {}
                None => return Err(self.malformed_before("the string does not end")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Rejected> {
        match self.next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => match self.code_unit()? {
                0xD800..=0xDBFF => {
                    if self.next() == Some(b'\\') && self.next() == Some(b'u') && (0xDC00..=0xDFFF).contains(&self.code_unit()?) {
                        Ok(())
                    } else {
                        Err(self.malformed_before("a lone surrogate"))
                    }
                }
                0xDC00..=0xDFFF => Err(self.malformed_before("a lone surrogate")),
                _ => Ok(()),
            },
            _ => Err(self.malformed_before("an unknown escape")),
        }
    }

    fn code_unit(&mut self) -> Result<u32, Rejected> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self
                .next()
                .and_then(|byte| char::from(byte).to_digit(16))
                .ok_or_else(|| self.malformed_before("expected a hexadecimal digit"))?;
            unit = unit << 4 | digit;
        }
        Ok(unit)
    }

    /// Checks and skips an array or object at depth 2 and deeper. A set bit of `objects` says that the level is an object.
    fn container(&mut self) -> Result<(), Rejected> {
        let mut objects: u128 = 0;
        // The top-level object is level 1.
        let mut depth = 1;
        loop {
            // At a value.
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    if depth >= MAX_DEPTH {
                        return Err(Rejected::TooDeep { at: self.at });
                    }
                    depth += 1;
                    self.at += 1;
                    objects = objects << 1 | u128::from(open == b'{');
                    self.skip_space();
                    let close = if open == b'{' { b'}' } else { b']' };
                    if self.peek() != Some(close) {
                        if open == b'{' {
                            self.name()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => {
                    self.at += 1;
                    self.string()?;
                }
                _ => {
                    self.plain()?;
                }
            }
            // After a value, or before the closing bracket of an empty container.
            loop {
                self.skip_space();
                let object = objects & 1 == 1;
                match self.next() {
                    Some(b',') => {
                        self.skip_space();
                        if object {
                            self.name()?;
                        }
                        break;
                    }
                    Some(b'}') if object => {}
                    Some(b']') if !object => {}
                    _ => return Err(self.malformed_before("expected `,` or the closing bracket")),
                }
                depth -= 1;
                objects >>= 1;
                if depth == 1 {
                    return Ok(());
                }
            }
        }
    }

    fn name(&mut self) -> Result<(), Rejected> {
        self.expect(b'"', "expected a field name")?;
        self.string()?;
        self.skip_space();
        self.expect(b':', "expected `:`")?;
        self.skip_space();
        Ok(())
    }
}

/// Decodes the escapes of a string that was checked.
fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let kind = rest.as_bytes()[at + 1];
        rest = &rest[at + 2..];
        text.push(match kind {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = |hex: &str| u32::from_str_radix(hex, 16).unwrap_or(0xFFFD);
                let mut code = unit(&rest[..4]);
                rest = &rest[4..];
                if (0xD800..0xDC00).contains(&code) {
                    code = 0x10000 + ((code - 0xD800) << 10) + (unit(&rest[2..6]) - 0xDC00);
                    rest = &rest[6..];
                }
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            other => char::from(other),
        });
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(value: &[u8]) -> Result<Vec<(String, String)>, Rejected> {
        let mut fields = Vec::new();
        scan_object(value, |name, scalar| {
            let text = match scalar {
                Scalar::Text(text) => format!("text {}", text.content()),
                other => format!("{other:?}"),
            };
            fields.push((name.content().into_owned(), text));
        })
        .map(|()| fields)
    }

    #[test]
    fn fields_are_visited_in_order_with_duplicates() {
        let fields = scan(br#" {"a": 1.5e3, "b\u0041\n": "x\ud83d\ude00\/", "c": [1, {"d": [] }], "a": null, "t": true, "f":false} "#).unwrap();
        let expected = [
            ("a", "Number(\"1.5e3\")"),
            ("bA\n", "text x😀/"),
            ("c", "Nested"),
            ("a", "Null"),
            ("t", "Bool(true)"),
            ("f", "Bool(false)"),
        ];
        assert_eq!(fields, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
        assert_eq!(scan(b"{}"), Ok(vec![]));
    }

    #[test]
    fn what_is_no_object_is_rejected_with_the_place() {
        assert_eq!(scan(b""), Err(Rejected::Empty));
        assert_eq!(scan(b" [1]"), Err(Rejected::NotAnObject { at: 1, found: '[' }));
        assert_eq!(scan("\u{feff}{}".as_bytes()), Err(Rejected::NotAnObject { at: 0, found: '\u{feff}' }));
        assert_eq!(scan(b"{\"a\": \xff}"), Err(Rejected::NotUtf8 { at: 6 }));
        assert_eq!(
            scan(b"{\"a\":1}x"),
            Err(Rejected::Malformed {
                at: 7,
                what: "something follows the object"
            })
        );
    }

    #[test]
    fn faults_in_skipped_values_are_found_too() {
        let bad: [&[u8]; 24] = [
            br#"{"a": NaN}"#,
            br#"{"a": [Infinity]}"#,
            br#"{"a": "\ud800"}"#,
            br#"{"a": {"b": "\udc00x"}}"#,
            br#"{"\ud800": 1}"#,
            br#"{"a": "\ud800\u0041"}"#,
            b"{\"a\": \"\x01\"}",
            b"{\"a\": [\"\n\"]}",
            br#"{"a": 01}"#,
            br#"{"a": 1.}"#,
            br#"{"a": .5}"#,
            br#"{"a": -}"#,
            br#"{"a": 1e}"#,
            br#"{"a": +1}"#,
            br#"{"a": [1,]}"#,
            br#"{"a": 1,}"#,
            br#"{"a" 1}"#,
            br#"{a: 1}"#,
            br#"{"a": [1}"#,
            br#"{"a": {"b": 1]}"#,
            br#"{"a": tru}"#,
            br#"{"a": "\x"}"#,
            br#"{"a": 1"#,
            b"{",
        ];
        for value in bad {
            assert!(scan(value).is_err(), "{}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn one_hundred_and_twenty_seven_levels_are_valid_and_one_more_is_not() {
        let nested = |levels: usize| format!("{{\"a\": {}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(scan(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(matches!(scan(nested(MAX_DEPTH + 1).as_bytes()), Err(Rejected::TooDeep { .. })));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".*".prop_map(Into::into)
        ];
        leaf.prop_recursive(6, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(".*", inner, 0..6).prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into())
            ]
        })
    }

    proptest! {
        #[test]
        fn it_accepts_what_serde_json_accepts_also_when_a_byte_is_changed(value in json(), at in any::<prop::sample::Index>(), byte in any::<u8>(), change in any::<bool>()) {
            let mut bytes = serde_json::json!({"f": value}).to_string().into_bytes();
            if change {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let strict = serde_json::from_slice::<serde_json::Value>(&bytes);
            // serde_json refuses numbers beyond the doubles; those are valid JSON.
            let out_of_range = strict.as_ref().is_err_and(|error| error.to_string().contains("number out of range"));
            prop_assert_eq!(scan(&bytes).is_ok(), strict.is_ok_and(|value| value.is_object()) || (out_of_range && scan(&bytes).is_ok()));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(scan(&bytes).is_ok() || scan(&bytes).is_err());
        }
    }
}
