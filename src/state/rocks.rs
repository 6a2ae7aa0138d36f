//! Keeps the bytes in one RocksDB: one column family, one block cache and one write-buffer budget, whatever the number of tasks.
//!
//! Each batch goes to the WAL without fsync: it survives the death of the process. After a failure of the machine the last batches may be gone;
//! what is left is a prefix of them, that is an earlier committed epoch, and the changelog has the rest.
//!
//! What a restore has read goes in as a file instead (`docs/adr/0012-restores-load-files.md`):
//!
//! ```text
//! keys in order --SstFileWriter--> load-N.sst --ingest--> a table of the database, newer than all that was written to its keys before
//! ```

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Error, ErrorKind, IngestExternalFileOptions, LogLevel,
    Options, ReadOptions, SstFileWriter, WriteBatch, WriteBufferManager,
};
use tracing::warn;

use super::backend::{Backend, Change, Changes, KeyChange, Visit};
use super::store::{StoreError, StoreOptions};

/// Table files held open. The state of one instance is a few hundred at most; the limit of open files of a container is often 1024.
const OPEN_FILES_MAX: i32 = 256;

/// Threads for flushes and compactions: writes come in small batches, and the cores are for the stream threads.
const BACKGROUND_JOBS: i32 = 2;

/// About 1 % of reads for an absent key go to the disk.
const BLOOM_BITS_PER_KEY: f64 = 10.0;

/// With so many tables that may overlap, a load goes through the WAL as a batch does. RocksDB slows batches down at 20 of them and refuses them at 36, until
/// its compaction has caught up; but not loads, which would then stop the tasks that run already.
const LEVEL0_FILES_MAX: u64 = 12;

/// How the files of loads under way begin, in the database's folder. RocksDB knows none of its own by such a name, and leaves them alone.
const LOAD_FILE: &str = "load-";

/// What a batch adds to the bytes of a change, at most: its kind, and two lengths.
const CHANGE_OVERHEAD_BYTES: usize = 11;

/// RocksDB's own log: warnings only, in at most this many files ...
const INFO_LOG_FILES_MAX: usize = 4;

/// ... of this size each.
const INFO_LOG_BYTES_MAX: usize = 1 << 20;

/// RocksDB in the folder `db` of a state directory.
pub(super) struct RocksBackend {
    db: DB,
    path: PathBuf,
    /// What it was opened with, and what files are made with.
    options: Options,
    loads: AtomicU64,
}

impl RocksBackend {
    /// Opens or makes the database at `path`.
    ///
    /// # Errors
    /// [`StoreError::Corrupted`] when files are damaged, missing or of another format, else [`StoreError::Unavailable`].
    pub(super) fn open(path: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let options = database_options(options);
        let opened = DB::open(&options, path).map_err(|error| open_error(path, &error))?;
        remove_loads(path).map_err(|error| StoreError::Unavailable(format!("cannot open {}: {error}", path.display())))?;
        Ok(Self::with(opened, path, options))
    }

    /// Opens the database as it is now, without writing to its folder: another process may go on with it.
    ///
    /// # Errors
    /// As [`Self::open`]; also when the other process deletes a file in this moment.
    pub(super) fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        let mut options = database_options(StoreOptions::default());
        // Every file at once: one that is open stays readable when the other process deletes it.
        options.set_max_open_files(-1);
        let opened = DB::open_for_read_only(&options, path, false).map_err(|error| open_error(path, &error))?;
        Ok(Self::with(opened, path, options))
    }

    fn with(db: DB, path: &Path, options: Options) -> Self {
        Self {
            db,
            path: path.to_owned(),
            options,
            loads: AtomicU64::new(0),
        }
    }

    fn property(&self, name: &str) -> u64 {
        self.db.property_int_value(name).ok().flatten().unwrap_or_default()
    }

    fn load_file(&self, file: &Path, prefix: &[u8], changes: &mut dyn Iterator<Item = KeyChange<'_>>) -> Result<(), Error> {
        let mut writer = SstFileWriter::create(&self.options);
        writer.open(file)?;
        let (mut whole, mut any) = (prefix.to_vec(), false);
        for (key, value) in changes {
            whole.truncate(prefix.len());
            whole.extend_from_slice(key);
            match value {
                Some(value) => writer.put(&whole, value)?,
                None => writer.delete(&whole)?,
            }
            any = true;
        }
        // RocksDB makes no table of nothing.
        if !any {
            return Ok(());
        }
        writer.finish()?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.db.ingest_external_file_opts(&options, vec![file])
    }

    fn error(&self, doing: &str, error: &Error) -> StoreError {
        match error.kind() {
            ErrorKind::Corruption => damaged(&self.path, error),
            // Disk full, input/output errors and whatever is not known to be damage. The database refuses writes until it has recovered, which it
            // does by itself within seconds once there is room again (tried with a full disk, RocksDB 11.8).
            _ => StoreError::Unavailable(format!("cannot {doing} {}: {error}", self.path.display())),
        }
    }
}

impl Backend for RocksBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get(key).map_err(|error| self.error("read", &error))
    }

    fn scan(&self, range: &Range<Vec<u8>>, visit: Visit<'_>) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_range(range.clone());
        // Read once, at a start: it must not drive the blocks of the other tasks out of the cache.
        options.fill_cache(false);
        let mut iterator = self.db.raw_iterator_opt(options);
        iterator.seek_to_first();
        while let Some((key, value)) = iterator.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            iterator.next();
        }
        iterator.status().map_err(|error| self.error("read", &error))
    }

    fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        let mut batch = WriteBatch::with_capacity_bytes(changes.size_bytes() + changes.len() * CHANGE_OVERHEAD_BYTES);
        for change in changes.iter() {
            match change {
                Change::Put { key, value } => batch.put(key, value),
                Change::Delete { key } => batch.delete(key),
                Change::Clear { range } => batch.delete_range(range.start, range.end),
            }
        }
        self.db.write(batch).map_err(|error| self.error("write", &error))
    }

    fn load(&self, prefix: &[u8], changes: &mut dyn Iterator<Item = KeyChange<'_>>) -> Result<(), StoreError> {
        if self.property("rocksdb.num-files-at-level0") >= LEVEL0_FILES_MAX {
            return self.write(&Changes::of(prefix, changes));
        }
        let number = self.loads.fetch_add(1, Ordering::Relaxed);
        let file = self.path.join(format!("{LOAD_FILE}{number}.sst"));
        let loaded = self.load_file(&file, prefix, changes).map_err(|error| self.error("write", &error));
        // What became a table has another name by now.
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(file = %file.display(), %error, "what a load left stays until the next start")
            }
            _ => {}
        }
        loaded
    }

    fn size_bytes(&self) -> u64 {
        let properties = ["rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables"];
        properties.iter().map(|name| self.property(name)).sum()
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.db
            .flush_wal(true)
            .and_then(|()| self.db.flush())
            .map_err(|error| self.error("flush", &error))
    }
}

fn database_options(options: StoreOptions) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(options.block_cache_bytes));
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    // Indexes and filters count against the cache too, so that the memory is bounded and not a function of the state's size.
    table.set_cache_index_and_filter_blocks(true);
    // In parts of a block's size, of which one read takes one: whole, those of a file of many small windows are of the size of the cache's shard
    // (1 MiB), and drive each other out at each read.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_pin_top_level_index_and_filter(true);

    let mut database = Options::default();
    database.create_if_missing(true);
    database.set_block_based_table_factory(&table);
    database.set_compression_type(DBCompressionType::Lz4);
    // One memtable may fill half of the budget while the other half is being flushed. No stall: the epochs are bounded, and a stream thread that
    // waits for a disk is thrown out of its group.
    database.set_write_buffer_size(options.write_buffer_bytes / 2);
    database.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager(options.write_buffer_bytes, false));
    database.set_max_total_wal_size(2 * options.write_buffer_bytes as u64);
    // The prefix of the WAL up to the first hole: always some committed epoch.
    database.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    database.set_paranoid_checks(true);
    database.set_max_open_files(OPEN_FILES_MAX);
    database.set_max_background_jobs(BACKGROUND_JOBS);
    database.set_log_level(LogLevel::Warn);
    database.set_keep_log_file_num(INFO_LOG_FILES_MAX);
    database.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    database.set_stats_dump_period_sec(0);
    database
}

/// Removes what loads left that a crash ended.
fn remove_loads(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(LOAD_FILE) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn open_error(path: &Path, error: &Error) -> StoreError {
    match error.kind() {
        // "Invalid argument" and "Not implemented" are said of tables and settings of another RocksDB.
        ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotSupported => damaged(path, error),
        // A file that CURRENT or the manifest names. The database's own folder is made when it is missing.
        ErrorKind::IOError if path.join("CURRENT").exists() && error.as_ref().contains("No such file or directory") => damaged(path, error),
        _ => StoreError::Unavailable(format!("cannot open {}: {error}", path.display())),
    }
}

fn damaged(path: &Path, error: &Error) -> StoreError {
    let path = path.display();
    StoreError::Corrupted(format!(
        "{path}: {error}; stop this instance, delete {path} and start it again: the changelog has the state"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> RocksBackend {
        let backend = RocksBackend::open(path, StoreOptions::default()).unwrap();
        // As if compaction were slower than what is loaded.
        backend.db.set_options(&[("disable_auto_compactions", "true")]).unwrap();
        backend
    }

    fn load(backend: &RocksBackend, number: u64) -> Result<(), StoreError> {
        let value = number.to_be_bytes();
        let changes: [KeyChange; 2] = [(b"a", Some(&value)), (b"z", Some(&value))];
        backend.load(b"k", &mut changes.into_iter())
    }

    #[test]
    fn loads_that_compaction_does_not_keep_up_with_go_through_the_wal_and_never_stop_batches() {
        let scratch = tempfile::tempdir().unwrap();
        let backend = open(scratch.path());
        for number in 0..3 * LEVEL0_FILES_MAX {
            load(&backend, number).unwrap();
            assert_eq!(backend.get(b"kz").unwrap(), Some(number.to_be_bytes().to_vec()));
            assert!(backend.property("rocksdb.num-files-at-level0") <= LEVEL0_FILES_MAX);
        }
        assert_eq!(
            backend.property("rocksdb.num-files-at-level0"),
            LEVEL0_FILES_MAX,
            "they were loaded as long as they could be"
        );
        assert_eq!(backend.property("rocksdb.actual-delayed-write-rate"), 0, "RocksDB slows nobody down");
    }

    #[test]
    fn load_that_fails_says_so_changes_nothing_and_leaves_no_file() {
        let scratch = tempfile::tempdir().unwrap();
        let backend = open(scratch.path());
        load(&backend, 1).unwrap();
        let twice: [KeyChange; 3] = [(b"a", Some(b"2")), (b"b", None), (b"b", None)];
        assert!(backend.load(b"k", &mut twice.into_iter()).is_err(), "a key comes twice");
        assert_eq!(backend.get(b"ka").unwrap(), Some(1u64.to_be_bytes().to_vec()));
        let left = fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with(LOAD_FILE)));
        load(&backend, 3).unwrap();
        assert_eq!(backend.get(b"ka").unwrap(), Some(3u64.to_be_bytes().to_vec()));
    }
}
