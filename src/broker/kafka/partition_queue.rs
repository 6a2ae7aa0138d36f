//! The records that librdkafka has fetched of one partition, many at once.
//!
//! ```text
//! librdkafka's queue --one call--> up to SERVED_MAX records --callback--> the caller, which may stop: the rest goes back to the front of the queue
//! ```
//!
//! rdkafka hands over one record at a time, as an event of its own: the clock is read, locks are taken and an event is allocated for each. One call for many
//! shares that; `docs/benchmarks.md` has the figures. librdkafka has three such calls, and this is the one of the topic and partition:
//! `rd_kafka_consume_batch_queue` moves the position past a partition's end where it tells of it (librdkafka's issue 4844), so that the next record is lost
//! when fetching goes on from there; `rd_kafka_consume_callback_queue` takes everything out of the queue meanwhile, and librdkafka, which sees an empty one,
//! fetches on without bound.
//!
//! Invariants: a message is borrowed while the callback runs, and not longer; no panic crosses librdkafka.
#![expect(
    unsafe_code,
    reason = "rdkafka has no safe call for many records, and one at a time costs as much as processing it; each block has its proof"
)]

use std::any::Any;
use std::ffi::{CStr, CString, c_void};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use leeway_topology::ids::{Offset, Timestamp};
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

use super::ffi::Queue;
use super::signal::Signal;
use crate::broker::{FetchedRecord, Header, Headers};

/// The queue of one partition. See the module.
pub(super) struct PartitionQueue<C: ConsumerContext + 'static> {
    /// Held for what it is set to: it is apart from the consumer's, and sets a signal.
    _queue: Queue,
    topic: NonNull<sys::rd_kafka_topic_t>,
    partition: i32,
    /// Dropped last: it owns what the others are parts of.
    consumer: Arc<BaseConsumer<C>>,
}

/// At most so many records are handed over by one call. For librdkafka it is a property of the consumer's topics.
pub(super) const SERVED_MAX: (&str, &str) = ("consume.callback.max.messages", "512");

// SAFETY: librdkafka's topics may be used from any thread, and nothing here belongs to one.
unsafe impl<C: ConsumerContext + 'static> Send for PartitionQueue<C> {}

/// What stands in a queue in place of a record.
pub(super) struct FetchError {
    pub(super) code: RDKafkaErrorCode,
    pub(super) text: String,
}

impl<C: ConsumerContext + 'static> PartitionQueue<C> {
    /// Splits the partition's queue off the consumer's, and has `signal` set whenever it is no longer empty. `None`: librdkafka has no such partition.
    pub(super) fn new(consumer: &Arc<BaseConsumer<C>>, topic: &str, partition: i32, signal: &Arc<Signal>) -> Option<Self> {
        let queue = Queue::of_partition(consumer.client(), topic, partition, signal)?;
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client's pointer is valid while the consumer is borrowed, the topic is NUL-terminated; without settings of its own it has the consumer's.
        // What is given is ours, counted.
        let topic = unsafe { sys::rd_kafka_topic_new(consumer.client().native_ptr(), topic.as_ptr(), std::ptr::null_mut()) };
        Some(Self {
            _queue: queue,
            topic: NonNull::new(topic)?,
            partition,
            consumer: Arc::clone(consumer),
        })
    }

    /// Hands over what is in the queue, up to [`SERVED_MAX`], in order, as long as `visit` says `Continue`. What it says `Break` for counts as taken. Never
    /// waits.
    pub(super) fn serve<F>(&mut self, visit: F)
    where
        F: FnMut(Result<FetchedRecord<'_>, FetchError>) -> ControlFlow<()>,
    {
        let mut serving = Serving {
            visit,
            stopped: false,
            panicked: None,
            client: self.consumer.client().native_ptr(),
        };
        // SAFETY: the topic is alive. `serving` lives through the call, in which alone the callback is called, by this thread.
        unsafe {
            sys::rd_kafka_consume_callback(self.topic.as_ptr(), self.partition, 0, Some(take::<F>), (&raw mut serving).cast());
        }
        if let Some(panic) = serving.panicked {
            resume_unwind(panic);
        }
    }
}

impl<C: ConsumerContext + 'static> Drop for PartitionQueue<C> {
    fn drop(&mut self) {
        // SAFETY: it is ours, and alive until here.
        unsafe { sys::rd_kafka_topic_destroy(self.topic.as_ptr()) }
    }
}

/// One call's state.
struct Serving<F> {
    visit: F,
    stopped: bool,
    panicked: Option<Box<dyn Any + Send>>,
    client: *mut sys::rd_kafka_t,
}

unsafe extern "C" fn take<F>(message: *mut sys::rd_kafka_message_t, serving: *mut c_void)
where
    F: FnMut(Result<FetchedRecord<'_>, FetchError>) -> ControlFlow<()>,
{
    // SAFETY: it is the address of the state of the call that is under way, which nobody else uses meanwhile. The message is alive until this returns.
    let (serving, message) = unsafe { (&mut *serving.cast::<Serving<F>>(), &*message) };
    debug_assert!(!serving.stopped, "librdkafka stops where it is told to");
    let visit = &mut serving.visit;
    let visited = catch_unwind(AssertUnwindSafe(|| visit(record(&Fetched(message)))));
    serving.stopped = !matches!(visited, Ok(ControlFlow::Continue(())));
    serving.panicked = visited.err();
    if serving.stopped {
        // SAFETY: the client is alive. It makes the call that is under way on this thread return, and nothing else.
        unsafe { sys::rd_kafka_yield(serving.client) };
    }
}

/// A message, while it is borrowed.
struct Fetched<'a>(&'a sys::rd_kafka_message_t);

fn record<'a>(fetched: &'a Fetched<'_>) -> Result<FetchedRecord<'a>, FetchError> {
    let message = fetched.0;
    if message.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Err(FetchError {
            code: message.err.into(),
            text: fetched.error_text(),
        });
    }
    let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the message is alive, `kind` lives through the call.
    let timestamp = unsafe { sys::rd_kafka_message_timestamp(message, &raw mut kind) };
    Ok(FetchedRecord {
        offset: Offset(message.offset),
        timestamp: (timestamp >= 0).then_some(Timestamp(timestamp)),
        key: bytes(message, message.key, message.key_len),
        value: bytes(message, message.payload, message.len),
        headers: fetched,
    })
}

/// A part of a message; `None` if it is not there.
fn bytes(_message: &sys::rd_kafka_message_t, start: *mut c_void, length: usize) -> Option<&[u8]> {
    // SAFETY: `start` and `length` are the message's, which holds so many bytes there for as long as it is borrowed.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast::<u8>().cast_const(), length) })
}

impl Fetched<'_> {
    fn error_text(&self) -> String {
        // SAFETY: the message is alive; the text, NUL-terminated if there is one, is part of it or static, and copied.
        unsafe {
            let text = sys::rd_kafka_message_errstr(self.0);
            if text.is_null() {
                return String::new();
            }
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }
}

impl Headers for Fetched<'_> {
    fn to_owned_headers(&self) -> Vec<Header> {
        let mut headers = std::ptr::null_mut();
        // SAFETY: the message is alive, `headers` lives through the call; what it then points to is the message's.
        let code = unsafe { sys::rd_kafka_message_headers(self.0, &raw mut headers) };
        let mut owned = Vec::new();
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return owned;
        }
        loop {
            let (mut name, mut value, mut length) = (std::ptr::null(), std::ptr::null(), 0);
            // SAFETY: the headers are alive with the message; all three live through the call. On success the name is NUL-terminated, the value has so
            // many bytes or is null, and both are copied before anything else happens.
            let header = unsafe {
                let code = sys::rd_kafka_header_get_all(headers, owned.len(), &raw mut name, &raw mut value, &raw mut length);
                if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    return owned;
                }
                let value = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), length).to_vec());
                (CStr::from_ptr(name).to_string_lossy().into_owned(), value)
            };
            owned.push(header);
        }
    }
}
