//! The numbers that must not be mixed up: partition, offset, timestamp, record number.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A partition of a topic, from 0.
    Partition(i32)
}

number! {
    /// An offset in a partition's log.
    Offset(i64)
}

number! {
    /// Milliseconds since the epoch, UTC.
    Timestamp(i64)
}

number! {
    /// k: the number of a partition's valid record, from 1, in offset order.
    RecordNumber(u64)
}

impl Offset {
    /// The offset after this one: what Kafka commits, so that a restart neither skips nor repeats.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
