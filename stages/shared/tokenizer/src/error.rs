//! What can go wrong with a model folder's tokenizer.

use std::path::PathBuf;

use pipe_contract::StageError;

/// Why a tokenizer could not be loaded, used or trained.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum TokenizerError {
    #[error("the model has no `tokenizer.json`")]
    NoTokenizer,
    #[error("the model has no `config.json`")]
    NoConfig,
    #[error("{0}")]
    Config(#[from] pipe_weights::WeightsError),
    #[error("failed to read `{}`", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("`{file}` is not valid JSON")]
    Json { file: String, source: serde_json::Error },
    #[error("the vocabulary of the GGUF makes no `tokenizer.json`: {why}")]
    Gguf { why: String },
    #[error("`tokenizer.json` cannot be used: {message}")]
    Tokenizer { message: String },
    #[error("`{file}` has `{key}`: `{value}`, which is not {expected}")]
    Field { file: &'static str, key: &'static str, value: String, expected: &'static str },
    #[error("`{file}` names `{token}` as `{key}`, but `tokenizer.json` has no such token")]
    UnknownToken { file: &'static str, key: &'static str, token: String },
    #[error("the tokenizer gives id {id} (`{token}`), but `vocab_size` in `config.json` is {vocab_size}")]
    IdOutsideVocabulary { id: u32, token: String, vocab_size: usize },
    #[error("the text makes the special token `{token}` (id {id}), which only a template may do")]
    SpecialFromText { id: u32, token: String },
    #[error("the template wrote the special token `{token}`, which the model's tokenizer does not have")]
    NoSpecialToken { token: String },
    #[error("the template wrote {n_written} special tokens, of which the tokenizer found {n_found}")]
    LostSpecialToken { n_written: usize, n_found: usize },
    #[error("the text has the private character U+{:X}, which stands for a special token", u32::from(*character))]
    ReservedCharacter { character: char },
    #[error("a text of {n_characters} characters is too long for one document")]
    TextTooLong { n_characters: usize },
    #[error("a vocabulary of {vocab_size} is too small: {n_special} special tokens and 256 bytes come first")]
    VocabularyTooSmall { vocab_size: usize, n_special: usize },
    #[error("the special token `{token}` is given twice or is empty")]
    BadSpecialToken { token: String },
    #[error("`{token}` cannot be a new token: {why}")]
    NewToken { token: String, why: String },
    #[error("the tokenizer's ids have gaps: a new token does not get the id {id} behind the last one")]
    Gaps { id: u32 },
}

impl TokenizerError {
    /// The stable word for tools and tests.
    fn slug(&self) -> &'static str {
        match self {
            TokenizerError::NoTokenizer | TokenizerError::NoConfig => "missing-file",
            TokenizerError::Config(error) => error.slug(),
            TokenizerError::Io { .. } => "io",
            TokenizerError::Json { .. } | TokenizerError::Field { .. } => "bad-model",
            TokenizerError::Tokenizer { .. }
            | TokenizerError::UnknownToken { .. }
            | TokenizerError::Gaps { .. }
            | TokenizerError::Gguf { .. } => "bad-tokenizer",
            TokenizerError::IdOutsideVocabulary { .. } => "id-outside-vocabulary",
            TokenizerError::SpecialFromText { .. } => "special-from-text",
            TokenizerError::NoSpecialToken { .. } | TokenizerError::LostSpecialToken { .. } => "no-special-token",
            TokenizerError::ReservedCharacter { .. } => "reserved-character",
            TokenizerError::TextTooLong { .. } => "text-too-long",
            TokenizerError::VocabularyTooSmall { .. } | TokenizerError::BadSpecialToken { .. } => "out-of-range",
            TokenizerError::NewToken { .. } => "new-token",
        }
    }

    fn help(&self) -> Option<&str> {
        match self {
            TokenizerError::Config(error) => error.help(),
            TokenizerError::NoTokenizer => Some(
                "a model with only `tokenizer.model` or tiktoken code is not supported (but for XGen, whose `tokenizer_config.json` says `XgenTokenizer`): convert it with `AutoTokenizer.from_pretrained(..).save_pretrained(..)`; a GGUF without a vocabulary needs the tokenizer's files of its model beside it",
            ),
            TokenizerError::Gguf { .. } => {
                Some("put the `tokenizer.json` of the model that the GGUF was made of beside it")
            }
            TokenizerError::IdOutsideVocabulary { .. } => {
                Some("the tokenizer and the weights are not from the same model")
            }
            TokenizerError::NoSpecialToken { .. } => {
                Some("connect the same model to `format` and here: the template's special tokens are of its tokenizer")
            }
            TokenizerError::ReservedCharacter { .. } => Some("take it out of the data"),
            TokenizerError::NewToken { .. } => Some("take it off the list"),
            _ => None,
        }
    }
}

impl From<TokenizerError> for StageError {
    fn from(error: TokenizerError) -> Self {
        let plain = StageError::user(error.slug(), error.to_string());
        let helped = match error.help() {
            Some(help) => plain.help(help),
            None => plain,
        };
        match error {
            TokenizerError::Io { source, .. } => helped.because(source),
            TokenizerError::Json { source, .. } => helped.because(source),
            _ => helped,
        }
    }
}
