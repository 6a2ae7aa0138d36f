//! librdkafka's batch call, which rdkafka does not pass on.
#![expect(unsafe_code, reason = "rdkafka has no safe call for this; each wrapper proves its pointers")]

use std::ffi::CString;
use std::marker::PhantomData;
use std::time::Duration;

use anyhow::{bail, ensure};
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::BATCH_RECORDS;

/// A queue of fetched records. It must not outlive its consumer.
pub(super) struct Queue<'a> {
    native: *mut sys::rd_kafka_queue_t,
    consumer: PhantomData<&'a BaseConsumer>,
}

impl<'a> Queue<'a> {
    /// The queue into which all assigned partitions are forwarded. Only for partitions that were assigned by hand: a rebalance in it would be
    /// taken for a record.
    pub(super) fn of_consumer(consumer: &'a BaseConsumer) -> Self {
        // SAFETY: the client is a consumer, so it has this queue; the reference to it is given back in `drop`, before the consumer goes.
        let native = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Self {
            native,
            consumer: PhantomData,
        }
    }

    /// One partition's, no longer forwarded into the consumer's.
    pub(super) fn of_partition(consumer: &'a BaseConsumer, topic: &str, partition: i32) -> anyhow::Result<Self> {
        let name = CString::new(topic)?;
        // SAFETY: the client's pointer is valid while it is borrowed and the name is NUL-terminated; the reference is given back in `drop`.
        let native = unsafe { sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), name.as_ptr(), partition) };
        ensure!(!native.is_null(), "partition {partition} of {topic:?} has no queue");
        // SAFETY: the queue is ours, and forwarding it to none leaves its records in it.
        unsafe { sys::rd_kafka_queue_forward(native, std::ptr::null_mut()) };
        Ok(Self {
            native,
            consumer: PhantomData,
        })
    }

    /// Hands the values of what is there to `visit`, after waiting for it; says how many.
    pub(super) fn take(&self, wait: Duration, visit: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<u64> {
        let mut messages = [std::ptr::null_mut::<sys::rd_kafka_message_t>(); BATCH_RECORDS];
        // SAFETY: the queue is valid, and the array has room for as many pointers as are asked for.
        let taken = unsafe { sys::rd_kafka_consume_batch_queue(self.native, wait.as_millis() as i32, messages.as_mut_ptr(), messages.len()) };
        let Ok(taken) = usize::try_from(taken) else {
            bail!("librdkafka refuses the batch call");
        };
        let mut result = Ok(());
        for &message in &messages[..taken] {
            // SAFETY: librdkafka gave this many messages, each ours until destroyed below; a payload of `len` bytes lives as long as its message.
            unsafe {
                let record = &*message;
                if record.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    result = result.and_then(|()| Err(anyhow::anyhow!("fetching: {:?}", record.err)));
                } else if !record.payload.is_null() {
                    let value = std::slice::from_raw_parts(record.payload.cast::<u8>(), record.len);
                    result = result.and_then(|()| visit(value));
                }
                sys::rd_kafka_message_destroy(message);
            }
        }
        result.map(|()| taken as u64)
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        // SAFETY: ours since it was made, and given back once.
        unsafe { sys::rd_kafka_queue_destroy(self.native) };
    }
}
