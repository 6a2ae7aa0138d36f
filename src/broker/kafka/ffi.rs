//! What librdkafka has and rdkafka does not pass on: who a member is, the cached high watermark, and queues that tell when something is in them.
#![expect(unsafe_code, reason = "rdkafka has no safe call for these; each wrapper proves its pointers")]

use std::ffi::{CStr, CString, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};

use super::signal::Signal;

/// Member id and generation of a group member; empty and -1 while it is none.
pub(super) fn member<C: ClientContext>(client: &Client<C>) -> (String, i32) {
    // SAFETY: the client's pointer is valid while it is borrowed. The metadata is ours until destroyed below, null if the client has no group; its
    // member id is a NUL-terminated string of the same lifetime, and copied before that.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(client.native_ptr());
        if metadata.is_null() {
            return (String::new(), -1);
        }
        let member_id = sys::rd_kafka_consumer_group_metadata_member_id(metadata);
        let text = if member_id.is_null() {
            String::new()
        } else {
            CStr::from_ptr(member_id).to_string_lossy().into_owned()
        };
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        (text, generation)
    }
}

/// The high watermark (last stable offset for a read-committed consumer) that came with the last fetch.
pub(super) fn high_watermark<C: ClientContext>(client: &Client<C>, topic: &str, partition: i32) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client's pointer is valid while it is borrowed, the topic is NUL-terminated, both numbers live through the call.
    let code = unsafe { sys::rd_kafka_get_watermark_offsets(client.native_ptr(), topic.as_ptr(), partition, &raw mut low, &raw mut high) };
    (code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

/// A queue of a client, which sets a signal whenever it is no longer empty. To be dropped before its client.
pub(super) struct Queue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    /// librdkafka keeps its address.
    _wake: Arc<Signal>,
}

// SAFETY: librdkafka's queues may be used from any thread, and nothing here belongs to one.
unsafe impl Send for Queue {}

impl Queue {
    /// A partition's queue, split off its consumer's. `None`: there is no such partition.
    pub(super) fn of_partition<C: ClientContext>(client: &Client<C>, topic: &str, partition: i32, signal: &Arc<Signal>) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client's pointer is valid while it is borrowed, the topic is NUL-terminated. The queue that is given is ours, counted; null as
        // destination undoes its forwarding to the consumer's.
        unsafe {
            let queue = NonNull::new(sys::rd_kafka_queue_get_partition(client.native_ptr(), topic.as_ptr(), partition))?;
            sys::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut());
            Some(Self::telling(queue, signal))
        }
    }

    /// The queue that a producer is polled from.
    pub(super) fn main<C: ClientContext>(client: &Client<C>, signal: &Arc<Signal>) -> Option<Self> {
        // SAFETY: the client's pointer is valid while it is borrowed. The queue that is given is ours, counted.
        unsafe { Some(Self::telling(NonNull::new(sys::rd_kafka_queue_get_main(client.native_ptr()))?, signal)) }
    }

    /// # Safety
    /// The queue is alive and the caller's, who gives it up.
    unsafe fn telling(queue: NonNull<sys::rd_kafka_queue_t>, signal: &Arc<Signal>) -> Self {
        let told = Arc::clone(signal);
        // SAFETY: the queue is alive. The signal is alive, and stays at its address, until `drop` has taken the callback away, which librdkafka changes and
        // calls under the queue's lock.
        unsafe { sys::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(wake), Arc::as_ptr(&told).cast_mut().cast()) };
        Self { queue, _wake: told }
    }

    pub(super) fn is_empty(&self) -> bool {
        // SAFETY: the queue is alive.
        unsafe { sys::rd_kafka_queue_length(self.queue.as_ptr()) == 0 }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue is alive until the last line, which gives up what was ours of it. After the first no callback is under way, and none comes.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

unsafe extern "C" fn wake(_: *mut sys::rd_kafka_t, signal: *mut c_void) {
    // SAFETY: it is the address of the signal that came with this callback, and alive as long as that is set.
    let signal = unsafe { &*signal.cast::<Signal>() };
    signal.set();
}
