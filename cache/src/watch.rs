//! Watching files that the store does not hold: whether anybody touched them between two moments.
//!
//! It compares what files look like (device, inode, size, times) and deliberately reads no bytes: a file that was changed
//! and changed back was changed, and whoever read it meanwhile read something else.

use std::path::{Path, PathBuf};

use crate::stat_memo::{FileStat, stat_if_there};
use crate::{CacheError, Manifest};

/// How some files looked at one moment.
#[derive(Clone, Debug)]
pub struct Watch {
    seen: Vec<(PathBuf, Option<FileStat>)>,
}

impl Watch {
    /// Notes how the files look now; one that is not there may not come into being either.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Result<Watch, CacheError> {
        let look = |path: PathBuf| stat_if_there(&path).map(|seen| (path, seen));
        Ok(Watch { seen: paths.into_iter().map(look).collect::<Result<_, _>>()? })
    }

    /// The first file that does not look now as it did then.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn first_changed(&self) -> Result<Option<&Path>, CacheError> {
        for (path, before) in &self.seen {
            if stat_if_there(path)? != *before {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

impl Manifest {
    /// Where the files of an output lie that the store does not hold.
    pub fn external_paths(&self, port: &str) -> impl Iterator<Item = PathBuf> {
        let files = self.outputs.get(port).into_iter().flat_map(|artifact| artifact.files.values());
        files.filter_map(|file| file.external.as_ref()).map(|external| PathBuf::from(&external.path))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_file_that_was_changed_and_changed_back_was_changed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        fs::write(&path, "1").expect("writable");
        // Any age but that of a write now: a clock that counts in steps may give two writes one time.
        fs::File::open(&path).expect("there").set_modified(UNIX_EPOCH + Duration::from_secs(9)).expect("ours");
        let absent = folder.path().join("absent");
        let watch = Watch::new([path.clone(), absent.clone()]).expect("looked at");
        assert_eq!(watch.first_changed().expect("looked at"), None);
        fs::write(&path, "2").expect("writable");
        fs::write(&path, "1").expect("writable");
        assert_eq!(watch.first_changed().expect("looked at"), Some(path.as_path()));
        let watch = Watch::new([path, absent.clone()]).expect("looked at");
        fs::write(&absent, "").expect("writable");
        assert_eq!(watch.first_changed().expect("looked at"), Some(absent.as_path()));
    }
}
