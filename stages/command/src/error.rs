//! What can go wrong with a command.

use std::io;
use std::path::{Path, PathBuf};

use pipe_contract::StageError;

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum CommandError {
    #[error("`{command}` ended with {end}")]
    Failed { command: String, end: String },
    #[error("there is no program `{program}` {place}")]
    NotFound { program: String, place: String },
    #[error("`{}` cannot be started: it is not an executable file", path.display())]
    NotExecutable { path: PathBuf },
    #[error("the secret `{name}` is not set in the environment of pipe")]
    NoSecret { name: String },
    #[error("there is no file or folder `{name}`, which `sources` names")]
    NoSource { name: String },
    #[error("`{name}` in `sources` {what}")]
    BadSource { name: String, what: &'static str },
    #[error("the command changed its input `{port}`: `{file}` is not as it was")]
    InputChanged { port: String, file: String },
    #[error("the command left its output `{port}` empty: there is no {what}")]
    NoOutput { port: String, what: String },
    #[error("the output `{port}` is one file, `{file}`, but the command wrote `{other}` beside it")]
    MoreThanOneFile { port: String, file: String, other: String },
    #[error("the command put `{name}` into its output `{port}`, which {what}")]
    NotAFile { port: String, name: String, what: &'static str },
    #[error("the command wrote the value of the secret `{secret}` into its output `{port}`: {place} holds it")]
    SecretInOutput { secret: String, port: String, place: String },
    #[error("the command ended, but a process that it started goes on and cannot be ended")]
    LeftRunning,
    #[error("`sandbox: strict` cannot be kept: {why}")]
    NoSandbox { why: String },
    #[error("failed to {verb} `{}`", path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("interrupted")]
    Cancelled,
}

impl CommandError {
    /// For `map_err`: an operation on `path` failed.
    pub(crate) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| CommandError::Io { verb, path: path.to_path_buf(), source }
    }

    fn slug(&self) -> &'static str {
        match self {
            CommandError::Failed { .. } => "command-failed",
            CommandError::NotFound { .. } | CommandError::NotExecutable { .. } => "command-not-found",
            CommandError::NoSecret { .. } => "missing-secret",
            CommandError::NoSource { .. } => "missing-file",
            CommandError::BadSource { .. } => "bad-source",
            CommandError::InputChanged { .. } => "input-written",
            CommandError::NoOutput { .. } => "missing-output",
            CommandError::MoreThanOneFile { .. } | CommandError::NotAFile { .. } => "bad-output",
            CommandError::SecretInOutput { .. } => "secret-in-output",
            CommandError::LeftRunning => "process-left",
            CommandError::NoSandbox { .. } => "no-sandbox",
            CommandError::Io { .. } => "io",
            CommandError::Cancelled => "cancelled",
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            CommandError::Failed { .. } => "what it printed is in its log; only exit code 0 is success",
            CommandError::NotFound { .. } => {
                "`run` is a list of arguments and no shell: the first is a program on the PATH of pipe, or a path from the pipeline file's folder on"
            }
            CommandError::NotExecutable { .. } => "make it executable (`chmod +x`), or name its interpreter first",
            CommandError::NoSecret { name } => return Some(format!("set it before the run: `export {name}=...`")),
            CommandError::NoSource { .. } => "names are relative to the pipeline file's folder",
            CommandError::BadSource { .. } => "name the files that the command reads",
            CommandError::InputChanged { .. } => {
                "an input belongs to another stage too: copy it to an output or to `$TMPDIR` before changing it; the next run makes the input again"
            }
            CommandError::NoOutput { .. } => "the command must write where `${{ outputs.PORT }}` says, before it ends",
            CommandError::MoreThanOneFile { .. } => {
                "declare the artifact kind of a folder, or write other files to `$TMPDIR`"
            }
            CommandError::NotAFile { .. } => "copy what it stands for: an output holds regular files and folders",
            CommandError::SecretInOutput { .. } => {
                "nothing was published; an output is kept and shared, so it must not hold a secret"
            }
            CommandError::LeftRunning => {
                "a command must wait for what it starts; a process in a session of its own is out of reach"
            }
            CommandError::NoSandbox { .. } => "`sandbox: none` runs the command without",
            CommandError::Io { .. } | CommandError::Cancelled => return None,
        };
        Some(help.to_string())
    }
}

impl From<CommandError> for StageError {
    fn from(error: CommandError) -> Self {
        if matches!(error, CommandError::Cancelled) {
            return StageError::cancelled();
        }
        let mut stage_error = StageError::user(error.slug(), error.to_string());
        stage_error.help = error.help();
        match error {
            CommandError::Io { source, .. } => stage_error.because(source),
            _ => stage_error,
        }
    }
}
