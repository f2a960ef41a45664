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

/// The optimizer steps that a chain of `n_steps` has links of.
pub fn steps(n_steps: u64) -> impl Iterator<Item = u64> {
    (1..=n_steps).filter(move |&step| is_due(step) || step == n_steps)
}

/// The first link that does not follow from those before it, or is not of the optimizer step whose turn it is in `n_steps`.
pub fn find_break(links: &[Link], n_steps: u64) -> Option<String> {
    let mut wanted = steps(n_steps);
    for (at, link) in links.iter().enumerate() {
        let line = at + 1;
        match wanted.next() {
            Some(step) if step == link.step => {}
            Some(step) => return Some(format!("line {line} is of optimizer step {}, not {step}", link.step)),
            None => return Some(format!("line {line} is of optimizer step {}, behind the last one", link.step)),
        }
        if after(&links[..at], link.step, link.digest.clone()) != *link {
            let step = link.step;
            return Some(format!(
                "the link of optimizer step {step} does not follow from its digest and the link before"
            ));
        }
    }
    wanted.next().map(|step| format!("there is no link of optimizer step {step}"))
}

/// The link that follows `links` where the state is that of `trainer`.
///
/// # Errors
/// When a tensor cannot be moved from its device.
pub fn link(links: &[Link], trainer: &Trainer) -> Result<Link, LlmError> {
    Ok(after(links, trainer.optimizer.n_done, digest(trainer)?))
}

/// BLAKE3 of the training state, in hex.
///
/// # Errors
/// When a tensor cannot be moved from its device.
pub fn digest(trainer: &Trainer) -> Result<String, LlmError> {
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
    Ok(state.finalize().to_hex().to_string())
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
    fn a_break_is_found_wherever_it_is() {
        let mut links: Vec<Link> = Vec::new();
        for (step, digest) in [(10, "aa"), (20, "bb"), (23, "cc")] {
            links.push(after(&links, step, digest.into()));
        }
        assert_eq!(find_break(&links, 23), None);
        assert_eq!(find_break(&links, 24).as_deref(), Some("line 3 is of optimizer step 23, not 24"));
        assert_eq!(find_break(&links, 20).as_deref(), Some("line 3 is of optimizer step 23, behind the last one"));
        assert_eq!(find_break(&links[..2], 23).as_deref(), Some("there is no link of optimizer step 23"));
        let mut changed = links.clone();
        changed[1].digest = "bc".into();
        let broken = "the link of optimizer step 20 does not follow from its digest and the link before";
        assert_eq!(find_break(&changed, 23).as_deref(), Some(broken));
        // Whoever changes a link so that it follows breaks the next one.
        changed[1] = after(&links[..1], 20, "bc".into());
        assert_eq!(find_break(&changed, 23).as_deref(), Some(&*broken.replace("20", "23")));
    }

    #[test]
    fn links_do_not_depend_on_how_many_optimizer_steps_there_are() {
        assert_eq!((0..=35).filter(|&n_done| is_due(n_done)).collect::<Vec<_>>(), [10, 20, 30]);
        assert_eq!(steps(35).collect::<Vec<_>>(), [10, 20, 30, 35]);
        assert_eq!(steps(30).collect::<Vec<_>>(), [10, 20, 30]);
    }
}
