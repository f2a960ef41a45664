//! What can be wrong with rows that are to be prepared.

use std::path::PathBuf;

use pipe_contract::StageError;
use pipe_records::RecordsError;

/// Why rows could not be prepared. Rows are counted from 0 in their file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum PrepareError {
    #[error("{what} needs the column `{column}`, but input `{port}` has {}", listed(found))]
    MissingColumn { what: &'static str, port: String, column: String, found: Vec<String>, nearest: Option<String> },
    #[error("input `{port}` would have two columns called `{column}`")]
    ColumnTwice { port: String, column: String },
    #[error("input `{port}` has other columns than input `{first_port}`: {difference}")]
    InputsDiffer { port: String, first_port: String, difference: String },
    #[error("{what} needs {expected} in column `{column}`, but it is {found}")]
    WrongType { what: &'static str, column: String, expected: &'static str, found: String },
    #[error("no row is left: of {n_rows} rows, {how}")]
    NoRows { n_rows: u64, how: String },
    #[error("`test_size` is {n_test}, but there are {n_rows} rows, and `train` needs one")]
    TestTooLarge { n_test: u64, n_rows: u64 },
    #[error("`assert.{name}` does not hold: {problem}")]
    Assertion { name: &'static str, problem: String },
    #[error("failed to {verb} `{}`", file.display())]
    Io { verb: &'static str, file: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Records(#[from] RecordsError),
    #[error(transparent)]
    Stage(#[from] StageError),
}

impl From<arrow::error::ArrowError> for PrepareError {
    fn from(error: arrow::error::ArrowError) -> Self {
        PrepareError::Records(error.into())
    }
}

impl From<PrepareError> for StageError {
    fn from(error: PrepareError) -> Self {
        let message = error.to_string();
        match error {
            PrepareError::Stage(error) => error,
            PrepareError::Records(error) => error.into(),
            PrepareError::Io { source, .. } => StageError::user("io", message).because(source),
            PrepareError::MissingColumn { nearest, .. } => {
                let error = StageError::user("missing-column", message);
                match nearest {
                    Some(nearest) => error.help(format!("did you mean `{nearest}`?")),
                    None => error.help(
                        "`columns: { NEW: OLD }` gives a column another name; the other settings use the new one",
                    ),
                }
            }
            PrepareError::ColumnTwice { .. } => {
                StageError::user("duplicate-column", message).help("give one of them another name with `columns`")
            }
            PrepareError::InputsDiffer { .. } => StageError::user("schema-differs", message)
                .help("bring the inputs to the same columns with `columns` and `select_columns`"),
            PrepareError::WrongType { .. } => StageError::user("wrong-column-type", message),
            PrepareError::NoRows { .. } => StageError::user("no-rows", message),
            PrepareError::TestTooLarge { .. } => StageError::user("out-of-range", message),
            PrepareError::Assertion { .. } => StageError::user("assertion-failed", message)
                .help("correct the rows, drop them with `filter`, or change the assertion"),
        }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "no column".to_string();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
