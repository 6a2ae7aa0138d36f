use super::*;
use crate::quality::{Example, QualityStatus, Violation};

fn summary() -> DriftEvent {
    DriftEvent {
        schema_version: SCHEMA_VERSION,
        event_id: "app/m/t/0/partition//%2A/99/abc".to_owned(),
        kind: Cow::Borrowed(KIND),
        monitor: "m".into(),
        scope: Scope::Partition,
        partition: Some(Partition(0)),
        segment: None,
        feature: SUMMARY.into(),
        psi: 0.0,
        p_value: None,
        psi_null_mean: None,
        significant: None,
        status: Status::NoDrift,
        previous_status: None,
        record_count: RecordNumber(100),
        window_count: 100,
        missing_count: None,
        below_range_count: None,
        above_range_count: None,
        window_start_offset: Some(Offset(0)),
        window_end_offset: Some(Offset(99)),
        window_start_ms: NO_TIMESTAMP,
        window_end_ms: NO_TIMESTAMP,
        counts: None,
        top_bin: None,
        top_bin_contribution: None,
        feature_count: Some(2),
        drifted_features: Some(0),
        reference_version: "abc".into(),
        closed_by: None,
        js: None,
        ks: None,
        wasserstein: None,
        chi2_p_value: None,
    }
}

#[test]
fn every_field_is_present_in_the_order_of_the_format() {
    let expected = concat!(
        r#"{"schema_version":1,"event_id":"app/m/t/0/partition//%2A/99/abc","kind":"drift","monitor":"m","scope":"partition","partition":0,"#,
        r#""segment":null,"feature":"*","psi":0.0,"p_value":null,"psi_null_mean":null,"significant":null,"status":"no_drift","#,
        r#""previous_status":null,"record_count":100,"window_count":100,"missing_count":null,"below_range_count":null,"above_range_count":null,"#,
        r#""window_start_offset":0,"window_end_offset":99,"window_start_ms":-1,"window_end_ms":-1,"counts":null,"top_bin":null,"#,
        r#""top_bin_contribution":null,"feature_count":2,"drifted_features":0,"reference_version":"abc","closed_by":null,"#,
        r#""js":null,"ks":null,"wasserstein":null,"chi2_p_value":null}"#
    );
    assert_eq!(String::from_utf8(summary().to_json()).unwrap(), expected);
}

#[test]
fn event_reads_back_and_unknown_fields_are_ignored() {
    let mut event = summary();
    event.segment = Some("country=DE".into());
    event.counts = Some(vec![1, 2, 3]);
    event.closed_by = Some(ClosedBy::Idle);
    event.psi = 0.1 + 0.2;
    event.js = Some(0.1 / 3.0);
    assert_eq!(DriftEvent::from_json(&event.to_json()).unwrap(), event);
    let mut value: serde_json::Value = serde_json::from_slice(&event.to_json()).unwrap();
    value["added_later"] = serde_json::json!({"x": [1]});
    assert_eq!(DriftEvent::from_json(value.to_string().as_bytes()).unwrap(), event);
    assert!(event.is_summary());
    assert_eq!(event.key(), "*");
}

#[test]
fn event_is_written_as_its_derived_serialisation() {
    let full = DriftEvent {
        event_id: "app/\u{e4} \"quoted\"\n".to_owned(),
        partition: None,
        segment: Some("country=\\ \u{1}".into()),
        psi: 1e-300,
        p_value: Some(f64::NAN),
        psi_null_mean: Some(0.1 + 0.2),
        significant: Some(true),
        status: Status::Drift,
        previous_status: Some(Status::PossibleDrift),
        missing_count: Some(u64::MAX),
        below_range_count: Some(1),
        above_range_count: Some(2),
        window_start_ms: Timestamp(i64::MIN),
        counts: Some(vec![0, 7, u64::MAX]),
        top_bin: Some("(1, \"2\"]".to_owned()),
        top_bin_contribution: Some(-1.5e22),
        closed_by: Some(ClosedBy::Idle),
        js: Some(0.1),
        ks: Some(0.2),
        wasserstein: Some(1e21),
        chi2_p_value: Some(5e-324),
        ..summary()
    };
    for event in [full, summary()] {
        assert_eq!(String::from_utf8(event.to_json()).unwrap(), serde_json::to_string(&event).unwrap());
    }
}

#[test]
fn event_of_a_release_without_the_metrics_beside_psi_reads() {
    let json = String::from_utf8(summary().to_json()).unwrap();
    let earlier = json.replace(r#","js":null,"ks":null,"wasserstein":null,"chi2_p_value":null"#, "");
    assert_ne!(earlier, json);
    assert_eq!(DriftEvent::from_json(earlier.as_bytes()).unwrap(), summary());
}

#[test]
fn other_kinds_are_named_and_not_read() {
    let error = DriftEvent::from_json(br#"{"kind":"heartbeat","psi":"none"}"#).unwrap_err();
    assert!(matches!(error, EventError::UnknownKind { kind } if kind == "heartbeat"));
    assert!(matches!(DriftEvent::from_json(b"{}"), Err(EventError::Malformed(_))));
    assert!(matches!(DriftEvent::from_json(br#"{"kind":"drift"}"#), Err(EventError::Malformed(_))));
}

#[test]
fn parts_of_an_id_are_encoded_so_that_slashes_separate_them_only() {
    let ids = EventId::new("app", "a/b", "drift-data", Some(Partition(3)), Scope::Partition, None);
    assert_eq!(ids.of("*", 1999, "0123abcd"), "app/a%2Fb/drift-data/3/partition//%2A/1999/0123abcd");
    assert_eq!(
        ids.of("Größe ~._-%", 0, "v"),
        "app/a%2Fb/drift-data/3/partition//Gr%C3%B6%C3%9Fe%20~._-%25/0/v"
    );
    assert_eq!(ids.of_quality("x", 1999, "v"), "app/a%2Fb/drift-data/3/partition//quality:x/1999/v");
    assert_eq!(ids.of("quality:x", 1999, "v"), "app/a%2Fb/drift-data/3/partition//quality%3Ax/1999/v");
    let global = EventId::new("app", "m", "t", None, Scope::Global, Some("country=DE"));
    assert_eq!(global.of("x", 7, "v"), "app/m/t//global/country%3DDE/x/7/v");
}

fn quality() -> QualityEvent {
    QualityEvent {
        schema_version: SCHEMA_VERSION,
        event_id: "app/m/t/0/partition//quality:plan/99/abc".to_owned(),
        kind: Cow::Borrowed(QUALITY_KIND),
        monitor: "m".into(),
        scope: Scope::Partition,
        partition: Some(Partition(0)),
        segment: None,
        feature: "plan".into(),
        status: QualityStatus::Violated,
        previous_status: Some(QualityStatus::Ok),
        record_count: RecordNumber(100),
        window_count: 100,
        missing_share: 0.0,
        missing_threshold: None,
        other_share: Some(0.25),
        other_threshold: Some(0.1),
        out_of_range_share: None,
        out_of_range_threshold: None,
        violations: vec![Violation::Other],
        examples: Some(vec![Example {
            value: "gold".to_owned(),
            count: 3,
        }]),
        window_start_offset: Some(Offset(0)),
        window_end_offset: Some(Offset(99)),
        window_start_ms: NO_TIMESTAMP,
        window_end_ms: NO_TIMESTAMP,
        reference_version: "abc".into(),
        closed_by: None,
    }
}

#[test]
fn every_field_of_a_quality_event_is_present_in_the_order_of_the_format() {
    let expected = concat!(
        r#"{"schema_version":1,"event_id":"app/m/t/0/partition//quality:plan/99/abc","kind":"quality","monitor":"m","scope":"partition","#,
        r#""partition":0,"segment":null,"feature":"plan","status":"violated","previous_status":"ok","record_count":100,"window_count":100,"#,
        r#""missing_share":0.0,"missing_threshold":null,"other_share":0.25,"other_threshold":0.1,"out_of_range_share":null,"#,
        r#""out_of_range_threshold":null,"violations":["other"],"examples":[{"value":"gold","count":3}],"window_start_offset":0,"#,
        r#""window_end_offset":99,"window_start_ms":-1,"window_end_ms":-1,"reference_version":"abc","closed_by":null}"#
    );
    assert_eq!(String::from_utf8(quality().to_json()).unwrap(), expected);
}

#[test]
fn events_of_both_kinds_read_back_and_readers_of_one_name_the_other() {
    for event in [Event::Quality(quality()), Event::Drift(summary())] {
        assert_eq!(Event::from_json(&event.to_json()).unwrap(), event);
        assert_eq!((&**event.monitor(), event.scope()), ("m", Scope::Partition));
    }
    let error = DriftEvent::from_json(&quality().to_json()).unwrap_err();
    assert!(matches!(error, EventError::UnknownKind { kind } if kind == QUALITY_KIND));
    let error = QualityEvent::from_json(&summary().to_json()).unwrap_err();
    assert!(matches!(error, EventError::UnknownKind { kind } if kind == KIND));
    let error = Event::from_json(br#"{"kind":"heartbeat"}"#).unwrap_err();
    assert!(matches!(error, EventError::UnknownKind { kind } if kind == "heartbeat"));
}
