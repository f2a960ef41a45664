//! The stat memo: a file's digest without reading the file, as long as its inode looks the same.
//!
//! ```text
//! (dev, ino, size, mtime, ctime)  ->  digest      one small file per inode: idx/stat/<dev>/<ino>
//! ```
//!
//! A file is looked at before and after it is read, so a write in between is noticed. What was modified less than
//! [`SETTLED_AGE`] before it was read is not remembered: on a file system with coarse times, a second write within the
//! same tick would leave the same stat. (Git calls such an index entry racy.)
//!
//! One file per inode, replaced by rename, needs no loading and no lock between processes. It deliberately remembers
//! no paths: a file that was moved keeps its digest, and so does a symlink's target.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::digest::{hash_file, is_digest};
use crate::manifest::ExternalRef;
use crate::{CacheError, FileDigest, Store};

/// Twice the coarsest time stamp in use (FAT and some network file systems: 1 to 2 s); DESIGN: "younger than 2 s".
const SETTLED_AGE: Duration = Duration::from_secs(2);

/// What a file looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStat {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) size_bytes: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
}

impl FileStat {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        FileStat {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size_bytes: metadata.len(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a file recorded as `size_bytes` and `external` still looks the same.
    pub(crate) fn matches(&self, size_bytes: u64, external: &ExternalRef) -> bool {
        *self
            == FileStat {
                dev: external.dev,
                ino: external.ino,
                size_bytes,
                mtime_ns: external.mtime_ns,
                ctime_ns: external.ctime_ns,
            }
    }

    /// Whether the last write is so long ago that the next one must get another mtime.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now_ns = now.duration_since(UNIX_EPOCH).map_or(0, |age| i64::try_from(age.as_nanos()).unwrap_or(i64::MAX));
        let age_ns_min = i64::try_from(SETTLED_AGE.as_nanos()).expect("two seconds");
        now_ns.saturating_sub(self.mtime_ns) >= age_ns_min
    }
}

impl Store {
    /// The digest of any file, read only if its stat is not in the memo. Symlinks are followed.
    ///
    /// # Errors
    /// When it cannot be read, or was written to twice while it was read.
    pub fn digest_file(&self, path: &Path) -> Result<FileDigest, CacheError> {
        let mut stat = stat(path)?;
        if let Some(digest) = self.recall(&stat) {
            return Ok(FileDigest { digest, size_bytes: stat.size_bytes });
        }
        for _ in 0..2 {
            let now = SystemTime::now();
            let digest = self.hash_now(path, stat.size_bytes)?;
            let stat_after = self::stat(path)?;
            if stat_after == stat {
                if stat.is_settled(now) {
                    self.remember(&stat, &digest);
                }
                return Ok(FileDigest { digest, size_bytes: stat.size_bytes });
            }
            stat = stat_after;
        }
        Err(CacheError::ChangedWhileReading { path: path.to_path_buf() })
    }

    /// How many files this store value and its clones have read to digest them: 0 while the memo answers.
    pub fn n_files_read(&self) -> u64 {
        self.inner.n_files_read.load(Ordering::Relaxed)
    }

    /// Digests by reading, and counts it.
    pub(crate) fn hash_now(&self, path: &Path, size_bytes: u64) -> Result<String, CacheError> {
        self.inner.n_files_read.fetch_add(1, Ordering::Relaxed);
        hash_file(path, size_bytes).map_err(CacheError::io("read", path))
    }

    /// Records a digest that is known without reading, if the file is settled.
    pub(crate) fn remember_settled(&self, stat: &FileStat, digest: &str) {
        if stat.is_settled(SystemTime::now()) {
            self.remember(stat, digest);
        }
    }

    fn recall(&self, stat: &FileStat) -> Option<String> {
        let text = fs::read_to_string(self.inner.layout.stat_memo(stat.dev, stat.ino)).ok()?;
        let (key, digest) = text.strip_suffix('\n')?.rsplit_once(' ')?;
        (key == memo_key(stat) && is_digest(digest)).then(|| digest.to_owned())
    }

    /// A memo that cannot be written costs time, not truth: errors are dropped.
    fn remember(&self, stat: &FileStat, digest: &str) {
        let path = self.inner.layout.stat_memo(stat.dev, stat.ino);
        let _ = self.write_index(&path, format!("{} {digest}\n", memo_key(stat)).as_bytes());
    }
}

/// What the file at `path`, or the target of a symlink there, looks like.
pub(crate) fn stat(path: &Path) -> Result<FileStat, CacheError> {
    fs::metadata(path).map(|metadata| FileStat::of(&metadata)).map_err(CacheError::io("read", path))
}

/// The same, `None` if nothing is there.
pub(crate) fn stat_if_there(path: &Path) -> Result<Option<FileStat>, CacheError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(FileStat::of(&metadata))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(CacheError::Io { verb: "read", path: path.to_path_buf(), source }),
    }
}

/// The version word first: what an older or newer pipe wrote is not recalled.
fn memo_key(stat: &FileStat) -> String {
    format!("1 {} {} {} {} {}", stat.dev, stat.ino, stat.size_bytes, stat.mtime_ns, stat.ctime_ns)
}

fn nanoseconds(seconds: i64, rest_ns: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest_ns)
}
