//! Words and numbers of a message, the same on every channel.

use std::time::{Duration, UNIX_EPOCH};

use leeway_topology::event::Scope;

use super::incident::{Severity, Transition};
use super::message::{Alert, Kind, Message};

/// What happened, in one line: `Drift of feature1 (monitor default, partition 0)`.
#[must_use]
pub fn title(message: &Message) -> String {
    let Some(first) = message.alerts.first() else { return String::new() };
    let features = message.alerts.iter().filter(|alert| alert.kind != Kind::Summary).count();
    let subject = match features {
        0 => "all features together".to_owned(),
        1 => message
            .alerts
            .iter()
            .find(|alert| alert.kind != Kind::Summary)
            .map_or_else(String::new, |alert| alert.feature.clone()),
        _ => format!("{features} features"),
    };
    let all_end = message.alerts.iter().all(|alert| alert.transition.is_end());
    let what = match (all_end, first.transition, first.kind, first.severity) {
        (true, Transition::Expired, ..) => "Not heard of any more",
        (true, ..) => "Recovered",
        (false, _, Kind::Quality, _) => "Quality violated",
        (false, _, _, Severity::Drift) => "Drift",
        (false, _, _, Severity::PossibleDrift) => "Possible drift",
    };
    format!("{what}: {subject} ({})", place(message))
}

/// Where: `monitor default, partition 0, country=DE`.
#[must_use]
pub fn place(message: &Message) -> String {
    let mut place = format!("monitor {}", message.monitor);
    match (message.scope, message.partition) {
        (Scope::Partition, Some(partition)) => place.push_str(&format!(", partition {partition}")),
        (Scope::Partition, None) => {}
        (Scope::Global, _) => place.push_str(", all partitions"),
    }
    if let Some(segment) = &message.segment {
        place.push_str(&format!(", {segment}"));
    }
    place
}

/// An alert's subject: the feature's name.
#[must_use]
pub fn subject(alert: &Alert) -> &str {
    match alert.kind {
        Kind::Summary => "all features together",
        Kind::Feature | Kind::Quality => &alert.feature,
    }
}

/// `possible drift to drift (escalated), since 2026-11-28T20:51:27Z`
#[must_use]
pub fn change(alert: &Alert) -> String {
    let words = |status: &str| status.replace('_', " ");
    format!(
        "{} to {} ({}), since {}",
        words(&alert.from),
        words(&alert.to),
        alert.transition.as_str(),
        time(alert.since_ms)
    )
}

/// The numbers of a check: `PSI 0.412, threshold 0.25, by chance up to 0.031, p 3e-41`.
#[must_use]
pub fn numbers(alert: &Alert) -> String {
    let mut parts = Vec::new();
    if let Some(psi) = alert.psi {
        parts.push(format!("PSI {psi:.3}"));
    }
    if let Some((metric, value)) = &alert.decided_by {
        parts.push(format!("decided by {metric} {value:.3}"));
    }
    if let Some(threshold) = alert.threshold {
        parts.push(format!("threshold {threshold}"));
    }
    if let Some(floor) = alert.noise_floor {
        parts.push(format!("by chance up to {floor:.3}"));
    }
    if let Some(p) = alert.p_value {
        parts.push(format!("p {}", probability(p)));
    }
    if let Some((drifted, features)) = alert.drifted_features {
        parts.push(format!("{drifted} of {features} features in drift"));
    }
    if !alert.violations.is_empty() {
        parts.push(format!("too much {}", alert.violations.join(", ").replace('_', " ")));
    }
    for (name, percent) in [
        ("missing", alert.missing_percent),
        ("other", alert.other_percent),
        ("out of range", alert.out_of_range_percent),
    ] {
        if let Some(percent) = percent {
            parts.push(format!("{name} {percent:.1} %"));
        }
    }
    parts.join(", ")
}

/// The bins that changed most: `(-inf, -1.28]: 10.0 % -> 31.2 %`.
#[must_use]
pub fn bins(alert: &Alert) -> Vec<String> {
    let line = |bin: &super::message::TopBin| format!("{}: {:.1} % -> {:.1} %", bin.bin, bin.expected_percent, bin.actual_percent);
    alert.top_bins.iter().map(line).collect()
}

/// What was checked: `1000 records to number 8400, offsets 7400 to 8399, 2026-.. to .., reference abc`.
#[must_use]
pub fn window(message: &Message) -> String {
    let window = &message.window;
    let mut text = format!("{} records to number {}", window.count, window.record_count);
    if let (Some(start), Some(end)) = (window.start_offset, window.end_offset) {
        text.push_str(&format!(", offsets {start} to {end}"));
    }
    if window.start_ms >= 0 && window.end_ms >= 0 {
        text.push_str(&format!(", {} to {}", time(window.start_ms), time(window.end_ms)));
    }
    text.push_str(&format!(", reference {}", message.reference_version));
    text
}

/// How many others are open; nothing if none is.
#[must_use]
pub fn others(message: &Message) -> Option<String> {
    match message.others_open {
        0 => None,
        1 => Some("1 other incident is open here".to_owned()),
        open => Some(format!("{open} other incidents are open here")),
    }
}

/// Milliseconds since 1970 as RFC 3339, UTC.
#[must_use]
pub fn time(ms: i64) -> String {
    // Beyond the year 9999 it has no such text: then as the last that has one.
    const LAST_SECOND: u64 = 253_402_300_799;
    let since = Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(Duration::from_secs(LAST_SECOND));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string().replace(".000Z", "Z")
}

fn probability(p: f64) -> String {
    if p != 0.0 && p < 0.0001 { format!("{p:.0e}") } else { format!("{p:.4}") }
}

#[cfg(test)]
mod tests {
    use leeway_topology::drift::Status;
    use leeway_topology::quality::QualityStatus;

    use super::super::message::combine;
    use super::super::message::tests::{drift, quality, summary, told};
    use super::*;

    #[test]
    fn a_title_says_what_of_what_and_where() {
        let one = told(&drift("age", Status::Drift, 9), Transition::Opened);
        assert_eq!(title(&one), "Drift: age (monitor default, partition 0)");
        let with_summary = combine("c", vec![one.clone(), told(&summary(Status::Drift, 9), Transition::Opened)], 0);
        assert_eq!(title(&with_summary[0]), "Drift: age (monitor default, partition 0)");
        let two = combine("c", vec![one, told(&drift("plan", Status::PossibleDrift, 9), Transition::Opened)], 0);
        assert_eq!(title(&two[0]), "Drift: 2 features (monitor default, partition 0)");
        let quality = told(&quality("age", QualityStatus::Violated, 9), Transition::Opened);
        assert_eq!(title(&quality), "Quality violated: age (monitor default, partition 0)");
        let over = told(&summary(Status::NoDrift, 9), Transition::Recovered);
        assert_eq!(title(&over), "Recovered: all features together (monitor default, partition 0)");
    }

    #[test]
    fn numbers_and_bins_are_short() {
        let alert = told(&drift("plan", Status::Drift, 9), Transition::Escalated).alerts.remove(0);
        assert_eq!(change(&alert), "possible drift to drift (escalated), since 2023-11-14T22:13:20Z");
        assert_eq!(
            numbers(&alert),
            "PSI 0.400, threshold 0.25, by chance up to 0.018, p 1e-9, missing 10.0 %, other 11.1 %"
        );
        assert_eq!(bins(&alert)[0], "__other__: 0.0 % -> 10.0 %");
    }

    #[test]
    fn quality_says_what_there_is_too_much_of() {
        let alert = told(&quality("age", QualityStatus::Violated, 9), Transition::Opened).alerts.remove(0);
        assert_eq!(numbers(&alert), "too much missing, missing 10.0 %");
    }

    #[test]
    fn times_that_no_calendar_has_are_written_all_the_same() {
        assert_eq!(time(-5), "1970-01-01T00:00:00Z");
        assert_eq!(time(i64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
