//! Whether the process can work, and whether it does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Shared between who knows and who is asked. A new one is live and not ready.
#[derive(Debug)]
pub struct Health {
    live: AtomicBool,
    ready: AtomicBool,
    reason: Mutex<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            live: AtomicBool::new(true),
            ready: AtomicBool::new(false),
            reason: Mutex::new("starting".to_owned()),
        }
    }
}

impl Health {
    /// Live and not ready: starting.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the process can do its work at all; if not, it is to be started anew.
    pub fn set_live(&self, live: bool) {
        self.live.store(live, Ordering::Release);
    }

    /// Whether everything is assigned and restored, and what there is to say about it.
    pub fn set_ready(&self, ready: bool, reason: &str) {
        let mut text = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        reason.clone_into(&mut text);
        // Under the lock, so that no reader sees one change without the other.
        self.ready.store(ready, Ordering::Release);
    }

    /// Whether it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// The answer to "live?": a text either way.
    pub(super) fn live(&self) -> Result<String, String> {
        if self.live.load(Ordering::Acquire) {
            Ok("live".to_owned())
        } else {
            Err("the process cannot go on".to_owned())
        }
    }

    /// The answer to "ready?": the reason either way.
    pub(super) fn ready(&self) -> Result<String, String> {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if self.is_ready() { Ok(reason) } else { Err(reason) }
    }
}
