//! What a reviewer would otherwise have to say again and again: source text in, violations with file and line out.
//!
//! ```text
//! imports   who may depend on whom (ARCHITECTURE.md draws it)
//! files     length of files, forgotten files, unsafe, size of fixtures, links that lead nowhere
//! words     the words of GLOSSARY.md, paths of a developer's machine
//! stages    the table in stages/README.md, the rooms of a stage crate
//! versions  stages/versions.lock: a changed implementation is a new version, or was looked at
//! ```
//!
//! It reads text and never builds anything, so that it is quick. It does not judge style that rustfmt or clippy see.

mod cargo;
mod files;
mod imports;
#[cfg(feature = "stages")]
mod lockfile;
#[cfg(feature = "stages")]
mod stages;
mod tree;
#[cfg(feature = "stages")]
mod versions;
mod words;

/// Fails with all of `violations`, one a line.
fn report(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}:\n  {}\n", violations.join("\n  "));
}
