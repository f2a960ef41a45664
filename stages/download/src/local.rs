//! What a value such as `dataset:` means; local files and folders: found relative to the pipeline file, listed, never copied.

use std::path::{Path, PathBuf};

use crate::error::DownloadError;
use crate::glob::{is_pattern, matches_path, split_pattern};

/// What a value of `dataset:`, `model:` or `adapter:` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file or folder, absolute.
    Local(PathBuf),
    /// The files below a folder that match a pattern.
    LocalPattern {
        /// Absolute.
        folder: PathBuf,
        /// Below the folder: see [`crate::glob::matches_path`].
        pattern: String,
    },
    /// `owner/name`, or a legacy id without owner.
    Hub(String),
    /// `https://...`
    Web(String),
    /// `s3://...`
    S3(String),
}

/// Whether `from` is an address of a file.
pub fn is_web(from: &str) -> bool {
    from.starts_with("https://") || from.starts_with("http://")
}

/// Whether `from` is an object, folder or pattern of S3.
pub fn is_s3(from: &str) -> bool {
    from.starts_with("s3://")
}

/// Whether `from` is written as a path: `./x`, `../x`, `/x`, `~/x`, `.`, `~`.
pub fn is_path(from: &str) -> bool {
    from.starts_with(['.', '/', '~'])
}

/// A path if it is written as one or exists beside the pipeline file in `base_dir`; else a hub id.
///
/// # Errors
/// `NotFoundLocally` for a path to nothing, `NotAName` for what can be no hub id.
pub fn find(from: &str, base_dir: &Path, home: Option<&Path>) -> Result<Place, DownloadError> {
    if is_web(from) {
        return Ok(Place::Web(from.to_string()));
    }
    if is_s3(from) {
        return Ok(Place::S3(from.to_string()));
    }
    let expanded = match (from.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => base_dir.join(from),
    };
    if !from.is_empty() && expanded.exists() {
        let path = std::fs::canonicalize(&expanded).map_err(DownloadError::io("read", &expanded))?;
        return Ok(Place::Local(path));
    }
    if is_pattern(from) {
        let (folder, pattern) = split_pattern(from);
        // The root folder is cut off with its slash.
        let folder = if folder.is_empty() && from.starts_with('/') { "/" } else { folder };
        let Place::Local(folder) = find(if folder.is_empty() { "." } else { folder }, base_dir, home)? else {
            return Err(DownloadError::NotFoundLocally { path: base_dir.join(folder) });
        };
        return Ok(Place::LocalPattern { folder, pattern: pattern.to_string() });
    }
    if is_path(from) {
        return Err(DownloadError::NotFoundLocally { path: expanded });
    }
    if is_hub_id(from) {
        Ok(Place::Hub(from.to_string()))
    } else {
        Err(DownloadError::NotAName { from: from.to_string() })
    }
}

/// The names below `folder` that match `pattern`, sorted.
///
/// # Errors
/// `Io` when a folder cannot be read, `NoMatch` when none does.
pub fn matching(folder: &Path, pattern: &str) -> Result<Vec<String>, DownloadError> {
    let (_, all) = list(folder)?;
    let found: Vec<String> = all.iter().filter(|name| matches_path(pattern, name)).cloned().collect();
    if found.is_empty() {
        let place = format!("`{}`", folder.display());
        return Err(DownloadError::NoMatch { place, patterns: vec![pattern.to_string()], found: all });
    }
    Ok(found)
}

/// The files at `path`: its folder and its names below that folder, sorted. A file is alone; hidden files are left out.
///
/// # Errors
/// `Io` when a folder cannot be read.
pub fn list(path: &Path) -> Result<(PathBuf, Vec<String>), DownloadError> {
    if !path.is_dir() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok((path.parent().unwrap_or(path).to_path_buf(), vec![name]));
    }
    let mut names = Vec::new();
    walk(path, "", &mut names)?;
    names.sort();
    Ok((path.to_path_buf(), names))
}

fn walk(folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<(), DownloadError> {
    for entry in std::fs::read_dir(folder).map_err(DownloadError::io("read", folder))? {
        let entry = entry.map_err(DownloadError::io("read", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            walk(&path, &format!("{prefix}{name}/"), names)?;
        } else {
            names.push(format!("{prefix}{name}"));
        }
    }
    Ok(())
}

/// Whether `text` is `owner/name`, or a legacy name.
pub(crate) fn is_hub_id(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let is_part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    parts.len() <= 2 && parts.into_iter().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_path_if_it_exists_or_is_written_as_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("owner/name")).unwrap();
        let find = |from: &str| find(from, dir.path(), Some(dir.path()));
        assert!(matches!(find("owner/name"), Ok(Place::Local(_))));
        assert!(matches!(find("~/owner"), Ok(Place::Local(_))));
        assert!(matches!(find("owner/other"), Ok(Place::Hub(id)) if id == "owner/other"));
        assert!(matches!(find("gpt2"), Ok(Place::Hub(_))));
        assert!(matches!(find("./owner/other"), Err(DownloadError::NotFoundLocally { .. })));
        for wrong in ["a/b/c", "", "a b", "a/", "a/..b"] {
            assert!(matches!(find(wrong), Err(DownloadError::NotAName { .. })), "{wrong}");
        }
    }
}
