//! Verifying: stages run again in a store of their own, and what they give is compared with what stands.
//!
//! ```text
//! the store --adopt manifests--> a store of its own --execute, stages forced--> what is made now --compare--> Verification
//!           \--manifests of before ------------------------------------------------------------^
//! lock file ---digests of before --------------------------------------------------------------/
//! ```
//!
//! A stage runs on the inputs that stand, so that one that gives other bytes does not put those after it in doubt; where nothing stands (a fresh clone with its lock
//! file), on what was made now. The store of its own has no checkpoints, so nothing is gone on from. It is removed at the end; other bytes are kept
//! in the store as a divergence.
//!
//! Where only parts are asked for (`--spot`), a stage that can takes parts of what it did again, from the training state that the store keeps, and what
//! stands is judged by what they come to.
//!
//! It deliberately judges bytes alone: a float that differs in its last bit differs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pipe_cache::{Attempt, CacheError, Divergence, Manifest, ManifestArtifact, Store};
use pipe_contract::{Source, SpotCheck};
use serde::Serialize;

use crate::compare::{FileDifference, compare, short};
use crate::events::{Event, Failure, Sink};
use crate::execute::RunEnd;
use crate::lockfile::LockFile;
use crate::plan::{Plan, Planner};
use crate::registry::Registry;
use crate::schedule::Outcome;
use crate::spec::Pipeline;

/// A store to verify in: below the temporary folder of the store it belongs to, and removed with this value.
#[derive(Debug)]
pub struct Workshop {
    /// Where stages run.
    pub store: Store,
    // Declared last: it holds the folder.
    _attempt: Attempt,
}

impl Workshop {
    /// A store that knows what stands in `store`, and what remote names stand for.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn new(store: &Store, pipeline: &Pipeline, plan: &Plan, lock: &LockFile) -> Result<Self, CacheError> {
        let attempt = store.begin("verify")?;
        let manifests = plan.stages.iter().filter_map(|stage| stage.manifest.as_ref());
        store.hold(&manifests.map(|manifest| manifest.fingerprint.as_str()).collect::<Vec<_>>(), &[])?;
        let workshop = Store::open(&attempt.dir().join("store"))?;
        for manifest in plan.stages.iter().filter_map(|stage| stage.manifest.as_ref()) {
            workshop.adopt(manifest, store)?;
        }
        for spec in &pipeline.stages {
            if let Ok(Source::Remote { request }) = spec.stage.source(&pipeline.base_dir)
                && lock.resolved(&request).is_none()
                && let Some(id) = store.memo_get(&request)
            {
                workshop.memo_put(&request, &id)?;
            }
        }
        Ok(Workshop { store: workshop, _attempt: attempt })
    }
}

/// Who says what a stage gave before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Witness {
    Store,
    LockFile,
}

/// What came of a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum VerifyResult {
    /// It gave the same bytes.
    Same {
        /// As who says.
        compared_with: Vec<Witness>,
    },
    /// It gave other bytes.
    Differs {
        /// Than who says.
        compared_with: Vec<Witness>,
        /// What differs, in the order of ports and names.
        differences: Vec<FileDifference>,
    },
    /// The parts of it that were looked at are as it said.
    SpotSame {
        /// Which, in the order in which they were looked at.
        checks: Vec<SpotCheck>,
    },
    /// Some of them are not.
    SpotDiffers {
        /// All of them, each with what differs.
        checks: Vec<SpotCheck>,
    },
    /// Nobody says what it gave before.
    Unknown,
    /// It ran on inputs that are not those of before, as a stage before it gave other bytes.
    OtherInputs,
    /// It was not asked for: what stands was taken.
    NotAsked,
    /// It did not succeed, or did not run after another one failed.
    NotRun {
        /// Why.
        failure: Option<Failure>,
    },
}

/// A stage that was verified.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verified {
    /// Its name.
    pub stage: String,
    /// What `uses:` selects.
    pub kind: String,
    /// What its outputs are stored under.
    pub fingerprint: Option<String>,
    /// What came of it.
    #[serde(flatten)]
    pub result: VerifyResult,
    /// Results of this and earlier executions that are kept beside the one that stands.
    pub n_other_results: usize,
    /// How long it ran.
    #[serde(rename = "duration_ms", serialize_with = "as_ms")]
    pub duration: Duration,
}

fn as_ms<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_millis() as u64)
}

/// How each stage of a run ended, from its events.
#[derive(Debug, Default)]
pub struct Ends(BTreeMap<String, (u64, Option<Failure>)>);

impl Sink for Ends {
    fn on(&mut self, _: Duration, event: &Event) {
        if let Event::StageFinished { stage, duration_ms, failure, .. } = event {
            self.0.insert(stage.clone(), (*duration_ms, failure.clone()));
        }
    }
}

/// What is compared with what.
pub struct Verifier<'a> {
    /// Knows how files of a form are compared.
    pub registry: &'a Registry,
    /// Of the workshop.
    pub planner: Planner<'a>,
    /// Where the results of before stand, and other ones are kept.
    pub store: &'a Store,
}

impl Verifier<'_> {
    /// Whether anybody knows anything to compare with.
    pub fn has_witness(pipeline: &Pipeline, plan: &Plan, lock: &LockFile, forced: &BTreeSet<usize>) -> bool {
        !pipeline.stages.is_empty() && (lock.has_outputs() || forced.iter().any(|&s| plan.stages[s].manifest.is_some()))
    }

    /// An entry per stage, in file order.
    ///
    /// # Errors
    /// When a store cannot be read, or other bytes cannot be kept.
    pub fn judge(&self, end: &RunEnd, ends: &Ends) -> Result<Vec<Verified>, CacheError> {
        let mut verified: BTreeMap<usize, Verified> = BTreeMap::new();
        for &stage in &self.planner.pipeline.order {
            let spec = &self.planner.pipeline.stages[stage];
            let has_other_inputs = spec.waits_for().any(|before| is_in_doubt(&verified[&before].result, end, before));
            let (duration_ms, failure) = ends.0.get(&spec.name).cloned().unwrap_or_default();
            let made = made(end, stage);
            let result = match made {
                Some(made) if end.spot_checks.contains_key(&stage) => self.judge_parts(made, &end.spot_checks[&stage]),
                Some(made) if end.outcomes[stage] == Outcome::Ran => {
                    self.compare(made, end.divergences.get(&stage), has_other_inputs)?
                }
                Some(_) => VerifyResult::NotAsked,
                None => VerifyResult::NotRun { failure },
            };
            let fingerprint = made.map(|made| made.fingerprint.clone());
            let n_other_results = match &fingerprint {
                Some(fingerprint) => self.store.divergences(fingerprint)?.len(),
                None => 0,
            };
            let entry = Verified {
                stage: spec.name.clone(),
                kind: spec.kind.name().to_string(),
                fingerprint,
                result,
                n_other_results,
                duration: Duration::from_millis(duration_ms),
            };
            verified.insert(stage, entry);
        }
        Ok(verified.into_values().collect())
    }

    /// What stands is no better than the lock file says, whatever its parts are like.
    fn judge_parts(&self, standing: &Manifest, checks: &[SpotCheck]) -> VerifyResult {
        let mut checks = checks.to_vec();
        if let Some(digests) = self.planner.lock.outputs(&standing.fingerprint) {
            let is_other =
                |(port, artifact): &(&String, &ManifestArtifact)| digests.get(port) != Some(&artifact.digest);
            let difference = standing.outputs.iter().find(is_other).map(|(port, artifact)| {
                let before = digests.get(port).map_or("none", |digest| short(digest));
                format!("digest of `{port}` {before} -> {}", short(&artifact.digest))
            });
            checks.push(SpotCheck { what: "the digests in the lock file".into(), difference });
        }
        if checks.iter().all(|check| check.difference.is_none()) {
            VerifyResult::SpotSame { checks }
        } else {
            VerifyResult::SpotDiffers { checks }
        }
    }

    fn compare(
        &self,
        made: &Manifest,
        divergence: Option<&Divergence>,
        has_other_inputs: bool,
    ) -> Result<VerifyResult, CacheError> {
        let mut compared_with = Vec::new();
        let mut differences = Vec::new();
        if let Some(before) = self.store.lookup(&made.fingerprint)? {
            compared_with.push(Witness::Store);
            differences = compare(self.registry, (self.store, &before), (self.planner.store, made))?;
            if divergence.is_some() {
                self.store.take_over(made, self.planner.store)?;
            }
        }
        if let Some(digests) = self.planner.lock.outputs(&made.fingerprint) {
            compared_with.push(Witness::LockFile);
            for (port, artifact) in &made.outputs {
                let is_known = differences.iter().any(|difference| &difference.port == port);
                let before = digests.get(port);
                if before != Some(&artifact.digest) && !is_known {
                    differences.push(FileDifference::of_digests(port, before.map(String::as_str), &artifact.digest));
                }
            }
        }
        Ok(match (compared_with.is_empty(), differences.is_empty()) {
            (true, _) if has_other_inputs => VerifyResult::OtherInputs,
            (true, _) => VerifyResult::Unknown,
            (false, true) => VerifyResult::Same { compared_with },
            (false, false) => VerifyResult::Differs { compared_with, differences },
        })
    }
}

/// What a stage gave, whether it stands or not.
fn made(end: &RunEnd, stage: usize) -> Option<&Manifest> {
    match end.divergences.get(&stage) {
        Some(divergence) => Some(&divergence.now),
        None => end.manifests[stage].as_deref(),
    }
}

/// Whether what comes after a stage did not get the inputs of before.
fn is_in_doubt(result: &VerifyResult, end: &RunEnd, stage: usize) -> bool {
    let stands =
        |made: &Manifest| end.manifests[stage].as_ref().is_some_and(|standing| standing.outputs == made.outputs);
    match result {
        VerifyResult::OtherInputs => true,
        VerifyResult::Differs { .. } => made(end, stage).is_some_and(stands),
        VerifyResult::Same { .. }
        | VerifyResult::SpotSame { .. }
        | VerifyResult::SpotDiffers { .. }
        | VerifyResult::Unknown
        | VerifyResult::NotAsked
        | VerifyResult::NotRun { .. } => false,
    }
}
