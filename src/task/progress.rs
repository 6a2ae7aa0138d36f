//! How far a task is: the record that is written last in its part of every transaction, and the store's checkpoint beside it.

use bincode::{Decode, Encode};
use leeway_topology::codec::{self, CorruptValue};
use leeway_topology::ids::{Offset, Timestamp};
use leeway_topology::state::Key;

/// The progress record: the same bytes in the changelog and in the store. The task's state is consistent exactly where one was written.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Progress {
    /// The next input offset; the group's committed offset of the same transaction.
    pub next_offset: Offset,
    /// Number of the last valid record.
    pub record_number: u64,
    /// The largest event time seen.
    pub stream_time: Option<Timestamp>,
    /// The epoch of the stream thread that wrote it.
    pub epoch: u64,
    /// Wall-clock time of the commit.
    pub committed_at: Timestamp,
}

/// Where the store stands in the changelog: the store's own, never in the changelog.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Checkpoint {
    /// The store holds every changelog record before this offset.
    pub changelog_offset: Offset,
    /// Wall-clock time of the last commit that it holds: tombstones younger than it are still in the changelog.
    pub committed_at: Timestamp,
}

/// Key of the checkpoint. It sorts after everything that a changelog may hold.
#[must_use]
pub fn checkpoint_key() -> Key {
    vec![0xFF]
}

macro_rules! stored {
    ($name:ident) => {
        impl $name {
            /// Its bytes, format version first.
            #[must_use]
            pub fn to_bytes(&self) -> Vec<u8> {
                codec::encode(self)
            }

            /// Reads it back.
            ///
            /// # Errors
            /// When the bytes are not of this format.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, CorruptValue> {
                codec::decode(bytes)
            }
        }
    };
}
stored!(Progress);
stored!(Checkpoint);
