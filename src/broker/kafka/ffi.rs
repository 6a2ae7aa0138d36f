//! Two answers that librdkafka has and rdkafka does not pass on: who a member is, and the cached high watermark.
#![expect(unsafe_code, reason = "rdkafka has no safe call for these; each wrapper proves its pointers")]

use std::ffi::{CStr, CString};

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};

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
