//! Standard output: a few lines for each alert.

use std::io::Write;

use super::super::message::Message;
use super::super::outbox::{Outcome, Payload};
use super::super::text;
use super::Channel;

/// Alerts that are shown; of the rest only how many there are.
const ALERTS_SHOWN: usize = 20;

/// Standard output, or, in tests, anything else that takes text.
pub struct Stdout<W> {
    out: W,
}

impl<W: Write + Send> Stdout<W> {
    /// Writes there.
    #[must_use]
    pub fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write + Send> Channel for Stdout<W> {
    fn deliver(&mut self, payload: &Payload) -> Outcome {
        let Payload::Message(message) = payload else {
            return Outcome::Delivered;
        };
        match self.out.write_all(of_message(message).as_bytes()).and_then(|()| self.out.flush()) {
            Ok(()) => Outcome::Delivered,
            Err(error) => Outcome::Retry {
                after: None,
                reason: format!("standard output: {error}"),
            },
        }
    }
}

/// A message as lines, with an empty one behind it. Control characters in names are shown and not done.
fn of_message(message: &Message) -> String {
    let mut lines = vec![text::title(message)];
    for alert in message.alerts.iter().take(ALERTS_SHOWN) {
        lines.push(format!("  {}: {}", text::subject(alert), text::change(alert)));
        lines.push(format!("    {}", text::numbers(alert)));
        lines.extend(text::bins(alert).iter().map(|bin| format!("    {bin}")));
    }
    if let Some(more) = message.alerts.len().checked_sub(ALERTS_SHOWN).filter(|more| *more > 0) {
        lines.push(format!("  and {more} more of this check"));
    }
    lines.push(format!("  {}", text::window(message)));
    lines.extend(text::others(message).map(|others| format!("  {others}")));
    lines.extend(message.dashboard_url.as_ref().map(|url| format!("  {url}")));
    let safe = |line: &String| -> String {
        line.chars()
            .flat_map(|character| {
                let escapes = character.is_control();
                let escaped = character.escape_default().filter(move |_| escapes);
                escaped.chain(Some(character).filter(move |_| !escapes))
            })
            .collect()
    };
    lines.iter().map(safe).collect::<Vec<_>>().join("\n") + "\n\n"
}

#[cfg(test)]
mod tests {
    use leeway_topology::drift::Status;

    use super::super::super::incident::Transition;
    use super::super::super::message::combine;
    use super::super::super::message::tests::{drift, told};
    use super::*;

    #[test]
    fn an_alert_is_a_few_lines() {
        let message = combine("out", vec![told(&drift("plan", Status::Drift, 999), Transition::Opened)], 1).remove(0);
        let mut written = Vec::new();
        let outcome = Stdout::new(&mut written).deliver(&Payload::Message(Box::new(message.clone())));
        assert_eq!(outcome, Outcome::Delivered);
        let expected = format!(
            "Drift: plan (monitor default, partition 0)\n  plan: no drift to drift (opened), since 2023-11-14T22:13:20Z\n    \
             PSI 0.400, threshold 0.25, by chance up to 0.018, p 1e-9, missing 10.0 %, other 11.1 %\n    \
             __other__: 0.0 % -> 10.0 %\n    __missing__: 0.0 % -> 10.0 %\n    basic: 60.0 % -> 30.0 %\n  \
             1000 records to number 1000, offsets 0 to 999, 1970-01-01T00:00:01Z to 1970-01-01T00:00:02Z, reference {}\n  \
             1 other incident is open here\n  https://leeway.example\n\n",
            message.reference_version
        );
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }

    #[test]
    fn a_name_cannot_move_the_cursor() {
        let message = told(&drift("a\u{1b}[2J\nb", Status::Drift, 9), Transition::Opened);
        let text = of_message(&message);
        assert!(text.starts_with("Drift: a\\u{1b}[2J\\nb (monitor"), "{text}");
    }
}
