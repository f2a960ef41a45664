//! Generation: prompts to new tokens, greedy or sampled, several at once.
//!
//! ```text
//! prompts --extend--> logits --repetition penalty--> (temperature --> top k --> top p --> draw) or largest --> next ids
//!                        ^------------------------------ until an end id, a stop, or the most tokens --------------'
//! ```
//!
//! The order of the steps, and what each does, is that of transformers (`generation/logits_process.py`). The draw for token
//! `i` of a prompt is number `i` of a stream that the prompt names, so neither the batch nor its order matter to it.

use candle_core::DType;
use pipe_kernels::random::Stream;

use crate::adapter::Adapter;
use crate::engine::{CandleEngine, Extension, KvCache};
use crate::error::LlmError;

/// How the next token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; above 0.
    pub temperature: f64,
    /// Only so many most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1 for all.
    pub top_p: f64,
}

/// Settings of a generation, with transformers' names.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationSettings {
    /// Most new tokens of a prompt.
    pub max_new_tokens: usize,
    /// Ids that end a text.
    pub eos_ids: Vec<u32>,
    /// Above 1 makes tokens that are there less likely (arXiv 1909.05858); 1 does nothing.
    pub repetition_penalty: f64,
    /// `None`: the most likely token, the lower id of two.
    pub sampling: Option<Sampling>,
    /// Of the draws.
    pub seed: u64,
}

/// What to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// At least one token.
    pub ids: Vec<u32>,
    /// Names the stream of its draws.
    pub stream: u64,
}

/// Continues `prompts` as one batch. `is_done` is asked after each new token, with the prompt's index and its new ids, and
/// may end it there; `check` is called before each pass with the number of new tokens so far, and may stop all.
///
/// Returns the new ids of each prompt, without the id that ended it. A text also ends where the model has no more positions.
///
/// # Errors
/// A prompt without tokens or as long as the model's positions; what `check` returns; a failing tensor operation.
pub fn generate<E: From<LlmError>>(
    engine: &CandleEngine,
    adapter: Option<&Adapter>,
    prompts: &[Prompt],
    settings: &GenerationSettings,
    mut is_done: impl FnMut(usize, &[u32]) -> bool,
    mut check: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<Vec<u32>>, E> {
    check_prompts(engine, prompts)?;
    let mut new_ids: Vec<Vec<u32>> = vec![Vec::new(); prompts.len()];
    let mut cache = KvCache::new(engine, prompts.len());
    let mut active: Vec<usize> = (0..prompts.len()).filter(|_| settings.max_new_tokens > 0).collect();
    let mut n_new = 0;
    while !active.is_empty() {
        check(n_new)?;
        let extension = |&prompt_idx: &usize| Extension {
            sequence_idx: prompt_idx,
            ids: new_ids[prompt_idx].last().map_or(prompts[prompt_idx].ids.as_slice(), std::slice::from_ref),
        };
        let extensions: Vec<Extension<'_>> = active.iter().map(extension).collect();
        let logits = engine.extend(adapter, &mut cache, &extensions)?;
        let logits: Vec<Vec<f32>> = logits.to_dtype(DType::F32).and_then(|l| l.to_vec2()).map_err(LlmError::from)?;
        let mut still_active = Vec::with_capacity(active.len());
        for (prompt_idx, logits) in active.into_iter().zip(logits) {
            let id = next_id(logits, &prompts[prompt_idx], &new_ids[prompt_idx], settings)?;
            if settings.eos_ids.contains(&id) {
                cache.forget(prompt_idx);
                continue;
            }
            n_new += 1;
            let ids = &mut new_ids[prompt_idx];
            ids.push(id);
            let is_full = ids.len() == settings.max_new_tokens || cache.n_tokens(prompt_idx) == engine.n_positions();
            if is_full || is_done(prompt_idx, ids) {
                cache.forget(prompt_idx);
            } else {
                still_active.push(prompt_idx);
            }
        }
        active = still_active;
    }
    Ok(new_ids)
}

fn check_prompts(engine: &CandleEngine, prompts: &[Prompt]) -> Result<(), LlmError> {
    for (prompt_idx, prompt) in prompts.iter().enumerate() {
        let n_tokens = prompt.ids.len();
        if n_tokens == 0 {
            return Err(LlmError::Input { why: format!("prompt {prompt_idx} has no tokens") });
        }
        if n_tokens >= engine.n_positions() {
            let why = format!(
                "prompt {prompt_idx} has {n_tokens} tokens, which leaves no room in the model's {} positions",
                engine.n_positions()
            );
            return Err(LlmError::Input { why });
        }
    }
    Ok(())
}

/// The token after `prompt` and `new_ids`.
fn next_id(
    mut logits: Vec<f32>,
    prompt: &Prompt,
    new_ids: &[u32],
    settings: &GenerationSettings,
) -> Result<u32, LlmError> {
    if logits.iter().any(|logit| logit.is_nan()) {
        return Err(LlmError::Input { why: "the model's logits are not numbers".into() });
    }
    if settings.repetition_penalty != 1.0 {
        let penalty = settings.repetition_penalty as f32;
        let mut seen: Vec<u32> = prompt.ids.iter().chain(new_ids).copied().collect();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            let logit = &mut logits[id as usize];
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
    Ok(match settings.sampling {
        None => largest(&logits),
        Some(sampling) => {
            let stream = Stream::named(settings.seed, &format!("sample/{}", prompt.stream));
            // 53 bits: the numbers that a double has in [0, 1).
            let draw = (stream.bits(new_ids.len() as u64) >> 11) as f64 / (1u64 << 53) as f64;
            draw_id(&logits, sampling, draw)
        }
    })
}

/// The lowest id of the largest logit.
fn largest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// The id where the cumulative probability passes `draw`, a number in [0, 1), the most likely ids first.
fn draw_id(logits: &[f32], sampling: Sampling, draw: f64) -> u32 {
    let mut ranked: Vec<(u32, f32)> = logits.iter().enumerate().map(|(id, logit)| (id as u32, *logit)).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if sampling.top_k > 0 {
        ranked.truncate(sampling.top_k);
    }
    let top = f64::from(ranked[0].1);
    let weight = |logit: f32| libm::exp((f64::from(logit) - top) / sampling.temperature);
    let mut weights: Vec<f64> = ranked.iter().map(|(_, logit)| weight(*logit)).collect();
    if sampling.top_p < 1.0 {
        let enough = sampling.top_p * weights.iter().sum::<f64>();
        let mut sum = 0.0;
        let n_kept = weights.iter().position(|weight| {
            sum += weight;
            sum >= enough
        });
        weights.truncate(n_kept.map_or(weights.len(), |last| last + 1));
    }
    let threshold = draw * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let chosen = weights.iter().position(|weight| {
        sum += weight;
        sum > threshold
    });
    // The sum may round to the threshold at the very end.
    ranked[chosen.unwrap_or(weights.len() - 1)].0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 2.0, 3.0];

    fn settings(sampling: Option<Sampling>, repetition_penalty: f64) -> GenerationSettings {
        GenerationSettings { max_new_tokens: 1, eos_ids: vec![], repetition_penalty, sampling, seed: 1 }
    }

    #[test]
    fn greedy_takes_the_lower_of_two_equal_ids_and_a_penalty_moves_it() {
        let prompt = Prompt { ids: vec![1], stream: 0 };
        assert_eq!(next_id(LOGITS.to_vec(), &prompt, &[], &settings(None, 1.0)).expect("numbers"), 1);
        assert_eq!(next_id(LOGITS.to_vec(), &prompt, &[], &settings(None, 1.3)).expect("numbers"), 3);
        assert_eq!(next_id(LOGITS.to_vec(), &prompt, &[3], &settings(None, 2.0)).expect("numbers"), 2);
        assert_eq!(
            next_id(vec![-1.0, -1.5], &Prompt { ids: vec![0], stream: 0 }, &[], &settings(None, 2.0)).expect("numbers"),
            1
        );
        assert!(next_id(vec![0.0, f32::NAN], &prompt, &[], &settings(None, 1.0)).is_err());
    }

    #[test]
    fn a_draw_follows_the_probabilities_of_what_is_kept() {
        let all = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 };
        // exp(3), exp(3), exp(2), exp(1): shares 0.376, 0.376, 0.138, 0.051 of ids 1, 3, 2, 0.
        let shares = |sampling: Sampling| {
            let mut counts = [0; 4];
            (0..1000).for_each(|i| counts[draw_id(&LOGITS, sampling, f64::from(i) / 1000.0) as usize] += 1);
            counts
        };
        assert_eq!(shares(all), [54, 400, 147, 399]);
        assert_eq!(shares(Sampling { top_k: 2, ..all }), [0, 500, 0, 500]);
        assert_eq!(shares(Sampling { top_p: 0.75, ..all }), [0, 500, 0, 500]);
        assert_eq!(shares(Sampling { top_p: 1e-9, ..all }), [0, 1000, 0, 0]);
        let cold = shares(Sampling { temperature: 0.05, ..all });
        assert_eq!((cold[0], cold[2]), (0, 0), "cold draws take the largest");
        assert_eq!(draw_id(&LOGITS, all, 1.0 - f64::EPSILON), 0);
    }

    #[test]
    fn draws_are_named_by_prompt_and_position() {
        let sampled = settings(Some(Sampling { temperature: 100.0, top_k: 0, top_p: 1.0 }), 1.0);
        let logits: Vec<f32> = vec![0.0; 1000];
        let draw = |stream: u64, n: usize| {
            next_id(logits.clone(), &Prompt { ids: vec![0], stream }, &vec![0; n], &sampled).expect("numbers")
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
    }
}
