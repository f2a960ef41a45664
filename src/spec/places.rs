//! `to:`: no two outputs may be copied over each other.
//!
//! ```text
//! a: { to: out }, b: { to: ./out/ }     both give `rows`: the same folder out/rows, refused
//! a: { to: out }, b: { to: out }        one gives `adapter`, the other `metrics`: fine
//! ```
//!
//! It compares paths as written, from the current folder on, and deliberately follows no links.

use std::path::{Component, Path, PathBuf};

use super::findings::Findings;
use super::wire::Part;

/// Reports every stage whose folder for an output is that of an earlier stage, or lies in it or around it.
pub(super) fn check(parts: &[Part], findings: &mut Findings) {
    let mut taken: Vec<(usize, PathBuf)> = Vec::new();
    for (position, part) in parts.iter().enumerate() {
        let (Some((to, node)), Some(built)) = (part.written.to.as_deref(), &part.built) else { continue };
        let folders = built.outputs.iter().map(|output| normalize(&to.join(&output.name)));
        let folders: Vec<PathBuf> = folders.collect();
        let clash = folders.iter().find_map(|folder| {
            let is_same = |(_, other): &&(usize, PathBuf)| folder.starts_with(other) || other.starts_with(folder);
            taken.iter().find(is_same).map(|(first, _)| (*first, folder))
        });
        if let Some((first, folder)) = clash {
            let first = &parts[first].written;
            let message = format!(
                "stages `{}` and `{}` would be copied over each other in `{}`",
                first.name,
                part.written.name,
                folder_as_written(to, folder)
            );
            let help = match differing_variable(&first.name, &part.written.name) {
                Some(variable) => {
                    format!("put what tells them apart into `to`, such as `${{{{ matrix.{variable} }}}}`")
                }
                None => {
                    let place = findings.place(first.name_span);
                    format!("give each a `to` of its own (`{}` is at {place})", first.name)
                }
            };
            findings.error_at_value("same-to", node, message).help = Some(help);
        }
        taken.extend(folders.into_iter().map(|folder| (position, folder)));
    }
}

/// The first variable whose values differ, of two instances of a stage.
fn differing_variable<'n>(first: &'n str, second: &'n str) -> Option<&'n str> {
    let ((stage, first), (other, second)) = (first.split_once('@')?, second.split_once('@')?);
    let differing = first.split(',').zip(second.split(',')).find(|(first, second)| first != second);
    let (first, _) = differing.filter(|_| stage == other)?;
    first.split('=').next()
}

/// `to` and the port.
fn folder_as_written(to: &Path, folder: &Path) -> String {
    to.join(folder.file_name().unwrap_or_default()).display().to_string()
}

/// An absolute path without `.` and `..`, so that two ways of writing it are one.
pub(crate) fn normalize(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut normal = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_of_a_stage_are_told_apart_by_a_variable() {
        assert_eq!(differing_variable("a@lr=1,r=8", "a@lr=1,r=16"), Some("r"));
        assert_eq!(differing_variable("a@lr=1", "b@lr=2"), None);
        assert_eq!(differing_variable("a", "a@lr=2"), None);
    }

    #[test]
    fn two_ways_of_writing_a_path_are_one() {
        assert_eq!(normalize(Path::new("out/./a/../b/")), normalize(Path::new("out/b")));
        assert_eq!(normalize(Path::new("/a/../../b")), Path::new("/b"));
    }
}
