//! Prometheus' Alertmanager, version 2 of its API. Muting, paging and digests are its job.
//!
//! An alert fires from the first check of its incident on, and is sent again while it is open, since Alertmanager forgets what it does not hear of: each
//! sending says until when it is to be believed. It is resolved when the incident is over. Severity is a label, so an alert that escalates ends as a warning
//! and begins as critical.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::super::incident::{Severity, Transition};
use super::super::message::{Alert, Kind, Message};
use super::super::outbox::{Outcome, Payload};
use super::super::text;
use super::Channel;
use super::http::Client;
use crate::config::Secret;

/// Alerts in one request.
const ALERTS_PER_REQUEST: usize = 200;

/// An Alertmanager.
pub struct Alertmanager {
    client: Client,
    url: Secret,
    believed_for: Duration,
}

impl Alertmanager {
    /// The one at a base address, such as `http://alertmanager:9093`. Firing alerts are sent again every `resend`.
    #[must_use]
    pub fn new(base: &Secret, resend: Duration, timeout: Duration) -> Self {
        let url = format!("{}/api/v2/alerts", base.expose().trim_end_matches('/'));
        Self {
            client: Client::new(timeout),
            url: Secret::new(url),
            // Three sendings may fail, and Alertmanager's own default of resolve_timeout is five minutes.
            believed_for: (resend * 4).max(Duration::from_secs(300)),
        }
    }

    fn post(&self, alerts: &[Value]) -> Outcome {
        for alerts in alerts.chunks(ALERTS_PER_REQUEST) {
            let outcome = self.client.post(&self.url, &[], Value::from(alerts).to_string().as_bytes());
            if outcome != Outcome::Delivered {
                return outcome;
            }
        }
        Outcome::Delivered
    }

    fn of(&self, message: &Message) -> Vec<Value> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let until_ms = now_ms.saturating_add(i64::try_from(self.believed_for.as_millis()).unwrap_or(i64::MAX));
        message
            .alerts
            .iter()
            .flat_map(|alert| of_alert(message, alert, now_ms, until_ms))
            .collect()
    }
}

impl Channel for Alertmanager {
    fn deliver(&mut self, payload: &Payload) -> Outcome {
        match payload {
            Payload::Message(message) => self.post(&self.of(message)),
            Payload::Log(_) => Outcome::Delivered,
        }
    }

    fn refresh(&mut self, open: &[Message]) -> Outcome {
        let alerts: Vec<Value> = open.iter().flat_map(|message| self.of(message)).collect();
        self.post(&alerts)
    }
}

/// The alert, and, where it escalated, the end of what it was before.
fn of_alert(message: &Message, alert: &Alert, now_ms: i64, until_ms: i64) -> Vec<Value> {
    let ends_ms = if alert.transition.is_end() { now_ms } else { until_ms };
    let mut alerts = Vec::new();
    if let (Transition::Escalated, Some(before)) = (alert.transition, alert.severity_before) {
        alerts.push(one(message, alert, before, now_ms));
    }
    alerts.push(one(message, alert, alert.severity, ends_ms));
    alerts
}

fn one(message: &Message, alert: &Alert, severity: Severity, ends_ms: i64) -> Value {
    let mut labels = json!({
        "alertname": match alert.kind {
            Kind::Summary | Kind::Feature => "LeewayDrift",
            Kind::Quality => "LeewayQuality",
        },
        "monitor": message.monitor,
        "scope": message.scope.as_str(),
        "feature": alert.feature,
        "severity": match severity {
            Severity::PossibleDrift => "warning",
            Severity::Drift => "critical",
        },
    });
    // An empty label is none.
    if let Some(partition) = message.partition {
        labels["partition"] = partition.to_string().into();
    }
    if let Some(segment) = &message.segment {
        labels["segment"] = segment.as_str().into();
    }
    let mut described = vec![text::numbers(alert)];
    described.extend(text::bins(alert));
    described.push(text::window(message));
    let annotations = json!({
        "summary": text::title(&Message { alerts: vec![alert.clone()], ..message.clone() }),
        "description": described.join("\n"),
        "status": alert.to,
        "event": alert.key,
    });
    let mut body = json!({
        "labels": labels,
        "annotations": annotations,
        "startsAt": text::time(alert.since_ms.min(ends_ms)),
        "endsAt": text::time(ends_ms),
    });
    if let Some(url) = &message.dashboard_url {
        body["generatorURL"] = url.as_str().into();
    }
    body
}

#[cfg(test)]
mod tests {
    use leeway_topology::drift::Status;

    use super::super::super::message::tests::{drift, told};
    use super::*;

    const NOW: i64 = 1_700_000_600_000;
    const UNTIL: i64 = NOW + 300_000;

    fn alerts(transition: Transition, status: Status) -> Vec<Value> {
        let message = told(&drift("plan", status, 999), transition);
        of_alert(&message, &message.alerts[0], NOW, UNTIL)
    }

    #[test]
    fn an_open_alert_fires_from_its_first_check_until_it_is_to_be_sent_again() {
        let alerts = alerts(Transition::Opened, Status::Drift);
        let labels = json!({"alertname": "LeewayDrift", "monitor": "default", "scope": "partition", "partition": "0", "feature": "plan", "severity": "critical"});
        assert_eq!((alerts.len(), &alerts[0]["labels"]), (1, &labels));
        assert_eq!(
            (&alerts[0]["startsAt"], &alerts[0]["endsAt"]),
            (&json!("2023-11-14T22:13:20Z"), &json!("2023-11-14T22:28:20Z"))
        );
        assert_eq!(alerts[0]["generatorURL"], "https://leeway.example");
    }

    #[test]
    fn what_escalates_ends_as_a_warning_and_fires_as_critical() {
        let alerts = alerts(Transition::Escalated, Status::Drift);
        let severities: Vec<_> = alerts
            .iter()
            .map(|alert| (alert["labels"]["severity"].clone(), alert["endsAt"].clone()))
            .collect();
        let expected = [
            (json!("warning"), json!("2023-11-14T22:23:20Z")),
            (json!("critical"), json!("2023-11-14T22:28:20Z")),
        ];
        assert_eq!(severities, expected);
    }

    #[test]
    fn what_is_over_is_resolved_under_the_labels_that_it_fired_with() {
        let alerts = alerts(Transition::Recovered, Status::NoDrift);
        assert_eq!(alerts[0]["labels"]["severity"], "warning", "it was no worse than possible drift");
        assert_eq!(alerts[0]["endsAt"], "2023-11-14T22:23:20Z");
    }
}
