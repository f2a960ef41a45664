//! What can be wrong with data files.

use std::path::PathBuf;

use pipe_contract::StageError;

/// Why records could not be read or written. Files are named as in their artifact where they belong to one.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum RecordsError {
    #[error("failed to {verb} `{}`", file.display())]
    Io { verb: &'static str, file: PathBuf, source: std::io::Error },
    #[error("failed to {verb} the Parquet file `{file}`")]
    Parquet { verb: &'static str, file: String, source: parquet::errors::ParquetError },
    #[error("failed to decode the Parquet file `{file}`")]
    Decode { file: String, source: arrow::error::ArrowError },
    #[error("failed to build a record batch")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error("`{file}` line {line} (row {row}) is not a JSON object: {problem}")]
    BadJson { file: String, line: u64, row: u64, problem: String },
    #[error("column `{column}` is {expected} in earlier rows, but {found} in `{file}` line {line} (row {row})")]
    MixedColumn { file: String, line: u64, row: u64, column: String, expected: String, found: String },
    #[error("`{file}` line {line} (row {row}) cannot be read: {problem}")]
    BadText { file: String, line: u64, row: u64, problem: String },
    #[error("failed to read the Arrow file `{file}`")]
    BadArrow { file: String, source: arrow::error::ArrowError },
    #[error("the rows artifact has no data file; it has {}", if found.is_empty() { "no file at all".to_string() } else { listed(found) })]
    NoDataFiles { found: Vec<String> },
    #[error("`{file}` has other columns than `{first_file}`: {difference}")]
    SchemaDiffers { file: String, first_file: String, difference: String },
    #[error("`{file}` has no column `{column}`; it has {}", listed(found))]
    MissingColumn { file: String, column: String, found: Vec<String> },
    #[error("column `{column}` of `{file}` is {found}, but must be {expected}")]
    WrongColumnType { file: String, column: String, expected: &'static str, found: String },
    #[error("column `{column}` of `{file}` is empty (null) in row {row} (counted from 0)")]
    NullCell { file: String, column: String, row: u64 },
    #[error("`{file}` has format version {found}, but this program reads version {expected}")]
    UnknownVersion { file: String, found: String, expected: u32 },
    #[error("`{file}` is not a valid description of packs")]
    BadInfo { file: String, source: serde_json::Error },
    #[error("row {row} is inconsistent: {problem}")]
    BadRow { row: u64, problem: String },
    #[error("there is no pack {index}; there are {n_packs}")]
    NoSuchPack { index: usize, n_packs: usize },
    #[error(transparent)]
    Artifact(StageError),
}

impl RecordsError {
    fn slug(&self) -> &'static str {
        match self {
            RecordsError::Io { .. } => "io",
            RecordsError::Parquet { .. } | RecordsError::Decode { .. } | RecordsError::Arrow(_) => "bad-parquet",
            RecordsError::BadJson { .. } => "bad-json",
            RecordsError::MixedColumn { .. } => "mixed-column",
            RecordsError::BadText { .. } => "bad-text",
            RecordsError::BadArrow { .. } => "bad-arrow",
            RecordsError::NoDataFiles { .. } => "no-data-files",
            RecordsError::SchemaDiffers { .. } => "schema-differs",
            RecordsError::MissingColumn { .. } => "missing-column",
            RecordsError::WrongColumnType { .. } => "wrong-column-type",
            RecordsError::NullCell { .. } => "null-cell",
            RecordsError::UnknownVersion { .. } => "unknown-format-version",
            RecordsError::BadInfo { .. } | RecordsError::BadRow { .. } => "bad-records",
            RecordsError::NoSuchPack { .. } => "no-such-pack",
            RecordsError::Artifact(error) => error.slug,
        }
    }
}

impl From<RecordsError> for StageError {
    fn from(error: RecordsError) -> Self {
        if let RecordsError::Artifact(inner) = error {
            return inner;
        }
        let help = match &error {
            RecordsError::MixedColumn { .. } => Some("give the column one type in every row, for instance text"),
            RecordsError::NoDataFiles { .. } => Some(
                "rows are read from `*.parquet`, `*.arrow`, `*.jsonl`, `*.json`, `*.csv`, `*.tsv` and `*.txt`, all but the first also with `.gz` or `.zst` behind",
            ),
            RecordsError::BadArrow { .. } => Some("write or download it again, to its end"),
            RecordsError::BadJson { .. } | RecordsError::BadText { .. } => {
                Some("correct the row, or leave bad rows out with a stage of kind `prepare` and `on_bad_rows: drop`")
            }
            RecordsError::UnknownVersion { .. } => Some("run the stage that made it again with this version"),
            _ => None,
        };
        let stage_error = StageError::user(error.slug(), error.to_string());
        let stage_error = match help {
            Some(help) => stage_error.help(help),
            None => stage_error,
        };
        match std::error::Error::source(&error) {
            // The message above names the file; the cause says what the disk or the decoder found.
            Some(cause) => stage_error.because(cause.to_string()),
            None => stage_error,
        }
    }
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
