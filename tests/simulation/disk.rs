//! What is left of a process when it is gone, and what may befall it.

use std::ops::ControlFlow;

use leeway::state::directory::StateDirectory;
use leeway::state::store::{Batch, StateStore, StoreOptions, TaskRange};
use leeway_topology::ids::Partition;
use tempfile::TempDir;

use crate::world::APPLICATION;

/// Keys and values of one task.
pub(crate) type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// What keeps the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Memory that outlives the process: fast.
    Memory,
    /// The real RocksDB in a folder of its own, opened anew after each life as after a crash.
    RocksDb,
}

/// A state directory: whose it is, and its store.
pub(crate) struct Disk {
    /// The process id.
    pub(crate) name: String,
    pub(crate) store: StateStore,
    /// Of RocksDB. Dropped after the store.
    folder: Option<TempDir>,
    /// How often it was started from.
    pub(crate) life: u32,
    pub(crate) damage: Vec<Damage>,
}

/// A key that a disk lost while nobody looked.
#[derive(Clone)]
pub(crate) struct Damage {
    task: TaskRange,
    key: Vec<u8>,
    value: Vec<u8>,
    /// The task's entries without it.
    after: Entries,
}

/// The task of an input partition.
pub(crate) fn windows_task(partition: usize) -> TaskRange {
    TaskRange {
        store: "windows-in".into(),
        partition: Partition(partition as i32),
    }
}

/// The task of a partition of the repartition topic.
pub(crate) fn global_task(partition: usize) -> TaskRange {
    TaskRange {
        store: "global-in".into(),
        ..windows_task(partition)
    }
}

/// Keys and values of a task. Nobody may hold its lease.
pub(crate) fn entries(store: &StateStore, task: &TaskRange) -> Result<Entries, String> {
    let lease = store.lease(task.clone()).ok_or("somebody holds the lease")?;
    let mut entries = Entries::new();
    let scan = lease.for_each(|key, value| {
        entries.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    });
    scan.map_err(|error| error.to_string())?;
    Ok(entries)
}

/// Sets keys of a task; `None` removes one.
pub(crate) fn set<'a>(store: &StateStore, task: &TaskRange, values: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>) {
    let lease = store.lease(task.clone()).expect("nobody holds the lease");
    let mut batch = Batch::new();
    for (key, value) in values {
        batch.put(&lease, key, value);
    }
    store.write(batch).expect("written");
}

/// Small: a run holds a few hundred keys, and opens many.
const STORE_OPTIONS: StoreOptions = StoreOptions {
    block_cache_bytes: 1 << 20,
    write_buffer_bytes: 1 << 20,
};

fn open(folder: &TempDir) -> StateStore {
    let directory = StateDirectory::open(folder.path(), APPLICATION).expect("a state directory");
    StateStore::open(&directory, STORE_OPTIONS).expect("a store")
}

impl Disk {
    /// An empty one.
    pub(crate) fn new(name: String, kind: Kind) -> Self {
        let folder = (kind == Kind::RocksDb).then(|| tempfile::tempdir().expect("a folder"));
        Self {
            name,
            store: folder.as_ref().map_or_else(StateStore::in_memory, open),
            folder,
            life: 0,
            damage: Vec::new(),
        }
    }

    /// The process is gone, and its handles with it: what is found now is what RocksDB recovers.
    pub(crate) fn recover(&mut self) {
        if let Some(folder) = &self.folder {
            // First out of the way, since its directory is locked.
            self.store = StateStore::in_memory();
            self.store = open(folder);
        }
    }

    /// A backup of it as it is now.
    pub(crate) fn copy(&self, tasks: &[TaskRange]) -> Self {
        let kind = if self.folder.is_some() { Kind::RocksDb } else { Kind::Memory };
        let copy = Self::new(self.name.clone(), kind);
        let store = &copy.store;
        for task in tasks {
            let entries = entries(&self.store, task).expect("readable");
            set(store, task, entries.iter().map(|(key, value)| (key.as_slice(), Some(value.as_slice()))));
        }
        Self {
            life: self.life,
            damage: self.damage.clone(),
            ..copy
        }
    }

    /// Loses the `number`th key of a task, if it has any.
    pub(crate) fn lose_key(&mut self, task: &TaskRange, number: usize) -> bool {
        let entries = entries(&self.store, task).expect("readable");
        if entries.is_empty() {
            return false;
        }
        let mut after = entries.clone();
        let (key, value) = after.remove(number % entries.len());
        set(&self.store, task, [(key.as_slice(), None)]);
        self.damage.push(Damage {
            task: task.clone(),
            key,
            value,
            after,
        });
        true
    }

    /// Whether it lost a key of the task that failed with this text.
    pub(crate) fn lost_what(&self, text: &str) -> bool {
        self.damage.iter().any(|Damage { task, .. }| {
            let sub_topology = u8::from(*task.store == *"global-in");
            text.starts_with(&format!("task {sub_topology}_{}: ", task.partition))
        })
    }

    /// What a task would hold, had nothing been lost since a task was run from here; and what it may lack besides, since a copy that
    /// lost a key is followed further, and looked at only when a task takes it over.
    pub(crate) fn undamaged(&self, task: &TaskRange) -> Result<(Entries, Entries), String> {
        let mut entries = entries(&self.store, task)?;
        let mut lost = Entries::new();
        // The last one first, since each was recorded as the ones before had left it.
        for damage in self.damage.iter().rev().filter(|damage| damage.task == *task) {
            let entry = (damage.key.clone(), damage.value.clone());
            if entries == damage.after {
                entries.push(entry);
                entries.sort();
            } else {
                lost.push(entry);
            }
        }
        Ok((entries, lost))
    }
}
