//! The stage kinds a pipeline can name: the word after `uses:` to its [`StageKind`].
//!
//! This is the only file that names stage crates; everything else sees the contract. Without the feature `stages` the
//! registry has `command` alone, which is how the runner is built and tested.

use std::path::{Path, PathBuf};

use pipe_contract::{StageError, StageKind};

/// What `pipe bench` measures: the train stage's own code, with a clock.
#[cfg(feature = "stages")]
pub use pipe_stage_train::bench;
/// What `pipe doctor --device cuda` compares: the engines of the train stage.
#[cfg(feature = "cuda")]
pub use pipe_stage_train::parity;

/// What the kernels of this build run with on this host; `None` in a build without stages.
pub fn instruction_set() -> Option<String> {
    #[cfg(feature = "stages")]
    return Some(bench::InstructionSet::of_host().to_string());
    #[cfg(not(feature = "stages"))]
    None
}

/// The hub as the environment has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// Its address.
    pub endpoint: String,
    /// Where downloads lie.
    pub cache: PathBuf,
    /// Whether it must not be asked.
    pub is_offline: bool,
    /// Whether questions carry a credential.
    pub has_credential: bool,
}

/// Where downloads come from, as the stage kind sees it; `None` in a build without stages.
pub fn hub() -> Option<Hub> {
    #[cfg(feature = "stages")]
    {
        let environment = pipe_stage_download::environment::Environment::of_process();
        let has_credential = environment.credential.is_some();
        let pipe_stage_download::environment::Environment { endpoint, cache, is_offline, .. } = environment;
        Some(Hub { endpoint, cache, is_offline, has_credential })
    }
    #[cfg(not(feature = "stages"))]
    None
}

/// A name and two paths to what differs first between the two files; `None` if nothing does.
type FirstDifference = fn(&str, &Path, &Path) -> Result<Option<String>, StageError>;

/// The kinds of a build, in the order of the data path, and what it knows of their files.
#[derive(Clone)]
pub struct Registry {
    kinds: Vec<&'static dyn StageKind>,
    first_difference: FirstDifference,
}

impl Registry {
    /// A registry of `kinds`, in the order in which tables show them. Their files are bytes to it.
    ///
    /// # Panics
    /// When two kinds have one name: a mistake in the program that lists them.
    pub fn new(kinds: Vec<&'static dyn StageKind>) -> Self {
        for (position, kind) in kinds.iter().enumerate() {
            let is_first = kinds[..position].iter().all(|other| other.name() != kind.name());
            assert!(is_first, "two stage kinds are called `{}`", kind.name());
        }
        Registry { kinds, first_difference: |_, before, now| pipe_difference::first_differing_byte(before, now) }
    }

    /// The kind called `name`.
    pub fn get(&self, name: &str) -> Option<&'static dyn StageKind> {
        self.kinds.iter().copied().find(|kind| kind.name() == name)
    }

    /// The names of all kinds.
    pub fn names(&self) -> Vec<&'static str> {
        self.kinds.iter().map(|kind| kind.name()).collect()
    }

    /// All kinds.
    pub fn kinds(&self) -> &[&'static dyn StageKind] {
        &self.kinds
    }

    /// What differs first between two files that an artifact has under `name`: a tensor, column, key, line or byte, with
    /// both values; `None` if their bytes are equal.
    ///
    /// # Errors
    /// `io` when one of them cannot be read.
    pub fn first_difference(&self, name: &str, before: &Path, now: &Path) -> Result<Option<String>, StageError> {
        (self.first_difference)(name, before, now)
    }
}

/// Every kind of this build.
pub fn builtin() -> Registry {
    #[cfg(feature = "stages")]
    return Registry {
        first_difference: pipe_difference::first_difference,
        ..Registry::new(vec![
            &pipe_stage_download::KIND,
            &pipe_stage_prepare::KIND,
            &pipe_stage_format::KIND,
            &pipe_stage_init::KIND,
            &pipe_stage_extend::KIND,
            &pipe_stage_analyze::KIND,
            &pipe_stage_tokenize::KIND,
            &pipe_stage_train::KIND,
            &pipe_stage_evaluate::KIND,
            &pipe_stage_generate::KIND,
            &pipe_stage_export::KIND,
            &pipe_stage_command::KIND,
        ])
    };
    #[cfg(not(feature = "stages"))]
    Registry::new(vec![&pipe_stage_command::KIND])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(registry: &Registry, name: &str) -> Option<String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let paths = ["before", "now"].map(|side| folder.path().join(side));
        std::fs::write(&paths[0], "{\"r\": 8}").expect("a file");
        std::fs::write(&paths[1], "{\"r\": 9}").expect("a file");
        assert_eq!(registry.first_difference(name, &paths[0], &paths[0]).expect("it can be read"), None);
        registry.first_difference(name, &paths[0], &paths[1]).expect("both can be read")
    }

    #[test]
    fn files_of_unknown_kinds_are_bytes() {
        let found = difference(&Registry::new(vec![]), "a.json");
        assert_eq!(found.as_deref(), Some("byte 6 (counted from 0): 0x38 -> 0x39"));
    }

    #[test]
    #[cfg(feature = "stages")]
    fn files_of_this_builds_kinds_have_forms() {
        assert_eq!(difference(&builtin(), "a.json").as_deref(), Some("`r`: 8 -> 9"));
    }
}
