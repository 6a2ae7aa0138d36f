//! One process's state store, shared by its stream threads: leases, reads, and atomic batches over several tasks.
//!
//! ```text
//! StateStore --lease(task)--> TaskLease --get, for_each--> the task's keys
//!      ^                          |
//!      +---write(Batch), load-----+     put, clear and load take the lease: without it there is no way to name a key
//! ```
//!
//! Invariants:
//! - A task has at most one lease at a time; dropping it gives the task free.
//! - A batch holds its leases borrowed, and is written only when each of them is the registered one of this very store.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use leeway_topology::ids::Partition;
use leeway_topology::state::{ReadStore, StateError};

pub use super::backend::KeyChange;
use super::backend::{Backend, Changes, keys_with, prefix};
use super::directory::{DirectoryLock, StateDirectory};
use super::memory::MemoryBackend;
use crate::mutation::{Mutation, is};

#[cfg(test)]
mod tests;

/// Why the store did not do what was asked, by the reaction it needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Disk full, input/output error: close the tasks dirty and try again. What memory holds beyond the store is not used again.
    #[error("not available: {0}")]
    Unavailable(String),
    /// The bytes are not what was written: delete what is named and restore from the changelog.
    #[error("damaged: {0}")]
    Corrupted(String),
    /// The caller does not hold this range: another store's lease, or one that outlived its store. Nothing was written.
    #[error("the lease of {0} is not held in this store: it is of another store, or this one is closed; close the task and restore it")]
    LeaseLost(TaskRange),
}

/// How much memory the store may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes for blocks, indexes and filters read from disk.
    pub block_cache_bytes: usize,
    /// Bytes for what is written and not yet in a table file.
    pub write_buffer_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 64 << 20,
        }
    }
}

/// Names one task's keys: the store's name and the partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskRange {
    /// Name of the state store, as in its changelog topic: `windows-drift-data`.
    pub store: Arc<str>,
    /// The partition.
    pub partition: Partition,
}

impl fmt::Display for TaskRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.store, self.partition)
    }
}

/// The state store of a process. Clones are the same store.
#[derive(Clone)]
pub struct StateStore {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None` once closed.
    open: RwLock<Option<Open>>,
    leases: Mutex<Leases>,
}

/// Field order: the backend is closed before its directory is unlocked.
struct Open {
    backend: Box<dyn Backend>,
    _lock: Option<Arc<DirectoryLock>>,
}

#[derive(Default)]
struct Leases {
    closed: bool,
    next: u64,
    holders: BTreeMap<TaskRange, u64>,
    /// Asked for in vain since [`StateStore::take_wanted`].
    wanted: BTreeSet<TaskRange>,
}

impl StateStore {
    /// Opens the store of a state directory, and keeps the directory locked until it is closed or its last clone and lease are dropped.
    /// In a build without the feature `rocksdb` the state is in memory.
    ///
    /// # Errors
    /// [`StoreError::Corrupted`] with what to delete, or [`StoreError::Unavailable`].
    pub fn open(directory: &StateDirectory, options: StoreOptions) -> Result<Self, StoreError> {
        Ok(Self::with(backend(directory, options)?, Some(directory.lock())))
    }

    /// As [`Self::open`]; but a damaged database is renamed to `db.damaged`, in place of an earlier one, and the store begins empty: the changelogs
    /// have the state. With it comes what was damaged, if anything.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], also when the database cannot be renamed.
    pub fn open_or_set_aside(directory: &StateDirectory, options: StoreOptions) -> Result<(Self, Option<StoreError>), StoreError> {
        match Self::open(directory, options) {
            Ok(store) => Ok((store, None)),
            Err(damage @ StoreError::Corrupted(_)) => {
                directory
                    .set_database_aside()
                    .map_err(|error| StoreError::Unavailable(format!("{damage}; it cannot be set aside: {error}")))?;
                Ok((Self::open(directory, options)?, Some(damage)))
            }
            Err(error) => Err(error),
        }
    }

    /// A store that is gone with its last clone: for tests, the simulation and the demo.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::with(Box::new(MemoryBackend::default()), None)
    }

    fn with(backend: Box<dyn Backend>, lock: Option<Arc<DirectoryLock>>) -> Self {
        let open = RwLock::new(Some(Open { backend, _lock: lock }));
        Self {
            shared: Arc::new(Shared {
                open,
                leases: Mutex::default(),
            }),
        }
    }

    /// Bytes that the state takes, about; 0 once it is closed.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let open = self.shared.open.read().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().map_or(0, |open| open.backend.size_bytes())
    }

    /// Takes the lease of a task's key range; `None` while somebody else in this process holds it, or when the store is closed.
    #[must_use]
    pub fn lease(&self, task: TaskRange) -> Option<TaskLease> {
        let mut leases = self.shared.leases();
        if leases.closed || (leases.holders.contains_key(&task) && !is(Mutation::NoLease)) {
            leases.wanted.insert(task);
            return None;
        }
        leases.wanted.remove(&task);
        Some(self.grant(&mut leases, task))
    }

    /// The same for somebody who only has it until another one asks: `None` also when somebody asked in vain since [`Self::take_wanted`].
    #[must_use]
    pub fn lease_if_unwanted(&self, task: TaskRange) -> Option<TaskLease> {
        let mut leases = self.shared.leases();
        if leases.closed || leases.holders.contains_key(&task) || leases.wanted.contains(&task) {
            return None;
        }
        Some(self.grant(&mut leases, task))
    }

    /// The tasks whose lease was asked for in vain since the last call.
    pub fn take_wanted(&self) -> BTreeSet<TaskRange> {
        std::mem::take(&mut self.shared.leases().wanted)
    }

    fn grant(&self, leases: &mut Leases, task: TaskRange) -> TaskLease {
        let id = leases.next;
        leases.next += 1;
        leases.holders.insert(task.clone(), id);
        TaskLease {
            shared: Arc::clone(&self.shared),
            prefix: prefix(&task),
            task,
            id,
        }
    }

    /// Sets and removes many keys of one task at once: after a crash all of it is there, or nothing. `changes` are in key order, each key once. For restores:
    /// of some megabytes it takes a fraction of what a batch does.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn load<'a>(&self, lease: &TaskLease, changes: impl IntoIterator<Item = KeyChange<'a>>) -> Result<(), StoreError> {
        let open = self.shared.open.read().unwrap_or_else(PoisonError::into_inner);
        self.check(lease)?;
        let open = open.as_ref().ok_or_else(|| StoreError::LeaseLost(lease.task.clone()))?;
        open.backend.load(&lease.prefix, &mut changes.into_iter())
    }

    /// Writes a batch: after a crash all of it is there, or nothing.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when a lease of the batch is not one of this store or the store is closed: nothing is written. Else as the disk
    /// fails: nothing of the batch is read from then on, but a disk that failed in between may show all of it after the next open, as if the
    /// process had died just after the write. That is harmless, since Kafka has committed what a batch holds.
    pub fn write(&self, batch: Batch<'_>) -> Result<(), StoreError> {
        let open = self.shared.open.read().unwrap_or_else(PoisonError::into_inner);
        batch.leases.iter().try_for_each(|lease| self.check(lease))?;
        match open.as_ref() {
            Some(open) if !batch.changes.is_empty() => open.backend.write(&batch.changes),
            // Closed: then no lease is registered, so the batch has none and is empty.
            _ => Ok(()),
        }
    }

    /// Whether this is the registered lease of its task.
    fn check(&self, lease: &TaskLease) -> Result<(), StoreError> {
        let is_held = Arc::ptr_eq(&lease.shared, &self.shared) && self.shared.leases().holders.get(&lease.task) == Some(&lease.id);
        if is_held || is(Mutation::NoLease) {
            Ok(())
        } else {
            Err(StoreError::LeaseLost(lease.task.clone()))
        }
    }

    /// Makes everything written so far survive a failure of the machine too. Commits do not need it.
    ///
    /// # Errors
    /// As the disk fails.
    pub fn flush(&self) -> Result<(), StoreError> {
        let open = self.shared.open.read().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().map_or(Ok(()), |open| open.backend.flush())
    }

    /// Flushes and closes the store for all of its clones, and ends all leases. Waits for calls under way. Closing twice is fine.
    ///
    /// # Errors
    /// When the flush fails; the store is closed all the same, and what it misses is in the changelog.
    pub fn close(&self) -> Result<(), StoreError> {
        let mut open = self.shared.open.write().unwrap_or_else(PoisonError::into_inner);
        let mut leases = self.shared.leases();
        leases.closed = true;
        leases.holders.clear();
        drop(leases);
        open.take().map_or(Ok(()), |open| open.backend.flush())
    }
}

impl fmt::Debug for StateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leases = self.shared.leases();
        f.debug_struct("StateStore")
            .field("closed", &leases.closed)
            .field("leases", &leases.holders)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(feature = "rocksdb")]
fn backend(directory: &StateDirectory, options: StoreOptions) -> Result<Box<dyn Backend>, StoreError> {
    Ok(Box::new(super::rocks::RocksBackend::open(&directory.database_path(), options)?))
}

#[cfg(not(feature = "rocksdb"))]
fn backend(_: &StateDirectory, _: StoreOptions) -> Result<Box<dyn Backend>, StoreError> {
    Ok(Box::new(MemoryBackend::default()))
}

/// The right to read and write one task's keys. Dropping it lets another thread take the task.
pub struct TaskLease {
    shared: Arc<Shared>,
    task: TaskRange,
    prefix: Vec<u8>,
    /// Unique in its store, so that a lease that outlived its registration is not mistaken for the next one.
    id: u64,
}

impl TaskLease {
    /// Which task's keys.
    #[must_use]
    pub fn task(&self) -> &TaskRange {
        &self.task
    }

    /// The value of a key of this task.
    ///
    /// # Errors
    /// When the store cannot be read, or is closed.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with_backend(|backend| backend.get(&self.key(key)))
    }

    /// Hands all keys (without the task's prefix) and values to `visit`, in key order, as they were when the call began. `Break` ends it.
    /// `visit` must not call the store: a `close` that waits in between would stop both.
    ///
    /// # Errors
    /// When the store cannot be read, or is closed.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<(), StoreError> {
        let mut within = |key: &[u8], value: &[u8]| visit(key.strip_prefix(self.prefix.as_slice()).unwrap_or(key), value);
        self.with_backend(|backend| backend.scan(&keys_with(&self.prefix), &mut within))
    }

    fn with_backend<T>(&self, call: impl FnOnce(&dyn Backend) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let open = self.shared.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().ok_or_else(|| StoreError::LeaseLost(self.task.clone()))?;
        call(open.backend.as_ref())
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }
}

impl ReadStore for TaskLease {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        TaskLease::get(self, key).map_err(state_error)
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StateError> {
        let mut within = |key: &[u8], value: &[u8]| {
            visit(key.strip_prefix(self.prefix.as_slice()).unwrap_or(key), value);
            ControlFlow::Continue(())
        };
        let range = keys_with(&self.key(prefix));
        self.with_backend(|backend| backend.scan(&range, &mut within)).map_err(state_error)
    }
}

fn state_error(error: StoreError) -> StateError {
    match error {
        StoreError::Corrupted(_) => StateError::Damaged(error.to_string()),
        StoreError::Unavailable(_) | StoreError::LeaseLost(_) => StateError::Store(error.to_string()),
    }
}

impl Drop for TaskLease {
    fn drop(&mut self) {
        let mut leases = self.shared.leases();
        if leases.holders.get(&self.task) == Some(&self.id) {
            leases.holders.remove(&self.task);
        }
    }
}

impl fmt::Debug for TaskLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {} of {}", self.id, self.task)
    }
}

/// Changes that become visible and durable together, over any number of tasks. They apply in the order in which they were added.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    leases: Vec<&'a TaskLease>,
    changes: Changes,
}

impl<'a> Batch<'a> {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key of the lease's task; `None` removes it.
    pub fn put(&mut self, lease: &'a TaskLease, key: &[u8], value: Option<&[u8]>) {
        self.add(lease);
        self.changes.put(&lease.prefix, key, value);
    }

    /// Removes all keys of the lease's task, those put earlier in this batch included; later puts stay.
    pub fn clear(&mut self, lease: &'a TaskLease) {
        self.add(lease);
        self.changes.clear(&keys_with(&lease.prefix));
    }

    fn add(&mut self, lease: &'a TaskLease) {
        // The changes of one task come together, so that this looks at the last one mostly.
        if !self.leases.iter().rev().any(|known| std::ptr::eq(*known, lease)) {
            self.leases.push(lease);
        }
    }
}
