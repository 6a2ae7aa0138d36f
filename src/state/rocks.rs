//! Keeps the bytes in one RocksDB: one column family, one block cache and one write-buffer budget, whatever the number of tasks.
//!
//! Each batch goes to the WAL without fsync: it survives the death of the process. After a failure of the machine the last batches may be gone;
//! what is left is a prefix of them, that is an earlier committed epoch, and the changelog has the rest.

use std::ops::Range;
use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Error, ErrorKind, LogLevel, Options, ReadOptions,
    WriteBatch, WriteBufferManager,
};

use super::backend::{Backend, Change, Changes, Visit};
use super::store::{StoreError, StoreOptions};

/// Table files held open. The state of one instance is a few hundred at most; the limit of open files of a container is often 1024.
const OPEN_FILES_MAX: i32 = 256;

/// Threads for flushes and compactions: writes come in small batches, and the cores are for the stream threads.
const BACKGROUND_JOBS: i32 = 2;

/// About 1 % of reads for an absent key go to the disk.
const BLOOM_BITS_PER_KEY: f64 = 10.0;

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
}

impl RocksBackend {
    /// Opens or makes the database at `path`.
    ///
    /// # Errors
    /// [`StoreError::Corrupted`] when files are damaged, missing or of another format, else [`StoreError::Unavailable`].
    pub(super) fn open(path: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        match DB::open(&database_options(options), path) {
            Ok(db) => Ok(Self { db, path: path.to_owned() }),
            Err(error) => Err(open_error(path, &error)),
        }
    }

    /// Opens the database as it is now, without writing to its folder: another process may go on with it.
    ///
    /// # Errors
    /// As [`Self::open`]; also when the other process deletes a file in this moment.
    pub(super) fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        let mut options = database_options(StoreOptions::default());
        // Every file at once: one that is open stays readable when the other process deletes it.
        options.set_max_open_files(-1);
        match DB::open_for_read_only(&options, path, false) {
            Ok(db) => Ok(Self { db, path: path.to_owned() }),
            Err(error) => Err(open_error(path, &error)),
        }
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

    fn size_bytes(&self) -> u64 {
        let properties = ["rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables"];
        properties
            .iter()
            .filter_map(|name| self.db.property_int_value(*name).ok().flatten())
            .sum()
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
