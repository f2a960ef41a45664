//! Running a command: paths for its ports, an environment, a process, and a look at what it left.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use pipe_contract::{Context, OutputPort, Source, Stage, StageError};

use crate::child::{self, Call};
use crate::error::CommandError;
use crate::inputs::Inputs;
use crate::outputs::Outputs;
use crate::sandbox::Sandbox;
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::{Variable, environment, keeper, program, sources};

/// Of a command in a message.
const SHOWN_CHARACTERS_MAX: usize = 120;

/// A command with its settings.
pub(crate) struct Command {
    pub(crate) settings: Settings,
    pub(crate) variable: Variable,
}

impl Stage for Command {
    fn outputs(&self) -> Vec<OutputPort> {
        Vec::new()
    }

    fn is_parallel(&self) -> bool {
        false
    }

    fn source(&self, base_dir: &Path) -> Result<Source, StageError> {
        if self.settings.sources.is_empty() {
            return Ok(Source::Computed);
        }
        let names = sources::files(base_dir, &self.settings.sources)?;
        Ok(Source::Files { root: base_dir.to_path_buf(), names })
    }

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError> {
        // First what costs nothing: a secret that is not set.
        let secrets = Secrets::look_up(&self.settings.secrets, self.variable)?;
        self.warn_of_unlisted(ctx);
        let scratch = absolute(ctx.scratch()?)?;
        let links = scratch.join("inputs");
        let inputs = Inputs::lay_out(ctx, &links, |port| self.mentions(&expression("inputs", port)))?;
        let outputs = Outputs::prepare(ctx)?;
        let paths = Paths::new(&inputs, &outputs);
        let call = self.call(ctx, &paths, &secrets, &scratch, (&inputs, &outputs))?;
        let status = child::run(call, &secrets, &ctx.cancel, &mut |line| ctx.log(line))?;
        inputs.check_unchanged()?;
        // A scratch folder with nothing in it is the next stage's: to make another one costs more.
        let _ = std::fs::remove_dir_all(links);
        if !status.success() {
            return Err(CommandError::Failed { command: self.shown(), end: end_of(status) }.into());
        }
        Ok(outputs.check(&secrets)?)
    }
}

impl Command {
    fn mentions(&self, text: &str) -> bool {
        self.settings.run.iter().chain(self.settings.env.values()).any(|word: &String| word.contains(text))
    }

    fn call(
        &self,
        ctx: &Context<'_>,
        paths: &Paths,
        secrets: &Secrets,
        scratch: &Path,
        (inputs, outputs): (&Inputs, &Outputs),
    ) -> Result<Call, CommandError> {
        let search_path = (self.variable)("PATH").unwrap_or_default();
        let mark = keeper::mark().map_err(CommandError::io("start", "/bin/sh".as_ref()))?;
        let mut environment = environment::basic(search_path, scratch, ctx.n_threads, mark);
        if !ctx.gpus.is_empty() {
            environment.insert("CUDA_VISIBLE_DEVICES".into(), listed(&ctx.gpus).into());
        }
        environment.extend(self.settings.env.iter().map(|(name, value)| (name.clone(), paths.fill(value))));
        environment.extend(secrets.variables().map(|(name, value)| (name.to_string(), value.clone())));
        let search_path = environment.get("PATH").cloned().unwrap_or_default();
        let mut words = self.settings.run.iter().map(|word| paths.fill(word));
        let program = words.next().expect("`run` has a program: its settings were checked");
        let program = program::find(&program, &ctx.base_dir, &search_path)?;
        let sandbox = self.settings.is_strict.then(|| {
            let mut sandbox = Sandbox::new();
            let user_home = (self.variable)("HOME").map(PathBuf::from);
            let apart: Vec<&Path> =
                [Some(ctx.base_dir.as_path()), user_home.as_deref()].into_iter().flatten().collect();
            sandbox.may_start(&program, &apart);
            if let Some(interpreter) = program::interpreter(&program, &ctx.base_dir, &search_path) {
                sandbox.may_start(&interpreter, &apart);
            }
            inputs.files().for_each(|file| sandbox.may_read(file));
            self.settings.sources.iter().for_each(|source| sandbox.may_read(&source.path(&ctx.base_dir)));
            sandbox.may_write(scratch);
            outputs.folders().for_each(|folder| sandbox.may_write(folder));
            sandbox
        });
        Ok(Call { program, arguments: words.collect(), environment, dir: ctx.base_dir.clone(), sandbox })
    }

    /// A change of a file that is not in the key runs nothing again.
    fn warn_of_unlisted(&self, ctx: &Context<'_>) {
        for (position, word) in self.settings.run.iter().enumerate() {
            // A program without a folder is looked for on PATH; an option and an expression are no names.
            if position == 0 && !word.contains('/') || word.starts_with("${{") {
                continue;
            }
            // `--config=c.yaml` too.
            let name = word.split_once('=').map_or(word.as_str(), |(_, value)| value);
            if name.starts_with('-') {
                continue;
            }
            let path = Path::new(name);
            let path = path.strip_prefix(&ctx.base_dir).unwrap_or(path);
            let is_listed = || self.settings.sources.iter().any(|source| source.covers(path));
            if path.is_relative() && ctx.base_dir.join(path).is_file() && !is_listed() {
                ctx.warn(format!("`{name}` is not in `sources`: a change of it is not noticed"));
            }
        }
    }

    /// As it is written, cut.
    fn shown(&self) -> String {
        let line = self.settings.run.join(" ").replace(['\n', '\r'], " ");
        let mut shown: String = line.chars().take(SHOWN_CHARACTERS_MAX).collect();
        if shown.len() < line.len() {
            shown.push_str("...");
        }
        shown
    }
}

/// What stands for the expressions of ports.
struct Paths(Vec<(String, PathBuf)>);

impl Paths {
    fn new(inputs: &Inputs, outputs: &Outputs) -> Self {
        let inputs = inputs.paths.iter().map(|(port, path)| (expression("inputs", port), path.clone()));
        let outputs = outputs.paths().map(|(port, path)| (expression("outputs", &port), path));
        Paths(inputs.chain(outputs).collect())
    }

    /// `text` with paths in it.
    fn fill(&self, text: &str) -> OsString {
        let mut filled = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${{") {
            filled.extend_from_slice(&rest.as_bytes()[..at]);
            rest = &rest[at..];
            let found = self.0.iter().find(|(expression, _)| rest.starts_with(expression.as_str()));
            let (length, bytes) = match found {
                Some((expression, path)) => (expression.len(), path.as_os_str().as_bytes()),
                None => (3, &rest.as_bytes()[..3]),
            };
            filled.extend_from_slice(bytes);
            rest = &rest[length..];
        }
        filled.extend_from_slice(rest.as_bytes());
        OsString::from_vec(filled)
    }
}

/// What stands in a setting for the path of a port.
fn expression(side: &str, port: &str) -> String {
    format!("${{{{ {side}.{port} }}}}")
}

/// `0,2`.
fn listed(gpus: &[usize]) -> String {
    gpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(CommandError::io("find", path))
}

/// `exit code 3` or `signal 9 (KILL)`.
fn end_of(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}{}", signal_name(signal)),
        (None, None) => status.to_string(),
    }
}

/// The signals that end programs which did not ask for it.
fn signal_name(signal: i32) -> &'static str {
    match signal {
        2 => " (INT)",
        6 => " (ABRT: it gave up)",
        9 => " (KILL: ended from outside, or there was not enough memory)",
        11 => " (SEGV: a mistake in the program)",
        15 => " (TERM: ended from outside)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn expressions_become_paths_and_nothing_else_does() {
        let paths = Paths(vec![
            ("${{ inputs.a }}".into(), "/x/${{ outputs.b }}".into()),
            ("${{ outputs.b }}".into(), "/y".into()),
        ]);
        for (text, expected) in [
            ("${{ inputs.a }}", "/x/${{ outputs.b }}"),
            ("--o=${{ outputs.b }}/z ${{ outputs.b }}", "--o=/y/z /y"),
            ("$HOME ${X} plain", "$HOME ${X} plain"),
        ] {
            assert_eq!(paths.fill(text), OsStr::new(expected), "{text}");
        }
    }

    #[test]
    fn an_end_has_a_name() {
        assert_eq!(end_of(ExitStatus::from_raw(3 << 8)), "exit code 3");
        assert_eq!(
            end_of(ExitStatus::from_raw(9)),
            "signal 9 (KILL: ended from outside, or there was not enough memory)"
        );
        assert_eq!(end_of(ExitStatus::from_raw(10)), "signal 10");
    }
}
