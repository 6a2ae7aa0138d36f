//! A record's event time, where one of its fields says it.
//!
//! A text is RFC 3339 with an offset, as [`jiff`] reads it (it takes a few more forms of ISO 8601); a number is whole milliseconds since 1970. What is
//! finer than a millisecond is cut off.

use jiff::Timestamp as Instant;

use crate::ids::Timestamp;
use crate::json::Scalar;

/// The largest whole number of which every double below is exact.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// The time that a field says; `None` if it says none.
#[must_use]
pub fn read(scalar: &Scalar<'_>) -> Option<Timestamp> {
    match scalar {
        Scalar::Number(number) => {
            let number = number.value();
            (number.trunc() == number && number.abs() <= EXACT_INTEGER_MAX).then_some(Timestamp(number as i64))
        }
        Scalar::Text(text) => text.content().parse::<Instant>().ok().map(|instant| Timestamp(instant.as_millisecond())),
        Scalar::Null | Scalar::Bool(_) | Scalar::Nested => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::scan_object;

    fn of(value: &str) -> Option<i64> {
        let object = format!("{{\"t\": {value}}}");
        let mut time = None;
        scan_object(object.as_bytes(), |_, scalar| time = read(&scalar)).unwrap();
        time.map(|time| time.0)
    }

    #[test]
    fn texts_with_an_offset_and_whole_milliseconds_are_times() {
        assert_eq!(of(r#""2023-11-14T22:13:20Z""#), Some(1_700_000_000_000));
        assert_eq!(of(r#""2023-11-14T23:13:20.1239+01:00""#), Some(1_700_000_000_123));
        assert_eq!(of(r#""1969-12-31T23:59:59Z""#), Some(-1000));
        assert_eq!(of("1700000000000"), Some(1_700_000_000_000));
        assert_eq!(of("1.7e12"), Some(1_700_000_000_000));
    }

    #[test]
    fn anything_else_is_none() {
        for value in [
            "null",
            "true",
            "[1]",
            "{}",
            "1700000000000.5",
            "1e300",
            r#""""#,
            r#""1700000000000""#,
            r#""2023-11-14""#,
            r#""2023-11-14T22:13:20""#,
            r#""2023-02-30T00:00:00Z""#,
            r#""yesterday""#,
        ] {
            assert_eq!(of(value), None, "{value}");
        }
    }
}
