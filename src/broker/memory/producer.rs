//! The plain producer: what it sends is in the log when `send` returns.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use crate::broker::{BrokerError, OutRecord, PlainProducer};

/// A producer without transactions. See [`super::MemoryBroker`].
pub struct MemoryProducer {
    shared: Arc<Shared>,
}

impl MemoryProducer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl PlainProducer for MemoryProducer {
    fn send(&mut self, record: OutRecord) -> Result<(), BrokerError> {
        self.shared.with(|state, _| state.append(record, None)).map(|_| ())
    }

    fn flush(&mut self, _: Duration) -> Result<(), BrokerError> {
        Ok(())
    }
}
