//! The plain producer: idempotent, for `leeway produce` and for references.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};
use tracing::debug;

use super::transactions::send;
use super::{bounded, errors, log};
use crate::broker::{BrokerError, OutRecord, PlainProducer};

/// How long a full queue may take to get room.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Records between two looks at the delivery reports.
const POLL_EVERY: u32 = 256;

#[derive(Default)]
struct Side {
    failure: Mutex<Option<KafkaError>>,
}

impl ClientContext for Side {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log::pass_on(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "producer");
    }
}

impl ProducerContext for Side {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.clone());
        }
    }
}

/// See the module.
pub struct KafkaProducer {
    producer: BaseProducer<Side>,
    unpolled: u32,
}

impl KafkaProducer {
    pub(super) fn new(config: &rdkafka::ClientConfig) -> Result<Self, BrokerError> {
        let producer = config
            .create_with_context(Side::default())
            .map_err(|error| BrokerError::Refused(errors::text(&error)))?;
        Ok(Self { producer, unpolled: 0 })
    }

    fn check(&self) -> Result<(), BrokerError> {
        match &*self.producer.context().failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(BrokerError::Refused(format!("a record was not delivered: {}", errors::text(error)))),
            None => Ok(()),
        }
    }
}

impl PlainProducer for KafkaProducer {
    fn send(&mut self, record: OutRecord) -> Result<(), BrokerError> {
        self.unpolled += 1;
        if self.unpolled >= POLL_EVERY {
            self.unpolled = 0;
            self.producer.poll(Duration::ZERO);
            self.check()?;
        }
        send(&self.producer, &record, Instant::now() + SEND_TIMEOUT).map_err(|error| BrokerError::Refused(errors::text(&error)))
    }

    fn flush(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        let result = self.producer.flush(bounded(timeout));
        self.check()?;
        result.map_err(|error| BrokerError::Unavailable(format!("records are still not acknowledged: {}", errors::text(&error))))
    }
}
