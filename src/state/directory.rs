//! The state directory: one process at a time, one application, and who that process is towards Kafka.
//!
//! ```text
//! open --create--> lock --refused--> Locked (which process)
//!                   \--held--> process.json --ours--> same process id as before
//!                                    |  \--missing, or another machine, path or inode--> new process id
//!                                    \--other application, newer format, unreadable--> an error that says what to do
//! ```
//!
//! Invariants:
//! - The lock is held as long as the directory, or a store opened from it, is there.
//! - The process id is the same after a crash, so that the transaction left open is settled at once; two directories never share one, or their
//!   producers would fence each other.
//!
//! Not here: what is in `db/`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

#[cfg(test)]
mod tests;

/// Version of the layout that this build writes.
const FORMAT_VERSION: u32 = 1;

/// How many directories [`StateDirectory::open_free`] tries: more instances than that are not on one machine by accident.
const FREE_DIRECTORIES_MAX: usize = 64;

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Somebody else has it open.
    #[error("state directory {} is used by {}; stop it or give this instance another one with --state-dir", path.display(), holder_text(*.holder))]
    Locked {
        /// Which directory.
        path: PathBuf,
        /// The process that holds it, if it left its number.
        holder: Option<u32>,
    },
    /// [`StateDirectory::open_free`] found none.
    #[error("state directory {} and {} numbered ones beside it are all in use; give this instance one of its own with --state-dir", path.display(), .tried - 1)]
    NoneFree {
        /// The first one tried.
        path: PathBuf,
        /// How many were tried.
        tried: usize,
    },
    /// It holds the state of another application.
    #[error(
        "state directory {} belongs to application {found:?}, this is {wanted:?}; give another one with --state-dir, or delete it if {found:?} is not run here any more",
        path.display()
    )]
    OtherApplication {
        /// Which directory.
        path: PathBuf,
        /// The application id it was made for.
        found: String,
        /// The application id of this process.
        wanted: String,
    },
    /// A newer build made it.
    #[error(
        "state directory {} has format {found}, this build knows up to {FORMAT_VERSION}; use the newer build, or delete the directory: the changelog has the state",
        path.display()
    )]
    NewerFormat {
        /// Which directory.
        path: PathBuf,
        /// Its format version.
        found: u32,
    },
    /// Its `process.json` is missing or not what was written, so nobody can tell whose state it is.
    #[error("state directory {}: {cause}; delete the directory and start again: the changelog has the state", path.display())]
    Damaged {
        /// Which directory.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// There is none, or nothing was ever kept in it.
    #[error("{} is no state directory: it has no process.json; name one with --state-dir", path.display())]
    Missing {
        /// Which directory.
        path: PathBuf,
    },
    /// It cannot be made or written.
    #[error("state directory {} is not writable: {source}; give the user that runs Leeway write access, or another one with --state-dir", path.display())]
    NotWritable {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk failed, is full, or cannot lock files.
    #[error("state directory {}: {source}; check the disk, or give one on another disk with --state-dir", path.display())]
    Io {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn holder_text(holder: Option<u32>) -> String {
    holder.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"))
}

impl DirectoryError {
    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::NotWritable { path, source },
            _ => Self::Io { path, source },
        }
    }
}

/// A locked state directory.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    process_id: String,
    lock: Arc<DirectoryLock>,
}

impl StateDirectory {
    /// Opens a state directory, making it if it is not there, and locks it until this value and every store opened from it are dropped.
    ///
    /// # Errors
    /// When it is in use, another application's, of a newer format, damaged, or cannot be written.
    pub fn open(path: &Path, application_id: &str) -> Result<Self, DirectoryError> {
        fs::create_dir_all(path).map_err(|error| DirectoryError::io(path, error))?;
        let path = path.canonicalize().map_err(|error| DirectoryError::io(path, error))?;
        let lock = Arc::new(DirectoryLock::take(&path)?);
        let process_id = identify(&path, application_id)?;
        debug!(path = %path.display(), %process_id, "locked the state directory");
        Ok(Self { path, process_id, lock })
    }

    /// Opens `default`, or, where another process or another application has it, the first of `default-1`, `default-2`, ... that is free: for
    /// several instances on one machine that were not told where to keep their state. Each application finds its own directories again.
    ///
    /// # Errors
    /// As [`Self::open`], for the first directory that cannot be used for another reason; or when none is free.
    pub fn open_free(default: &Path, application_id: &str) -> Result<Self, DirectoryError> {
        for number in 0..FREE_DIRECTORIES_MAX {
            match Self::open(&numbered(default, number), application_id) {
                Err(error @ (DirectoryError::Locked { .. } | DirectoryError::OtherApplication { .. })) => debug!(%error, "trying the next one"),
                other => return other,
            }
        }
        Err(DirectoryError::NoneFree {
            path: default.to_owned(),
            tried: FREE_DIRECTORIES_MAX,
        })
    }

    /// Deletes what is kept in it. The directory and its lock stay: a lock that is deleted while somebody waits for it would let two have it.
    ///
    /// # Errors
    /// As the disk fails.
    pub fn clear(self) -> Result<(), DirectoryError> {
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DirectoryError::io(&self.path, error)),
            _ => Ok(()),
        };
        gone(fs::remove_dir_all(self.database_path()))?;
        // After the database: without it, the next start would not know whose database that is.
        gone(fs::remove_file(self.path.join("process.json")))
    }

    /// The directories on this machine that [`Self::open_free`] would give to instances of this application, as far as they are there.
    ///
    /// # Errors
    /// When one of them cannot be read, is damaged or of a newer format.
    pub fn existing(default: &Path, application_id: &str) -> Result<Vec<PathBuf>, DirectoryError> {
        let mut found = Vec::new();
        for path in (0..FREE_DIRECTORIES_MAX).map(|number| numbered(default, number)) {
            match owner(&path) {
                Ok(owner) if owner.application_id == application_id => found.push(path),
                Ok(_) | Err(DirectoryError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        found.dedup();
        Ok(found)
    }

    /// Its canonical path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the database, in place of one that was set aside before: somebody may want to look at it, and one is enough.
    pub(super) fn set_database_aside(&self) -> io::Result<()> {
        let aside = self.path.join("db.damaged");
        match fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(self.database_path(), aside)
    }

    /// Who the process is in transactional ids and offset metadata: 16 hex digits, the same after a restart from this directory.
    #[must_use]
    pub fn process_id(&self) -> &str {
        &self.process_id
    }

    pub(super) fn lock(&self) -> Arc<DirectoryLock> {
        Arc::clone(&self.lock)
    }

    pub(super) fn database_path(&self) -> PathBuf {
        database_path(&self.path)
    }
}

/// `leeway-state`, `leeway-state-1`, `leeway-state-2`, ...
fn numbered(default: &Path, number: usize) -> PathBuf {
    match default.file_name() {
        Some(name) if number > 0 => {
            let mut name = name.to_owned();
            name.push(format!("-{number}"));
            default.with_file_name(name)
        }
        // A path such as `..` has no name to put a number to: then there is only that one.
        _ => default.to_owned(),
    }
}

pub(super) fn database_path(path: &Path) -> PathBuf {
    path.join("db")
}

/// The file `lock`, locked. It holds the process number of its holder, for the error of the others.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    file: File,
}

impl DirectoryLock {
    fn take(path: &Path) -> Result<Self, DirectoryError> {
        let io = |error| DirectoryError::io(path, error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("lock"))
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Only for the message; it may be half written.
                let holder = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(DirectoryError::Locked {
                    path: path.to_owned(),
                    holder,
                });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io)?;
        Ok(Self { file })
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Not left to the closing of the file: a child process that is just being started has it open too, for a moment.
        if let Err(error) = self.file.unlock() {
            warn!(%error, "cannot unlock the state directory; it is free when this process has ended");
        }
    }
}

/// `process.json`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ProcessFile {
    format_version: u32,
    application_id: String,
    process_id: String,
    #[serde(flatten)]
    place: Place,
}

/// Read before the rest: another format may have other fields.
#[derive(Deserialize)]
struct FormatVersion {
    format_version: u32,
}

/// What a copied or moved directory does not keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    machine_id: String,
    path: String,
    inode: u64,
}

impl Place {
    fn of(path: &Path) -> Result<Self, DirectoryError> {
        let inode = fs::metadata(path).map_err(|error| DirectoryError::io(path, error))?.ino();
        Ok(Self {
            machine_id: machine_id(),
            path: path.to_string_lossy().into_owned(),
            inode,
        })
    }
}

/// The process id of a locked directory, kept or made.
fn identify(path: &Path, application_id: &str) -> Result<String, DirectoryError> {
    let file = path.join("process.json");
    let damaged = |cause: String| DirectoryError::Damaged {
        path: path.to_owned(),
        cause,
    };
    let place = Place::of(path)?;
    let known = match fs::read(&file) {
        Ok(bytes) => Some(read_process_file(path, &bytes)?.of_application(path, application_id)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !database_path(path).exists() => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("it has a db but no process.json".to_owned())),
        Err(error) => return Err(DirectoryError::io(path, error)),
    };
    if let Some(known) = &known
        && known.place == place
    {
        return Ok(known.process_id.clone());
    }
    let process_id = format!("{:016x}", rand::random::<u64>());
    let made = ProcessFile {
        format_version: FORMAT_VERSION,
        application_id: application_id.to_owned(),
        process_id,
        place,
    };
    write_process_file(path, &file, &made).map_err(|error| DirectoryError::io(path, error))?;
    match known {
        None => info!(path = %path.display(), process_id = %made.process_id, "made the state directory"),
        Some(known) => warn!(path = %path.display(), process_id = %made.process_id, before = %known.process_id, was = ?known.place, is = ?made.place,
            "the state directory was copied or moved; it takes a new process id"),
    }
    Ok(made.process_id)
}

impl ProcessFile {
    fn of_application(self, path: &Path, application_id: &str) -> Result<Self, DirectoryError> {
        if self.application_id == application_id {
            return Ok(self);
        }
        Err(DirectoryError::OtherApplication {
            path: path.to_owned(),
            found: self.application_id,
            wanted: application_id.to_owned(),
        })
    }
}

/// Whose state a directory holds, without locking or changing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Version of its layout.
    pub format_version: u32,
    /// The application.
    pub application_id: String,
    /// The process, as transactional ids name it.
    pub process_id: String,
}

/// Reads whose state directory this is.
///
/// # Errors
/// [`DirectoryError::Missing`], [`DirectoryError::NewerFormat`], [`DirectoryError::Damaged`], or as the disk fails.
pub fn owner(path: &Path) -> Result<Owner, DirectoryError> {
    let bytes = match fs::read(path.join("process.json")) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(DirectoryError::Missing { path: path.to_owned() });
        }
        Err(source) => {
            return Err(DirectoryError::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    let file = read_process_file(path, &bytes)?;
    Ok(Owner {
        format_version: file.format_version,
        application_id: file.application_id,
        process_id: file.process_id,
    })
}

fn read_process_file(path: &Path, bytes: &[u8]) -> Result<ProcessFile, DirectoryError> {
    let damaged = |cause: String| DirectoryError::Damaged {
        path: path.to_owned(),
        cause: format!("process.json: {cause}"),
    };
    let FormatVersion { format_version } = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if format_version > FORMAT_VERSION {
        return Err(DirectoryError::NewerFormat {
            path: path.to_owned(),
            found: format_version,
        });
    }
    let known: ProcessFile = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if known.process_id.len() != 16 || !known.process_id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(damaged(format!("process_id {:?} is not 16 hex digits", known.process_id)));
    }
    Ok(known)
}

/// Old or new after a crash, never half: beside it, synced, renamed.
fn write_process_file(directory: &Path, file: &Path, made: &ProcessFile) -> io::Result<()> {
    let beside = file.with_extension("json.tmp");
    let mut new = File::create(&beside)?;
    serde_json::to_writer_pretty(&mut new, made)?;
    writeln!(new)?;
    new.sync_all()?;
    fs::rename(&beside, file)?;
    File::open(directory)?.sync_all()
}

/// The same for the same machine, and nothing else can be told from it: FNV-1a of the machine's id, which is not to be shown around, and of the
/// host name, since containers of one image can share the former. Empty parts where the system has none: path and inode bind the directory then.
fn machine_id() -> String {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let parts = ["/etc/machine-id", "/proc/sys/kernel/hostname"].map(|file| fs::read_to_string(file).unwrap_or_default());
    let text = parts.each_ref().map(|part| part.trim()).join("@");
    let hash = text.bytes().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    format!("{hash:016x}")
}
