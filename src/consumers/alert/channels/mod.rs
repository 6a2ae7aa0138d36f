//! Where alerts go. A channel makes one attempt and says what came of it; when to try again is [`super::outbox`]'s.

use super::message::Message;
use super::outbox::{Outcome, Payload};

pub mod alertmanager;
pub mod csv;
pub mod http;
pub mod slack;
pub mod stdout;
pub mod webhook;

/// Somewhere that alerts go. It runs on a thread of its own and may block, for a bounded time.
pub trait Channel: Send {
    /// Makes one attempt.
    fn deliver(&mut self, payload: &Payload) -> Outcome;

    /// Tells of everything that is open, for those that forget. Only asked where [`super::worker::Worker`] was given an interval.
    fn refresh(&mut self, _open: &[Message]) -> Outcome {
        Outcome::Delivered
    }
}
