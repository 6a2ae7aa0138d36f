use super::*;
use leeway_topology::drift::Status;
use leeway_topology::event::{ClosedBy, DriftEvent, KIND, QUALITY_KIND, SCHEMA_VERSION, SUMMARY};
use leeway_topology::ids::{Offset, RecordNumber, Timestamp};
use leeway_topology::quality::{QualityStatus, Violation};

fn event(partition: i32, feature: &str, psi: f64, status: Status) -> Checked {
    Checked::from(&DriftEvent {
        schema_version: SCHEMA_VERSION,
        event_id: String::new(),
        kind: KIND.into(),
        monitor: "default".into(),
        scope: Scope::Partition,
        partition: Some(Partition(partition)),
        segment: None,
        feature: feature.into(),
        psi,
        p_value: None,
        psi_null_mean: None,
        significant: None,
        status,
        previous_status: None,
        record_count: RecordNumber(100),
        window_count: 100,
        missing_count: None,
        below_range_count: None,
        above_range_count: None,
        window_start_offset: None,
        window_end_offset: None,
        window_start_ms: Timestamp(0),
        window_end_ms: Timestamp(0),
        counts: None,
        top_bin: None,
        top_bin_contribution: None,
        feature_count: None,
        drifted_features: None,
        reference_version: "v".into(),
        closed_by: None::<ClosedBy>,
        js: None,
        ks: None,
        wasserstein: None,
        chi2_p_value: None,
    })
}

fn quality(partition: i32, status: QualityStatus) -> QualityEvent {
    QualityEvent {
        schema_version: SCHEMA_VERSION,
        event_id: String::new(),
        kind: QUALITY_KIND.into(),
        monitor: "default".into(),
        scope: Scope::Partition,
        partition: Some(Partition(partition)),
        segment: None,
        feature: "plan".into(),
        status,
        previous_status: None,
        record_count: RecordNumber(100),
        window_count: 100,
        missing_share: 0.5,
        missing_threshold: None,
        other_share: Some(0.25),
        other_threshold: Some(0.1),
        out_of_range_share: None,
        out_of_range_threshold: None,
        violations: vec![Violation::Other],
        examples: Some(Vec::new()),
        window_start_offset: None,
        window_end_offset: None,
        window_start_ms: Timestamp(0),
        window_end_ms: Timestamp(0),
        reference_version: "v".into(),
        closed_by: None,
    }
}

fn metrics(max_series: usize) -> Arc<Metrics> {
    Arc::new(Metrics::new(max_series).unwrap())
}

fn lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(name)).collect()
}

#[test]
fn what_a_scrape_shows_reads_like_this() {
    let metrics = metrics(100);
    let topic: Arc<str> = "drift-data".into();
    metrics.add_monitor(&topic, Scope::Partition, &"default".into());
    let mut task = metrics.task(&topic, Partition(3));
    task.consumed += 12;
    task.processed += 10;
    task.tombstones += 1;
    task.restored += 5;
    task.publish(Offset(90), Some(Offset(100)));
    task.publish_restore(7);
    metrics.dead_letter(&topic, "malformed");
    metrics.missing_values("default", "feature1", Missing::Null, 4);
    metrics.checked([event(3, "feature1", 0.5, Status::Drift), event(3, SUMMARY, 0.25, Status::Drift)].iter());
    metrics.observe_check(Duration::from_micros(3));
    metrics.committed(Duration::from_millis(12));
    metrics.aborted();
    metrics.rebalanced();
    metrics.thread_replaced();
    metrics.set_state_bytes(4096);
    metrics.set_tasks("StreamThread-1", &BTreeMap::from([("running", 1)]));
    metrics.set_tasks("StreamThread-2", &BTreeMap::from([("running", 2), ("restoring", 1)]));
    let text = metrics.render().unwrap().replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!(text, @r#"
    # HELP drift_detection_events_total Committed checks by the status of their summary.
    # TYPE drift_detection_events_total counter
    drift_detection_events_total{monitor="default",scope="partition",status="drift"} 1
    drift_detection_events_total{monitor="default",scope="partition",status="no_drift"} 0
    drift_detection_events_total{monitor="default",scope="partition",status="possible_drift"} 0
    # HELP kafka_consumer_lag Records between the committed position and the end of the log.
    # TYPE kafka_consumer_lag gauge
    kafka_consumer_lag{partition="3",topic="drift-data"} 10
    # HELP kafka_messages_consumed_total Records taken from the input, valid or not.
    # TYPE kafka_messages_consumed_total counter
    kafka_messages_consumed_total{partition="3",topic="drift-data"} 12
    # HELP leeway_build_info Always 1; which build this is.
    # TYPE leeway_build_info gauge
    leeway_build_info{version="VERSION"} 1
    # HELP leeway_commit_duration_seconds From the end of an epoch to its committed transaction.
    # TYPE leeway_commit_duration_seconds histogram
    leeway_commit_duration_seconds_bucket{le="0.001"} 0
    leeway_commit_duration_seconds_bucket{le="0.004"} 0
    leeway_commit_duration_seconds_bucket{le="0.016"} 1
    leeway_commit_duration_seconds_bucket{le="0.064"} 1
    leeway_commit_duration_seconds_bucket{le="0.256"} 1
    leeway_commit_duration_seconds_bucket{le="1.024"} 1
    leeway_commit_duration_seconds_bucket{le="4.096"} 1
    leeway_commit_duration_seconds_bucket{le="16.384"} 1
    leeway_commit_duration_seconds_bucket{le="65.536"} 1
    leeway_commit_duration_seconds_bucket{le="+Inf"} 1
    leeway_commit_duration_seconds_sum 0.012
    leeway_commit_duration_seconds_count 1
    # HELP leeway_commits_total Committed transactions.
    # TYPE leeway_commits_total counter
    leeway_commits_total 1
    # HELP leeway_dead_letters_total Records that are no JSON object, by reason.
    # TYPE leeway_dead_letters_total counter
    leeway_dead_letters_total{reason="empty",topic="drift-data"} 0
    leeway_dead_letters_total{reason="late",topic="drift-data"} 0
    leeway_dead_letters_total{reason="malformed",topic="drift-data"} 1
    leeway_dead_letters_total{reason="not_a_pane",topic="drift-data"} 0
    leeway_dead_letters_total{reason="not_an_object",topic="drift-data"} 0
    leeway_dead_letters_total{reason="too_deep",topic="drift-data"} 0
    leeway_dead_letters_total{reason="utf8",topic="drift-data"} 0
    # HELP leeway_drift_status Status of the last committed check: 0 no drift, 1 possible drift, 2 drift; feature * is the summary.
    # TYPE leeway_drift_status gauge
    leeway_drift_status{feature="*",monitor="default",partition="3",scope="partition",segment=""} 2
    leeway_drift_status{feature="feature1",monitor="default",partition="3",scope="partition",segment=""} 2
    # HELP leeway_missing_values_total Values missing in valid records, by reason.
    # TYPE leeway_missing_values_total counter
    leeway_missing_values_total{feature="feature1",monitor="default",reason="null"} 4
    # HELP leeway_monitor_info Always 1; which topic is read for the checks of a monitor in a scope.
    # TYPE leeway_monitor_info gauge
    leeway_monitor_info{monitor="default",scope="partition",topic="drift-data"} 1
    # HELP leeway_offsets_expired_total Tasks that went on from their state since the group's offset was gone.
    # TYPE leeway_offsets_expired_total counter
    leeway_offsets_expired_total 0
    # HELP leeway_rebalances_total Rebalances of the group that this instance saw.
    # TYPE leeway_rebalances_total counter
    leeway_rebalances_total 1
    # HELP leeway_records_processed_total Valid records counted into windows.
    # TYPE leeway_records_processed_total counter
    leeway_records_processed_total{partition="3",topic="drift-data"} 10
    # HELP leeway_restore_records_total Changelog records read by restores.
    # TYPE leeway_restore_records_total counter
    leeway_restore_records_total 5
    # HELP leeway_restore_remaining Changelog records that a restore has still to read.
    # TYPE leeway_restore_remaining gauge
    leeway_restore_remaining{partition="3",topic="drift-data"} 7
    # HELP leeway_restores_from_start_total Restores for which the local state was too old or damaged.
    # TYPE leeway_restores_from_start_total counter
    leeway_restores_from_start_total 0
    # HELP leeway_state_bytes Size of the local state.
    # TYPE leeway_state_bytes gauge
    leeway_state_bytes 4096
    # HELP leeway_stream_threads_replaced_total Stream threads that failed and were replaced.
    # TYPE leeway_stream_threads_replaced_total counter
    leeway_stream_threads_replaced_total 1
    # HELP leeway_tasks Tasks of this instance by state: created, restoring, running.
    # TYPE leeway_tasks gauge
    leeway_tasks{state="created"} 0
    leeway_tasks{state="restoring"} 1
    leeway_tasks{state="running"} 3
    # HELP leeway_tasks_corrupted_total Restored tasks that contradicted themselves or the group.
    # TYPE leeway_tasks_corrupted_total counter
    leeway_tasks_corrupted_total 0
    # HELP leeway_tombstones_total Records without a value, which are skipped.
    # TYPE leeway_tombstones_total counter
    leeway_tombstones_total 1
    # HELP leeway_transactions_aborted_total Aborted transactions; their records are processed again.
    # TYPE leeway_transactions_aborted_total counter
    leeway_transactions_aborted_total 1
    # HELP leeway_transactions_unknown_total Transactions whose outcome had to be asked from the group.
    # TYPE leeway_transactions_unknown_total counter
    leeway_transactions_unknown_total 0
    # HELP psi_calculation_duration_seconds Time of a check of all its features.
    # TYPE psi_calculation_duration_seconds histogram
    psi_calculation_duration_seconds_bucket{le="0.000001"} 0
    psi_calculation_duration_seconds_bucket{le="0.000004"} 1
    psi_calculation_duration_seconds_bucket{le="0.000016"} 1
    psi_calculation_duration_seconds_bucket{le="0.000064"} 1
    psi_calculation_duration_seconds_bucket{le="0.000256"} 1
    psi_calculation_duration_seconds_bucket{le="0.001024"} 1
    psi_calculation_duration_seconds_bucket{le="0.004096"} 1
    psi_calculation_duration_seconds_bucket{le="0.016384"} 1
    psi_calculation_duration_seconds_bucket{le="0.065536"} 1
    psi_calculation_duration_seconds_bucket{le="0.262144"} 1
    psi_calculation_duration_seconds_bucket{le="1.048576"} 1
    psi_calculation_duration_seconds_bucket{le="4.194304"} 1
    psi_calculation_duration_seconds_bucket{le="+Inf"} 1
    psi_calculation_duration_seconds_sum 0.000003
    psi_calculation_duration_seconds_count 1
    # HELP real_time_psi_score PSI of the last committed check; feature * is the mean over the features.
    # TYPE real_time_psi_score gauge
    real_time_psi_score{feature="*",monitor="default",partition="3",scope="partition",segment=""} 0.25
    real_time_psi_score{feature="feature1",monitor="default",partition="3",scope="partition",segment=""} 0.5
    "#);
}

#[test]
fn past_the_bound_label_sets_are_summed_into_one() {
    let metrics = metrics(4);
    metrics.checked([0, 1, 2, 3].map(|partition| event(partition, "f", 0.25, Status::Drift)).iter());
    metrics.checked([event(3, "f", 1.0, Status::Drift)].iter());
    metrics.dead_letter("t", "malformed");
    metrics.dead_letter("t", "utf8");
    let text = metrics.render().unwrap();
    let psi = lines(&text, "real_time_psi_score");
    assert_eq!(psi.len(), 3, "{text}");
    assert!(
        psi.iter().any(|line| line.contains("feature=\"__rest__\"") && line.ends_with(" 1.25")),
        "0.25 and 1: {psi:#?}"
    );
    assert_eq!(
        lines(&text, "leeway_dead_letters_total"),
        ["leeway_dead_letters_total{reason=\"__rest__\",topic=\"__rest__\"} 2"]
    );
}

#[test]
fn of_many_checks_of_one_window_each_is_counted_and_the_last_is_shown() {
    let metrics = metrics(100);
    let checks = [
        event(0, SUMMARY, 0.1, Status::NoDrift),
        event(1, SUMMARY, 0.2, Status::PossibleDrift),
        event(0, SUMMARY, 0.3, Status::Drift),
        event(0, SUMMARY, 0.05, Status::NoDrift),
    ];
    metrics.checked(checks.iter());
    let text = metrics.render().unwrap();
    let ends = |name| -> Vec<_> { lines(&text, name).iter().map(|line| line.rsplit_once(' ').unwrap().1).collect() };
    assert_eq!(ends("real_time_psi_score"), ["0.05", "0.2"]);
    assert_eq!(ends("leeway_drift_status"), ["0", "1"]);
    assert_eq!(ends("drift_detection_events_total"), ["1", "2", "1"], "drift, no_drift, possible_drift");
}

#[test]
fn lag_psi_and_status_of_a_partition_go_with_its_task() {
    let metrics = metrics(100);
    let topic: Arc<str> = "t".into();
    metrics.add_monitor(&topic, Scope::Partition, &"default".into());
    let mut tasks: Vec<_> = (0..2).map(|partition| metrics.task(&topic, Partition(partition))).collect();
    for (partition, task) in tasks.iter_mut().enumerate() {
        task.consumed = 1;
        task.publish(Offset(5), Some(Offset(4)));
        metrics.checked([event(i32::try_from(partition).unwrap(), "f", 0.1, Status::NoDrift)].iter());
    }
    drop(tasks.remove(0));
    let text = metrics.render().unwrap();
    assert_eq!(lines(&text, "kafka_consumer_lag"), ["kafka_consumer_lag{partition=\"1\",topic=\"t\"} 0"]);
    assert_eq!(lines(&text, "real_time_psi_score").len(), 1, "{text}");
    assert_eq!(lines(&text, "leeway_drift_status").len(), 1, "{text}");
    assert_eq!(lines(&text, "kafka_messages_consumed_total").len(), 2, "counters stay: {text}");
}

#[test]
fn the_status_of_a_feature_is_a_number_that_rises_with_drift() {
    let metrics = metrics(100);
    let status = |status| {
        metrics.checked([event(0, "f", 0.3, status)].iter());
        let text = metrics.render().unwrap();
        let [line] = lines(&text, "leeway_drift_status")[..] else {
            panic!("{text}")
        };
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    assert_eq!([Status::NoDrift, Status::PossibleDrift, Status::Drift].map(status), ["0", "1", "2"]);
}

#[test]
fn dead_letters_of_a_topic_stand_at_zero_for_every_reason_before_there_are_any() {
    let metrics = metrics(100);
    let _task = metrics.task(&"t".into(), Partition(0));
    let text = metrics.render().unwrap();
    let letters = lines(&text, "leeway_dead_letters_total");
    assert_eq!(letters.len(), Rejected::REASONS.len(), "{letters:?}");
    assert!(letters.iter().all(|line| line.ends_with(" 0")), "{letters:?}");
    for rejected in [Rejected::Empty, Rejected::NotAnObject { at: 0, found: '1' }, Rejected::TooDeep { at: 1 }] {
        metrics.dead_letter("t", rejected.reason());
    }
    assert_eq!(
        lines(&metrics.render().unwrap(), "leeway_dead_letters_total").len(),
        letters.len(),
        "no others come"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_tells_when_it_began_and_what_it_uses() {
    let metrics = metrics(100);
    metrics.watch_process().unwrap();
    let text = metrics.render().unwrap();
    for name in ["process_start_time_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total"] {
        assert_eq!(lines(&text, name).len(), 1, "{name}: {text}");
    }
}

#[test]
fn shares_with_a_threshold_are_shown_and_go_with_their_task_while_events_stay_counted() {
    let metrics = metrics(100);
    let topic: Arc<str> = "t".into();
    metrics.add_monitor(&topic, Scope::Partition, &"default".into());
    metrics.add_quality(Scope::Partition, "default");
    let task = metrics.task(&topic, Partition(0));
    metrics.quality_checked(&quality(0, QualityStatus::Violated));
    metrics.quality_checked(&quality(1, QualityStatus::Violated));
    drop(task);
    let text = metrics.render().unwrap();
    assert_eq!(
        lines(&text, "leeway_quality"),
        [
            "leeway_quality_events_total{monitor=\"default\",scope=\"partition\",status=\"ok\"} 0",
            "leeway_quality_events_total{monitor=\"default\",scope=\"partition\",status=\"violated\"} 2",
            "leeway_quality_share{feature=\"plan\",kind=\"other\",monitor=\"default\",partition=\"1\",scope=\"partition\",segment=\"\"} 0.25",
        ]
    );
}

#[test]
fn a_partition_that_moves_between_threads_keeps_its_series() {
    let metrics = metrics(100);
    let topic: Arc<str> = "t".into();
    let old = metrics.task(&topic, Partition(0));
    let mut new = metrics.task(&topic, Partition(0));
    new.publish(Offset(1), Some(Offset(3)));
    drop(old);
    assert_eq!(
        lines(&metrics.render().unwrap(), "kafka_consumer_lag"),
        ["kafka_consumer_lag{partition=\"0\",topic=\"t\"} 2"]
    );
}

#[test]
fn a_task_that_ends_publishes_what_it_counted() {
    let metrics = metrics(100);
    let mut task = metrics.task(&"t".into(), Partition(0));
    task.processed = 7;
    drop(task);
    assert_eq!(
        lines(&metrics.render().unwrap(), "leeway_records_processed_total"),
        ["leeway_records_processed_total{partition=\"0\",topic=\"t\"} 7"]
    );
}

#[test]
fn an_ended_thread_has_no_tasks() {
    let metrics = metrics(100);
    metrics.set_tasks("StreamThread-1", &BTreeMap::from([("running", 2)]));
    metrics.set_tasks("StreamThread-1", &BTreeMap::new());
    assert!(metrics.render().unwrap().contains("leeway_tasks{state=\"running\"} 0"));
}
