//! What can go wrong on the way from a name to files.

use std::path::{Path, PathBuf};

use pipe_contract::StageError;
use pipe_records::RecordsError;

/// Why something could not be downloaded.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum DownloadError {
    #[error("{repository} was not found on {endpoint}, or may not be seen by you")]
    RepositoryNotFound { repository: String, endpoint: String, is_signed_in: bool },
    #[error("{repository} is gated: {}", if *is_signed_in { "your account has no access to it" } else { "it needs an account" })]
    Gated { repository: String, endpoint: String, is_signed_in: bool },
    #[error("{endpoint} did not accept the credential for {repository} (HTTP {status})")]
    Unauthorised { repository: String, endpoint: String, status: u16 },
    #[error("{repository} has no revision `{revision}`")]
    RevisionNotFound { repository: String, revision: String },
    #[error("{repository} has no file `{file}`")]
    EntryNotFound { repository: String, file: String },
    #[error("HF_HUB_OFFLINE is set and the Hugging Face cache `{}` lacks {missing}", cache.display())]
    Offline { cache: PathBuf, missing: String },
    #[error("failed to reach {endpoint}: {problem}")]
    Network { endpoint: String, problem: String },
    #[error("{endpoint} answered HTTP {status} for `{path}`{}", retry_note(*retry_after_s))]
    Status { endpoint: String, status: u16, path: String, retry_after_s: Option<u64> },
    #[error("{endpoint} answered `{path}` with something else than was asked for: {problem}")]
    BadAnswer { endpoint: String, path: String, problem: String },
    #[error("`{file}` arrived damaged twice: expected {algorithm} {expected}, found {found}")]
    Corrupt { file: String, algorithm: &'static str, expected: String, found: String },
    #[error("{address} gives bytes with SHA-256 {found}, not {expected}")]
    OtherContent { address: String, expected: String, found: String },
    #[error("{address} is not what it was when it was resolved: {problem}")]
    Changed { address: String, problem: String },
    #[error("{address} answered HTTP {status}{}", code_note(code))]
    Refused { address: String, status: u16, code: String },
    #[error("{variable} names `{}`, whose certificates cannot be used: {problem}", path.display())]
    Certificates { variable: String, path: PathBuf, problem: String },
    #[error("{variable} is no address of a proxy")]
    Proxy { variable: String },
    #[error("`{from}` is neither a file or folder near the pipeline file nor a hub id")]
    NotAName { from: String },
    #[error("there is no file or folder `{}`", path.display())]
    NotFoundLocally { path: PathBuf },
    #[error("{place} has no data file of the split `{split}`{}; its data files are {}", of_subset(subset.as_ref()), listed(found))]
    NoSplit { place: String, split: String, subset: Option<String>, found: Vec<String> },
    #[error("{place} has several configurations of the split `{split}`: {}", listed(found))]
    SeveralConfigurations { place: String, split: String, found: Vec<String> },
    #[error(
        "{place} has several configurations, and its README.md says of none that it is the default: {}",
        listed(found)
    )]
    NoDefault { place: String, found: Vec<String> },
    #[error("the README.md of {place} says of several configurations that they are the default: {}", listed(found))]
    SeveralDefaults { place: String, found: Vec<String> },
    #[error("{place} has no configuration `{name}`; its configurations are {}", listed(found))]
    UnknownConfiguration { place: String, name: String, meant: Option<String>, found: Vec<String> },
    #[error("{place} has no split `{split}` in the configuration `{configuration}`; its splits are {}", listed(found))]
    UnknownSplit { place: String, split: String, configuration: String, found: Vec<String> },
    #[error(
        "{place} has no data file that its README.md promises for {wanted}{}; its data files are {}",
        by_patterns(patterns),
        listed(found)
    )]
    ConfigurationLacks { place: String, wanted: String, patterns: Vec<String>, found: Vec<String> },
    #[error("{place} has for {wanted} files {problem}: {}", listed(found))]
    UnreadFiles { place: String, wanted: String, problem: &'static str, found: Vec<String> },
    #[error(
        "the README.md of {place} has the configuration `{configuration}` read with `{option}: {value}`, which is not done here"
    )]
    UnreadOption { place: String, configuration: String, option: String, value: String },
    #[error("the README.md of {place} cannot be used: {problem}")]
    BadReadme { place: String, problem: String },
    #[error("{place} has several weights: {}", listed(found))]
    SeveralWeights { place: String, found: Vec<String> },
    #[error("no file of {place} matches {}; its files are {}", listed(patterns), listed(found))]
    NoMatch { place: String, patterns: Vec<String>, found: Vec<String> },
    #[error("{place} has its weights only as `{example}`, a pickle of unknown layout")]
    OnlyPickle { place: String, example: String },
    #[error("{place} is no {what}: it has no {missing}; its files are {}", listed(found))]
    Incomplete { place: String, what: &'static str, missing: String, found: Vec<String> },
    #[error("failed to {verb} `{}`", path.display())]
    Io { verb: &'static str, path: PathBuf, source: std::io::Error },
    #[error("interrupted")]
    Cancelled,
    #[error(transparent)]
    Records(Box<RecordsError>),
}

impl From<RecordsError> for DownloadError {
    fn from(error: RecordsError) -> Self {
        DownloadError::Records(Box::new(error))
    }
}

impl DownloadError {
    /// For `map_err`: an operation on `path` failed.
    pub(crate) fn io(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| DownloadError::Io { verb, path, source }
    }

    fn slug(&self) -> &'static str {
        match self {
            DownloadError::RepositoryNotFound { .. } => "repository-not-found",
            DownloadError::Gated { .. } => "gated",
            DownloadError::Unauthorised { .. } => "unauthorised",
            DownloadError::RevisionNotFound { .. } => "revision-not-found",
            DownloadError::EntryNotFound { .. } => "entry-not-found",
            DownloadError::Offline { .. } => "offline",
            DownloadError::Network { .. } => "network",
            DownloadError::Status { .. } => "hub-status",
            DownloadError::BadAnswer { .. } => "bad-answer",
            DownloadError::Corrupt { .. } => "corrupt-download",
            DownloadError::OtherContent { .. } | DownloadError::Changed { .. } => "changed-source",
            DownloadError::Refused { .. } => "refused",
            DownloadError::Certificates { .. } => "certificates",
            DownloadError::Proxy { .. } => "proxy",
            DownloadError::NotAName { .. } | DownloadError::NotFoundLocally { .. } => "not-found",
            DownloadError::NoSplit { .. } | DownloadError::UnknownSplit { .. } => "no-split",
            DownloadError::SeveralConfigurations { .. }
            | DownloadError::NoDefault { .. }
            | DownloadError::SeveralDefaults { .. } => "several-configurations",
            DownloadError::UnknownConfiguration { .. } => "unknown-configuration",
            DownloadError::UnreadFiles { .. } => "unread-files",
            DownloadError::UnreadOption { .. } => "unread-option",
            DownloadError::BadReadme { .. } => "bad-readme",
            DownloadError::SeveralWeights { .. } => "several-weights",
            DownloadError::NoMatch { .. } | DownloadError::ConfigurationLacks { .. } => "no-match",
            DownloadError::OnlyPickle { .. } => "only-pickle",
            DownloadError::Incomplete { .. } => "incomplete",
            DownloadError::Io { .. } => "io",
            DownloadError::Cancelled => "cancelled",
            DownloadError::Records(_) => "records",
        }
    }

    fn help(&self) -> Option<String> {
        let set_credential = "set HF_TOKEN to a credential made at";
        match self {
            DownloadError::RepositoryNotFound { endpoint, is_signed_in: false, .. } => {
                Some(format!("check the name; for a private repository {set_credential} {endpoint}/settings/tokens"))
            }
            DownloadError::RepositoryNotFound { .. } => {
                Some("check the name, and that the account of HF_TOKEN may see it".to_string())
            }
            DownloadError::Gated { endpoint, is_signed_in: false, repository } => {
                let page = page_of(endpoint, repository);
                Some(format!("accept its terms at {page}, then {set_credential} {endpoint}/settings/tokens"))
            }
            DownloadError::Gated { endpoint, repository, .. } => {
                Some(format!("ask for access at {} with the account of HF_TOKEN", page_of(endpoint, repository)))
            }
            DownloadError::Unauthorised { endpoint, .. } => Some(format!(
                "HF_TOKEN (or the file `token` in HF_HOME) may be mistyped or expired: see {endpoint}/settings/tokens"
            )),
            DownloadError::Offline { .. } => Some("run once without HF_HUB_OFFLINE".to_string()),
            DownloadError::Network { .. } => Some(NETWORK_HELP.to_string()),
            DownloadError::RevisionNotFound { .. } => Some(
                "check the branch, tag or commit on the repository's page; without `revision` it is `main`".to_string(),
            ),
            DownloadError::EntryNotFound { .. } => {
                Some("the repository has changed meanwhile, or its listing was wrong: run it again".to_string())
            }
            DownloadError::Status { status: 429, .. } => {
                Some("wait, or set HF_TOKEN: who is signed in may ask more often".to_string())
            }
            DownloadError::Status { .. } => Some("wait and run it again: what has arrived is kept".to_string()),
            DownloadError::Corrupt { .. } => {
                Some("something on the way changes the bytes: try without the proxy, or another network".to_string())
            }
            DownloadError::OtherContent { .. } => {
                Some("if the new file is wanted, change `sha256`, or without it run `pipe update`".to_string())
            }
            DownloadError::Changed { .. } => Some("if that is wanted, run `pipe update`".to_string()),
            DownloadError::Refused { status: 401 | 403, .. } => Some(
                "for S3 set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of an account that may read it".to_string(),
            ),
            DownloadError::Refused { .. } => Some("check the address".to_string()),
            DownloadError::Certificates { .. } => {
                Some("it must be a file or folder of certificates in PEM form".to_string())
            }
            DownloadError::Proxy { .. } => Some("such as `http://proxy.example.com:8080`".to_string()),
            DownloadError::BadAnswer { .. } => {
                Some("a proxy or a sign-in page of the network may stand between".to_string())
            }
            DownloadError::NotAName { .. } => Some("a hub id is `owner/name`; a path begins with `./`".to_string()),
            DownloadError::NoSplit { .. } => {
                Some("name one with `split:`, or the files with `files: [\"*.parquet\"]`".to_string())
            }
            DownloadError::SeveralConfigurations { .. }
            | DownloadError::NoDefault { .. }
            | DownloadError::SeveralDefaults { .. }
            | DownloadError::UnknownConfiguration { meant: None, .. } => Some("choose one with `name:`".to_string()),
            DownloadError::UnknownConfiguration { meant: Some(meant), .. } => Some(format!("did you mean `{meant}`?")),
            DownloadError::UnknownSplit { .. } => Some("name one with `split:`".to_string()),
            DownloadError::ConfigurationLacks { .. } | DownloadError::BadReadme { .. } => Some(
                "with `files:` the README.md is not asked; its form is at \
                 https://huggingface.co/docs/hub/datasets-manual-configuration"
                    .to_string(),
            ),
            DownloadError::UnreadFiles { .. } => Some("name those that are wanted with `files:`".to_string()),
            DownloadError::UnreadOption { .. } => {
                Some("if the files can be read without it, name them with `files:`".to_string())
            }
            DownloadError::NoMatch { .. } => Some(
                "in `files` `*` is any text, also across folders; in a path it stays in its folder, and `**` is any folders"
                    .to_string(),
            ),
            DownloadError::SeveralWeights { .. } => Some("name one, such as `files: [\"*Q8_0.gguf\"]`".to_string()),
            DownloadError::OnlyPickle { .. } => Some(
                "read are `*.safetensors`, for models also `pytorch_model*.bin` and `*.gguf`; many repositories have \
                 converted weights at a revision such as `refs/pr/1`"
                    .to_string(),
            ),
            _ => None,
        }
    }
}

impl From<DownloadError> for StageError {
    fn from(error: DownloadError) -> Self {
        let mut stage_error = match &error {
            DownloadError::Cancelled => return StageError::cancelled(),
            DownloadError::Records(_) => match error {
                DownloadError::Records(inner) => return (*inner).into(),
                _ => unreachable!("matched just above"),
            },
            other => StageError::user(other.slug(), other.to_string()),
        };
        if let Some(help) = error.help() {
            stage_error = stage_error.help(help);
        }
        match error {
            DownloadError::Io { source, .. } => stage_error.because(source),
            _ => stage_error,
        }
    }
}

const NETWORK_HELP: &str = "check the connection, HTTPS_PROXY, SSL_CERT_FILE and HF_ENDPOINT; with HF_HUB_OFFLINE=1 only \
                            the cache is used";

/// At most this many names in a message.
const N_LISTED_MAX: usize = 20;

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_string();
    }
    let mut text = names.iter().take(N_LISTED_MAX).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > N_LISTED_MAX {
        text.push_str(&format!(" and {} more", names.len() - N_LISTED_MAX));
    }
    text
}

fn by_patterns(patterns: &[String]) -> String {
    if patterns.is_empty() { String::new() } else { format!(" ({})", listed(patterns)) }
}

fn of_subset(subset: Option<&String>) -> String {
    subset.map_or_else(String::new, |subset| format!(" in the configuration `{subset}`"))
}

fn code_note(code: &str) -> String {
    if code.is_empty() { String::new() } else { format!(" ({code})") }
}

fn retry_note(retry_after_s: Option<u64>) -> String {
    retry_after_s.map_or_else(String::new, |seconds| format!(" and asks to wait {seconds} s"))
}

/// The page of a repository, from the form that messages have: model `a/b`.
fn page_of(endpoint: &str, repository: &str) -> String {
    let id = repository.split('`').nth(1).unwrap_or_default();
    let folder = if repository.starts_with("data set") { "datasets/" } else { "" };
    format!("{endpoint}/{folder}{id}")
}
