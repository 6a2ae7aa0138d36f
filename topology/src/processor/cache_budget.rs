//! How much memory the windows of segments may take in a process, and who has which part of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How much memory the windows of all segments of a process may take, about. Shared by the tasks that have any, in equal parts.
#[derive(Debug)]
pub struct CacheBudget {
    max_bytes: usize,
    holders: AtomicUsize,
}

impl CacheBudget {
    /// So many bytes.
    #[must_use]
    pub fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            max_bytes,
            holders: AtomicUsize::new(0),
        })
    }

    /// No bound: everything stays in memory.
    #[must_use]
    pub fn unbounded() -> Arc<Self> {
        Self::new(usize::MAX)
    }

    fn share(&self) -> usize {
        self.max_bytes / self.holders.load(Ordering::Relaxed).max(1)
    }
}

/// One monitor's part of the budget, as long as it lives.
pub(super) struct Share(Arc<CacheBudget>);

impl Share {
    /// A further holder, from now on.
    pub(super) fn of(budget: &Arc<CacheBudget>) -> Self {
        budget.holders.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(budget))
    }

    /// How many bytes it is now.
    pub(super) fn bytes(&self) -> usize {
        self.0.share()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.holders.fetch_sub(1, Ordering::Relaxed);
    }
}
