//! The stage kinds a pipeline can name: the word after `uses:` to its [`StageKind`].
//!
//! This is the only file that names stage crates; everything else sees the contract. Without the feature `stages` the
//! registry is empty, which is how the runner is built and tested alone.

use pipe_contract::StageKind;

/// What `pipe bench` measures: the train stage's own code, with a clock.
#[cfg(feature = "stages")]
pub use pipe_stage_train::bench;

/// The kinds of a build, in the order of the data path.
#[derive(Clone)]
pub struct Registry(Vec<&'static dyn StageKind>);

impl Registry {
    /// A registry of `kinds`, in the order in which tables show them.
    ///
    /// # Panics
    /// When two kinds have one name: a mistake in the program that lists them.
    pub fn new(kinds: Vec<&'static dyn StageKind>) -> Self {
        for (position, kind) in kinds.iter().enumerate() {
            let is_first = kinds[..position].iter().all(|other| other.name() != kind.name());
            assert!(is_first, "two stage kinds are called `{}`", kind.name());
        }
        Registry(kinds)
    }

    /// The kind called `name`.
    pub fn get(&self, name: &str) -> Option<&'static dyn StageKind> {
        self.0.iter().copied().find(|kind| kind.name() == name)
    }

    /// The names of all kinds.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|kind| kind.name()).collect()
    }

    /// All kinds.
    pub fn kinds(&self) -> &[&'static dyn StageKind] {
        &self.0
    }
}

/// Every kind of this build.
pub fn builtin() -> Registry {
    #[cfg(feature = "stages")]
    let kinds: Vec<&'static dyn StageKind> = vec![
        &pipe_stage_download::KIND,
        &pipe_stage_format::KIND,
        &pipe_stage_init::KIND,
        &pipe_stage_analyze::KIND,
        &pipe_stage_tokenize::KIND,
        &pipe_stage_train::KIND,
        &pipe_stage_evaluate::KIND,
        &pipe_stage_generate::KIND,
        &pipe_stage_export::KIND,
    ];
    #[cfg(not(feature = "stages"))]
    let kinds: Vec<&'static dyn StageKind> = vec![];
    Registry::new(kinds)
}
