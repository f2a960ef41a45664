//! What can go wrong in `train` besides the model and the packs.

use std::path::PathBuf;

use pipe_contract::StageError;

/// Errors of this stage kind.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The adapter to start from disagrees with `lora:`.
    #[error("`lora.{field}` is {ours}, but the adapter on port `adapter` has {theirs}")]
    StartDisagrees {
        /// Hugging Face's name of the setting.
        field: &'static str,
        /// In the pipeline.
        ours: String,
        /// In the adapter.
        theirs: String,
    },
    /// The packs have token ids that the model has no rows for.
    #[error("the packs were made for a vocabulary of {packs}, but the model has {model}")]
    VocabularyTooSmall {
        /// Of the packs.
        packs: u64,
        /// Of the model.
        model: usize,
    },
    /// An adapter to start from, with `method: full`.
    #[error("`method: full` trains the model itself, but an adapter is connected to port `adapter`")]
    AdapterWithFull,
    /// No pack has a supervised token.
    #[error("the {n_packs} packs have no supervised token: there is nothing to learn")]
    NothingToLearn {
        /// How many there are.
        n_packs: u64,
    },
    /// Flags of `pipe bench train` that the settings refuse.
    #[error("{why}")]
    BenchSettings {
        /// What the settings say.
        why: String,
    },
    /// Packs that cannot be made up.
    #[error("{why}")]
    BenchPacks {
        /// What does not fit.
        why: String,
    },
    /// A file of token ids to measure with.
    #[error("`{}` cannot be used: {why}", path.display())]
    BenchIds {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No `target_modules` for a family that PEFT has no default for.
    #[error("`lora.target_modules` is not given, and PEFT has no default for `{family}`")]
    NoDefaultTargets {
        /// transformers' class of the model.
        family: &'static str,
        /// Names of its linear modules.
        modules: Vec<String>,
    },
    /// No pack on port `eval` has a supervised token.
    #[error("the {n_packs} packs on port `eval` have no supervised token: there is no loss to compute")]
    NothingToEvaluate {
        /// How many there are.
        n_packs: usize,
    },
    /// A loss on port `eval` that is no number.
    #[error("the loss on port `eval` is {loss} after optimizer step {optimizer_step}")]
    EvalNotFinite {
        /// As computed.
        loss: f64,
        /// Optimizer steps taken.
        optimizer_step: u64,
    },
    /// A curve as a picture.
    #[error("failed to draw `{name}`")]
    Picture {
        /// Without its end.
        name: &'static str,
        /// Why.
        source: pipe_plot::PlotError,
    },
    /// A file of this stage.
    #[error("failed to {verb} `{}`", path.display())]
    Io {
        /// `read` or `write`.
        verb: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl From<TrainError> for StageError {
    fn from(error: TrainError) -> Self {
        let listed;
        let (slug, help) = match &error {
            TrainError::NoDefaultTargets { modules, .. } => {
                listed = format!("name some of {}, or set `target_modules: all-linear`", modules.join(", "));
                ("no-targets", listed.as_str())
            }
            TrainError::StartDisagrees { .. } => {
                ("adapter", "leave the setting out to take the adapter's, or start fresh")
            }
            TrainError::AdapterWithFull => {
                ("adapter", "take the adapter away, or `export` it merged and train the merged model")
            }
            TrainError::VocabularyTooSmall { .. } => ("model-input", "give `tokenize` and `train` the same model"),
            TrainError::NothingToLearn { .. } => (
                "nothing-to-learn",
                "look at the labels with `pipe show`; is `max_length` too short for the completions?",
            ),
            TrainError::BenchSettings { .. } | TrainError::BenchPacks { .. } => {
                ("bad-argument", "`pipe bench train --help` lists the arguments")
            }
            TrainError::BenchIds { .. } => (
                "bad-ids",
                "it has `input_ids` of shape (N, T), and may have `labels`, `position_ids`, `doc_ids`, `attention_mask`",
            ),
            TrainError::NothingToEvaluate { .. } => (
                "nothing-to-evaluate",
                "look at the labels with `pipe show`; is `max_length` too short for the completions?",
            ),
            TrainError::EvalNotFinite { .. } => (
                "not-finite",
                "lower `learning_rate`, or raise `warmup_steps`; a checkpoint that was saved before is kept",
            ),
            TrainError::Picture { .. } | TrainError::Io { .. } => ("io", "is the disk full, or the folder read-only?"),
        };
        let stage_error = StageError::user(slug, error.to_string()).help(help);
        match error {
            TrainError::Picture { source, .. } => stage_error.because(source),
            TrainError::Io { source, .. } => stage_error.because(source),
            _ => stage_error,
        }
    }
}
