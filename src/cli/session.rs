//! What the commands share: paths, the store, the pipeline, the style.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pipe_cache::Store;
use pipe_settings::nearest;

use super::arguments::{Arguments, ColorChoice, NumericsChoice, Overlay};
use super::failure::CliError;
use super::{Environment, Io};
use crate::ahead::Ahead;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::drift::find_drift;
use crate::events::{Event, RunRequest, read_events};
use crate::execute::{Ledger, machine_memory_bytes, machine_slots};
use crate::explain::{self, Explanation};
use crate::lockfile::LockFile;
use crate::place;
use crate::plan::{Plan, Planner};
use crate::registry::Registry;
use crate::report::shell::quote_path;
use crate::report::style::Style;
use crate::schedule::Slots;
use crate::spec::{self, LoadOptions, Numerics, Pipeline};

/// Runs that are named where another was asked for.
const N_NAMED: usize = 3;

/// One command with its surroundings.
pub(super) struct Session<'a> {
    pub(super) registry: &'a Registry,
    pub(super) io: Io<'a>,
    pub(super) begin: Instant,
    /// As the user wrote it, or the default.
    pub(super) store_as_given: PathBuf,
    pub(super) out_style: Style,
    pub(super) err_style: Style,
}

/// A pipeline file with what is laid over it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// As the user wrote it.
    pub(super) file_as_given: PathBuf,
    pub(super) options: LoadOptions,
}

/// A pipeline and all that planning needs.
pub(super) struct Loaded {
    pub(super) pipeline: Pipeline,
    pub(super) store: Store,
    pub(super) lock: LockFile,
    /// Manifests that were read meanwhile.
    pub(super) ahead: Ahead,
    pub(super) numerics: Numerics,
    /// Stages that run although they were made before.
    pub(super) forced: BTreeSet<usize>,
    /// Whether the lock file must fit.
    pub(super) is_locked: bool,
}

impl Loaded {
    pub(super) fn planner<'a>(&'a self, current_dir: &'a Path) -> Planner<'a> {
        Planner {
            pipeline: &self.pipeline,
            store: &self.store,
            lock: &self.lock,
            numerics: self.numerics,
            current_dir,
            forced: &self.forced,
            is_locked: self.is_locked,
        }
    }

    pub(super) fn plan(&self, current_dir: &Path) -> Result<Plan, CliError> {
        let planner = self.planner(current_dir);
        for (stage, spec) in self.pipeline.stages.iter().enumerate() {
            let Some(to) = planner.to(stage) else { continue };
            if let Some(why) = place::find_obstacle(&self.store, &spec.outputs, &to) {
                let to = spec.to.as_ref().unwrap_or(&to).display();
                let message = format!("the outputs of stage `{}` cannot be copied to `{to}`: {why}", spec.name);
                return Err(Diagnostic::new("bad-to", message).at(spec.location.clone()).into());
            }
        }
        Ok(planner.plan_with(&self.ahead)?)
    }

    /// From now on the lock file must fit, and does. Artifacts are then reused only on the compute class that made them, unless the file or
    /// the argument says otherwise.
    ///
    /// # Errors
    /// Every stage that the lock file does not have as it is now.
    pub(super) fn lock_down(
        &mut self,
        numerics: Option<NumericsChoice>,
        request: &Request,
        current_dir: &Path,
    ) -> Result<(), CliError> {
        self.is_locked = true;
        if numerics.is_none() && self.pipeline.numerics.is_none() {
            self.numerics = Numerics::Exact;
        }
        let lock = self.lock.path().display();
        let unusable = match (self.lock.is_foreign(), self.lock.has_outputs()) {
            (true, _) => Some("is of another version of pipe"),
            (false, false) => Some("is not there, or is of no complete run"),
            (false, true) => None,
        };
        if let Some(why) = unusable {
            let help = format!("run without `--locked`, and commit `{lock}`");
            return Err(CliError::Drift(Diagnostic::new("lock-drift", format!("`{lock}` {why}")).help(help).into()));
        }
        let mut drift = find_drift(&self.planner(current_dir))?;
        let Some(last) = drift.pop() else { return Ok(()) };
        let file = quote_path(&request.file_as_given);
        let help = format!(
            "`pipe explain {file} STAGE` says what changed; run without `--locked` to accept it, and commit `{lock}`"
        );
        drift.push(last.help(help));
        Err(CliError::Drift(Diagnostics::new(drift, Vec::new())))
    }

    /// What changed in each stage since the last run of the same file.
    pub(super) fn explain(&self, plan: &Plan, request: &Request) -> Result<Vec<Explanation>, CliError> {
        let file = request.record(&self.pipeline.path).file;
        Ok(explain::explain(&self.pipeline, plan, &self.store, &file)?)
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(registry: &'a Registry, arguments: &Arguments, io: Io<'a>, begin: Instant) -> Self {
        let store = arguments.store.clone().or_else(|| io.environment.store.clone());
        Session {
            registry,
            begin,
            store_as_given: store.unwrap_or_else(|| PathBuf::from(".pipe")),
            out_style: style_of(arguments.color, &io.environment, io.is_out_terminal),
            err_style: style_of(arguments.color, &io.environment, io.is_err_terminal),
            io,
        }
    }

    pub(super) fn write(&mut self, text: &str) -> Result<(), CliError> {
        self.io.out.write_all(text.as_bytes())?;
        Ok(self.io.out.flush()?)
    }

    /// A line or more on stderr; there is nobody left to tell where that is gone.
    pub(super) fn tell(&mut self, text: &str) {
        let _ = self.io.err.write_all(text.as_bytes());
    }

    /// One object in one line; it says which version of its form it has.
    pub(super) fn write_json(&mut self, mut object: serde_json::Value) -> Result<(), CliError> {
        object["format_version"] = 1.into();
        self.write(&format!("{object}\n"))
    }

    /// `--threads`, then the environment, then all of the machine.
    pub(super) fn n_threads(&self, argument: Option<&str>) -> Result<usize, CliError> {
        let (text, place) = match (argument, &self.io.environment.threads) {
            (Some(text), _) => (text, "--threads"),
            (None, Some(text)) => (text.as_str(), "PIPE_THREADS"),
            (None, None) => return Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        };
        match text.parse::<usize>() {
            Ok(n_threads @ 1..=4096) => Ok(n_threads),
            _ => {
                let message = format!("{place} is `{text}`, but must be a whole number from 1 to 4096");
                Err(Diagnostic::new("bad-threads", message).into())
            }
        }
    }

    /// What a run on this machine may grant, and what it must share with other runs.
    pub(super) fn machine(&self, n_threads: usize, memory_limit: Option<u64>) -> (Slots, Ledger) {
        let environment = &self.io.environment;
        let slots = machine_slots(n_threads, memory_limit, environment.pretended_gpus);
        let ledger = Ledger::new(environment.ledger.clone(), slots.gpus, machine_memory_bytes());
        (slots, ledger)
    }

    pub(super) fn store_dir(&self) -> PathBuf {
        self.io.current_dir.join(&self.store_as_given)
    }

    /// Makes none where there is none.
    pub(super) fn open_store_to_read(&self) -> Result<Store, CliError> {
        Ok(Store::open_to_read(&self.store_dir())?)
    }

    /// ` --store DIR` where a command would not find the store without it.
    pub(super) fn store_option(&self) -> String {
        let default_store = self.io.environment.store.clone().unwrap_or_else(|| ".pipe".into());
        if self.store_as_given == default_store {
            String::new()
        } else {
            format!(" --store {}", quote_path(&self.store_as_given))
        }
    }

    /// That a run's events are of another version, or were never written.
    pub(super) fn unreadable_run(&self, run_id: &str) -> CliError {
        Diagnostic::new("unreadable-run", format!("the events of run `{run_id}` cannot be read")).into()
    }

    /// The last run, or the one whose id begins so.
    pub(super) fn find_run(&self, store: &Store, wanted: Option<&str>) -> Result<String, CliError> {
        let runs = store.list_runs()?;
        let Some(last) = runs.last() else {
            let message = format!("there is no run in `{}`", self.store_as_given.display());
            return Err(Diagnostic::new("no-last-run", message).help("`pipe run FILE` makes one").into());
        };
        let Some(wanted) = wanted else { return Ok(last.clone()) };
        let found: Vec<&String> = runs.iter().filter(|id| id.starts_with(wanted)).collect();
        let newest = |runs: &[&String]| {
            runs.iter().rev().take(N_NAMED).map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ")
        };
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => {
                let names: Vec<&str> = runs.iter().map(String::as_str).collect();
                let near = nearest(wanted, &names).map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
                let help = format!("{near}the newest are {}", newest(&runs.iter().collect::<Vec<_>>()));
                let message = format!("there is no run `{wanted}` in `{}`", self.store_as_given.display());
                Err(Diagnostic::new("unknown-run", message).help(help).into())
            }
            several => {
                let message = format!("{} runs begin with `{wanted}`", several.len());
                let help = format!("the newest are {}", newest(several));
                Err(Diagnostic::new("ambiguous-run", message).help(help).into())
            }
        }
    }

    pub(super) fn load_pipeline(&self, request: &Request) -> Result<Pipeline, CliError> {
        let path = self.io.current_dir.join(&request.file_as_given);
        Ok(spec::load(&path, &request.options, self.registry)?)
    }

    /// Reads the pipeline first: a mistake in it should not leave a store behind.
    pub(super) fn load(&self, request: &Request, numerics: Option<NumericsChoice>) -> Result<Loaded, CliError> {
        let path = self.io.current_dir.join(&request.file_as_given);
        let lock_path = LockFile::path_beside(&path);
        let (pipeline, read) = Ahead::beside(&lock_path, &self.store_dir(), || self.load_pipeline(request));
        let pipeline = pipeline?;
        let store = Store::open(&self.store_dir())?;
        let (lock, ahead) = read?;
        let numerics = self.numerics(numerics, &pipeline);
        Ok(Loaded { pipeline, store, lock, ahead, numerics, forced: BTreeSet::new(), is_locked: false })
    }

    /// The same for a command that only looks: no store is made where there is none, and as little memory is taken as can be.
    pub(super) fn load_to_read(&self, request: &Request, numerics: Option<NumericsChoice>) -> Result<Loaded, CliError> {
        let pipeline = self.load_pipeline(request)?;
        let store = Store::open_to_read(&self.store_dir())?;
        let lock = LockFile::load(&LockFile::path_beside(&pipeline.path))?;
        let numerics = self.numerics(numerics, &pipeline);
        let (ahead, forced) = (Ahead::default(), BTreeSet::new());
        Ok(Loaded { pipeline, store, lock, ahead, numerics, forced, is_locked: false })
    }

    /// The argument, then the file, then `exact` under CI, then `any`.
    fn numerics(&self, argument: Option<NumericsChoice>, pipeline: &Pipeline) -> Numerics {
        match argument {
            Some(NumericsChoice::Exact) => Numerics::Exact,
            Some(NumericsChoice::Any) => Numerics::Any,
            None if self.io.environment.is_ci => pipeline.numerics.unwrap_or(Numerics::Exact),
            None => pipeline.numerics.unwrap_or(Numerics::Any),
        }
    }

    /// The file that was named, or what the last run was started with.
    pub(super) fn request_or_last(&self, file: Option<&Path>, overlay: &Overlay) -> Result<Request, CliError> {
        match file {
            Some(file) => Ok(Request::new(file, overlay)),
            None => {
                let mut request = self.last_request()?;
                if overlay.profile.is_some() {
                    request.options.profile.clone_from(&overlay.profile);
                }
                request.options.sets.extend(overlay.sets.iter().cloned());
                Ok(request)
            }
        }
    }

    fn last_request(&self) -> Result<Request, CliError> {
        let store = self.open_store_to_read()?;
        for run_id in store.list_runs()?.iter().rev() {
            let first = read_events(&store.run_dir(run_id)).next();
            if let Some((_, Event::RunStarted { request, .. })) = first {
                return Ok(Request::of_run(request));
            }
        }
        let message = format!("there is no last run in `{}`", self.store_as_given.display());
        Err(Diagnostic::new("no-last-run", message).help("name the pipeline file").into())
    }
}

impl Request {
    pub(super) fn new(file: &Path, overlay: &Overlay) -> Self {
        let options = LoadOptions { profile: overlay.profile.clone(), sets: overlay.sets.clone() };
        Request { file_as_given: file.to_path_buf(), options }
    }

    /// As events have it; `path`: where the file is.
    pub(super) fn record(&self, path: &Path) -> RunRequest {
        RunRequest {
            file: std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()),
            file_as_given: self.file_as_given.clone(),
            profile: self.options.profile.clone(),
            sets: self.options.sets.clone(),
        }
    }

    /// The path as it was given, if it leads to the same file from here.
    fn of_run(run: RunRequest) -> Self {
        let is_here = std::path::absolute(&run.file_as_given).is_ok_and(|path| path == run.file);
        let file_as_given = if is_here { run.file_as_given } else { run.file };
        Request { file_as_given, options: LoadOptions { profile: run.profile, sets: run.sets } }
    }
}

/// What to write instead of a wrong name.
pub(super) fn help_for(wrong: &str, names: &[&str], what: &str) -> String {
    match nearest(wrong, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            format!("its {what} are {}", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
        }
    }
}

/// `--color` first, then the environment, then whether there is a terminal.
pub(super) fn style_of(choice: Option<ColorChoice>, environment: &Environment, is_terminal: bool) -> Style {
    let is_colour = match choice {
        Some(ColorChoice::Always) => true,
        Some(ColorChoice::Never) => false,
        Some(ColorChoice::Auto) | None => {
            !environment.is_colour_unwanted && (environment.is_colour_forced || is_terminal)
        }
    };
    if is_colour { Style::COLOUR } else { Style::PLAIN }
}
