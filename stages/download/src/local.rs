//! Local files and folders: found relative to the pipeline file, listed, never copied.

use std::path::{Path, PathBuf};

use crate::error::DownloadError;

/// What a value of `dataset:`, `model:` or `adapter:` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file or folder, absolute.
    Local(PathBuf),
    /// `owner/name`, or a legacy id without owner.
    Hub(String),
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
    let expanded = match (from.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => base_dir.join(from),
    };
    if !from.is_empty() && expanded.exists() {
        let path = std::fs::canonicalize(&expanded).map_err(DownloadError::io("read", &expanded))?;
        return Ok(Place::Local(path));
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

fn is_hub_id(text: &str) -> bool {
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
