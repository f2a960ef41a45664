//! Spot checks: parts of a finished run are taken again, from its start or from training state that is kept, and what they
//! come to is compared with what the run wrote down.
//!
//! ```text
//! checkpoints.jsonl    0 ------ 10 ------ 20 ------ 30 --- 37     a link follows from its digest and the link before
//! kept                                 18 |            34   37    the chain, losses and digest of each are those of the run
//! run again            [-------->      [->             [---->     from some of the beginnings, chosen by the seed, to the next link
//! outputs                                                   37    the last state, written again, gives the same files
//! ```
//!
//! Losses and learning rates of what is run again are compared optimizer step by optimizer step, so that the first one that
//! differs is named; where training state is kept at the end of a part, so is the first tensor.
//!
//! It deliberately does not evaluate on port `eval`, nor write checkpoints: what is kept stays as it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use pipe_contract::{Artifact, SpotCheck, StageError};
use serde_json::Value;

use crate::chain::{self, Link};
use crate::checkpoint::Entry;
use crate::metrics::MetricsLine;
use crate::run::write_trained;
use crate::state::Progress;
use crate::training::Run;

/// Fields of a line of `metrics.jsonl`, causes before effects.
const FIELDS: [&str; 6] = ["learning_rate", "num_tokens", "num_supervised_tokens", "loss", "grad_norm", "epoch"];

/// Hex digits of a digest that are shown.
const SHOWN: usize = 12;

/// What is found of one run.
struct Spot<'r, 'c, 'o> {
    run: Run<'r, 'c>,
    outputs: &'o BTreeMap<String, Artifact>,
    links: Vec<Link>,
    /// By optimizer step, from 1.
    lines: Vec<Value>,
    checks: Vec<SpotCheck>,
    /// By optimizer step: how the kept state differs from the one that was reached.
    states: BTreeMap<u64, String>,
    has_last_state: bool,
}

/// Checks the run that left `outputs`; `run` is it before its first optimizer step.
///
/// # Errors
/// When the outputs cannot be read, or an optimizer step fails; an interruption.
pub(crate) fn check(
    run: Run<'_, '_>,
    outputs: &BTreeMap<String, Artifact>,
    n_parts: usize,
    seed: u64,
) -> Result<Vec<SpotCheck>, StageError> {
    let metrics = outputs.get("metrics").ok_or_else(|| StageError::user("missing-input", "it has no metrics"))?;
    let mut spot = Spot {
        run,
        outputs,
        links: Vec::new(),
        lines: Vec::new(),
        checks: Vec::new(),
        states: BTreeMap::new(),
        has_last_state: false,
    };
    spot.read(metrics)?;
    let kept = spot.run.checkpoints.kept();
    let n_steps = spot.run.batches.n_steps;
    let beginnings: Vec<u64> =
        std::iter::once(0).chain(kept.iter().map(|entry| entry.n_done).filter(|&n_done| n_done < n_steps)).collect();
    let chosen = choose(&beginnings, n_parts, seed);
    if chosen.len() < n_parts {
        spot.run.ctx.log(format!(
            "{} can be run again, not {n_parts}: from the start and from the training state that `save_total_limit` keeps",
            if chosen.len() == 1 { "1 part".into() } else { format!("{} parts", chosen.len()) }
        ));
    }
    if chosen.contains(&0) {
        spot.run_again(&kept)?;
    }
    for entry in &kept {
        let is_sound = spot.kept_state(entry)?;
        if is_sound && chosen.contains(&entry.n_done) {
            spot.run_again(&kept)?;
        }
    }
    Ok(spot.checks)
}

/// Up to `n_parts` of the beginnings. Which ones depends on the seed and each of them alone, not on how many there are.
fn choose(beginnings: &[u64], n_parts: usize, seed: u64) -> Vec<u64> {
    let rank = |beginning: &u64| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"pipe spot check 1");
        hasher.update(&seed.to_le_bytes());
        hasher.update(&beginning.to_le_bytes());
        *hasher.finalize().as_bytes()
    };
    let mut chosen = beginnings.to_vec();
    chosen.sort_by_key(rank);
    chosen.truncate(n_parts);
    chosen
}

impl Spot<'_, '_, '_> {
    fn push(&mut self, what: String, difference: Option<String>) {
        self.checks.push(SpotCheck { what, difference });
    }

    /// What the run wrote down, and whether it fits together.
    fn read(&mut self, metrics: &Artifact) -> Result<(), StageError> {
        let n_steps = self.run.batches.n_steps;
        let links = read_lines(metrics, "checkpoints.jsonl")?;
        let read = links.into_iter().map(serde_json::from_value).collect::<Result<Vec<Link>, _>>();
        let difference = match read {
            Ok(links) => {
                self.links = links;
                chain::find_break(&self.links, n_steps)
            }
            Err(error) => Some(format!("a line of `checkpoints.jsonl` is no link: {error}")),
        };
        let n_links = self.links.len();
        self.push(format!("the chain of {n_links} {}", if n_links == 1 { "link" } else { "links" }), difference);

        self.lines = read_lines(metrics, "metrics.jsonl")?;
        self.lines.retain(|line| line.get("eval_loss").is_none());
        let n_lines = self.lines.len() as u64;
        if n_lines != n_steps {
            let difference = format!("`metrics.jsonl` has {n_lines} optimizer steps, the settings ask for {n_steps}");
            self.push("the losses".into(), Some(difference));
        }
        Ok(())
    }

    /// Takes the state of a checkpoint, and compares what it says of the run up to there. Returns whether that is so.
    fn kept_state(&mut self, entry: &Entry) -> Result<bool, StageError> {
        let what = format!("the checkpoint of optimizer step {}", entry.n_done);
        let difference = match entry.load(&mut self.run.trainer) {
            Ok(progress) => {
                self.run.progress = progress;
                self.difference_of_state()?
            }
            Err(why) => Some(why),
        };
        let is_sound = difference.is_none();
        self.push(what, difference);
        if is_sound && entry.n_done == self.run.batches.n_steps {
            self.last_state()?;
        }
        Ok(is_sound)
    }

    fn difference_of_state(&self) -> Result<Option<String>, StageError> {
        let n_done = self.run.trainer.optimizer.n_done;
        let Progress { history, links, .. } = &self.run.progress;
        if let Some((link, _)) = links.iter().zip(&self.links).find(|(kept, link)| kept != link) {
            return Ok(Some(format!("its chain is another one from optimizer step {} on", link.step)));
        }
        if let Some(difference) = history.steps.iter().find_map(|line| self.difference_of_line(line)) {
            return Ok(Some(difference));
        }
        let Some(link) = self.links.iter().find(|link| link.step == n_done) else { return Ok(None) };
        let digest = chain::digest(&self.run.trainer)?;
        let by_digest = || format!("digest of the state {} -> {}", short(&link.digest), short(&digest));
        Ok((digest != link.digest).then(|| match self.states.get(&n_done) {
            Some(tensor) => format!("{}; {tensor}", by_digest()),
            None => by_digest(),
        }))
    }

    /// Runs on from the state that the trainer has to the next link.
    fn run_again(&mut self, kept: &[Entry]) -> Result<(), StageError> {
        let begin = self.run.trainer.optimizer.n_done;
        let Some(end) = chain::steps(self.run.batches.n_steps).find(|&step| step > begin) else { return Ok(()) };
        self.run.run_to(end)?;
        let steps = &self.run.progress.history.steps[begin as usize..];
        let mut difference = steps.iter().find_map(|line| self.difference_of_line(line));
        let digest = chain::digest(&self.run.trainer)?;
        let link = self.links.iter().find(|link| link.step == end);
        let same_state = link.is_some_and(|link| link.digest == digest);
        if let Some(entry) = kept.iter().find(|entry| entry.n_done == end)
            && let Ok(Some(tensor)) = entry.first_difference(&self.run.trainer)
        {
            self.states.insert(end, tensor);
        }
        if !same_state {
            let before = link.map_or("none", |link| short(&link.digest));
            let mut text = format!("digest of the state of optimizer step {end} {before} -> {}", short(&digest));
            if let Some(tensor) = self.states.get(&end) {
                text = format!("{text}; {tensor}");
            }
            difference = Some(difference.map_or(text.clone(), |first| format!("{first}; {text}")));
        }
        let is_same = difference.is_none();
        self.push(format!("optimizer steps {} to {end}, run again", begin + 1), difference);
        if is_same && end == self.run.batches.n_steps {
            self.last_state()?;
        }
        Ok(())
    }

    /// The first field in which an optimizer step is not as the run wrote it down.
    fn difference_of_line(&self, now: &MetricsLine) -> Option<String> {
        let step = now.step;
        let Some(before) = self.lines.get((step as usize).wrapping_sub(1)) else {
            return Some(format!("`metrics.jsonl` has no optimizer step {step}"));
        };
        let now = serde_json::to_value(now).expect("numbers with names");
        let differs = |field: &&str| before.get(*field) != now.get(*field);
        let field = std::iter::once(&"step").chain(&FIELDS).find(|field| differs(field))?;
        let old = before.get(field).map_or("none".into(), Value::to_string);
        Some(format!("optimizer step {step}: `{field}` {old} -> {}", now[*field]))
    }

    /// Writes the last state as the run did, and compares the files. Where the best is written, that is another state.
    fn last_state(&mut self) -> Result<(), StageError> {
        if self.has_last_state || self.run.settings.evaluating.takes_best {
            return Ok(());
        }
        self.has_last_state = true;
        let port = write_trained(&self.run)?;
        let folder = self.run.ctx.output_dir(port)?;
        let before = self.outputs.get(port).map(|artifact| artifact.files.clone()).unwrap_or_default();
        let mut difference = None;
        for (name, file) in &before {
            let now = folder.join(name);
            if !now.exists() {
                difference.get_or_insert_with(|| format!("`{name}` is not written any more"));
            } else if digest_of(&file.path)? != digest_of(&now)? {
                difference.get_or_insert_with(|| format!("`{name}` has other bytes"));
            }
        }
        let step = self.run.batches.n_steps;
        self.push(format!("`{port}` as the state of optimizer step {step}"), difference);
        Ok(())
    }
}

fn short(digest: &str) -> &str {
    digest.get(..SHOWN).unwrap_or(digest)
}

fn digest_of(path: &Path) -> Result<blake3::Hash, StageError> {
    let mut hasher = blake3::Hasher::new();
    let read = File::open(path).and_then(|file| hasher.update_reader(file).map(|hasher| hasher.finalize()));
    read.map_err(|e| StageError::io("read", path, e))
}

fn read_lines(metrics: &Artifact, name: &str) -> Result<Vec<Value>, StageError> {
    let path = metrics.file(name)?;
    let text = std::fs::read_to_string(path).map_err(|e| StageError::io("read", path, e))?;
    // A line that is no JSON is none of the run's: whoever looks at it finds that nothing fits.
    Ok(text.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_chooses_among_all_beginnings() {
        let beginnings: Vec<u64> = (0..10).collect();
        let of_seeds: Vec<Vec<u64>> = (0..200).map(|seed| choose(&beginnings, 3, seed)).collect();
        assert!(of_seeds.iter().all(|chosen| chosen.len() == 3));
        assert!(beginnings.iter().all(|beginning| of_seeds.iter().any(|chosen| chosen.contains(beginning))));
        assert_eq!(choose(&beginnings, 3, 7), choose(&beginnings, 3, 7));
        assert_ne!(of_seeds[0], of_seeds[1]);
        assert_eq!(choose(&beginnings, 30, 7).len(), 10);
    }

    #[test]
    fn a_choice_does_not_depend_on_what_else_there_is() {
        let all = choose(&[0, 10, 20, 30], 4, 5);
        let without: Vec<u64> = all.iter().copied().filter(|&beginning| beginning != 20).collect();
        assert_eq!(choose(&[0, 10, 30], 4, 5), without);
    }
}
