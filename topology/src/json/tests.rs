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

#[test]
fn digits_end_at_any_byte_that_is_none_wherever_it_stands() {
    for at in 0..8 {
        for byte in 0..=u8::MAX {
            for behind in [b'0', b'9', b'.', 0, 0x7F, 0xBA, 0xFF] {
                let mut bytes = [behind; 8];
                bytes[..at].copy_from_slice(&b"98765432"[..at]);
                bytes[at] = byte;
                let found = Digits::at_start_of(bytes);
                let count = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let value = bytes[..count].iter().fold(0, |value, byte| value * 10 + u64::from(byte - b'0'));
                assert_eq!((found.count, found.value), (count, value), "{bytes:?}");
            }
        }
    }
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

    #[test]
    fn value_of_a_number_is_the_nearest_double_whatever_follows(
        text in "-?(0|[1-9][0-9]{0,24})([.][0-9]{1,24})?([eE][+-]?[0-9]{1,3})?",
        after in "( ?,\"m\":\"[0-9.x\u{e4}]{0,12}\"| {0,9})",
    ) {
        let object = format!("{{\"n\": {text}{after}}}");
        let mut value = None;
        scan_object(object.as_bytes(), |_, scalar| {
            if let Scalar::Number(number) = scalar {
                value = Some((number.text(), number.value()));
            }
        })
        .unwrap();
        let (found, value) = value.unwrap();
        prop_assert_eq!(found, &text);
        prop_assert_eq!(value.to_bits(), text.parse::<f64>().unwrap().to_bits());
    }
}
