//! Slack, by an incoming webhook: one message of blocks for each alert.
//!
//! Slack knows no key for deduplication: where an answer is lost, a message may stand there twice.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::incident::{Severity, Transition};
use super::super::message::{Alert, Message, shortened};
use super::super::outbox::{Outcome, Payload};
use super::super::text;
use super::Channel;
use super::http::Client;
use crate::config::Secret;

/// Alerts that are shown; of the rest only how many there are.
const ALERTS_SHOWN: usize = 10;

/// Slack's limit of a section's text, characters.
const SECTION_CHARACTERS_MAX: usize = 3000;

/// Slack's limit of a header.
const HEADER_CHARACTERS_MAX: usize = 150;

/// A channel of Slack.
pub struct Slack {
    client: Client,
    url: Secret,
}

impl Slack {
    /// The channel behind a webhook.
    #[must_use]
    pub fn new(url: Secret, timeout: Duration) -> Self {
        Self {
            client: Client::new(timeout),
            url,
        }
    }
}

impl Channel for Slack {
    fn deliver(&mut self, payload: &Payload) -> Outcome {
        match payload {
            Payload::Message(message) => self.client.post(&self.url, &[], body(message).to_string().as_bytes()),
            Payload::Log(_) => Outcome::Delivered,
        }
    }
}

/// A message in Slack's words: at most 13 blocks, each within Slack's limits.
fn body(message: &Message) -> Value {
    let title = text::title(message);
    let mut blocks = vec![
        json!({"type": "header", "text": {"type": "plain_text", "text": shortened(&format!("{} {title}", sign(message)), HEADER_CHARACTERS_MAX)}}),
    ];
    let sections = message.alerts.iter().take(ALERTS_SHOWN).map(|alert| section(&of_alert(alert)));
    blocks.extend(sections);
    let more = message.alerts.len().saturating_sub(ALERTS_SHOWN);
    let mut about = vec![text::window(message)];
    if more > 0 {
        about.push(format!("{more} more of this check are not shown"));
    }
    about.extend(text::others(message));
    blocks
        .push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": shortened(&escaped(&about.join(" · ")), SECTION_CHARACTERS_MAX)}]}));
    if let Some(url) = &message.dashboard_url {
        blocks.push(section(&format!("<{}|Open the dashboard>", escaped(url))));
    }
    json!({"text": escaped(&title), "blocks": blocks})
}

fn section(markdown: &str) -> Value {
    json!({"type": "section", "text": {"type": "mrkdwn", "text": shortened(markdown, SECTION_CHARACTERS_MAX)}})
}

/// A few lines of one alert. Texts of others are shortened before they are escaped, so that no entity is cut in two.
fn of_alert(alert: &Alert) -> String {
    let mut lines = vec![
        format!("*{}*  {}", escaped(&shortened(text::subject(alert), 200)), escaped(&text::change(alert))),
        escaped(&text::numbers(alert)),
    ];
    lines.extend(text::bins(alert).iter().map(|bin| format!("• {}", escaped(bin))));
    lines.join("\n")
}

/// What is seen first.
fn sign(message: &Message) -> &'static str {
    match message.alerts.first().map(|alert| (alert.transition, alert.severity)) {
        Some((Transition::Recovered | Transition::Expired, _)) => ":white_check_mark:",
        Some((_, Severity::Drift)) => ":red_circle:",
        _ => ":large_yellow_circle:",
    }
}

/// The three characters that Slack's mrkdwn takes for its own. `*`, `_`, `~` and backticks within a name can only change how it looks.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use leeway_topology::drift::Status;

    use super::super::super::message::combine;
    use super::super::super::message::tests::{drift, told};
    use super::*;

    fn texts(body: &Value) -> Vec<String> {
        let of = |block: &Value| match block["type"].as_str() {
            Some("context") => block["elements"][0]["text"].clone(),
            _ => block["text"]["text"].clone(),
        };
        body["blocks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| of(block).as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_message_says_what_where_how_much_and_where_to_look() {
        let message = combine("slack", vec![told(&drift("plan", Status::Drift, 999), Transition::Opened)], 3).remove(0);
        let body = body(&message);
        assert_eq!(body["text"], "Drift: plan (monitor default, partition 0)");
        let texts = texts(&body);
        assert_eq!(texts[0], ":red_circle: Drift: plan (monitor default, partition 0)");
        assert!(
            texts[1].starts_with("*plan*  no drift to drift (opened), since 2023-11-14T22:13:20Z\nPSI 0.400, threshold 0.25"),
            "{}",
            texts[1]
        );
        assert!(texts[1].contains("• basic: 60.0 % -&gt; 30.0 %"), "{}", texts[1]);
        assert!(
            texts[2].contains("3 other incidents are open here") && texts[2].contains("offsets 0 to 999"),
            "{}",
            texts[2]
        );
        assert_eq!(texts[3], "<https://leeway.example|Open the dashboard>");
    }

    #[test]
    fn names_cannot_mention_or_link_anybody() {
        let message = told(&drift("<!channel> & <http://evil|x>", Status::Drift, 9), Transition::Opened);
        let texts = texts(&body(&message));
        assert!(texts[1].starts_with("*&lt;!channel&gt; &amp; &lt;http://evil|x&gt;*"), "{}", texts[1]);
    }

    #[test]
    fn a_hundred_alerts_with_endless_names_stay_within_slacks_limits() {
        let name = |n: usize| format!("{n:03}{}", "<&>".repeat(3000));
        let single = (0..50).map(|n| told(&drift(&name(n), Status::Drift, 9), Transition::Opened)).collect();
        let message = combine("slack", single, 0).remove(0);
        let body = body(&message);
        let texts = texts(&body);
        assert_eq!(texts.len(), 13);
        assert!(texts[0].chars().count() <= HEADER_CHARACTERS_MAX);
        assert!(texts.iter().all(|text| text.chars().count() <= SECTION_CHARACTERS_MAX));
        assert!(texts[11].contains("40 more of this check are not shown"));
    }
}
