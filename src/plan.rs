//! The plan: what would happen to each stage, and why.
//!
//! ```text
//! stages in topological order --key from settings and input digests--> look the manifest up --> reuse | run | pending | blocked
//! stages in reverse           --files that a running stage or `to:` needs and that are gone--> run instead of reuse
//! ```
//!
//! Keys come from the *content* of inputs, so planning goes on below a stage that is reused, and stops below one that must
//! run: what waits for it is *pending*. When it then gives the same bytes as before, what follows is reused after all.
//!
//! Architecture invariant: a manifest is enough to plan. Bytes are demanded only by a stage that runs and by `to:`; files
//! that are gone make their producer run again, nothing else.
//!
//! Planning never asks the network and changes nothing but the stat memo.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipe_cache::{CacheError, Manifest, Store};
use pipe_contract::{Output, Source, StageError};

use crate::ahead::Ahead;
use crate::key::{KeyInput, KeyOutput, KeySource, StageKey, fingerprint};
use crate::lockfile::LockFile;
use crate::place;
use crate::spec::{InputRef, Numerics, Pipeline, StageSpec};

/// The keys of a stage whose inputs are known.
#[derive(Clone, Debug)]
pub struct Keys {
    /// What they were made of.
    pub stage_key: StageKey,
    /// Without the compute class.
    pub semantic_key: String,
    /// What a manifest is stored under.
    pub fingerprint: String,
    /// What the bytes depend on besides.
    pub compute_class: Option<String>,
    /// Names the checkpoints.
    pub trajectory: String,
    /// Whether they are kept once the outputs are published: another fingerprint can go on from them.
    pub keeps_checkpoints: bool,
    /// The commit of a remote source.
    pub resolved: Option<String>,
}

/// The keys of a stage whose inputs are known, or the question they wait for.
#[derive(Clone, Debug)]
pub enum Keyed {
    /// The keys.
    Known(Box<Keys>),
    /// Nobody has asked yet what its remote name stands for.
    Unresolved {
        /// The question.
        request: String,
    },
}

/// What is known of a stage once its inputs are.
#[derive(Clone, Debug)]
pub enum Judgement {
    /// Its keys, and its manifest if it was made before.
    Keyed(Box<Keys>, Option<Arc<Manifest>>),
    /// Nobody has asked yet what its remote name stands for.
    Unresolved {
        /// The question.
        request: String,
    },
}

/// What would happen to a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was made before.
    Reuse {
        /// The compute class it was made on, where that is another than here.
        made_on: Option<String>,
    },
    /// It runs.
    Run(Reason),
    /// Whether it runs depends on what these stages give.
    Pending {
        /// The stages, by position.
        on: Vec<usize>,
    },
    /// It cannot run.
    Blocked(Obstacle),
}

/// Why a stage runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was never made with these settings and inputs.
    New,
    /// The user asked for it, though it was made before.
    Forced,
    /// What its remote name stands for is not known.
    Unresolved {
        /// The question.
        request: String,
    },
    /// It was made before, but its files are gone.
    FilesGone {
        /// How many.
        n_files: usize,
        /// The stage that needs them; `None` where `to:` does.
        needed_by: Option<usize>,
    },
}

/// Why a stage cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Its source is not there.
    Source {
        /// A stable word.
        slug: &'static str,
        /// What is wrong.
        message: String,
        /// How to fix it.
        help: Option<String>,
    },
    /// These stages, by position, cannot run.
    Upstream(Vec<usize>),
}

impl Verdict {
    /// `reuse`, `run`, `pending` or `blocked`.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Reuse { .. } => "reuse",
            Verdict::Run(_) => "run",
            Verdict::Pending { .. } => "pending",
            Verdict::Blocked(_) => "blocked",
        }
    }

    /// Why, as a sentence without period; empty where the verdict says it all.
    pub fn explain(&self, pipeline: &Pipeline) -> String {
        let names = |stages: &[usize]| {
            stages.iter().map(|&stage| format!("`{}`", pipeline.stages[stage].name)).collect::<Vec<_>>().join(" and ")
        };
        match self {
            Verdict::Reuse { made_on: None } => String::new(),
            Verdict::Reuse { made_on: Some(class) } => format!("made on {class}"),
            Verdict::Run(Reason::New) => "never made with these settings and inputs".into(),
            Verdict::Run(Reason::Forced) => "forced".into(),
            Verdict::Run(Reason::Unresolved { request }) => format!("the revision of `{request}` is not known yet"),
            Verdict::Run(Reason::FilesGone { n_files, needed_by }) => {
                let who = needed_by.map_or("`to:`".into(), |stage| names(&[stage]));
                match n_files {
                    1 => format!("a file that {who} needs is gone or changed"),
                    n => format!("{n} files that {who} needs are gone or changed"),
                }
            }
            Verdict::Pending { on } => {
                format!("depends on what {} {}", names(on), if on.len() == 1 { "gives" } else { "give" })
            }
            Verdict::Blocked(Obstacle::Source { message, .. }) => message.clone(),
            Verdict::Blocked(Obstacle::Upstream(stages)) => format!("needs {}", names(stages)),
        }
    }
}

/// The plan of one stage.
#[derive(Clone, Debug)]
pub struct StagePlan {
    /// What would happen.
    pub verdict: Verdict,
    /// Its manifest, if it was made before: known even where it must be made again.
    pub manifest: Option<Arc<Manifest>>,
    /// What fixes its bytes besides settings and inputs, where that and its inputs are known.
    pub source: Option<KeySource>,
}

/// The plan of a pipeline: one entry per stage, in file order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// By position in [`Pipeline::stages`].
    pub stages: Vec<StagePlan>,
}

impl Plan {
    /// Whether nothing would run.
    pub fn is_all_reuse(&self) -> bool {
        self.stages.iter().all(|stage| matches!(stage.verdict, Verdict::Reuse { .. }))
    }
}

/// What planning looks at.
#[derive(Clone, Copy)]
pub struct Planner<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// Where manifests are looked up.
    pub store: &'a Store,
    /// What remote names were resolved to.
    pub lock: &'a LockFile,
    /// Which artifacts may be reused.
    pub numerics: Numerics,
    /// What `to:` is relative to.
    pub current_dir: &'a Path,
    /// Stages that run although they were made before, by position.
    pub forced: &'a BTreeSet<usize>,
    /// Whether a stage that gives other bytes than the lock file says has failed.
    pub is_locked: bool,
}

impl Planner<'_> {
    /// Plans every stage.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn plan(&self) -> Result<Plan, CacheError> {
        self.plan_with(&Ahead::default())
    }

    /// The same with manifests of this store that were read just before.
    ///
    /// # Errors
    /// As [`Planner::plan`].
    pub fn plan_with(&self, ahead: &Ahead) -> Result<Plan, CacheError> {
        let mut stages: Vec<Option<StagePlan>> = self.pipeline.stages.iter().map(|_| None).collect();
        for &stage in &self.pipeline.order {
            let planned = self.plan_stage(stage, &stages, ahead);
            stages[stage] = Some(planned);
        }
        let stages = stages.into_iter().map(|stage| stage.expect("the order holds every stage")).collect();
        let mut plan = Plan { stages };
        self.hold(&plan)?;
        self.demand_files(&mut plan)?;
        Ok(plan)
    }

    /// Tells `pipe cache gc` what is relied on from here on, before it is looked at. Where nothing runs and nothing is copied,
    /// nothing is.
    fn hold(&self, plan: &Plan) -> Result<(), CacheError> {
        if plan.is_all_reuse() && self.pipeline.stages.iter().all(|stage| stage.to.is_none()) {
            return Ok(());
        }
        let manifests = plan.stages.iter().filter_map(|stage| stage.manifest.as_ref());
        let fingerprints: Vec<&str> = manifests.map(|manifest| manifest.fingerprint.as_str()).collect();
        self.store.hold(&fingerprints, &[])
    }

    fn plan_stage(&self, stage: usize, earlier: &[Option<StagePlan>], ahead: &Ahead) -> StagePlan {
        let spec = &self.pipeline.stages[stage];
        let plan_of = |stage: usize| earlier[stage].as_ref().expect("planned before, as the order is topological");
        let without_manifest = |verdict| StagePlan { verdict, manifest: None, source: None };
        let is_blocked = |&before: &usize| matches!(plan_of(before).verdict, Verdict::Blocked(_));
        let blocked = sorted(spec.waits_for().filter(is_blocked));
        if !blocked.is_empty() {
            return without_manifest(Verdict::Blocked(Obstacle::Upstream(blocked)));
        }
        let mut manifests = BTreeMap::new();
        let mut unknown = Vec::new();
        for input in spec.inputs.values() {
            match &plan_of(input.stage).manifest {
                Some(manifest) => drop(manifests.insert(input.stage, manifest.clone())),
                None => unknown.push(input.stage),
            }
        }
        if !unknown.is_empty() {
            return without_manifest(Verdict::Pending { on: sorted(unknown.into_iter()) });
        }
        match self.judge_with(stage, &manifests, None, ahead) {
            Ok(Judgement::Keyed(keys, Some(manifest))) => {
                let made_on = manifest.compute_class.clone().filter(|_| manifest.compute_class != keys.compute_class);
                let is_forced = self.forced.contains(&stage);
                let verdict = if is_forced { Verdict::Run(Reason::Forced) } else { Verdict::Reuse { made_on } };
                StagePlan { verdict, manifest: Some(manifest), source: Some(keys.stage_key.source) }
            }
            Ok(Judgement::Keyed(keys, None)) => {
                StagePlan { source: Some(keys.stage_key.source), ..without_manifest(Verdict::Run(Reason::New)) }
            }
            Ok(Judgement::Unresolved { request }) => without_manifest(Verdict::Run(Reason::Unresolved { request })),
            Err(error) => without_manifest(Verdict::Blocked(Obstacle::Source {
                slug: error.slug,
                message: crate::error::chain(&error),
                help: error.help,
            })),
        }
    }

    /// Turns `reuse` into `run` where files are gone that a running stage or `to:` needs.
    fn demand_files(&self, plan: &mut Plan) -> Result<(), CacheError> {
        for &stage in self.pipeline.order.iter().rev() {
            if matches!(plan.stages[stage].verdict, Verdict::Reuse { .. }) && self.lacks_placed_files(stage, plan)? {
                let manifest = plan.stages[stage].manifest.as_ref().expect("what is reused has a manifest");
                let n_files = self.store.missing(manifest)?.len();
                plan.stages[stage].verdict = Verdict::Run(Reason::FilesGone { n_files, needed_by: None });
            }
            if !matches!(plan.stages[stage].verdict, Verdict::Run(_)) {
                continue;
            }
            for producer in self.producers(stage) {
                let Some(manifest) = plan.stages[producer].manifest.clone() else { continue };
                let n_files = self.store.missing(&manifest)?.len();
                if n_files > 0 && matches!(plan.stages[producer].verdict, Verdict::Reuse { .. }) {
                    plan.stages[producer].verdict = Verdict::Run(Reason::FilesGone { n_files, needed_by: Some(stage) });
                }
            }
        }
        Ok(())
    }

    fn lacks_placed_files(&self, stage: usize, plan: &Plan) -> Result<bool, CacheError> {
        match &plan.stages[stage].manifest {
            Some(manifest) => self.lacks_files_for_to(stage, manifest),
            None => Ok(false),
        }
    }

    /// Whether `to:` of a stage demands files that the store does not have any more.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn lacks_files_for_to(&self, stage: usize, manifest: &Manifest) -> Result<bool, CacheError> {
        let Some(to) = self.to(stage) else { return Ok(false) };
        Ok(place::needs_bytes(self.store, manifest, &to)? && !self.store.missing(manifest)?.is_empty())
    }

    /// Where a stage's outputs are copied to.
    pub fn to(&self, stage: usize) -> Option<PathBuf> {
        self.pipeline.stages[stage].to.as_ref().map(|to| self.current_dir.join(to))
    }

    /// Whether a manifest has the outputs that the lock file says; `true` where it does not say.
    pub fn agrees_with_lock(&self, manifest: &Manifest) -> bool {
        let is_same = |port: &String, digest: &String| {
            manifest.outputs.get(port).is_some_and(|artifact| artifact.digest == *digest)
        };
        let locked = self.lock.outputs(&manifest.fingerprint);
        locked.is_none_or(|digests| digests.iter().all(|(port, digest)| is_same(port, digest)))
    }

    /// The stages that feed a stage, each once.
    pub fn producers(&self, stage: usize) -> Vec<usize> {
        sorted(self.pipeline.stages[stage].inputs.values().map(|input| input.stage))
    }

    /// Makes the keys of a stage and looks its manifest up. `manifests`: of every stage that feeds it. `resolved`: what its
    /// remote name stands for, where that was just asked.
    ///
    /// # Errors
    /// When its local source is not there, or the store cannot be read.
    pub fn judge(
        &self,
        stage: usize,
        manifests: &BTreeMap<usize, Arc<Manifest>>,
        resolved: Option<&str>,
    ) -> Result<Judgement, StageError> {
        self.judge_with(stage, manifests, resolved, &Ahead::default())
    }

    fn judge_with(
        &self,
        stage: usize,
        manifests: &BTreeMap<usize, Arc<Manifest>>,
        resolved: Option<&str>,
        ahead: &Ahead,
    ) -> Result<Judgement, StageError> {
        let spec = &self.pipeline.stages[stage];
        let input = |input: &InputRef| {
            let artifact = &manifests[&input.stage].outputs[&input.port];
            KeyInput { kind: artifact.kind, digest: artifact.digest.clone() }
        };
        let inputs = spec.inputs.iter().map(|(port, from)| (port.clone(), input(from))).collect();
        let answer = |request: &str| resolved.map(str::to_string).or_else(|| self.resolved(request));
        let keys = match self.keys(stage, inputs, answer)? {
            Keyed::Known(keys) => keys,
            Keyed::Unresolved { request } => return Ok(Judgement::Unresolved { request }),
        };
        let manifest = match ahead.get(&keys.fingerprint) {
            Some(manifest) => Some(manifest),
            None => self.look_up(&keys).map_err(|error| store_error(&error))?.map(Arc::new),
        };
        // A kind that gained an output without a new version: what was made before does not do.
        let has_output = |manifest: &Manifest, output: &Output| {
            manifest.outputs.get(&output.name).is_some_and(|artifact| artifact.kind == output.kind)
        };
        let manifest = manifest.filter(|manifest| spec.outputs.iter().all(|output| has_output(manifest, output)));
        Ok(Judgement::Keyed(keys, manifest))
    }

    /// The keys of a stage with `inputs` on its ports. `answer`: what a remote name stands for.
    ///
    /// # Errors
    /// When its local source is not there or cannot be read.
    pub fn keys(
        &self,
        stage: usize,
        inputs: BTreeMap<String, KeyInput>,
        answer: impl FnOnce(&str) -> Option<String>,
    ) -> Result<Keyed, StageError> {
        let spec = &self.pipeline.stages[stage];
        let (source, resolved) = match spec.stage.source(&self.pipeline.base_dir)? {
            Source::Computed => (KeySource::Computed, None),
            Source::Files { root, names } => (KeySource::Files(self.digest_files(&root, names)?), None),
            Source::Remote { request } => match answer(&request) {
                Some(id) => (KeySource::Commit(id.clone()), Some(id)),
                None => return Ok(Keyed::Unresolved { request }),
            },
        };
        Ok(Keyed::Known(Box::new(make_keys(spec, source, resolved, inputs))))
    }

    /// What a remote name stands for, as far as it was asked before.
    fn resolved(&self, request: &str) -> Option<String> {
        self.lock.resolved(request).map(str::to_string).or_else(|| self.store.memo_get(request))
    }

    fn digest_files(&self, root: &Path, names: Vec<String>) -> Result<Vec<(String, String)>, StageError> {
        let digest = |name: String| match self.store.digest_file(&root.join(&name)) {
            Ok(file) => Ok((name, file.digest)),
            Err(error) => Err(store_error(&error)),
        };
        names.into_iter().map(digest).collect()
    }

    fn look_up(&self, keys: &Keys) -> Result<Option<Manifest>, CacheError> {
        let found = self.store.lookup(&keys.fingerprint)?;
        if found.is_some() || keys.compute_class.is_none() || self.numerics == Numerics::Exact {
            return Ok(found);
        }
        self.store.lookup_semantic(&keys.semantic_key)
    }
}

fn make_keys(
    spec: &StageSpec,
    source: KeySource,
    resolved: Option<String>,
    inputs: BTreeMap<String, KeyInput>,
) -> Keys {
    let stage_key = StageKey {
        kind: spec.kind.name().to_string(),
        kind_version: spec.kind.version(),
        settings: spec.key_settings.clone(),
        source,
        inputs,
        outputs: declared_outputs(spec),
    };
    let compute_class = spec.stage.compute_class();
    let semantic_key = stage_key.semantic_key();
    let of_trajectory = spec.stage.trajectory(&spec.key_settings);
    let keeps_checkpoints = of_trajectory.is_some();
    let trajectory_key = match of_trajectory {
        Some(settings) => StageKey { settings, ..stage_key.clone() }.semantic_key(),
        None => semantic_key.clone(),
    };
    Keys {
        fingerprint: fingerprint(&semantic_key, compute_class.as_deref()),
        trajectory: fingerprint(&trajectory_key, compute_class.as_deref()),
        keeps_checkpoints,
        semantic_key,
        compute_class,
        resolved,
        stage_key,
    }
}

/// The outputs that the file declares: those of a kind follow from its version and settings.
pub(crate) fn declared_outputs(spec: &StageSpec) -> BTreeMap<String, KeyOutput> {
    let declared = spec.outputs.iter().filter(|_| spec.kind.has_declared_ports());
    declared.map(|output| (output.name.clone(), KeyOutput { kind: output.kind, file: output.file.clone() })).collect()
}

/// An error of the store, inside a stage.
pub(crate) fn store_error(error: &CacheError) -> StageError {
    StageError::user("store", crate::error::chain(error))
}

fn sorted(stages: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut stages: Vec<usize> = stages.collect();
    stages.sort_unstable();
    stages.dedup();
    stages
}
