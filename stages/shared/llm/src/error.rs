//! What can go wrong with a model, an adapter or a training run.

use std::path::PathBuf;

use pipe_contract::StageError;

use crate::config::Architecture;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum LlmError {
    /// `config.json` is not JSON.
    #[error("config.json is not valid JSON")]
    ConfigSyntax {
        /// The parser's words.
        source: serde_json::Error,
    },
    /// A field of `config.json` that cannot be used.
    #[error("config.json: `{field}` {why}")]
    Config {
        /// Its name.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// An architecture without a program.
    #[error("config.json: unknown architecture `{name}`; supported are {}", architectures())]
    UnknownArchitecture {
        /// As written.
        name: String,
    },
    /// A file that cannot be read or written.
    #[error("failed to {verb} `{}`", path.display())]
    Io {
        /// `read` or `write`.
        verb: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A weight file that cannot be read.
    #[error(transparent)]
    WeightFile(#[from] pipe_weights::WeightsError),
    /// Weights that do not fit the model.
    #[error("`{file}`: {why}")]
    Weights {
        /// Name of the file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// An adapter that does not fit, or that asks for what is not supported.
    #[error("adapter: {why}")]
    Adapter {
        /// What is wrong.
        why: String,
    },
    /// `freeze` that cannot be.
    #[error("freeze: {why}")]
    Freeze {
        /// What is wrong.
        why: String,
    },
    /// Input that a model cannot take.
    #[error("{why}")]
    Input {
        /// What is wrong.
        why: String,
    },
    /// One of the gates that stop a run that learns nothing.
    #[error("{why}")]
    Gate {
        /// A stable word: `not-finite`, `no-gradient`, `nothing-to-learn`.
        slug: &'static str,
        /// What was seen, where.
        why: String,
        /// What to do.
        help: String,
    },
    /// `device: cuda` on a build or machine without.
    #[error("`device: cuda` cannot be had")]
    NoCuda {
        /// Why.
        source: candle_core::Error,
    },
    /// The system has no memory for the values of a pass.
    #[error("the values of a pass need {:.2} GiB, which the system does not have", gib(*size_bytes as u64))]
    Memory {
        /// What was asked for.
        size_bytes: usize,
    },
    /// Less memory than the smallest way to train needs.
    #[error("training needs at least {:.2} GiB with packs of {n_tokens} tokens, but may take {:.2} GiB", gib(*needed), gib(*budget))]
    Budget {
        /// Bytes.
        needed: u64,
        /// Bytes.
        budget: u64,
        /// Of a pack.
        n_tokens: usize,
    },
    /// candle could not compute.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
}

fn architectures() -> String {
    let names = Architecture::ALL.map(|architecture| format!("`{}`", architecture.class_name()));
    names.join(", ")
}

fn gib(size_bytes: u64) -> f64 {
    size_bytes as f64 / (1u64 << 30) as f64
}

impl LlmError {
    pub(crate) fn config(field: &str, why: impl Into<String>) -> Self {
        LlmError::Config { field: field.to_string(), why: why.into() }
    }

    pub(crate) fn beyond_positions(position: u32, n_positions: usize) -> Self {
        LlmError::Input { why: format!("position {position} is beyond the {n_positions} tokens that were planned for") }
    }

    pub(crate) fn io(verb: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        LlmError::Io { verb, path: path.to_path_buf(), source }
    }

    /// How to fix it.
    fn help(&self) -> Option<String> {
        let help = match self {
            LlmError::Gate { help, .. } => help.as_str(),
            LlmError::WeightFile(error) => return error.help().map(str::to_string),
            LlmError::Weights { .. } => {
                "is the file whole? download the model again, or use one with weights of its config"
            }
            LlmError::ConfigSyntax { .. } | LlmError::Config { .. } | LlmError::UnknownArchitecture { .. } => {
                "use a model of a supported family, without the field that is named"
            }
            LlmError::NoCuda { .. } => {
                "use `device: auto`, or a build with `--features cuda` on a machine with a driver"
            }
            LlmError::Freeze { .. } => "a pattern is a weight's name or a module's path; `*` stands for any characters",
            LlmError::Adapter { .. } => "use an adapter that was trained on this model with LoRA on linear modules",
            LlmError::Memory { .. } => {
                "lower `max_length` of tokenize, or give a limit with `resources: { memory: .. }`"
            }
            LlmError::Budget { .. } => {
                "raise `--memory` or the stage's `resources: { memory: .. }`, lower `max_length` of tokenize, or train an adapter \
                 instead of all weights"
            }
            LlmError::Io { .. } | LlmError::Input { .. } | LlmError::Tensor(_) => return None,
        };
        Some(help.to_string())
    }

    fn slug(&self) -> &'static str {
        match self {
            LlmError::ConfigSyntax { .. } | LlmError::Config { .. } => "model-config",
            LlmError::UnknownArchitecture { .. } => "unknown-architecture",
            LlmError::Io { .. } => "io",
            LlmError::WeightFile(error) => error.slug(),
            LlmError::Weights { .. } => "weights",
            LlmError::Adapter { .. } => "adapter",
            LlmError::Freeze { .. } => "freeze",
            LlmError::Input { .. } => "model-input",
            LlmError::Gate { slug, .. } => slug,
            LlmError::NoCuda { .. } => "no-cuda",
            LlmError::Memory { .. } | LlmError::Budget { .. } => "out-of-memory",
            LlmError::Tensor(_) => "tensor",
        }
    }
}

impl From<LlmError> for StageError {
    fn from(error: LlmError) -> Self {
        let stage_error = StageError::user(error.slug(), error.to_string());
        let stage_error = match error.help() {
            Some(help) => stage_error.help(help),
            None => stage_error,
        };
        match error {
            LlmError::WeightFile(pipe_weights::WeightsError::Io { source, .. }) => stage_error.because(source),
            LlmError::ConfigSyntax { source } => stage_error.because(source),
            LlmError::Io { source, .. } => stage_error.because(source),
            LlmError::NoCuda { source } | LlmError::Tensor(source) => stage_error.because(source),
            _ => stage_error,
        }
    }
}
