//! The operations that change a store: a [`Disk`] does them, [`RealDisk`] on the file system.
//!
//! Publish, recovery and the index write through this trait and nothing else, so a test can record the operations,
//! stop after any of them, or replay them in the orders that a power cut allows.
//!
//! It deliberately has no reading operations: what is read is checked by digest or checksum where it is read. Stage
//! locks do not go through it either, they promise nothing about bytes.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The modification time of every blob: one second after the epoch, so that a later write to a blob shows.
pub(crate) const SEALED_MTIME_S: i64 = 1;

/// What can be done to the files of a store.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder and those above it.
    ///
    /// # Errors
    /// What the operating system says.
    fn create_folders(&self, path: &Path) -> io::Result<()>;
    /// Makes or replaces a file, without syncing it.
    ///
    /// # Errors
    /// What the operating system says.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Adds to the end of a file in one write, making it if needed, without syncing it.
    ///
    /// # Errors
    /// What the operating system says.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Copies the bytes of a file to a new one, sharing the extents where the file system can; without syncing it.
    ///
    /// # Errors
    /// What the operating system says.
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a file read-only (0444) with the modification time of blobs.
    ///
    /// # Errors
    /// What the operating system says.
    fn seal(&self, path: &Path) -> io::Result<()>;
    /// Returns when the bytes of a file survive a power cut (`fdatasync`).
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// Returns when the names in a folder survive a power cut (`fsync`), where the file system can promise that.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name in the same file system, replacing what has that name, in one step.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a folder and all it holds; one that is not there is fine.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Removes a file; one that is not there is fine.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// [`Disk::write`] and [`Disk::sync_file`]: two steps for who enumerates crashes, one opening of the file for who does not.
    ///
    /// # Errors
    /// What the operating system says.
    fn write_and_sync(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write(path, bytes)?;
        self.sync_file(path)
    }

    /// [`Disk::sync_file`] and [`Disk::seal`], likewise.
    ///
    /// # Errors
    /// What the operating system says.
    fn settle(&self, path: &Path) -> io::Result<()> {
        self.sync_file(path)?;
        self.seal(path)
    }
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_folders(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::write(path, bytes)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().append(true).create(true).open(path)?.write_all(bytes)
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut source = File::open(from)?;
        let mut target = OpenOptions::new().write(true).create_new(true).open(to)?;
        if share_extents(&source, &target) {
            return Ok(());
        }
        io::copy(&mut source, &mut target).map(drop)
    }

    fn seal(&self, path: &Path) -> io::Result<()> {
        seal(&File::open(path)?)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_data()
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        match File::open(path).and_then(|folder| folder.sync_all()) {
            // Some network file systems cannot sync a folder, and who may make names in one need not be allowed to read it.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::PermissionDenied) => Ok(()),
            synced => synced,
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        // An empty one is gone with one system call; to look into it takes eight.
        ignore_absent(match fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(path),
            removed => removed,
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        ignore_absent(fs::remove_file(path))
    }

    fn write_and_sync(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn settle(&self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        file.sync_data()?;
        seal(&file)
    }
}

fn seal(file: &File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o444))?;
    file.set_modified(sealed_mtime())
}

fn sealed_mtime() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(SEALED_MTIME_S.unsigned_abs())
}

fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Lets `target` share the extents of `source` (btrfs, XFS): no bytes move, and a write to one leaves the other.
#[cfg(target_os = "linux")]
fn share_extents(source: &File, target: &File) -> bool {
    rustix::fs::ioctl_ficlone(target, source).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn share_extents(_source: &File, _target: &File) -> bool {
    false
}
