//! Why the store could not do something.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store could not do something: what, where, why.
///
/// A manifest that cannot be read is never one of these: it is a miss.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The operating system refused.
    #[error("failed to {verb} `{}`", path.display())]
    Io {
        /// `read`, `write`, `create`, ...
        verb: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A folder with other things in it was given as the store.
    #[error("`{}` is not a store: it holds files, but no `FORMAT`; name an empty or a new folder", root.display())]
    NotAStore {
        /// The folder.
        root: PathBuf,
    },
    /// Made by another version of pipe.
    #[error("the store `{}` has format `{found}`, and this pipe reads `{expected}`; name another folder", root.display())]
    UnknownFormat {
        /// The store's folder.
        root: PathBuf,
        /// What its `FORMAT` says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// A fingerprint, semantic key, trajectory or run id that cannot be a file name here.
    #[error("`{key}` cannot be a key: 2 to 128 characters from `a-z`, `A-Z`, `0-9`, `-`, `_` and `.`, no dot first")]
    BadKey {
        /// The key.
        key: String,
    },
    /// A digest that is not 64 hex digits.
    #[error("`{digest}` of file `{name}` is not a digest: 64 lowercase hex digits")]
    BadDigest {
        /// The file's name.
        name: String,
        /// The digest.
        digest: String,
    },
    /// An output holds a symlink, socket, pipe or device.
    #[error("output `{port}` holds `{name}`, which is a {what}; only regular files can be published")]
    NotAFile {
        /// Output port.
        port: String,
        /// Name inside the artifact.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// A file name that cannot be used on every machine.
    #[error("output `{port}` holds `{name}`: a name must be UTF-8, relative and without `.` and `..`")]
    BadName {
        /// Output port.
        port: String,
        /// Name inside the artifact, unreadable parts replaced.
        name: String,
    },
    /// The same name was written as a file and published by reference, or referenced twice.
    #[error("output `{port}` has the file `{name}` twice")]
    DuplicateName {
        /// Output port.
        port: String,
        /// Name inside the artifact.
        name: String,
    },
    /// The stage wrote to a port that it does not have.
    #[error("files were written to output `{port}`, which the stage does not declare")]
    UndeclaredOutput {
        /// Output port.
        port: String,
    },
    /// The stage left a declared port empty.
    #[error("no file was written to output `{port}`")]
    EmptyOutput {
        /// Output port.
        port: String,
    },
    /// Someone wrote to a file while it was read.
    #[error("`{}` changed while it was read; run again when it is at rest", path.display())]
    ChangedWhileReading {
        /// The file.
        path: PathBuf,
    },
    /// A pin that does not say what it keeps: nothing can be removed then.
    #[error("the pin `{}` cannot be read; remove it and pin again", path.display())]
    BadPin {
        /// Its file.
        path: PathBuf,
    },
    /// A manifest has no such port.
    #[error("the manifest of `{fingerprint}` has no output `{port}`")]
    UnknownPort {
        /// The manifest's fingerprint.
        fingerprint: String,
        /// The port asked for.
        port: String,
    },
    /// The bytes that an artifact needs are not there any more.
    #[error("the bytes of `{name}` are gone or changed at `{}`; a run makes them again", path.display())]
    Gone {
        /// Name inside the artifact.
        name: String,
        /// Where they should be.
        path: PathBuf,
    },
}

impl CacheError {
    /// `failed to {verb} {path}`, for `map_err`.
    pub(crate) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
        move |source| CacheError::Io { verb, path: path.to_path_buf(), source }
    }
}
