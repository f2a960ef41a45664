//! Where things lie below the store's folder, and which words may be file names there.

use std::path::{Component, Path, PathBuf};

use crate::CacheError;

/// Longer than a digest with a prefix, shorter than any file system's limit on a name.
const KEY_LENGTH_MAX: usize = 128;

/// The store's folders and files; makes none of them.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// `root` must be absolute: paths from here are handed to stages that may run elsewhere.
    pub(crate) fn new(root: PathBuf) -> Self {
        debug_assert!(root.is_absolute());
        Layout { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn format(&self) -> PathBuf {
        self.root.join("FORMAT")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// The blob of a digest of 64 hex digits.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        fanned(self.blobs(), digest)
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    /// The manifest of a checked fingerprint.
    pub(crate) fn manifest(&self, fingerprint: &str) -> PathBuf {
        fanned(self.manifests(), fingerprint)
    }

    pub(crate) fn divergences(&self) -> PathBuf {
        self.root.join("divergences")
    }

    pub(crate) fn corrupt(&self) -> PathBuf {
        self.root.join("corrupt")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// The locks of collecting garbage, and `holds/`.
    pub(crate) fn gc(&self) -> PathBuf {
        self.root.join("gc")
    }

    pub(crate) fn holds(&self) -> PathBuf {
        self.gc().join("holds")
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    /// Everything below here may be deleted at any time.
    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("idx")
    }

    pub(crate) fn stat_memo(&self, dev: u64, ino: u64) -> PathBuf {
        self.index().join("stat").join(dev.to_string()).join(ino.to_string())
    }

    pub(crate) fn semantic(&self) -> PathBuf {
        self.index().join("semantic")
    }

    /// The fingerprints whose executions left the training state of a trajectory.
    pub(crate) fn results_of(&self, trajectory: &str) -> PathBuf {
        self.index().join("trajectory").join(trajectory)
    }

    pub(crate) fn memo(&self, name: &str) -> PathBuf {
        self.index().join("memo").join(blake3::hash(name.as_bytes()).to_hex().as_str())
    }
}

/// `folder/ab/abcdef...`: 256 folders keep each of them short.
pub(crate) fn fanned(folder: PathBuf, key: &str) -> PathBuf {
    folder.join(&key[..2]).join(key)
}

/// Refuses a key that could leave its folder or be hidden in it.
pub(crate) fn check_key(key: &str) -> Result<(), CacheError> {
    let is_fit = (2..=KEY_LENGTH_MAX).contains(&key.len())
        && !key.starts_with('.')
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if is_fit { Ok(()) } else { Err(CacheError::BadKey { key: key.to_owned() }) }
}

/// Whether `name` stays inside the folder it is joined to and means the same on every machine.
pub(crate) fn is_safe_name(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\\', '\0'])
        && !name.ends_with('/')
        && !name.contains("//")
        && !name.split('/').any(|part| part == ".")
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_leave_their_folder() {
        for good in ["ab", "0f3c", "t_8-dropout.1"] {
            assert!(check_key(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "..", ".hidden", "a/b", "a\\b", "é1", &"a".repeat(129)] {
            assert!(check_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_cannot_leave_their_folder() {
        for good in ["a", "a.b/c d/ü", "..a"] {
            assert!(is_safe_name(good), "{good}");
        }
        for bad in ["", "/a", "../a", "a/../b", "a/./b", "./a", "a//b", "a/", "a\\b", "a\0"] {
            assert!(!is_safe_name(bad), "{bad:?}");
        }
    }
}
