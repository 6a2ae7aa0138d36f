use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::binning::{Binning, category_of_number};
use crate::json::scan_object;
use crate::record::MAX_DEPTH;
use crate::reference::{Cell, ColumnType, ReferenceBuilder};

/// `a` is numeric, `b` categorical.
fn reference() -> Reference {
    let columns = [("a".to_owned(), ColumnType::Number), ("b".to_owned(), ColumnType::Text)];
    let mut builder = ReferenceBuilder::new("default", &columns, &Binning::Auto { bins: 10 }, &[], 50).unwrap();
    for row in 0..1000 {
        let category = ["x", "y", "true", "3"][row as usize % 4];
        builder.push_row([Cell::Number(f64::from(row) / 100.0), Cell::Text(category)]);
    }
    builder.finish().unwrap().0
}

fn paths(paths: &[(&str, &str)]) -> BTreeMap<String, Pointer> {
    let entry = |(name, path): &(&str, &str)| ((*name).to_owned(), path.parse().unwrap());
    paths.iter().map(entry).collect()
}

fn fields(fields: &[&str]) -> Vec<Field> {
    fields.iter().map(|field| field.parse().unwrap()).collect()
}

/// Why `a` and `b` are missing in a record, where they stand at these pointers.
fn missing(a: &str, b: &str, record: &str) -> [Option<Missing>; 2] {
    let mut row = Vec::new();
    let mut decoder = Decoder::empty().with_features(&reference(), &paths(&[("a", a), ("b", b)]));
    decoder.decode(record.as_bytes(), &mut row).unwrap();
    [row[0].missing, row[1].missing]
}

fn texts(wanted: &[&str], record: &str) -> Vec<Option<String>> {
    let mut decoder = Decoder::empty().with_texts(&fields(wanted));
    decoder.decode(record.as_bytes(), &mut Vec::new()).unwrap();
    decoder.texts().map(|text| text.map(str::to_owned)).collect()
}

fn text(wanted: &str, record: &str) -> Option<String> {
    texts(&[wanted], record).pop().flatten()
}

/// The values of `b` in `other`, where it stands at this pointer, after each of these records.
fn watched(path: Option<&str>, records: &[&str]) -> Vec<Option<String>> {
    let reference = reference();
    let paths = path.map(|path| paths(&[("b", path)])).unwrap_or_default();
    let mut decoder = Decoder::empty()
        .with_features(&reference, &paths)
        .with_watched_features(&reference, &paths, [1]);
    let value_of = |record: &&str| {
        decoder.decode(record.as_bytes(), &mut Vec::new()).unwrap();
        let [value] = decoder.watched_values() else { panic!("one is watched") };
        value.get().map(str::to_owned)
    };
    records.iter().map(value_of).collect()
}

#[test]
fn watched_values_are_those_in_other_and_no_others() {
    let records = [
        r#"{"a": 1, "b": "gold"}"#,
        r#"{"a": 1, "b": "x"}"#,
        r#"{"b": "gr\u00fcn", "a": 1}"#,
        r#"{"b": 7.0}"#,
        r#"{"b": 3}"#,
        r#"{"b": 7.5}"#,
        r#"{"b": false}"#,
        r#"{"b": true}"#,
        r#"{"b": null}"#,
        r#"{"b": ["gold"]}"#,
        r#"{"a": 1}"#,
        r#"{"b": ""}"#,
    ];
    let some = |text: &str| Some(text.to_owned());
    let expected = [
        some("gold"),
        None,
        some("grün"),
        some("7"),
        None,
        None,
        some("false"),
        None,
        None,
        None,
        None,
        some(""),
    ];
    assert_eq!(watched(None, &records), expected);
}

#[test]
fn watched_value_is_that_of_the_last_field_and_of_no_field_before() {
    let records = [
        r#"{"b": "gold", "b": "x"}"#,
        r#"{"b": "x", "b": "gold"}"#,
        r#"{"b": "silver", "b": null}"#,
        r#"{"p": {"b": "gold"}, "b": "silver"}"#,
    ];
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(watched(None, &records), [None, some("gold"), None, some("silver")]);
    let records = [
        r#"{"p": {"b": "gold"}, "b": "silver"}"#,
        r#"{"p": {"b": "gold"}, "p": {}}"#,
        r#"{"p": {"b": "gold"}, "p": 3}"#,
    ];
    assert_eq!(watched(Some("/p/b"), &records), [some("gold"), None, None]);
}

#[test]
fn watched_numbers_are_decimals_and_long_texts_are_cut() {
    let values =
        json!({"name": "n", "kind": "numeric", "binning": "discrete", "values": [2], "range": [2, 2], "counts": [10], "other": 0, "missing": 0});
    let digest = Sha256::digest(serde_json_canonicalizer::to_vec(&[&values]).unwrap());
    let version: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let document = json!({"schema_version": 1, "version": version, "monitor": "m", "rows": 10, "features": [values]});
    let reference = Reference::from_json(document.to_string().as_bytes()).unwrap();
    let mut decoder = Decoder::empty().with_watched_features(&reference, &BTreeMap::new(), [0]);
    let mut value = |record: &str| {
        decoder.decode(record.as_bytes(), &mut Vec::new()).unwrap();
        decoder.watched_values()[0].get().map(str::to_owned)
    };
    let some = |text: &str| Some(text.to_owned());
    let records = [
        r#"{"n": 2.50}"#,
        r#"{"n": 2}"#,
        r#"{"n": -0.0}"#,
        r#"{"n": 1e22}"#,
        r#"{"n": "3"}"#,
        r#"{"n": 1e400}"#,
    ];
    assert_eq!(records.map(&mut value), [some("2.5"), None, some("0"), some("1e+22"), None, None]);
    let long = "y".repeat(100_000);
    assert_eq!(watched(None, &[&format!(r#"{{"b": "{long}"}}"#)]), [some(&long[..64])]);
}

#[test]
fn path_leads_through_objects_and_arrays() {
    const FOUND: [Option<Missing>; 2] = [None, None];
    let record = r#"{"payload": {"age": 3, "n": null}, "items": [{"plan": "x"}, {"plan": 7}], "0": "x"}"#;
    assert_eq!(missing("/payload/age", "/items/0/plan", record), FOUND);
    assert_eq!(missing("/items/1/plan", "/0", record), FOUND);
    assert_eq!(missing("/payload/n", "/payload", record), [Some(Missing::Null), Some(Missing::Type)]);
    for absent in [
        "/age",
        "/payload/age/x",
        "/payload/n/x",
        "/payload/0",
        "/items/2",
        "/items/-",
        "/items/00",
        "/items/plan",
        "/",
    ] {
        assert_eq!(missing(absent, absent, record), [Some(Missing::Absent); 2], "{absent}");
    }
}

#[test]
fn feature_without_a_path_is_the_top_level_field_of_its_name() {
    let (reference, mut row) = (reference(), Vec::new());
    let mut decoder = Decoder::empty().with_features(&reference, &paths(&[("b", "/in/b")]));
    decoder.decode(br#"{"b": "x", "a": 1, "in": {"a": "no", "b": "y"}}"#, &mut row).unwrap();
    assert_eq!(
        row,
        [
            reference.features()[0].bins().observe_number(1.0),
            reference.features()[1].bins().observe_text("y")
        ]
    );
}

#[test]
fn one_place_is_taken_by_all_who_want_it() {
    let reference = reference();
    let of = paths(&[("b", "/in/b")]);
    let mut decoder = Decoder::empty()
        .with_features(&reference, &of)
        .with_features(&reference, &paths(&[("a", "/in/b")]))
        .with_times(&fields(&["/in/b", "a"]))
        .with_texts(&fields(&["/in/b", "b", "/in/b/c"]));
    let mut row = Vec::new();
    decoder.decode(br#"{"a": 5, "in": {"b": 3}}"#, &mut row).unwrap();
    assert_eq!(
        row.iter().map(|seen| seen.missing).collect::<Vec<_>>(),
        [None, None, None, Some(Missing::Absent)]
    );
    assert_eq!(decoder.times(), [Some(Timestamp(3)), Some(Timestamp(5))]);
    assert_eq!(decoder.texts().collect::<Vec<_>>(), [Some("3"), None, None]);
}

#[test]
fn later_duplicate_replaces_all_below_the_earlier_one() {
    let payload = |record: &str| texts(&["/p/a", "/p/q/b"], record);
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(payload(r#"{"p": {"a": "1", "q": {"b": "2"}}}"#), [some("1"), some("2")]);
    assert_eq!(payload(r#"{"p": {"a": "1", "q": {"b": "2"}}, "p": {}}"#), [None, None]);
    assert_eq!(payload(r#"{"p": {"a": "1", "q": {"b": "2"}}, "p": 7}"#), [None, None]);
    assert_eq!(payload(r#"{"p": {"a": "1", "q": {"b": "2"}, "q": [], "a": "3"}}"#), [some("3"), None]);
    assert_eq!(payload(r#"{"p": {"q": {"b": "2"}}, "p": {"a": "1"}}"#), [some("1"), None]);
    assert_eq!(payload(r#"{"p": {"q": {"b": "2"}, "\u0071": {"b": null}}}"#), [None, None]);
    let mut decoder = Decoder::empty()
        .with_features(&reference(), &paths(&[("a", "/p/a")]))
        .with_times(&fields(&["/p/t"]));
    let mut row = Vec::new();
    decoder.decode(br#"{"p": {"a": 1, "t": 2}, "p": {}}"#, &mut row).unwrap();
    assert_eq!((row[0].missing, decoder.times()), (Some(Missing::Absent), &[None][..]));
}

#[test]
fn texts_are_strings_booleans_and_integral_numbers() {
    for (value, expected) in [
        (r#""Österreich""#, Some("Österreich")),
        (r#""a\n\ud83d\ude00""#, Some("a\n😀")),
        (r#""""#, Some("")),
        ("true", Some("true")),
        ("false", Some("false")),
        ("3", Some("3")),
        ("3.0", Some("3")),
        ("-0.0", Some("0")),
        ("12e2", Some("1200")),
        ("9007199254740992", Some("9007199254740992")),
        ("9007199254740994", None),
        ("1.5", None),
        ("1e400", None),
        ("null", None),
        ("[\"x\"]", None),
        ("{}", None),
    ] {
        for (field, record) in [("t", format!("{{\"t\": {value}}}")), ("/u/1", format!("{{\"u\": [0, {value}]}}"))] {
            assert_eq!(text(field, &record).as_deref(), expected, "{record}");
        }
    }
    assert_eq!(text("t", "{}"), None);
}

#[test]
fn nothing_is_left_of_the_record_before() {
    let mut decoder = Decoder::empty()
        .with_features(&reference(), &paths(&[("a", "/p/a")]))
        .with_times(&fields(&["/p/a"]))
        .with_texts(&fields(&["/p/a"]));
    let mut row = Vec::new();
    for record in [r#"{"p": {"a": 1}}"#, r#"{"p": {"a": 1"#] {
        assert_eq!(decoder.decode(record.as_bytes(), &mut row).is_ok(), record.ends_with('}'));
        decoder.decode(b"{}", &mut row).unwrap();
        assert_eq!((row.len(), row[0].missing), (2, Some(Missing::Absent)));
        assert_eq!((decoder.times(), decoder.texts().next().flatten()), (&[None][..], None));
    }
}

#[test]
fn last_level_can_be_taken_and_one_more_is_too_deep() {
    let pointer = format!("/a{}", "/0".repeat(MAX_DEPTH - 1));
    let record = |levels: usize| format!("{{\"a\": {}\"x\"{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    assert_eq!(text(&pointer, &record(MAX_DEPTH)).as_deref(), Some("x"));
    let mut decoder = Decoder::empty().with_texts(&fields(&[&pointer]));
    assert_eq!(
        decoder.decode(record(MAX_DEPTH + 1).as_bytes(), &mut Vec::new()),
        Err(Rejected::TooDeep { at: 6 + MAX_DEPTH - 1 })
    );
}

/// A document that may have fields twice, and escapes where none are needed.
#[derive(Clone, Debug)]
enum Json {
    Plain(&'static str),
    Text(Written),
    Array(Vec<Json>),
    Object(Vec<(Written, Json)>),
}

#[derive(Clone, Debug)]
struct Written {
    text: &'static str,
    escaped: bool,
}

impl Json {
    fn write(&self, out: &mut String) {
        match self {
            Self::Plain(text) => out.push_str(text),
            Self::Text(text) => text.write(out),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { " ," } else { "" });
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(fields) => {
                out.push('{');
                for (index, (name, value)) in fields.iter().enumerate() {
                    out.push_str(if index > 0 { ",\n" } else { " " });
                    name.write(out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

impl Written {
    fn write(&self, out: &mut String) {
        if self.escaped {
            let units = self.text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
            out.push_str(&format!("\"{}\"", units.collect::<String>()));
        } else {
            out.push_str(&Value::from(self.text).to_string());
        }
    }
}

/// Few, so that paths lead somewhere and fields are there twice.
const NAMES: [&str; 9] = ["a", "b", "c", "0", "1", "", "a/b", "~", "😀"];

fn written(texts: &'static [&'static str]) -> impl Strategy<Value = Written> {
    (prop::sample::select(texts), prop::bool::weighted(0.1)).prop_map(|(text, escaped)| Written { text, escaped })
}

fn object(inner: impl Strategy<Value = Json>) -> impl Strategy<Value = Json> {
    prop::collection::vec((written(&NAMES), inner), 0..8).prop_map(Json::Object)
}

fn record() -> impl Strategy<Value = Json> {
    const PLAIN: [&str; 11] = [
        "null",
        "true",
        "false",
        "3",
        "3.0",
        "-0.0",
        "1.5",
        "7e0",
        "9007199254740993",
        "9007199254740994",
        "1700000000000",
    ];
    const TEXTS: [&str; 6] = ["x", "y", "3", "2023-11-14T22:13:20Z", "\u{e9}\n\"", ""];
    let leaf = prop_oneof![
        prop::sample::select(&PLAIN[..]).prop_map(Json::Plain),
        written(&TEXTS).prop_map(Json::Text)
    ];
    let value = leaf.prop_recursive(
        3,
        40,
        8,
        |inner| prop_oneof![1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array), 2 => object(inner)],
    );
    object(value)
}

fn pointer() -> impl Strategy<Value = String> {
    let mut tokens = NAMES.to_vec();
    tokens.extend(["-", "00", "2"]);
    let escaped = |token: &str| token.replace('~', "~0").replace('/', "~1");
    let path = prop::collection::vec(prop::sample::select(tokens), 1..5);
    path.prop_map(move |tokens| tokens.iter().map(|token| format!("/{}", escaped(token))).collect())
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![4 => pointer(), 1 => prop::sample::select(&["a", "b", "0", "~"][..]).prop_map(str::to_owned)]
}

/// What stands at a field, by a tree of the whole record.
fn looked_up<'v>(record: &'v Value, field: &str) -> Option<&'v Value> {
    if field.starts_with('/') {
        record.pointer(field)
    } else {
        record.get(field)
    }
}

fn observed(bins: &Bins, value: Option<&Value>) -> Observation {
    match value {
        None => bins.missing(Missing::Absent),
        Some(Value::Null) => bins.missing(Missing::Null),
        Some(Value::Bool(value)) => bins.observe_bool(*value),
        Some(Value::Number(number)) => bins.observe_number(number.as_f64().unwrap()),
        Some(Value::String(text)) => bins.observe_text(text),
        Some(Value::Array(_) | Value::Object(_)) => bins.missing(Missing::Type),
    }
}

fn said_text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => category_of_number(number.as_f64()?),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn said_time(value: Option<&Value>) -> Option<Timestamp> {
    match value? {
        Value::Number(number) => category_of_number(number.as_f64()?)?.parse().ok().map(Timestamp),
        Value::String(text) => Some(Timestamp(text.parse::<jiff::Timestamp>().ok()?.as_millisecond())),
        _ => None,
    }
}

/// What a value of a tree is, and how it reads.
fn kind_and_text(value: Option<&Value>) -> Option<(&'static str, String)> {
    value.map(|value| match value {
        Value::Null => ("null", String::new()),
        Value::Bool(value) => ("bool", value.to_string()),
        Value::Number(number) => ("number", number.to_string()),
        Value::String(text) => ("text", text.clone()),
        Value::Array(_) | Value::Object(_) => ("nested", String::new()),
    })
}

#[test]
fn white_space_may_differ_from_record_to_record() {
    let paths = ["a".parse::<Field>().unwrap(), "b".parse().unwrap()];
    let mut decoder = Decoder::empty().with_texts(&paths);
    let forms = [
        r#"{"a":1,"b":"x"}"#,
        r#"{"a": 1, "b": "x"}"#,
        r#"{ "a" :1 ,"b" :"x" }"#,
        "{\n  \"a\": 1,\n  \"b\": \"x\"\n}",
        r#"{"b":"x","a":1}"#,
    ];
    for first in forms {
        for second in forms {
            for form in [first, second] {
                decoder.decode(form.as_bytes(), &mut Vec::new()).unwrap();
                assert_eq!(decoder.texts().collect::<Vec<_>>(), [Some("1"), Some("x")], "{first} {second}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn it_takes_what_a_tree_of_the_record_has_there(
        records in prop::collection::vec(record(), 1..5),
        a in prop::option::weighted(0.8, pointer()),
        b in prop::option::weighted(0.8, pointer()),
        times in prop::collection::vec(field(), 0..3),
        texts in prop::collection::vec(field(), 0..5),
    ) {
        let reference = reference();
        let own = [("a", &a), ("b", &b)].into_iter().filter_map(|(name, path)| Some((name, path.as_deref()?))).collect::<Vec<_>>();
        let wanted = |fields: &[String]| fields.iter().map(|field| field.parse().unwrap()).collect::<Vec<Field>>();
        let mut decoder = Decoder::empty().with_features(&reference, &paths(&own)).with_times(&wanted(&times)).with_texts(&wanted(&texts));
        let mut row = Vec::new();
        for record in records {
            let mut json = String::new();
            record.write(&mut json);
            let tree: Value = serde_json::from_str(&json).unwrap();
            decoder.decode(json.as_bytes(), &mut row).unwrap();
            let places = [a.as_deref().unwrap_or("a"), b.as_deref().unwrap_or("b")];
            let features = reference.features().iter().zip(places);
            let expected: Vec<_> = features.map(|(feature, place)| observed(feature.bins(), looked_up(&tree, place))).collect();
            prop_assert_eq!(&row, &expected, "{}", json);
            let expected: Vec<_> = times.iter().map(|field| said_time(looked_up(&tree, field))).collect();
            prop_assert_eq!(decoder.times(), expected, "{}", json);
            let expected: Vec<_> = texts.iter().map(|field| said_text(looked_up(&tree, field))).collect();
            let found: Vec<_> = decoder.texts().map(|text| text.map(str::to_owned)).collect();
            prop_assert_eq!(found, expected, "{}", json);
        }
    }

    #[test]
    fn picked_values_are_those_that_a_tree_has_at_their_paths(
        records in prop::collection::vec(record(), 1..4),
        wanted in prop::collection::vec(pointer(), 1..6),
    ) {
        let wanted: Vec<Pointer> = wanted.iter().map(|path| path.parse().unwrap()).collect();
        let mut picker = Picker::new(&wanted);
        for record in records {
            let mut json = String::new();
            record.write(&mut json);
            let tree: Value = serde_json::from_str(&json).unwrap();
            let expected: Vec<_> = wanted.iter().map(|path| kind_and_text(looked_up(&tree, path.as_str()))).collect();
            let picked = picker.pick(json.as_bytes()).unwrap();
            let found: Vec<_> = picked.into_iter().map(|scalar| scalar.map(|scalar| match scalar {
                Scalar::Null => ("null", String::new()),
                Scalar::Bool(value) => ("bool", value.to_string()),
                Scalar::Number(number) => ("number", serde_json::from_str::<Value>(number.text()).unwrap().to_string()),
                Scalar::Text(text) => ("text", text.content().into_owned()),
                Scalar::Nested => ("nested", String::new()),
            })).collect();
            prop_assert_eq!(found, expected, "{}", json);
        }
    }

    #[test]
    fn record_is_rejected_for_the_same_reason_whatever_is_taken_of_it(
        record in record(),
        wanted in prop::collection::vec(pointer(), 1..6),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(&b"{}[],:\"\\0e-. "[..])],
        cut in prop::bool::weighted(0.2),
    ) {
        let mut json = String::new();
        record.write(&mut json);
        let mut bytes = json.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        let wanted: Vec<Field> = wanted.iter().map(|field| field.parse().unwrap()).collect();
        let mut decoder = Decoder::empty().with_texts(&wanted);
        prop_assert_eq!(decoder.decode(&bytes, &mut Vec::new()), scan_object(&bytes, |_, _| {}));
    }
}
