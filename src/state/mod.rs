//! The state store of one process: one RocksDB (or, without the feature `rocksdb`, memory) for all of its tasks.
//!
//! ```text
//! state_dir/
//!   lock                 held while the process lives
//!   process.json         format, application id, process id, bound to machine, path and inode
//!   db/                  RocksDB: key = task prefix + key within the task
//! ```
//!
//! Invariants:
//! - A task's keys are one contiguous range; it has one holder per process ([`store::TaskLease`]), and nothing is written without it.
//! - One [`store::StateStore::write`] is one WriteBatch: all of it is there after a crash, or nothing.
//! - The store is never ahead of Kafka. WAL on, not fsynced per commit: Kafka is the truth.
//!
//! Not here: what the values mean, and the changelog.

pub mod directory;
#[cfg(feature = "rocksdb")]
pub mod inspect;
pub mod store;

mod backend;
mod memory;
#[cfg(feature = "rocksdb")]
mod rocks;
