//! Spot checks: where only parts of earlier executions are asked for, a stage that can takes parts of its own again.
//!
//! ```text
//! the store: outputs, training state --> Stage::spot_check --> what was looked at, and what differs first
//!                                              \--> none: the stage runs again in full
//! ```
//!
//! What stands is what later stages get. It deliberately publishes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use pipe_cache::{Attempt, Store};
use pipe_contract::{Context, SpotCheck, StageError, StageEvent};

use super::job::{Done, Job, Stop};
use super::pool::StagePool;
use crate::plan::Keys;

/// What is asked of each stage that runs.
#[derive(Clone, Copy, Debug)]
pub struct Spot<'a> {
    /// How many parts of it, at most.
    pub n_parts: usize,
    /// Chooses them.
    pub seed: u64,
    /// Where the outputs of the earlier execution stand, and its training state is kept.
    pub store: &'a Store,
}

impl Job<'_> {
    /// Looks at the earlier execution again, if there is one and the stage can; nothing where it must run in full.
    pub(super) fn spot_check(
        &self,
        keys: &Keys,
        attempt: &Attempt,
        pool: &StagePool,
        tell: &(dyn Fn(StageEvent) + Sync),
    ) -> Result<Option<Done>, Stop> {
        let Some(spot) = self.spot.filter(|_| self.planner.forced.contains(&self.stage)) else { return Ok(None) };
        spot.store.hold(&[&keys.fingerprint], &[&keys.trajectory])?;
        let Some(manifest) = spot.store.lookup(&keys.fingerprint)? else { return Ok(None) };
        if !spot.store.missing(&manifest)?.is_empty() {
            return Ok(None);
        }
        let mut outputs = BTreeMap::new();
        for port in manifest.outputs.keys() {
            outputs.insert(port.clone(), spot.store.artifact(&manifest, port)?);
        }
        let look = |ctx: &mut Context<'_>| -> Result<Option<Vec<SpotCheck>>, StageError> {
            // Its own again afterwards: what becomes of it is not for the state that is kept.
            let own = std::mem::replace(&mut ctx.checkpoint_dir, spot.store.checkpoint_dir(&keys.trajectory));
            let checks =
                self.planner.pipeline.stages[self.stage].stage.spot_check(ctx, &outputs, spot.n_parts, spot.seed);
            ctx.checkpoint_dir = own;
            checks
        };
        let (checks, _) = self.compute(keys, attempt, pool, tell, look)?;
        let Some(checks) = checks else { return Ok(None) };
        // What comes after runs on what stands, where it lies.
        self.planner.store.adopt(&manifest, spot.store)?;
        let manifest = Arc::new(self.planner.store.lookup(&keys.fingerprint)?.unwrap_or(manifest));
        Ok(Some(Done { manifest, divergence: None, is_new: true, spot_checks: Some(checks) }))
    }
}
