//! One stage, from its start to its manifest, on the thread that was made for it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pipe_cache::{Attempt, CacheError, Divergence, Manifest, ManifestDraft, Watch};
use pipe_contract::{CancelToken, Context, Resolved, Source, SpotCheck, StageError, StageEvent};

use super::panics;
use super::pool::StagePool;
use super::spot::Spot;
use crate::error::chain;
use crate::events::Failure;
use crate::plan::{Judgement, Keys, Planner, store_error};
use crate::schedule::{Grant, Outcome};
use crate::spec::StageSpec;

/// Progress is passed on at most this often, except for the last one: enough for eyes.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// How often the cancel token is looked at while a remote answers.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// What a thread needs to run a stage.
pub(super) struct Job<'a> {
    pub(super) planner: Planner<'a>,
    pub(super) stage: usize,
    /// `None` where its remote name is not resolved yet.
    pub(super) keys: Option<Box<Keys>>,
    /// Of every stage that feeds it.
    pub(super) manifests: BTreeMap<usize, Arc<Manifest>>,
    pub(super) grant: Grant,
    /// Their numbers.
    pub(super) gpus: Vec<usize>,
    /// Most memory it may take, where the user says.
    pub(super) memory_bytes: Option<u64>,
    pub(super) spot: Option<Spot<'a>>,
    /// Of this try of the stage.
    pub(super) cancel: CancelToken,
}

/// How a job ended.
pub(super) struct JobEnd {
    /// The outcome with its manifest, or why there is none.
    pub(super) result: Result<Done, Failure>,
    /// `Ran`, `Reused`, `Failed` or `Cancelled`.
    pub(super) outcome: Outcome,
    /// What a remote name was resolved to.
    pub(super) resolution: Option<(String, String)>,
    /// Training state that outlives a job which did not succeed.
    pub(super) checkpoint: Option<PathBuf>,
}

/// What a job that succeeded has.
pub(super) struct Done {
    pub(super) manifest: Arc<Manifest>,
    /// Where the same fingerprint gave other bytes before.
    pub(super) divergence: Option<Box<Divergence>>,
    /// Whether the files were made now, or by another process in the meantime.
    pub(super) is_new: bool,
    /// Where parts of an earlier execution were looked at instead.
    pub(super) spot_checks: Option<Vec<SpotCheck>>,
}

impl Done {
    /// What the stage gave, whether it stands or not.
    pub(super) fn made(&self) -> &Manifest {
        self.divergence.as_ref().map_or(&self.manifest, |divergence| &divergence.now)
    }
}

/// Why a job stopped.
pub(super) enum Stop {
    Error(StageError),
    Bug(String),
}

impl Stop {
    fn into_failure(self) -> Failure {
        match self {
            Stop::Error(error) => {
                Failure { slug: error.slug.to_string(), message: chain(&error), help: error.help, is_bug: false }
            }
            // The failure of a stage that did what no stage may do.
            Stop::Bug(message) => {
                let help = "this is a mistake in pipe or in the stage kind, not in the pipeline; please report it with the log";
                Failure { slug: "bug".to_string(), message, help: Some(help.to_string()), is_bug: true }
            }
        }
    }
}

impl From<StageError> for Stop {
    fn from(error: StageError) -> Self {
        Stop::Error(error)
    }
}

impl From<CacheError> for Stop {
    fn from(error: CacheError) -> Self {
        match error {
            // What a stage must not do: the user cannot repair it.
            CacheError::EmptyOutput { .. }
            | CacheError::UndeclaredOutput { .. }
            | CacheError::DuplicateName { .. }
            | CacheError::BadDigest { .. } => Stop::Bug(error.to_string()),
            _ => Stop::Error(store_error(&error)),
        }
    }
}

impl Job<'_> {
    /// Runs it, and never panics. `tell` passes on what the stage says.
    pub(super) fn run(self, tell: &(dyn Fn(StageEvent) + Sync)) -> JobEnd {
        let thread_name = self.thread_name();
        match guard(&thread_name, || self.run_unguarded(tell)) {
            Ok(end) => end,
            Err(stop) => JobEnd {
                result: Err(stop.into_failure()),
                outcome: Outcome::Failed,
                resolution: None,
                checkpoint: None,
            },
        }
    }

    fn run_unguarded(mut self, tell: &(dyn Fn(StageEvent) + Sync)) -> JobEnd {
        let mut resolution = None;
        let mut checkpoint_dir = None;
        let result = self.make(&mut resolution, &mut checkpoint_dir, tell);
        let checkpoint = checkpoint_dir.filter(|dir| result.is_err() && dir.exists());
        let (outcome, result) = match result {
            Ok(done) => (if done.is_new { Outcome::Ran } else { Outcome::Reused }, Ok(done)),
            Err(Stop::Error(error)) if error.is_cancelled => {
                (Outcome::Cancelled, Err(Stop::Error(error).into_failure()))
            }
            Err(stop) => (Outcome::Failed, Err(stop.into_failure())),
        };
        JobEnd { result, outcome, resolution, checkpoint }
    }

    fn spec(&self) -> &StageSpec {
        &self.planner.pipeline.stages[self.stage]
    }

    fn make(
        &mut self,
        resolution: &mut Option<(String, String)>,
        checkpoint_dir: &mut Option<PathBuf>,
        tell: &(dyn Fn(StageEvent) + Sync),
    ) -> Result<Done, Stop> {
        let store = self.planner.store;
        let keys = match self.keys.take() {
            Some(keys) => keys,
            None => self.resolve(resolution, tell)?,
        };
        let is_forced = self.planner.forced.contains(&self.stage);
        if !is_forced {
            *checkpoint_dir = Some(store.checkpoint_dir(&keys.trajectory));
        }
        let mut say_who = |holder: u32| {
            let who = if holder == std::process::id() { "another stage".into() } else { format!("process {holder}") };
            tell(StageEvent::Log { line: format!("{who} makes the same outputs: waiting for it") });
        };
        let lock = store
            .stage_lock_unless(&keys.fingerprint, &mut say_who, &|| self.cancel.is_cancelled())?
            .ok_or_else(StageError::cancelled)?;
        store.hold(&[&keys.fingerprint], &[&keys.trajectory])?;
        if !is_forced
            && let Some(manifest) = store.lookup(&keys.fingerprint)?
            && store.missing(&manifest)?.is_empty()
        {
            return Ok(Done { manifest: Arc::new(manifest), divergence: None, is_new: false, spot_checks: None });
        }
        let attempt = store.begin(&keys.fingerprint)?;
        let pool = StagePool::new(self.grant.threads, self.thread_name());
        if let Some(done) = self.spot_check(&keys, &attempt, &pool, tell)? {
            return Ok(done);
        }
        let ((), draft) = self.compute(&keys, &attempt, &pool, tell, |ctx| self.spec().stage.run(ctx))?;
        // In the pool too: digesting large files is parallel, and should keep to the threads that were granted.
        let listing = attempt.list()?;
        let is_parallel = self.spec().stage.is_parallel() || listing.has_large_file();
        let publication = pool.run(is_parallel, || store.publish_listed(attempt, listing, draft, &lock))??;
        if !keys.keeps_checkpoints {
            store.remove_checkpoint(&keys.trajectory);
        } else if store.checkpoint_dir(&keys.trajectory).exists() {
            // Where it cannot be noted, the training state counts by its age: it is scratch.
            let _ = store.note_checkpoint(&keys.trajectory, &keys.fingerprint);
        }
        let manifest = Arc::new(publication.manifest);
        Ok(Done { divergence: publication.divergence, manifest, is_new: true, spot_checks: None })
    }

    /// Asks what the remote name stands for, and makes the keys with the answer.
    fn resolve(
        &self,
        resolution: &mut Option<(String, String)>,
        tell: &(dyn Fn(StageEvent) + Sync),
    ) -> Result<Box<Keys>, Stop> {
        let Judgement::Unresolved { request } = self.planner.judge(self.stage, &self.manifests, None)? else {
            return Err(Stop::Bug("a stage without a remote source has no keys".into()));
        };
        tell(StageEvent::Log { line: format!("asking for the revision of {request}") });
        let id = self.ask()?.id;
        tell(StageEvent::Log { line: format!("{request} is {id}") });
        *resolution = Some((request.clone(), id.clone()));
        // The memory of this store, for when there is no lock file; the next run asks again where it cannot be written.
        let _ = self.planner.store.memo_put(&request, &id);
        match self.planner.judge(self.stage, &self.manifests, Some(&id))? {
            Judgement::Keyed(keys, _) => Ok(keys),
            Judgement::Unresolved { .. } => Err(Stop::Bug("a stage was resolved and still is not".into())),
        }
    }

    /// Asks on a thread of its own: the network may be silent for long, and who interrupts should not wait for it. The thread
    /// is left behind then, and ends with the process.
    fn ask(&self) -> Result<Resolved, Stop> {
        let (sender, answer) = channel();
        let thread_name = self.thread_name();
        let stage = self.spec().stage.clone();
        thread::Builder::new()
            .name(thread_name.clone())
            .spawn(move || drop(sender.send(guard(&thread_name, || stage.resolve()))))
            .map_err(|error| StageError::user("threads", "failed to start a thread to ask").because(error))?;
        loop {
            match answer.recv_timeout(CANCEL_INTERVAL) {
                Ok(resolved) => return Ok(resolved??),
                Err(RecvTimeoutError::Timeout) if self.cancel.is_cancelled() => {
                    return Err(StageError::cancelled().into());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("a guarded thread sends before it ends"),
            }
        }
    }

    /// Does the stage's `work` in the folder of the attempt; gives what came of it, and what a manifest says besides files.
    pub(super) fn compute<T: Send>(
        &self,
        keys: &Keys,
        attempt: &Attempt,
        pool: &StagePool,
        tell: &(dyn Fn(StageEvent) + Sync),
        work: impl FnOnce(&mut Context<'_>) -> Result<T, StageError> + Send,
    ) -> Result<(T, ManifestDraft), Stop> {
        let spec = self.spec();
        let facts: Mutex<Vec<(String, String)>> = Mutex::default();
        let begin = Instant::now();
        let told_ms = AtomicU64::new(0);
        let emit = |event: StageEvent| {
            match &event {
                StageEvent::Fact { name, value } => {
                    let mut facts = facts.lock().unwrap_or_else(PoisonError::into_inner);
                    facts.retain(|(known, _)| known != name);
                    facts.push((name.clone(), value.clone()));
                }
                StageEvent::Progress { done, total, .. } if done != total || *total == 0 => {
                    let now_ms = begin.elapsed().as_millis() as u64 + 1;
                    let last_ms = told_ms.load(Ordering::Relaxed);
                    if last_ms != 0 && now_ms - last_ms.min(now_ms) < PROGRESS_INTERVAL.as_millis() as u64 {
                        return;
                    }
                    told_ms.store(now_ms, Ordering::Relaxed);
                }
                _ => {}
            }
            tell(event);
        };
        let mut ctx = Context::new(attempt.dir(), &emit);
        for (port, input) in &spec.inputs {
            ctx.inputs.insert(port.clone(), self.planner.store.artifact(&self.manifests[&input.stage], &input.port)?);
        }
        ctx.outputs.clone_from(&spec.outputs);
        ctx.resolved = keys.resolved.clone();
        ctx.base_dir = self.planner.pipeline.base_dir.clone();
        // A forced stage starts from nothing: going on from what the earlier execution left would repeat its bytes.
        if !self.planner.forced.contains(&self.stage) {
            ctx.checkpoint_dir = self.planner.store.checkpoint_dir(&keys.trajectory);
        }
        ctx.n_threads = self.grant.threads;
        ctx.gpus.clone_from(&self.gpus);
        ctx.memory_bytes = self.memory_bytes;
        ctx.cancel = self.cancel.clone();
        ctx.check_cancelled()?;
        let watch = self.watch_inputs()?;
        let result = guard(&self.thread_name(), || pool.run(spec.stage.is_parallel(), || work(&mut ctx)))
            .and_then(|ran| Ok(ran??));
        let changed = self.find_change(&watch, keys, result.is_ok())?;
        if changed.is_some() {
            // What was read of the changed file may be in there, under a key that names the bytes before.
            let _ = std::fs::remove_dir_all(&ctx.checkpoint_dir);
        }
        let made = result?;
        if let Some(what) = changed {
            return Err(input_changed(&what).into());
        }
        let external = ctx.take_external();
        drop(ctx);
        let draft = ManifestDraft {
            fingerprint: keys.fingerprint.clone(),
            semantic_key: keys.semantic_key.clone(),
            compute_class: keys.compute_class.clone(),
            kind: keys.stage_key.kind.clone(),
            kind_version: keys.stage_key.kind_version,
            preimage: keys.stage_key.preimage(),
            resolved: keys.resolved.clone(),
            outputs: spec.outputs.iter().map(|output| (output.name.clone(), output.kind)).collect(),
            external,
            facts: facts.into_inner().unwrap_or_else(PoisonError::into_inner),
        };
        Ok((made, draft))
    }

    /// The files that are read where they lie, each with the bytes that the keys name: looked at before the stage runs.
    fn watch_inputs(&self) -> Result<Watch, Stop> {
        let spec = self.spec();
        let mut paths = Vec::new();
        for input in spec.inputs.values() {
            paths.extend(self.manifests[&input.stage].external_paths(&input.port));
        }
        let inputs = paths.clone();
        if let Source::Files { root, names } = spec.stage.source(&self.planner.pipeline.base_dir)? {
            paths.extend(names.iter().map(|name| root.join(name)));
        }
        let watch = Watch::new(paths)?;
        // After the watch began: what is sound now and does not look different at the end was sound all the time.
        for manifest in self.manifests.values() {
            let missing = self.planner.store.missing(manifest)?;
            if let Some(file) = missing.iter().find(|file| inputs.contains(&file.path)) {
                return Err(input_changed(&self.show(&file.path)).into());
            }
        }
        Ok(watch)
    }

    /// What changed since the watch began, as the user would write it. A local source must still give the same keys too:
    /// it may have changed between planning and now, or have other files.
    fn find_change(&self, watch: &Watch, keys: &Keys, is_done: bool) -> Result<Option<String>, Stop> {
        if let Some(path) = watch.first_changed()? {
            return Ok(Some(self.show(path)));
        }
        let source = self.spec().stage.source(&self.planner.pipeline.base_dir);
        if !is_done || !matches!(source, Ok(Source::Files { .. })) {
            return Ok(None);
        }
        match self.planner.judge(self.stage, &self.manifests, None)? {
            Judgement::Keyed(now, _) if now.fingerprint == keys.fingerprint => Ok(None),
            _ => Ok(Some(format!("the local source of {}", self.spec().name))),
        }
    }

    fn show(&self, path: &Path) -> String {
        path.strip_prefix(self.planner.current_dir).unwrap_or(path).display().to_string()
    }

    pub(super) fn thread_name(&self) -> String {
        format!("{}{}", panics::THREAD_PREFIX, self.spec().name)
    }
}

fn input_changed(what: &str) -> StageError {
    StageError::user("input-changed", format!("`{what}` was changed while the pipeline ran")).help("run again")
}

/// Runs code of a stage; a panic in it becomes a bug.
fn guard<T>(thread_name: &str, work: impl FnOnce() -> T) -> Result<T, Stop> {
    panics::record_panics();
    panics::works_for(thread_name, || catch_unwind(AssertUnwindSafe(work)))
        .map_err(|_| Stop::Bug(format!("it panicked: {}", panics::take_message(thread_name))))
}
