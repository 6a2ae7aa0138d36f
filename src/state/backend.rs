//! What a store asks of the thing that keeps its bytes, and how a task becomes a range of keys.
//!
//! A key is `[format: u8][store name: component][partition: u32, big-endian]`, then the key within the task. A component ends with 0x00 0x00 and
//! escapes 0x00, so no store name is the beginning of another one's keys, and all keys of a task are neighbours.

use std::ops::{ControlFlow, Range};

use leeway_topology::codec::put_component;
#[cfg(feature = "rocksdb")]
use leeway_topology::{codec::take_component, ids::Partition};

use super::store::{StoreError, TaskRange};

/// First byte of every key. A build that lays keys out differently takes another one and finds nothing of this one's.
pub(super) const KEY_FORMAT: u8 = 1;

/// Takes a key and its value, and says whether to go on.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// What a key is to be from now on: its value, or absent.
pub type KeyChange<'a> = (&'a [u8], Option<&'a [u8]>);

/// Keeps bytes in key order. Each call is atomic towards all others.
pub(super) trait Backend: Send + Sync {
    /// The value of a whole key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Hands the range's keys and values to `visit`, in key order, as they were when the call began.
    fn scan(&self, range: &Range<Vec<u8>>, visit: Visit<'_>) -> Result<(), StoreError>;

    /// Applies the changes in order. On an error none of them is read.
    fn write(&self, changes: &Changes) -> Result<(), StoreError>;

    /// Sets and removes keys, each of which `prefix` begins, as [`Self::write`] would. `changes` are in key order, each key once, without the prefix.
    fn load(&self, prefix: &[u8], changes: &mut dyn Iterator<Item = KeyChange<'_>>) -> Result<(), StoreError> {
        self.write(&Changes::of(prefix, changes))
    }

    /// Makes what was written survive a failure of the machine.
    fn flush(&self) -> Result<(), StoreError>;

    /// Bytes that the state takes, about: on disk and in memory tables.
    fn size_bytes(&self) -> u64;
}

/// One change of a batch, with whole keys.
#[derive(Debug)]
pub(super) enum Change<'a> {
    /// Sets a value.
    Put { key: &'a [u8], value: &'a [u8] },
    /// Removes a key, if it is there.
    Delete { key: &'a [u8] },
    /// Removes all keys of a range.
    Clear { range: Range<&'a [u8]> },
}

/// The changes of a batch, in order. Their bytes stand one after another in one buffer: a restore makes millions of them, and an allocation for each key
/// and value costs more than the copy.
#[derive(Debug, Default)]
pub(super) struct Changes {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Where a change stands: it begins where the one before ends.
#[derive(Debug)]
struct Place {
    kind: Kind,
    /// Where its key ends, or the start of its range ...
    middle: usize,
    /// ... and where its value, or the end of its range.
    end: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Put,
    Delete,
    Clear,
}

impl Changes {
    /// Of keys that `prefix` begins.
    pub(super) fn of(prefix: &[u8], changes: &mut dyn Iterator<Item = KeyChange<'_>>) -> Self {
        let mut of = Self::default();
        changes.for_each(|(key, value)| of.put(prefix, key, value));
        of
    }

    /// Sets the value of the key `prefix` and `key`; `None` removes it.
    pub(super) fn put(&mut self, prefix: &[u8], key: &[u8], value: Option<&[u8]>) {
        let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
        self.add(kind, [prefix, key], value.unwrap_or_default());
    }

    /// Removes all keys of a range.
    pub(super) fn clear(&mut self, range: &Range<Vec<u8>>) {
        self.add(Kind::Clear, [&range.start, &[]], &range.end);
    }

    fn add(&mut self, kind: Kind, first: [&[u8]; 2], second: &[u8]) {
        first.into_iter().for_each(|part| self.bytes.extend_from_slice(part));
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(second);
        let end = self.bytes.len();
        self.places.push(Place { kind, middle, end });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of all keys and values.
    #[cfg(feature = "rocksdb")]
    pub(super) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many there are.
    #[cfg(feature = "rocksdb")]
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        let mut from = 0;
        self.places.iter().map(move |place| {
            let (first, second) = (&self.bytes[from..place.middle], &self.bytes[place.middle..place.end]);
            from = place.end;
            match place.kind {
                Kind::Put => Change::Put { key: first, value: second },
                Kind::Delete => Change::Delete { key: first },
                Kind::Clear => Change::Clear { range: first..second },
            }
        })
    }
}

/// What stands before each key of a task.
pub(super) fn prefix(task: &TaskRange) -> Vec<u8> {
    let mut prefix = vec![KEY_FORMAT];
    put_component(&mut prefix, &task.store);
    prefix.extend_from_slice(&task.partition.0.to_be_bytes());
    prefix
}

/// The task that a key belongs to, and the key within it: the inverse of [`prefix`]. `None`: it is no key of this format.
#[cfg(feature = "rocksdb")]
pub(super) fn split(key: &[u8]) -> Option<(TaskRange, &[u8])> {
    let (&format, rest) = key.split_first()?;
    let (store, rest) = take_component(rest)?;
    let (partition, rest) = rest.split_first_chunk()?;
    let partition = Partition(i32::from_be_bytes(*partition));
    (format == KEY_FORMAT).then(|| {
        (
            TaskRange {
                store: store.into(),
                partition,
            },
            rest,
        )
    })
}

/// All keys that begin with `prefix`: up to the next prefix of the same length, its trailing 0xFF carried over.
pub(super) fn keys_with(prefix: &[u8]) -> Range<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        // The first byte is `KEY_FORMAT`, so the carry ends there at the latest.
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    prefix.to_vec()..end
}
