//! What a state directory holds, read without changing it: from a copy, or while a worker goes on with it.
//!
//! It is the state of one moment, that of the opening. A value that cannot be read is told and not passed over.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use leeway_topology::codec;
use leeway_topology::state::{
    GlobalTimeHead, GlobalTimeSegment, GlobalWindowHead, KeyKind, KeyText, QualityHead, SegmentsHead, TimeWindowHead, WindowHead, decode_head,
    progress_key,
};

use super::backend::{Backend as _, KEY_FORMAT, prefix, split};
use super::directory::{self, DirectoryError, Owner};
use super::rocks::RocksBackend;
use super::store::{StoreError, TaskRange};
use crate::task::progress::{Checkpoint, Progress, checkpoint_key};

/// A worker may delete a file between its being listed and opened: tried again this often ...
const ATTEMPTS: u32 = 5;

/// ... after this pause.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a state directory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It is none, or not of this format.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Its database cannot be opened or read.
    #[error("state store: {0}")]
    Store(#[from] StoreError),
}

/// What a state directory holds.
#[derive(Debug)]
pub struct Contents {
    /// Whose it is.
    pub owner: Owner,
    /// Task by task, in order.
    pub tasks: BTreeMap<TaskRange, TaskContents>,
    /// Keys and values that are not what this build writes, in words.
    pub unreadable: Vec<String>,
}

/// What is kept of one task.
#[derive(Debug, Default)]
pub struct TaskContents {
    /// How far it is; `None`: nothing was committed here yet.
    pub progress: Option<Progress>,
    /// Where it stands in its changelog.
    pub checkpoint: Option<Checkpoint>,
    /// Its windows.
    pub windows: Vec<KeptWindow>,
    /// What all segments of a monitor have together, by their keys in words.
    pub segments: Vec<(String, SegmentsHead)>,
    /// Panes of histograms, and open windows of the whole topic.
    pub panes: u64,
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values, not compressed.
    pub bytes: u64,
}

/// A window, or windows of time.
#[derive(Debug)]
pub struct KeptWindow {
    /// Its key in words.
    pub key: String,
    /// What is kept beside the panes.
    pub head: Head,
    /// What quality checks keep; `None`: its monitor has no thresholds of quality.
    pub quality: Option<QualityHead>,
}

/// What is kept of a window, or of windows of time, beside the panes.
#[derive(Debug)]
pub enum Head {
    /// Of a count window.
    Count(WindowHead),
    /// Of time windows.
    Time(TimeWindowHead),
    /// Of a window of the whole topic.
    Global(GlobalWindowHead),
    /// Of time windows of the whole topic.
    GlobalTime(GlobalTimeHead),
    /// Of those of one segment.
    GlobalTimeSegment(GlobalTimeSegment),
}

/// Reads a state directory.
///
/// # Errors
/// When it is none, of a newer format, or its database cannot be read.
pub fn inspect(path: &Path) -> Result<Contents, InspectError> {
    let owner = directory::owner(path)?;
    patiently(|| {
        let mut contents = Contents {
            owner: owner.clone(),
            tasks: BTreeMap::new(),
            unreadable: Vec::new(),
        };
        scan(path, &mut |entry| match entry {
            Entry::OfTask(task, within, value) => {
                let of_task = contents.tasks.entry(task.clone()).or_default();
                if let Err(cause) = of_task.add(within, value) {
                    contents.unreadable.push(format!("{task}: {}: {cause}", text(within)));
                }
                of_task.keys += 1;
                of_task.bytes += (prefix(&task).len() + within.len() + value.len()) as u64;
            }
            Entry::Unknown(key) => contents
                .unreadable
                .push(format!("key {key:02x?} is not of key format {KEY_FORMAT}, or damaged")),
        })?;
        Ok(contents)
    })
}

/// Raw keys, within their tasks, and values.
pub type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// Reads the raw keys and values of each task, by task and in the order of the keys. The checkpoint is one of them.
///
/// # Errors
/// As [`inspect`]; also when a key is of no task.
pub fn entries(path: &Path) -> Result<BTreeMap<TaskRange, Entries>, InspectError> {
    directory::owner(path)?;
    patiently(|| {
        let (mut entries, mut unknown): (BTreeMap<_, Entries>, _) = (BTreeMap::new(), None);
        scan(path, &mut |entry| match entry {
            Entry::OfTask(task, within, value) => drop(entries.entry(task).or_default().insert(within.to_vec(), value.to_vec())),
            Entry::Unknown(key) => unknown = Some(key.to_vec()),
        })?;
        match unknown {
            Some(key) => Err(StoreError::Corrupted(format!("key {key:02x?} is of no task")).into()),
            None => Ok(entries),
        }
    })
}

/// A key of the database.
enum Entry<'a> {
    /// With the key within its task.
    OfTask(TaskRange, &'a [u8], &'a [u8]),
    /// Not one that this build writes.
    Unknown(&'a [u8]),
}

fn patiently<T>(read: impl Fn() -> Result<T, InspectError>) -> Result<T, InspectError> {
    let mut attempt = 1;
    loop {
        match read() {
            Err(InspectError::Store(_)) if attempt < ATTEMPTS => {
                attempt += 1;
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

/// Nothing where there is no database yet.
fn scan(path: &Path, visit: &mut dyn FnMut(Entry<'_>)) -> Result<(), StoreError> {
    let database = directory::database_path(path);
    if !database.exists() {
        return Ok(());
    }
    let all = vec![0]..vec![u8::MAX];
    RocksBackend::open_read_only(&database)?.scan(&all, &mut |key, value| {
        visit(match split(key) {
            Some((task, within)) => Entry::OfTask(task, within, value),
            None => Entry::Unknown(key),
        });
        ControlFlow::Continue(())
    })
}

fn text(key: &[u8]) -> String {
    if key == checkpoint_key() {
        return "checkpoint".to_owned();
    }
    KeyText(key).to_string()
}

impl TaskContents {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let corrupt = |error: codec::CorruptValue| error.to_string();
        if key == progress_key() {
            self.progress = Some(Progress::from_bytes(value).map_err(corrupt)?);
        } else if key == checkpoint_key() {
            self.checkpoint = Some(Checkpoint::from_bytes(value).map_err(corrupt)?);
        } else if key.first() == Some(&(KeyKind::Window as u8)) {
            let (head, quality) = decode_head(value).map_err(corrupt)?;
            self.keep(key, Head::Count(head), quality);
        } else if key.first() == Some(&(KeyKind::TimeWindow as u8)) {
            let (head, quality) = decode_head(value).map_err(corrupt)?;
            self.keep(key, Head::Time(head), quality);
        } else if key.first() == Some(&(KeyKind::GlobalWindow as u8)) {
            let (head, quality) = decode_head(value).map_err(corrupt)?;
            self.keep(key, Head::Global(head), quality);
        } else if key.first() == Some(&(KeyKind::Segments as u8)) {
            self.segments.push((text(key), codec::decode(value).map_err(corrupt)?));
        } else if key.first() == Some(&(KeyKind::GlobalTimeWindow as u8)) {
            let mut head: GlobalTimeHead = codec::decode(value).map_err(corrupt)?;
            let quality = head.measured.as_mut().and_then(|measured| measured.quality.take());
            self.keep(key, Head::GlobalTime(head), quality);
        } else if key.first() == Some(&(KeyKind::GlobalTimeSegment as u8)) {
            let mut head: GlobalTimeSegment = codec::decode(value).map_err(corrupt)?;
            let quality = head.measured.quality.take();
            self.keep(key, Head::GlobalTimeSegment(head), quality);
        } else if [KeyKind::Pane as u8, KeyKind::OpenWindow as u8].contains(key.first().unwrap_or(&0)) {
            self.panes += 1;
        } else {
            return Err("no kind of key that this build knows".to_owned());
        }
        Ok(())
    }

    fn keep(&mut self, key: &[u8], head: Head, quality: Option<QualityHead>) {
        let key = text(key);
        self.windows.push(KeptWindow { key, head, quality });
    }
}
