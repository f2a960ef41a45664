//! Why examples could not be analyzed.

use pipe_contract::StageError;
use pipe_tokenizer::TokenizerError;

/// What can go wrong beyond reading and writing records.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum AnalyzeError {
    #[error("`unit` is `tokens`, but nothing is connected to port `model`")]
    TokensWithoutModel,
    #[error("the examples are pretokenized rows, which have no text to measure")]
    Pretokenized,
    #[error("the examples at port `test` are pretokenized rows, which have no text to compare")]
    PretokenizedTest,
    #[error("there is nothing to analyze: the examples have no rows")]
    NoRows,
    #[error("there are more than {} examples", u32::MAX)]
    TooManyRows,
    #[error("failed to tokenize row {row} of the examples (counted from 0)")]
    Row { row: u64, source: TokenizerError },
    #[error("failed to draw the histogram")]
    Chart(#[source] pipe_plot::PlotError),
    #[error("`summary.json` cannot be read: {message}")]
    Summary { message: String },
}

impl From<AnalyzeError> for StageError {
    fn from(error: AnalyzeError) -> Self {
        let message = error.to_string();
        match error {
            AnalyzeError::TokensWithoutModel => StageError::user("missing-input", message)
                .help("connect `model` under `inputs:`, or set `unit: characters`"),
            AnalyzeError::Pretokenized => StageError::user("no-text", message)
                .help("remove this stage, or choose a `template:` with text in the `format` stage before it"),
            AnalyzeError::PretokenizedTest => StageError::user("no-text", message)
                .help("connect examples with text, or leave `test` out of `inputs:`"),
            AnalyzeError::NoRows => StageError::user("no-rows", message),
            AnalyzeError::TooManyRows => StageError::user("too-many-rows", message),
            AnalyzeError::Row { source, .. } => StageError::user("bad-example", message).because(source),
            AnalyzeError::Chart(source) => StageError::user("chart", message).because(source),
            AnalyzeError::Summary { .. } => StageError::user("bad-summary", message),
        }
    }
}
