//! The files of the checkout: paths relative to its root, with `/`, sorted.

use std::path::{Path, PathBuf};

/// Made by a build, a run or Python; and what is not ours.
const SKIPPED: [&str; 5] = ["target", "out", "__pycache__", "venv", "node_modules"];

/// A text file of the checkout.
pub(crate) struct TextFile {
    /// Relative to the root, `/` between folders.
    pub(crate) path: String,
    /// Its content.
    pub(crate) text: String,
}

impl TextFile {
    /// Line number (from 1) and line, without the unit tests at the end of a Rust file.
    pub(crate) fn lines_without_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let n_lines = line_of_tests(&self.text).unwrap_or(usize::MAX);
        self.text.lines().enumerate().take(n_lines).map(|(index, line)| (index + 1, line))
    }

    /// Line number (from 1) and line, without unit tests and without the lines that are only a comment.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines_without_tests().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Whether it holds tests only: a file in a folder `tests`, or a module called `tests`.
    pub(crate) fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }
}

/// Number of lines before `#[cfg(test)]` in front of a module: unit tests stand last.
fn line_of_tests(text: &str) -> Option<usize> {
    let lines: Vec<&str> = text.lines().collect();
    (0..lines.len())
        .find(|&i| lines[i] == "#[cfg(test)]" && lines.get(i + 1).is_some_and(|next| next.starts_with("mod ")))
}

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file: path below the root, and size in bytes.
pub(crate) fn all_files() -> Vec<(String, u64)> {
    let mut files = Vec::new();
    walk(&root(), "", &mut files);
    files.sort();
    files
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<(String, u64)>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the checkout can be read") {
        let entry = entry.expect("a folder of the checkout can be read");
        let name = entry.file_name().to_string_lossy().into_owned();
        let file_type = entry.file_type().expect("the file system gives the type");
        let is_hidden = name.starts_with('.') && name != ".ci" && name != ".gitignore";
        if is_hidden || SKIPPED.contains(&name.as_str()) {
            continue;
        }
        let path = format!("{prefix}{name}");
        if file_type.is_dir() {
            walk(&entry.path(), &format!("{path}/"), files);
        } else if let Ok(metadata) = entry.metadata() {
            files.push((path, metadata.len()));
        }
    }
}

/// Every file that is UTF-8 text and passes `wanted`.
pub(crate) fn text_files(wanted: impl Fn(&str) -> bool) -> Vec<TextFile> {
    let read = |(path, _): (String, u64)| {
        // A file that another process just removed is none of ours.
        let text = String::from_utf8(std::fs::read(root().join(&path)).ok()?).ok()?;
        Some(TextFile { path, text })
    };
    all_files().into_iter().filter(|(path, _)| wanted(path)).filter_map(read).collect()
}

/// Every Rust file.
pub(crate) fn rust_files() -> Vec<TextFile> {
    text_files(|path| path.ends_with(".rs"))
}

#[test]
fn unit_tests_do_not_count_as_lines() {
    let text = "//! Docs.\nfn f() {}\n\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n".to_string();
    let file = TextFile { path: "src/f.rs".into(), text };
    assert_eq!(file.lines_without_tests().count(), 3);
    assert_eq!(file.code_lines().map(|(number, _)| number).collect::<Vec<_>>(), [2, 3]);
}
