//! Where a value stands in a record: at the top, by its name, or anywhere, by a JSON pointer.

use std::fmt;
use std::str::FromStr;

use crate::record::MAX_DEPTH;

/// A JSON pointer (RFC 6901) to a value within a record, `/items/0/plan`. Never the empty one: the whole record is no value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer(Box<str>);

impl Pointer {
    /// The names and indices on the way, from the top; there is at least one.
    pub fn tokens(&self) -> impl Iterator<Item = String> {
        // `~01` is `~1`: the order matters.
        self.0.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that points nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no JSON pointer to a value in a record: {fault}")]
pub struct InvalidPointer {
    text: String,
    fault: String,
}

impl FromStr for Pointer {
    type Err = InvalidPointer;

    fn from_str(text: &str) -> Result<Self, InvalidPointer> {
        let invalid = |fault: &str| InvalidPointer {
            text: text.to_owned(),
            fault: fault.to_owned(),
        };
        if text.is_empty() {
            return Err(invalid("an empty one points to the whole record"));
        }
        if !text.starts_with('/') {
            return Err(invalid("it must begin with `/`, as `/payload/age` does"));
        }
        if text.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
            return Err(invalid("`~` must be written `~0`, and a `/` within a name `~1`"));
        }
        if text.matches('/').count() > MAX_DEPTH {
            return Err(invalid(&format!("records are nested {MAX_DEPTH} levels at most")));
        }
        Ok(Self(text.into()))
    }
}

/// A place of a record, as settings name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// The top-level field of that name.
    Name(Box<str>),
    /// Any place.
    Pointer(Pointer),
}

impl Field {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Pointer(pointer) => pointer.as_str(),
        }
    }

    /// The names and indices on the way, from the top; there is at least one.
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        match self {
            Self::Name(name) => vec![name.to_string()],
            Self::Pointer(pointer) => pointer.tokens().collect(),
        }
    }
}

/// What begins with `/` is a pointer, all else a name.
impl FromStr for Field {
    type Err = InvalidPointer;

    fn from_str(text: &str) -> Result<Self, InvalidPointer> {
        if text.is_empty() || text.starts_with('/') {
            text.parse().map(Self::Pointer)
        } else {
            Ok(Self::Name(text.into()))
        }
    }
}

/// As it is written in settings.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Pointer(pointer) => pointer.fmt(f),
        }
    }
}

/// The index that a token is in an array: decimal, without leading zeros. `-`, the place after the last, is none.
#[must_use]
pub fn array_index(token: &str) -> Option<usize> {
    let is_index = token == "0" || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
    // Without a digit, or beyond what an array can have: none.
    token.parse().ok().filter(|_| is_index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<String> {
        text.parse::<Pointer>().unwrap().tokens().collect()
    }

    #[test]
    fn pointers_of_the_standard_are_read() {
        // RFC 6901, section 5.
        assert_eq!(tokens("/foo/0"), ["foo", "0"]);
        assert_eq!(tokens("/"), [""]);
        assert_eq!(tokens("/a~1b"), ["a/b"]);
        assert_eq!(tokens("/m~0n"), ["m~n"]);
        assert_eq!(tokens("/c%d"), ["c%d"]);
        assert_eq!(tokens("/ "), [" "]);
        assert_eq!(tokens("/~01//ä"), ["~1", "", "ä"]);
    }

    #[test]
    fn what_points_nowhere_is_refused_in_words() {
        let fault = |text: &str| text.parse::<Pointer>().unwrap_err().to_string();
        assert_eq!(
            fault(""),
            "\"\" is no JSON pointer to a value in a record: an empty one points to the whole record"
        );
        assert!(fault("age").contains("must begin with `/`"));
        assert!(fault("#/age").contains("must begin with `/`"));
        assert!(fault("/a~").contains("`~` must be written `~0`"));
        assert!(fault("/a~2b").contains("`~` must be written `~0`"));
        assert!("/a".repeat(MAX_DEPTH).parse::<Pointer>().is_ok());
        assert!(fault(&"/a".repeat(MAX_DEPTH + 1)).contains("127 levels at most"));
    }

    #[test]
    fn field_is_a_pointer_if_it_begins_like_one() {
        assert_eq!("age".parse(), Ok(Field::Name("age".into())));
        assert_eq!("a~/b".parse(), Ok(Field::Name("a~/b".into())));
        assert_eq!("/age".parse::<Field>().unwrap().tokens(), ["age"]);
        assert!("".parse::<Field>().is_err() && "/~".parse::<Field>().is_err());
        for text in ["age", "/a~1b/0"] {
            assert_eq!(text.parse::<Field>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn index_is_decimal_without_leading_zeros() {
        assert_eq!(["0", "7", "10"].map(array_index), [Some(0), Some(7), Some(10)]);
        for token in ["", "-", "00", "01", "+1", "-1", "1.0", "１", "99999999999999999999999"] {
            assert_eq!(array_index(token), None, "{token}");
        }
    }
}
