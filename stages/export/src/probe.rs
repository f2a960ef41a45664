//! Whether the merged model says what base and adapter say: their logits on a fixed probe.
//!
//! ```text
//! probe ids --[base and adapter]--> logits \
//!           --[merged, as written]-> logits  --> the largest difference, and the largest logit to compare it with
//! ```
//!
//! Both sides compute in f32, the merged one from the weights as they lie in its files: rounding of a cast to another dtype is
//! in the difference, and so is a wrong scale, a transposed update or a tensor in the wrong shard. It deliberately judges
//! nothing: how much rounding a model bears is not ours to say.

use candle_core::{Device, Tensor};
use pipe_contract::{Artifact, Context, StageError};
use pipe_kernels::random::Stream;
use pipe_llm::{Adapter, LlmError, Program, Sequence, load};

/// Tokens of the probe: enough for every layer to attend to something, and their logits take 13 MiB at a vocabulary of 50,000.
const N_TOKENS: usize = 64;

/// Larger models are not checked: merging holds one tensor in memory, and the check would hold them all.
const CHECKED_SIZE_BYTES_MAX: u64 = 4 << 30;

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Largest absolute difference of two logits; NaN where one is.
    pub largest_difference: f32,
    /// Largest absolute logit of base and adapter.
    pub largest_logit: f32,
}

/// Compares `model` and `adapter` with `merged`, or nothing where the model is too large to be held in memory.
/// `program`: of the model, with the adapter's targets.
///
/// # Errors
/// When a model cannot be loaded; cancellation.
pub fn compare(
    ctx: &Context<'_>,
    program: &Program,
    model: &Artifact,
    adapter: Option<&Adapter>,
    merged: &Artifact,
) -> Result<Option<Comparison>, StageError> {
    if weights_size(model).max(weights_size(merged)) > CHECKED_SIZE_BYTES_MAX {
        return Ok(None);
    }
    // One model at a time.
    let expected = logits(ctx, program.clone(), model, adapter)?;
    let found = logits(ctx, Program::new(&program.config, &[])?, merged, None)?;
    Ok(Some(comparison(&expected, &found)))
}

fn weights_size(model: &Artifact) -> u64 {
    pipe_weights::select::names(model).iter().map(|name| model.files[name].size_bytes).sum()
}

fn logits(
    ctx: &Context<'_>,
    program: Program,
    model: &Artifact,
    adapter: Option<&Adapter>,
) -> Result<Vec<f32>, StageError> {
    ctx.check_cancelled()?;
    let engine = load::engine(model, program, &Device::Cpu)?;
    let config = &engine.program().config;
    let sequence = Sequence::plain(config, &probe_ids(config.vocab_size, config.max_positions))?;
    let host = |logits: Tensor| logits.flatten_all()?.to_vec1::<f32>();
    Ok(host(engine.logits(adapter, &sequence)?).map_err(LlmError::from)?)
}

/// Ids of a named random stream, below the vocabulary size and within the model's positions.
fn probe_ids(vocab_size: usize, max_positions: usize) -> Vec<u32> {
    let stream = Stream::named(0, "export/probe");
    let id = |idx: usize| (stream.bits(idx as u64) % vocab_size as u64) as u32;
    (0..N_TOKENS.min(max_positions)).map(id).collect()
}

fn comparison(expected: &[f32], found: &[f32]) -> Comparison {
    let larger = |a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) };
    Comparison {
        largest_difference: expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, larger),
        largest_logit: expected.iter().map(|a| a.abs()).fold(0.0, larger),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_the_same_everywhere_and_fits_the_model() {
        assert_eq!(probe_ids(512, 2048).len(), N_TOKENS);
        assert_eq!(probe_ids(512, 10), probe_ids(512, 2048)[..10]);
        // By an implementation of the stream in Python.
        assert_eq!(probe_ids(512, 4), [461, 280, 364, 190]);
        assert!(probe_ids(7, 64).iter().all(|id| *id < 7));
    }

    #[test]
    fn a_number_that_is_none_is_not_hidden() {
        let close = comparison(&[1.0, -3.0], &[1.5, -3.0]);
        assert_eq!(close, Comparison { largest_difference: 0.5, largest_logit: 3.0 });
        assert!(comparison(&[1.0, 2.0, 3.0], &[1.0, f32::NAN, 3.0]).largest_difference.is_nan());
        assert!(comparison(&[f32::INFINITY], &[f32::INFINITY]).largest_difference.is_nan());
    }
}
