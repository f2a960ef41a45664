//! Pins: what a user wants kept, whatever else is removed.
//!
//! ```text
//! pins/<name>       pipe-pin 1
//!                   <fingerprint>        one line for each
//! ```
//!
//! The name is a run's id or a fingerprint; a pin keeps what was pinned, whatever becomes of the run. It deliberately keeps no
//! training state: that is scratch.

use std::fs;
use std::path::PathBuf;

use crate::layout::check_key;
use crate::store::entries;
use crate::{CacheError, Store};

/// The first line of a pin.
const FORMAT: &str = "pipe-pin 1";

/// One pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// What was pinned: a run's id or a fingerprint.
    pub name: String,
    /// The manifests whose files it keeps.
    pub fingerprints: Vec<String>,
}

impl Store {
    /// Keeps the files of these fingerprints until [`Store::unpin`]; replaces a pin of the same name.
    ///
    /// # Errors
    /// When the disk refuses, or the name or a fingerprint cannot be a key.
    pub fn pin(&self, name: &str, fingerprints: &[&str]) -> Result<(), CacheError> {
        // A `gc` that runs now has read the pins already.
        self.hold(fingerprints, &[])?;
        let attempt = self.begin(name)?;
        let text: String = std::iter::once(&FORMAT).chain(fingerprints).map(|line| format!("{line}\n")).collect();
        self.write_manifest(&attempt, &text, &self.inner.layout.pins().join(name))
    }

    /// Removes a pin. Returns whether there was one.
    ///
    /// # Errors
    /// When the disk refuses, or the name cannot be a key.
    pub fn unpin(&self, name: &str) -> Result<bool, CacheError> {
        check_key(name)?;
        let (folder, disk) = (self.inner.layout.pins(), &self.inner.disk);
        let path = folder.join(name);
        if !path.exists() {
            return Ok(false);
        }
        disk.remove_file(&path).map_err(CacheError::io("remove", &path))?;
        disk.sync_folder(&folder).map_err(CacheError::io("sync", &folder))?;
        Ok(true)
    }

    /// Every pin, by name.
    ///
    /// # Errors
    /// When one cannot be read: then it is not known what it keeps.
    pub fn pins(&self) -> Result<Vec<Pin>, CacheError> {
        let mut paths = entries(&self.inner.layout.pins())?;
        paths.sort();
        paths.into_iter().map(read).collect()
    }
}

fn read(path: PathBuf) -> Result<Pin, CacheError> {
    let text = fs::read_to_string(&path).map_err(CacheError::io("read", &path))?;
    let mut lines = text.lines();
    let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    match (lines.next(), name) {
        (Some(FORMAT), Some(name)) => {
            let fingerprints: Vec<String> = lines.map(str::to_owned).collect();
            if text.ends_with('\n') && fingerprints.iter().all(|fingerprint| check_key(fingerprint).is_ok()) {
                return Ok(Pin { name, fingerprints });
            }
            Err(CacheError::BadPin { path })
        }
        _ => Err(CacheError::BadPin { path }),
    }
}
