use std::borrow::Cow;
use std::sync::Arc;

use leeway_topology::drift::Status;
use leeway_topology::event::{EventId, KIND, QUALITY_KIND, SUMMARY};
use leeway_topology::ids::{Offset, Partition, RecordNumber, Timestamp};
use leeway_topology::processor::PublishedReferences;
use leeway_topology::quality::{QualityStatus, Violation};
use leeway_topology::reference::{Cell, ColumnType, ReferenceBuilder};

use super::*;

/// A reference with one categorical feature, `plan`: 600 basic, 300 pro, 100 free, nothing else.
fn reference() -> Reference {
    let columns = [("plan".to_owned(), ColumnType::Text)];
    let binning = leeway_topology::binning::Binning::Auto { bins: 10 };
    let mut builder = ReferenceBuilder::new("default", &columns, &binning, &[], 50).unwrap();
    for (plan, rows) in [("basic", 600), ("pro", 300), ("free", 100)] {
        (0..rows).for_each(|_| builder.push_row([Cell::Text(plan)]));
    }
    builder.finish().unwrap().0
}

fn published() -> PublishedReferences {
    let mut published = PublishedReferences::default();
    published.publish(Arc::new(reference()));
    published
}

fn of(feature: &str, status: Status, end: i64) -> DriftEvent {
    let version = reference().version().to_owned();
    let ids = EventId::new("app", "default", "drift-data", Some(Partition(0)), Scope::Partition, None);
    DriftEvent {
        schema_version: 1,
        event_id: ids.of(feature, end, &version),
        kind: Cow::Borrowed(KIND),
        monitor: "default".into(),
        scope: Scope::Partition,
        partition: Some(Partition(0)),
        segment: None,
        feature: feature.into(),
        psi: match status {
            Status::NoDrift => 0.01,
            Status::PossibleDrift => 0.15,
            Status::Drift => 0.4,
        },
        p_value: Some(1e-9),
        psi_null_mean: Some(0.01),
        significant: Some(true),
        status,
        previous_status: None,
        record_count: RecordNumber(u64::try_from(end + 1).unwrap()),
        window_count: 1000,
        missing_count: Some(100),
        below_range_count: None,
        above_range_count: None,
        window_start_offset: Some(Offset(0)),
        window_end_offset: Some(Offset(end)),
        window_start_ms: Timestamp(1_000),
        window_end_ms: Timestamp(2_000),
        counts: Some(vec![300, 300, 200, 100, 100]),
        top_bin: None,
        top_bin_contribution: None,
        feature_count: None,
        drifted_features: None,
        reference_version: version.into(),
        closed_by: None,
        js: None,
        ks: None,
        wasserstein: None,
        chi2_p_value: None,
    }
}

/// An event of a feature.
pub(crate) fn drift(feature: &str, status: Status, end: i64) -> Event {
    Event::Drift(of(feature, status, end))
}

/// The summary of a check.
pub(crate) fn summary(status: Status, end: i64) -> Event {
    Event::Drift(DriftEvent {
        p_value: None,
        missing_count: None,
        counts: None,
        feature_count: Some(2),
        drifted_features: Some(1),
        ..of(SUMMARY, status, end)
    })
}

/// A quality event.
pub(crate) fn quality(feature: &str, status: QualityStatus, end: i64) -> Event {
    let drift = of(feature, Status::NoDrift, end);
    let ids = EventId::new("app", "default", "drift-data", Some(Partition(0)), Scope::Partition, None);
    Event::Quality(QualityEvent {
        schema_version: 1,
        event_id: ids.of_quality(feature, end, &drift.reference_version),
        kind: Cow::Borrowed(QUALITY_KIND),
        monitor: drift.monitor,
        scope: drift.scope,
        partition: drift.partition,
        segment: None,
        feature: drift.feature,
        status,
        previous_status: None,
        record_count: drift.record_count,
        window_count: drift.window_count,
        missing_share: 0.1,
        missing_threshold: Some(0.05),
        other_share: None,
        other_threshold: None,
        out_of_range_share: None,
        out_of_range_threshold: None,
        violations: vec![Violation::Missing],
        examples: None,
        window_start_offset: drift.window_start_offset,
        window_end_offset: drift.window_end_offset,
        window_start_ms: drift.window_start_ms,
        window_end_ms: drift.window_end_ms,
        reference_version: drift.reference_version,
        closed_by: None,
    })
}

/// What is told of an event.
pub(crate) fn told(event: &Event, transition: Transition) -> Message {
    let before = (transition != Transition::Opened).then_some(Severity::PossibleDrift);
    let told = Told {
        transition,
        before,
        since_ms: 1_700_000_000_000,
    };
    let criteria = BTreeMap::from([("default".to_owned(), Criteria::default())]);
    let facts = Facts {
        references: &published(),
        criteria: &criteria,
        dashboard_url: Some("https://leeway.example"),
    };
    facts.describe(event, &told, 1_700_000_060_000)
}

#[test]
fn an_alert_has_the_facts_that_are_asked_for_first() {
    let message = told(&drift("plan", Status::Drift, 999), Transition::Opened);
    let alert = &message.alerts[0];
    assert_eq!(
        (message.monitor.as_str(), message.partition, message.window.end_offset),
        ("default", Some(0), Some(999))
    );
    assert_eq!(
        (alert.from.as_str(), alert.to.as_str(), alert.severity),
        ("no_drift", "drift", Severity::Drift)
    );
    assert_eq!((alert.psi, alert.threshold, alert.p_value), (Some(0.4), Some(0.25), Some(1e-9)));
    assert_eq!(alert.missing_percent, Some(10.0));
    assert_eq!(alert.other_percent, Some(100.0 / 9.0), "100 of the 900 values that are there");
    // Missing and other are new; then basic, which lost half.
    let bins: Vec<_> = alert
        .top_bins
        .iter()
        .map(|bin| (bin.bin.as_str(), bin.expected_percent, bin.actual_percent))
        .collect();
    assert_eq!(bins, [("__other__", 0.0, 10.0), ("__missing__", 0.0, 10.0), ("basic", 60.0, 30.0)]);
    assert!((alert.noise_floor.unwrap() - noise_floor(&[600, 300, 100, 0, 0], 1000)).abs() < 1e-15);
    let Event::Drift(event) = drift("plan", Status::Drift, 999) else {
        panic!("a drift event")
    };
    assert_eq!(alert.key, format!("{}#opened", event.event_id));
}

#[test]
fn a_monitor_and_a_reference_that_nobody_knows_leave_only_what_is_in_the_event() {
    let facts = Facts {
        references: &PublishedReferences::default(),
        criteria: &BTreeMap::new(),
        dashboard_url: None,
    };
    let told = Told {
        transition: Transition::Opened,
        before: None,
        since_ms: 1,
    };
    let alert = facts.describe(&drift("plan", Status::Drift, 999), &told, 2).alerts.remove(0);
    assert_eq!((alert.threshold, alert.noise_floor, alert.top_bins.len()), (None, None, 0));
    assert_eq!((alert.psi, alert.missing_percent, alert.other_percent), (Some(0.4), Some(10.0), None));
}

#[test]
fn what_recovers_says_from_what_and_is_as_severe_as_it_was() {
    let message = told(&drift("plan", Status::NoDrift, 999), Transition::Recovered);
    let alert = &message.alerts[0];
    assert_eq!((alert.from.as_str(), alert.to.as_str()), ("possible_drift", "no_drift"));
    assert_eq!(alert.severity, Severity::PossibleDrift);
}

#[test]
fn transitions_of_one_check_are_one_message_worst_first() {
    let single = vec![
        told(&drift("a", Status::NoDrift, 999), Transition::Recovered),
        told(&drift("b", Status::PossibleDrift, 999), Transition::Opened),
        told(&drift("c", Status::Drift, 999), Transition::Opened),
        told(&quality("d", QualityStatus::Violated, 999), Transition::Opened),
    ];
    let messages = combine("team", single.clone(), 7);
    let [message] = messages.as_slice() else { panic!("{messages:#?}") };
    let features: Vec<_> = message.alerts.iter().map(|alert| alert.feature.as_str()).collect();
    assert_eq!(features, ["d", "c", "b", "a"]);
    assert_eq!(message.others_open, 7);
    let mut again = single;
    again.reverse();
    assert_eq!(combine("team", again.clone(), 7), messages, "the order in which they came does not count");
    assert_ne!(combine("other", again, 7)[0].key, message.key, "each channel has its own");
}

#[test]
fn more_alerts_than_a_message_takes_are_several_messages_with_keys_of_their_own() {
    let single: Vec<_> = (0..120)
        .map(|n| told(&drift(&format!("f{n:03}"), Status::Drift, 999), Transition::Opened))
        .collect();
    let messages = combine("team", single, 0);
    assert_eq!(messages.iter().map(|message| message.alerts.len()).collect::<Vec<_>>(), [50, 50, 20]);
    assert!(messages[0].key != messages[1].key && messages[1].key != messages[2].key);
}

#[test]
fn a_stored_message_reads_back_as_it_was() {
    let message = combine("team", vec![told(&drift("plan", Status::Drift, 999), Transition::Opened)], 0).remove(0);
    let text = serde_json::to_string(&message).unwrap();
    assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), message);
}

#[test]
fn long_texts_are_cut_at_a_character() {
    assert_eq!(shortened("größer", 3), "gr…");
    assert_eq!(shortened("größer", 6), "größer");
}
