//! Keeps the bytes in memory: for tests, the simulation and the demo, and for builds without RocksDB.
//!
//! Nothing survives the process. A task then restores from the start of its changelog, as after the loss of a disk.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use super::backend::{Backend, Change, Changes, Visit};
use super::store::StoreError;

/// A sorted map with the promises of the disk.
#[derive(Default)]
pub(super) struct MemoryBackend {
    entries: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Backend for MemoryBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.entries.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn scan(&self, range: &Range<Vec<u8>>, visit: Visit<'_>) -> Result<(), StoreError> {
        // A copy, as RocksDB's iterator has a snapshot: `visit` may take its time without holding writers up.
        let entries: Vec<_> = {
            let map = self.entries.read().unwrap_or_else(PoisonError::into_inner);
            map.range(range.clone()).map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        for (key, value) in &entries {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        let mut map = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes.iter() {
            match change {
                Change::Put { key, value } => {
                    map.insert(key.to_vec(), value.to_vec());
                }
                Change::Delete { key } => {
                    map.remove(key);
                }
                Change::Clear { range } => {
                    let mut cleared = map.split_off(range.start);
                    let mut after = cleared.split_off(range.end);
                    map.append(&mut after);
                }
            }
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        let map = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        map.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
