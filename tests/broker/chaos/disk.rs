//! What happens to directories: damage, old copies, and a disk that is full.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::RngExt as _;
use rand::rngs::StdRng;

/// The size of the disk that can be full.
const SIZE: &str = "size=96m";

/// Does something to one file of the database that holds data; false: there is none.
pub(super) fn damage(directory: &Path, random: &mut StdRng, how: impl Fn(&Path)) -> bool {
    let Ok(listing) = fs::read_dir(directory.join("db")) else { return false };
    let mut files: Vec<_> = listing.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sst" || extension == "log"));
    files.sort();
    if files.is_empty() {
        return false;
    }
    how(&files[random.random_range(0..files.len())]);
    true
}

pub(super) fn truncate(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("opened");
    let length = file.metadata().expect("its length").len();
    file.set_len(length / 2).expect("shortened");
}

/// Makes a directory a copy of another.
pub(super) fn replace(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("removed");
    }
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success(), "copying {} failed", from.display());
}

/// A disk of its own, small, so that it can be full. There is none where this process may not mount one.
pub(super) struct Disk {
    pub(super) path: PathBuf,
    pub(super) was_full: bool,
}

impl Disk {
    pub(super) fn mount(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).expect("a directory");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(path).status();
        if status.is_ok_and(|status| status.success()) {
            return Some(Self {
                path: path.to_owned(),
                was_full: false,
            });
        }
        println!("no full disks in this run: a file system cannot be mounted here");
        None
    }

    pub(super) fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    pub(super) fn fill(&mut self) {
        self.was_full = true;
        let mut file = fs::File::create(self.filler()).expect("a file");
        let block = vec![0; 1 << 16];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&block[..1]).is_ok() {}
    }

    pub(super) fn make_room(&self) {
        fs::remove_file(self.filler()).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: an instance may still have files open.
        let status = Command::new("umount").arg("--lazy").arg(&self.path).status();
        assert!(
            status.is_ok_and(|status| status.success()) || std::thread::panicking(),
            "unmounting failed"
        );
    }
}
