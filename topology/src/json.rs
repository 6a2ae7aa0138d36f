//! A strict, one-pass scanner of JSON objects (RFC 8259).
//!
//! ```text
//! bytes --UTF-8 once--> names, indices --visitor: is it wanted?--> scalars of wanted places --visitor--> decoder
//! ```
//!
//! - Strict everywhere, in fields that nobody asked for too: no byte order mark, no NaN, no lone surrogates, no control characters in strings, at
//!   most [`MAX_DEPTH`] levels, nothing after the object.
//! - No allocation. What nobody wants is passed over without recursion, a bit per level; the scan goes into itself only along wanted places, at most
//!   [`MAX_DEPTH`] deep. Strings are decoded only when they are asked for.
//! - A value is rejected for the same reason at the same byte, whatever is wanted of it.
//!
//! It builds no tree: what a field means is the decoder's.

use std::borrow::Cow;

use self::number::Digits;
pub use self::number::Number;
use crate::record::{MAX_DEPTH, Rejected};

mod number;

/// The value at a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Number<'a>),
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
            let mut text = String::with_capacity(self.raw.len());
            unescape(self.raw, &mut text);
            Cow::Owned(text)
        } else {
            Cow::Borrowed(self.raw)
        }
    }

    /// Appends the string's content.
    pub fn append_to(&self, text: &mut String) {
        if self.escaped {
            unescape(self.raw, text);
        } else {
            text.push_str(self.raw);
        }
    }
}

/// What a scan is for: says which places of a record are wanted, and gets their values, in the order in which they stand there, duplicates
/// included. What is wanted nowhere is checked all the same.
pub trait Visitor<'a> {
    /// Somewhere in a record that something is wanted of.
    type Place: Copy;

    /// The place of a field of the object at `object`, the `at`-th one there from 0 on; `None` if it is not wanted. `before` is all that stands between
    /// the value before it, or the opening bracket, and its value.
    fn field(&mut self, object: Self::Place, at: usize, name: RawText<'a>, before: &'a str) -> Option<Self::Place>;

    /// Whether the `at`-th field of the object at `object` begins as one did before: if `rest` begins with what was `before` that one's value, its length
    /// and that field's place. So a name is compared, and not scanned, where producers write their fields as they did last time.
    fn guess(&mut self, object: Self::Place, at: usize, rest: &[u8]) -> Option<(usize, Option<Self::Place>)>;

    /// The place of an item of the array at `array`, from 0 on; `None` if it is not wanted.
    fn item(&mut self, array: Self::Place, index: usize) -> Option<Self::Place>;

    /// What stands at a place; of an array or an object [`Scalar::Nested`], before what is in it.
    fn value(&mut self, place: Self::Place, scalar: Scalar<'a>);

    /// Whether something is wanted of what is within an array or an object at a place.
    fn looks_inside(&self, place: Self::Place) -> bool;
}

/// Scans one JSON object and visits its top-level fields in order, duplicates included.
///
/// # Errors
/// When the bytes are anything but one JSON object. What was visited by then is to be forgotten.
pub fn scan_object<'a>(value: &'a [u8], visit: impl FnMut(RawText<'a>, Scalar<'a>)) -> Result<(), Rejected> {
    scan(value, None, &mut TopLevel(visit))
}

/// Every top-level field is wanted, and nothing in it. A place is its name; the record has none.
struct TopLevel<F>(F);

impl<'a, F: FnMut(RawText<'a>, Scalar<'a>)> Visitor<'a> for TopLevel<F> {
    type Place = Option<RawText<'a>>;

    fn field(&mut self, _: Self::Place, _: usize, name: RawText<'a>, _: &'a str) -> Option<Self::Place> {
        Some(Some(name))
    }

    fn guess(&mut self, _: Self::Place, _: usize, _: &[u8]) -> Option<(usize, Option<Self::Place>)> {
        None
    }

    fn item(&mut self, _: Self::Place, _: usize) -> Option<Self::Place> {
        None
    }

    fn value(&mut self, place: Self::Place, scalar: Scalar<'a>) {
        if let Some(name) = place {
            (self.0)(name, scalar);
        }
    }

    fn looks_inside(&self, _: Self::Place) -> bool {
        false
    }
}

/// Scans one JSON object, which is at the place `record`, for what a visitor wants of it.
///
/// # Errors
/// When the bytes are anything but one JSON object. What was visited by then is to be forgotten.
pub fn scan<'a, V: Visitor<'a>>(value: &'a [u8], record: V::Place, visitor: &mut V) -> Result<(), Rejected> {
    if value.is_empty() {
        return Err(Rejected::Empty);
    }
    let text = simdutf8::basic::from_utf8(value).or_else(|_| std::str::from_utf8(value).map_err(|e| Rejected::NotUtf8 { at: e.valid_up_to() }))?;
    let mut scanner = Scanner {
        text,
        bytes: value,
        at: 0,
        rejected: Rejected::Empty,
    };
    scanner.whole(visitor, record).map_err(|Fault| scanner.rejected)
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Of a [`Fault`]: what it is.
    rejected: Rejected,
}

/// The value is no JSON object: [`Scanner::rejected`] says why. It has no size, so that results of each digit and string stay in registers.
struct Fault;

impl<'a> Scanner<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.at += 1;
        byte
    }

    #[cold]
    fn fault(&mut self, rejected: Rejected) -> Fault {
        self.rejected = rejected;
        Fault
    }

    #[cold]
    fn malformed(&mut self, what: &'static str) -> Fault {
        let at = self.at.min(self.bytes.len());
        self.fault(Rejected::Malformed { at, what })
    }

    /// The fault is the byte that was just taken.
    #[cold]
    fn malformed_before(&mut self, what: &'static str) -> Fault {
        let at = (self.at - 1).min(self.bytes.len());
        self.fault(Rejected::Malformed { at, what })
    }

    /// All of it: one object, at the place `record`.
    fn whole<V: Visitor<'a>>(&mut self, visitor: &mut V, record: V::Place) -> Result<(), Fault> {
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.at += 1,
            None => return Err(self.malformed("white space only")),
            Some(_) => {
                let at = self.at;
                let found = self.text[at..].chars().next().unwrap_or('?');
                return Err(self.fault(Rejected::NotAnObject { at, found }));
            }
        }
        self.inside(visitor, record, true, 1)?;
        self.skip_space();
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(self.malformed("something follows the object"))
        }
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Fault> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.malformed(what))
        }
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// The rest of the object or array at `place`, after its opening bracket. It is the level `depth`.
    fn inside<V: Visitor<'a>>(&mut self, visitor: &mut V, place: V::Place, object: bool, depth: usize) -> Result<(), Fault> {
        for at in 0.. {
            if object && let Some((length, inner)) = visitor.guess(place, at, &self.bytes[self.at..]) {
                self.at += length;
                // There may be more of it than last time.
                self.skip_space();
                self.value(visitor, inner, depth)?;
                continue;
            }
            let before = self.at;
            if !self.goes_on(at == 0, object, depth)? {
                break;
            }
            let inner = if object {
                let name = self.name()?;
                visitor.field(place, at, name, &self.text[before..self.at])
            } else {
                visitor.item(place, at)
            };
            self.value(visitor, inner, depth)?;
        }
        Ok(())
    }

    /// Takes what stands between the opening bracket of a container of the level `depth`, or a value in it, and the next one; says whether there is one.
    fn goes_on(&mut self, is_first: bool, object: bool, depth: usize) -> Result<bool, Fault> {
        let close = if object { b'}' } else { b']' };
        self.skip_space();
        if is_first {
            let ends = self.peek() == Some(close);
            self.at += usize::from(ends);
            return Ok(!ends);
        }
        match self.next() {
            Some(b',') => {
                self.skip_space();
                Ok(true)
            }
            Some(byte) if byte == close => Ok(false),
            _ if depth == 1 => Err(self.malformed_before("expected `,` or `}`")),
            _ => Err(self.malformed_before("expected `,` or the closing bracket")),
        }
    }

    /// A value in a container of the level `depth`: given if its place is wanted, else checked and passed over.
    fn value<V: Visitor<'a>>(&mut self, visitor: &mut V, place: Option<V::Place>, depth: usize) -> Result<(), Fault> {
        // Most are, and nothing else is asked of them then.
        if let Some(b'-' | b'0'..=b'9') = self.peek() {
            let number = self.number()?;
            if let Some(place) = place {
                visitor.value(place, Scalar::Number(number));
            }
            return Ok(());
        }
        self.other_value(visitor, place, depth)
    }

    /// The same, if it is no number.
    fn other_value<V: Visitor<'a>>(&mut self, visitor: &mut V, place: Option<V::Place>, depth: usize) -> Result<(), Fault> {
        let scalar = match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Scalar::Text(self.string()?)
            }
            Some(open @ (b'{' | b'[')) => {
                let Some(place) = place else { return self.container(depth) };
                visitor.value(place, Scalar::Nested);
                if !visitor.looks_inside(place) {
                    return self.container(depth);
                }
                self.open(depth)?;
                return self.inside(visitor, place, open == b'{', depth + 1);
            }
            _ => self.plain()?,
        };
        if let Some(place) = place {
            visitor.value(place, scalar);
        }
        Ok(())
    }

    /// Takes the opening bracket of a container in one of the level `depth`.
    fn open(&mut self, depth: usize) -> Result<(), Fault> {
        if depth >= MAX_DEPTH {
            return Err(self.fault(Rejected::TooDeep { at: self.at }));
        }
        self.at += 1;
        Ok(())
    }

    /// A number or a literal.
    fn plain(&mut self) -> Result<Scalar<'a>, Fault> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => self.number().map(Scalar::Number),
            Some(b't') => self.literal("true").map(|()| Scalar::Bool(true)),
            Some(b'f') => self.literal("false").map(|()| Scalar::Bool(false)),
            Some(b'n') => self.literal("null").map(|()| Scalar::Null),
            Some(_) => Err(self.malformed("expected a value")),
            None => Err(self.malformed("the value ends early")),
        }
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Fault> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.malformed("expected true, false or null"))
        }
    }

    #[inline(always)]
    fn number(&mut self) -> Result<Number<'a>, Fault> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let first = self.at;
        let (mut digits, mut decimals) = (0, 0);
        match self.bytes.get(first..first + 2) {
            // Of most there is one before the point.
            Some([digit @ b'1'..=b'9', b'.']) => {
                digits = u64::from(digit - b'0');
                self.at += 1;
            }
            _ if self.peek() == Some(b'0') => self.at += 1,
            _ => digits = self.digits(digits)?,
        }
        let mut count = self.at - first;
        if self.peek() == Some(b'.') {
            self.at += 1;
            let point = self.at;
            digits = self.digits(digits)?;
            decimals = self.at - point;
            count += decimals;
        }
        // So many never wrap.
        let mut decimal = (count <= 19).then_some((digits, decimals as u8));
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits(0)?;
            decimal = None;
        }
        Ok(Number {
            bytes: &self.bytes[start..self.at],
            is_negative: first > start,
            decimal,
        })
    }

    /// Takes digits, at least one, and appends them to the integer `read`, which wraps.
    #[inline(always)]
    fn digits(&mut self, mut read: u64) -> Result<u64, Fault> {
        let start = self.at;
        'digits: {
            while let Some(eight) = self.bytes[self.at..].first_chunk() {
                let digits = Digits::at_start_of(*eight);
                read = digits.append_to(read);
                self.at += digits.count;
                if digits.count < eight.len() {
                    break 'digits;
                }
            }
            // Near the end of the value.
            while let Some(digit @ b'0'..=b'9') = self.peek() {
                read = read.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
                self.at += 1;
            }
        }
        if self.at > start {
            Ok(read)
        } else {
            Err(self.malformed("expected a digit"))
        }
    }

    /// The rest of a string, after its opening quote.
    fn string(&mut self) -> Result<RawText<'a>, Fault> {
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

    fn escape(&mut self) -> Result<(), Fault> {
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

    fn code_unit(&mut self) -> Result<u32, Fault> {
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

    /// Checks and skips an array or object in a container of the level `outer`. A set bit of `objects` says that the level is an object.
    fn container(&mut self, outer: usize) -> Result<(), Fault> {
        let mut objects: u128 = 0;
        let mut depth = outer;
        loop {
            // At a value.
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    self.open(depth)?;
                    depth += 1;
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
                if depth == outer {
                    return Ok(());
                }
            }
        }
    }

    /// The name of a field and what stands between it and the value.
    fn name(&mut self) -> Result<RawText<'a>, Fault> {
        self.expect(b'"', "expected a field name")?;
        let name = self.string()?;
        self.skip_space();
        self.expect(b':', "expected `:`")?;
        self.skip_space();
        Ok(name)
    }
}

/// Appends a string that was checked, its escapes decoded.
fn unescape(raw: &str, text: &mut String) {
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
}

#[cfg(test)]
mod tests;
