//! `sources`: the files whose content is part of a stage's key, named in the pipeline file.
//!
//! ```text
//! sources: [s.py, ../lib]   ->   s.py, ../lib/a.py, ../lib/data/words.txt     relative to the pipeline file, sorted
//! ```
//!
//! A folder stands for all files in it, hidden ones too, but for `__pycache__`: Python writes those, from the sources.

use std::path::{Component, Path, PathBuf};

use crate::error::CommandError;

/// What Python keeps of modules it has compiled.
const COMPILED: &str = "__pycache__";

/// A name in `sources`, without `.` and without `..` behind a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As written.
    pub name: String,
    path: PathBuf,
}

impl Source {
    /// Reads a name, or says why it cannot be one.
    pub(crate) fn read(name: &str) -> Result<Self, &'static str> {
        if Path::new(name).is_absolute() {
            return Err("is absolute, but the key of a stage must not depend on where the pipeline lies");
        }
        let path = normal(Path::new(name));
        if path.components().all(|part| part == Component::ParentDir) {
            return Err("holds the pipeline file itself, and what runs write beside it");
        }
        Ok(Source { name: name.into(), path })
    }

    /// Whether the file at `path`, relative to the pipeline file, is one of it.
    pub(crate) fn covers(&self, path: &Path) -> bool {
        normal(path).starts_with(&self.path)
    }

    /// Where it lies.
    pub(crate) fn path(&self, base_dir: &Path) -> PathBuf {
        base_dir.join(&self.path)
    }
}

/// `a/./b/../c` as `a/c`; `..` in front stays.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(normal.components().next_back(), Some(Component::Normal(_))) => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// The names of all files that `sources` stand for, sorted, each once.
pub(crate) fn files(base_dir: &Path, sources: &[Source]) -> Result<Vec<String>, CommandError> {
    let mut names = Vec::new();
    for source in sources {
        let path = source.path(base_dir);
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => walk(&path, &source.path, &mut names)?,
            Ok(_) => names.push(text(&source.path)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(CommandError::NoSource { name: source.name.clone() });
            }
            Err(error) => return Err(CommandError::io("read", &path)(error)),
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn walk(folder: &Path, name: &Path, names: &mut Vec<String>) -> Result<(), CommandError> {
    for entry in std::fs::read_dir(folder).map_err(CommandError::io("read the folder", folder))? {
        let entry = entry.map_err(CommandError::io("read the folder", folder))?;
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        let is_link = entry.file_type().map_err(CommandError::io("read", &path))?.is_symlink();
        let metadata = std::fs::metadata(&path).map_err(CommandError::io("read", &path))?;
        let bad = |what| CommandError::BadSource { name: name.display().to_string(), what };
        match (metadata.is_dir(), is_link) {
            // It may lead back to where it lies.
            (true, true) => return Err(bad("is a symlink to a folder")),
            (true, false) if entry.file_name() == COMPILED => {}
            (true, false) => walk(&path, &name, names)?,
            (false, _) if metadata.is_file() => names.push(text(&name)?),
            (false, _) => return Err(bad("is neither a file nor a folder")),
        }
    }
    Ok(())
}

fn text(name: &Path) -> Result<String, CommandError> {
    name.to_str().map(str::to_string).ok_or_else(|| CommandError::BadSource {
        name: name.display().to_string(),
        what: "has a name that is not UTF-8",
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn source(name: &str) -> Source {
        Source::read(name).expect("a good name")
    }

    #[test]
    fn names_are_relative_and_lead_to_less_than_everything() {
        for (name, is_good) in [
            ("s.py", true),
            ("../lib/s.py", true),
            ("./a/../b", true),
            ("/etc/hosts", false),
            (".", false),
            ("..", false),
            ("a/..", false),
            ("", false),
        ] {
            assert_eq!(Source::read(name).is_ok(), is_good, "{name}");
        }
        assert!(source("./lib/").covers(Path::new("lib/a.py")));
        assert!(source("lib").covers(Path::new("x/../lib/a.py")));
        assert!(!source("lib").covers(Path::new("library.py")));
    }

    #[test]
    fn folders_are_walked_and_names_sorted() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let base_dir = folder.path().join("here");
        for name in ["here/b.py", "here/lib/z.py", "here/lib/.hidden", "here/lib/__pycache__/z.pyc", "there/c.py"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, name).expect("written");
        }
        std::os::unix::fs::symlink("../../there/c.py", base_dir.join("lib/link.py")).expect("made");
        let names = |sources: &[&str]| {
            let sources: Vec<Source> = sources.iter().map(|name| source(name)).collect();
            files(&base_dir, &sources)
        };
        let found = names(&["lib", "b.py", "../there", "./lib/z.py"]).expect("all are there");
        assert_eq!(found, ["../there/c.py", "b.py", "lib/.hidden", "lib/link.py", "lib/z.py"]);
        assert!(matches!(names(&["c.py"]), Err(CommandError::NoSource { .. })));
        std::os::unix::fs::symlink("..", base_dir.join("lib/up")).expect("made");
        assert!(matches!(names(&["lib"]), Err(CommandError::BadSource { .. })));
    }
}
