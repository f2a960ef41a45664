//! The chain of checkpoint digests: what training state was at fixed optimizer steps, each link over the one before it.
//!
//! ```text
//! optimizer step     10           20           30 ...          T
//! state digest       a            b            c               z         values and moments of all that is trained
//! chain              H(0, 10, a)  H(., 20, b)  H(., 30, c)     H(., T, z)
//! ```
//!
//! Whoever has the state of some optimizer step can run on to the next link and compare; whoever has the last line holds all
//! of them fixed. The steps are multiples of [`EVERY`] and the last one: that is part of the kind's version and not of what
//! `save_steps` keeps, so a run has one chain, whether or not it was interrupted and whatever it saved.

use pipe_llm::LlmError;
use pipe_llm::trainer::Trainer;
use serde::{Deserialize, Serialize};

use crate::state::{CHUNK, bytes, tensors};

/// Optimizer steps between links: few enough to run again, and so many that digesting does not count (11 MB of state for an
/// adapter of 0.9 M parameters, some 5 ms; an optimizer step of 4 x 1,024 tokens takes half a minute).
pub const EVERY: u64 = 10;

/// One line of `checkpoints.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Optimizer steps taken.
    pub step: u64,
    /// BLAKE3 of the training state there, in hex.
    pub digest: String,
    /// BLAKE3 of the chain so far, in hex.
    pub chain: String,
}

/// Whether there is a link after `n_done` optimizer steps, whatever their number in all.
pub fn is_due(n_done: u64) -> bool {
    n_done > 0 && n_done.is_multiple_of(EVERY)
}

/// The link that follows `links` where the state is that of `trainer`.
///
/// # Errors
/// When a tensor cannot be moved from its device.
pub fn link(links: &[Link], trainer: &Trainer) -> Result<Link, LlmError> {
    let mut state = blake3::Hasher::new();
    text(&mut state, "pipe training state 1");
    for (name, values) in tensors(trainer) {
        let values = values?;
        text(&mut state, &name);
        number(&mut state, values.len() as u64);
        for chunk in values.chunks(CHUNK) {
            state.update(&bytes(chunk));
        }
    }
    Ok(after(links, trainer.optimizer.n_done, state.finalize().to_hex().to_string()))
}

fn after(links: &[Link], step: u64, digest: String) -> Link {
    let mut chain = blake3::Hasher::new();
    text(&mut chain, "pipe checkpoint chain 1");
    text(&mut chain, links.last().map_or("", |link| &link.chain));
    number(&mut chain, step);
    text(&mut chain, &digest);
    Link { step, digest, chain: chain.finalize().to_hex().to_string() }
}

fn text(hasher: &mut blake3::Hasher, text: &str) {
    number(hasher, text.len() as u64);
    hasher.update(text.as_bytes());
}

fn number(hasher: &mut blake3::Hasher, number: u64) {
    hasher.update(&number.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_holds_all_before_it_fixed() {
        let first = after(&[], 10, "aa".into());
        let second = after(std::slice::from_ref(&first), 20, "bb".into());
        assert_eq!(second, after(std::slice::from_ref(&first), 20, "bb".into()));
        let others = [
            after(&[], 20, "bb".into()),
            after(&[after(&[], 10, "ab".into())], 20, "bb".into()),
            after(&[after(&[], 9, "aa".into())], 20, "bb".into()),
            after(std::slice::from_ref(&first), 21, "bb".into()),
            after(&[first], 20, "bc".into()),
        ];
        assert!(others.iter().all(|other| other.chain != second.chain), "{others:?}");
        // What is written is what `pipe verify` will compare with: a changed literal needs a new version of the kind.
        assert_eq!(second.chain, "ba7250fc7cc0f18c03903bd9f49fdaa39c293ab10449fc86404f8f2552d379f6");
    }

    #[test]
    fn links_do_not_depend_on_how_many_optimizer_steps_there_are() {
        assert_eq!((0..=35).filter(|&n_done| is_due(n_done)).collect::<Vec<_>>(), [10, 20, 30]);
    }
}
