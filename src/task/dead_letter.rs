//! Dead letters: records that are no JSON object, sent on as they came, with KIP-1034's headers.

use std::sync::Arc;

use leeway_topology::ids::Partition;
use leeway_topology::record::Rejected;

use crate::broker::{FetchedRecord, Header, OutRecord, TopicPartition};

/// Bytes that a record costs beside its key, value and headers: librdkafka's and the batch's own fields, generously.
const RECORD_OVERHEAD_BYTES: usize = 512;

/// Where dead letters of one input topic go.
#[derive(Clone, Debug)]
pub struct DeadLetterSink {
    /// The topic.
    pub topic: Arc<str>,
    /// Its partitions.
    pub partitions: u32,
    /// Its `max.message.bytes`.
    pub message_bytes_max: usize,
}

impl DeadLetterSink {
    /// The dead letter of a rejected record: key, value and headers as they came, the cause in further headers. One that does not fit keeps its
    /// key (if that fits) and says its size and the reason in headers; so the same record can never fail the same commit for ever.
    #[must_use]
    pub fn dead_letter(&self, input: &TopicPartition, record: &FetchedRecord<'_>, rejected: &Rejected) -> OutRecord {
        let partition = Partition(input.partition.0 % i32::try_from(self.partitions.max(1)).unwrap_or(i32::MAX));
        let mut headers = record.headers.to_owned_headers();
        let cause = error_headers(input, record, rejected);
        let key = record.key.map(<[u8]>::to_vec);
        let whole = length(record.key) + length(record.value) + header_bytes(&headers) + header_bytes(&cause) + RECORD_OVERHEAD_BYTES;
        if whole <= self.message_bytes_max {
            headers.extend(cause);
            return OutRecord {
                topic: self.topic.clone(),
                partition,
                key,
                value: record.value.map(<[u8]>::to_vec),
                headers,
                timestamp: None,
            };
        }
        let mut headers = cause;
        headers.push(text("leeway.dead_letter.value_bytes", &length(record.value).to_string()));
        headers.push(text(
            "leeway.dead_letter.reason",
            &format!("{whole} bytes with headers; {} takes {}", self.topic, self.message_bytes_max),
        ));
        let key = key.filter(|key| key.len() + header_bytes(&headers) + RECORD_OVERHEAD_BYTES <= self.message_bytes_max);
        OutRecord {
            topic: self.topic.clone(),
            partition,
            key,
            value: None,
            headers,
            timestamp: None,
        }
    }
}

fn length(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(0, <[u8]>::len)
}

fn header_bytes(headers: &[Header]) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len) + 10)
        .sum()
}

fn text(name: &str, value: &str) -> Header {
    (name.to_owned(), Some(value.as_bytes().to_vec()))
}

fn error_headers(input: &TopicPartition, record: &FetchedRecord<'_>, rejected: &Rejected) -> Vec<Header> {
    let mut headers = vec![
        text("__streams.errors.exception", rejected.reason()),
        text("__streams.errors.message", &rejected.to_string()),
        text("__streams.errors.topic", &input.topic),
        text("__streams.errors.partition", &input.partition.to_string()),
        text("__streams.errors.offset", &record.offset.to_string()),
    ];
    // The dead letter itself carries the time of writing: brokers refuse timestamps of the future and soon delete old ones.
    headers.extend(
        record
            .timestamp
            .map(|timestamp| text("leeway.dead_letter.timestamp_ms", &timestamp.to_string())),
    );
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Headers;
    use leeway_topology::ids::{Offset, Timestamp};

    struct NoHeaders;
    impl Headers for NoHeaders {
        fn to_owned_headers(&self) -> Vec<Header> {
            vec![("trace".to_owned(), Some(b"7".to_vec()))]
        }
    }

    fn record(value: &[u8]) -> FetchedRecord<'_> {
        FetchedRecord {
            offset: Offset(7),
            timestamp: Some(Timestamp(5)),
            key: Some(b"k"),
            value: Some(value),
            headers: &NoHeaders,
        }
    }

    fn sink(message_bytes_max: usize) -> DeadLetterSink {
        DeadLetterSink {
            topic: "drift-data-dlq".into(),
            partitions: 2,
            message_bytes_max,
        }
    }

    #[test]
    fn a_dead_letter_is_the_record_as_it_came_with_the_cause_in_headers() {
        let input = TopicPartition::new("drift-data", Partition(3));
        let letter = sink(1 << 20).dead_letter(&input, &record(b"[1]"), &Rejected::Empty);
        assert_eq!(
            (letter.partition, letter.key.as_deref(), letter.value.as_deref()),
            (Partition(1), Some(&b"k"[..]), Some(&b"[1]"[..]))
        );
        let names: Vec<_> = letter.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..3], ["trace", "__streams.errors.exception", "__streams.errors.message"]);
        assert!(letter.headers.contains(&text("__streams.errors.offset", "7")));
    }

    #[test]
    fn a_dead_letter_is_stamped_with_the_time_of_writing_and_names_the_records_own() {
        let input = TopicPartition::new("drift-data", Partition(0));
        let future = FetchedRecord {
            timestamp: Some(Timestamp(i64::MAX)),
            ..record(b"[1]")
        };
        let letter = sink(1 << 20).dead_letter(&input, &future, &Rejected::Empty);
        assert_eq!(letter.timestamp, None);
        assert!(letter.headers.contains(&text("leeway.dead_letter.timestamp_ms", &i64::MAX.to_string())));
        let stampless = sink(1 << 20).dead_letter(
            &input,
            &FetchedRecord {
                timestamp: None,
                ..record(b"[1]")
            },
            &Rejected::Empty,
        );
        assert!(stampless.headers.iter().all(|(name, _)| name != "leeway.dead_letter.timestamp_ms"));
    }

    #[test]
    fn a_dead_letter_that_does_not_fit_gives_size_and_reason_instead_of_its_value() {
        let input = TopicPartition::new("drift-data", Partition(0));
        let value = vec![b'x'; 5000];
        let letter = sink(4096).dead_letter(&input, &record(&value), &Rejected::Empty);
        assert_eq!((letter.key.as_deref(), letter.value), (Some(&b"k"[..]), None));
        assert!(
            letter.headers.contains(&text("leeway.dead_letter.value_bytes", "5000")),
            "{:?}",
            letter.headers
        );
    }
}
