//! A lock on a file of a cache, held as long as its value lives; huggingface_hub takes the same ones (`flock`).

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use super::Net;
use crate::error::DownloadError;

/// Waits for the lock at `path`; an interruption ends the wait.
pub(crate) fn lock(net: &Net, path: &Path) -> Result<File, DownloadError> {
    const PIECE: Duration = Duration::from_millis(50);
    loop {
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(DownloadError::io("lock", path))?;
        match file.try_lock() {
            Ok(()) if is_there(&file, path) => return Ok(file),
            // Who held it removed the name: others lock the file that has it now.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => net.pause(PIECE)?,
            // Some network file systems have no locks; a rename is atomic there too.
            Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
}

/// Whether `path` still names `file`.
#[cfg(unix)]
fn is_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(held), Ok(named)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (named.dev(), named.ino())
}

#[cfg(not(unix))]
fn is_there(_file: &File, _path: &Path) -> bool {
    true // An open file cannot be removed there.
}
