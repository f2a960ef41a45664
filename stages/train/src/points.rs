//! At which optimizer steps training state is saved and evaluated.
//!
//! ```text
//! save_strategy: steps, save_steps: 4, 10 optimizer steps       saved after 4, 8 and 10
//! eval_strategy: epoch, 3 optimizer steps an epoch              evaluated after 3, 6, 9 and 10
//! ```
//!
//! The last optimizer step is always one of them, unless the strategy is `no`. Whether an earlier one is, does not depend on
//! how many there are: a longer run goes on from a shorter one as if it had been one run.

use pipe_contract::{KeyValue, Problem, ProblemKind, Reader};

/// Checkpoints that are kept where `save_total_limit` does not say: the newest, and one should that be damaged.
const SAVE_TOTAL_LIMIT: u64 = 2;

/// How often something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// Never.
    No,
    /// After each epoch.
    Epoch,
    /// After every so many optimizer steps.
    Steps(u64),
}

impl Every {
    /// Whether it is due after `n_done` optimizer steps, whatever their number in all.
    pub fn is_due(self, n_done: u64, steps_per_epoch: u64) -> bool {
        match self {
            Every::No => false,
            Every::Epoch => n_done > 0 && n_done.is_multiple_of(steps_per_epoch),
            Every::Steps(every) => n_done > 0 && n_done.is_multiple_of(every),
        }
    }
}

/// When training state is saved. It is always saved when a run is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saving {
    /// `save_strategy`, `save_steps`.
    pub every: Every,
    /// `save_total_limit`: checkpoints that are kept, the newest.
    pub n_kept: usize,
}

/// When the loss on port `eval` is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluating {
    /// `eval_strategy`, `eval_steps`.
    pub every: Every,
    /// `load_best_model_at_end`: what is written is the best by that loss, not the last.
    pub takes_best: bool,
}

/// Reads `save_strategy` and what belongs to it; none of it changes the bytes.
pub fn read_saving(reader: &mut Reader) -> Saving {
    let strategy = reader.choice("save_strategy", "epoch", &["no", "epoch", "steps"]);
    let steps = reader.integer("save_steps", 500, 1..=1_000_000_000);
    let n_kept = reader.integer("save_total_limit", SAVE_TOTAL_LIMIT, 1..=1_000_000);
    for name in ["save_strategy", "save_steps", "save_total_limit"] {
        reader.not_in_key(name);
    }
    if strategy != "steps" {
        refuse_idle(reader, "save_steps", &format!("save_strategy: {strategy}"), "set `save_strategy: steps`");
    }
    let every = match strategy {
        "no" => Every::No,
        "steps" => Every::Steps(steps),
        _ => Every::Epoch,
    };
    Saving { every, n_kept: n_kept as usize }
}

/// Reads `eval_strategy` and what belongs to it. `eval_steps` alone asks for `steps`; without it they are `logging_steps`, as in
/// transformers, and in the key either way: evaluations are part of the metrics.
pub fn read_evaluating(reader: &mut Reader, logging_steps: u64) -> Evaluating {
    let strategy = reader.choice("eval_strategy", "no", &["no", "epoch", "steps"]);
    let steps = reader.optional_integer("eval_steps", 1..=1_000_000_000);
    reader.not_in_key("eval_strategy");
    reader.not_in_key("eval_steps");
    let every = match (strategy, steps) {
        ("epoch", _) => Every::Epoch,
        ("steps", steps) => Every::Steps(steps.unwrap_or(logging_steps)),
        (_, Some(steps)) if !reader.has("eval_strategy") => Every::Steps(steps),
        _ => Every::No,
    };
    if !matches!(every, Every::Steps(_)) {
        refuse_idle(reader, "eval_steps", &format!("eval_strategy: {strategy}"), "set `eval_strategy: steps`");
    }
    match every {
        Every::No => {}
        Every::Epoch => reader.record_key("eval_strategy", KeyValue::Text("epoch".into())),
        Every::Steps(steps) => reader.record_key("eval_steps", KeyValue::Int(steps as i64)),
    }
    let takes_best = read_takes_best(reader);
    if takes_best && every == Every::No {
        let message = "`load_best_model_at_end` needs a loss on port `eval` to find the best by";
        let help = Some("set `eval_strategy: epoch`, or `eval_steps`".to_string());
        reader.problem("load_best_model_at_end", ProblemKind::OutOfRange, message, help);
    }
    Evaluating { every, takes_best }
}

fn read_takes_best(reader: &mut Reader) -> bool {
    let takes_best = reader.bool("load_best_model_at_end", false);
    reader.choice("metric_for_best_model", "loss", &["loss", "eval_loss"]);
    reader.not_in_key("metric_for_best_model");
    // The loss is a sum over sequences of one: how they are cut into micro-batches does not matter.
    reader.integer("per_device_eval_batch_size", 8, 1..=65_536);
    reader.not_in_key("per_device_eval_batch_size");
    if reader.bool("greater_is_better", false) {
        let message = "`greater_is_better: true` would take the worst: the metric is a loss";
        reader.problem("greater_is_better", ProblemKind::OutOfRange, message, Some("remove it".into()));
    }
    takes_best
}

fn refuse_idle(reader: &mut Reader, name: &str, beside: &str, help: &str) {
    if reader.has(name) {
        let message = format!("`{name}` does nothing with `{beside}`");
        reader.problem(name, ProblemKind::OutOfRange, message, Some(help.into()));
    }
}

impl Evaluating {
    /// What is wrong where port `eval` has something on it, or nothing.
    pub fn check(self, is_connected: bool) -> Option<Problem> {
        let problem = |path: &str, message: &str, help: &str| Problem {
            path: vec![path.into()],
            at_key: true,
            kind: ProblemKind::OutOfRange,
            message: message.into(),
            help: Some(help.into()),
        };
        match (is_connected, self.every) {
            (false, Every::Epoch) => Some(problem("eval_strategy", UNCONNECTED, CONNECT)),
            (false, Every::Steps(_)) => Some(problem("eval_steps", UNCONNECTED, CONNECT)),
            (true, Every::No) => Some(problem(
                "eval_strategy",
                "packs are connected to port `eval`, but `eval_strategy` is `no`: nothing would be done with them",
                "set `eval_strategy: epoch`, or `eval_steps`; or take the input `eval` away",
            )),
            _ => None,
        }
    }
}

const UNCONNECTED: &str = "there is nothing to evaluate: no packs are connected to port `eval`";
const CONNECT: &str = "`tokenize` rows that are not trained on, and connect them: `inputs: { eval: ... }`";

#[cfg(test)]
mod tests {
    use super::*;
    use pipe_contract::{KeySettings, read_yaml};

    fn due(every: Every) -> Vec<u64> {
        (0..=10).filter(|&n_done| every.is_due(n_done, 3)).collect()
    }

    #[test]
    fn each_strategy_has_its_optimizer_steps() {
        assert!(due(Every::No).is_empty());
        assert_eq!(due(Every::Epoch), [3, 6, 9]);
        assert_eq!(due(Every::Steps(4)), [4, 8]);
    }

    fn evaluating(yaml: &str) -> (Evaluating, KeySettings, Vec<String>) {
        let (read, key, problems) = read_yaml(yaml, |reader| read_evaluating(reader, 10));
        (read, key, problems.into_iter().map(|problem| problem.path.join(".")).collect())
    }

    #[test]
    fn evaluations_are_asked_for_as_in_transformers() {
        for (yaml, every) in [
            ("{}", Every::No),
            ("{ eval_strategy: no }", Every::No),
            ("{ eval_strategy: epoch }", Every::Epoch),
            ("{ eval_strategy: steps }", Every::Steps(10)),
            ("{ eval_strategy: steps, eval_steps: 7 }", Every::Steps(7)),
            ("{ eval_steps: 7 }", Every::Steps(7)),
        ] {
            let (read, _, problems) = evaluating(yaml);
            assert_eq!((read.every, problems.len()), (every, 0), "{yaml}");
        }
        for (yaml, path) in [
            ("{ eval_strategy: epoch, eval_steps: 7 }", "eval_steps"),
            ("{ eval_strategy: no, eval_steps: 7 }", "eval_steps"),
            ("{ load_best_model_at_end: true }", "load_best_model_at_end"),
            ("{ eval_steps: 7, greater_is_better: true }", "greater_is_better"),
            ("{ eval_steps: 7, metric_for_best_model: accuracy }", "metric_for_best_model"),
        ] {
            assert_eq!(evaluating(yaml).2, [path], "{yaml}");
        }
    }

    #[test]
    fn evaluations_are_in_the_key_however_they_are_written() {
        let key = |yaml: &str| evaluating(yaml).1;
        assert_eq!(key("{ eval_strategy: no }"), key("{}"));
        assert_eq!(key("{ eval_strategy: steps, eval_steps: 10 }"), key("{ eval_steps: 10 }"));
        assert_eq!(key("{ eval_strategy: steps }"), key("{ eval_steps: 10 }"));
        assert_eq!(key("{ metric_for_best_model: eval_loss, per_device_eval_batch_size: 2 }"), key("{}"));
        let all = ["{}", "{ eval_steps: 10 }", "{ eval_steps: 11 }", "{ eval_strategy: epoch }"];
        for (at, yaml) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| key(other) != key(yaml)), "{yaml}");
        }
        assert_ne!(key("{ eval_steps: 10, load_best_model_at_end: true }"), key("{ eval_steps: 10 }"));
    }

    #[test]
    fn evaluations_need_something_on_their_port_and_the_other_way_round() {
        let path =
            |yaml: &str, is_connected| evaluating(yaml).0.check(is_connected).map(|problem| problem.path.join("."));
        assert_eq!(path("{ eval_steps: 7 }", false).as_deref(), Some("eval_steps"));
        assert_eq!(path("{ eval_strategy: epoch }", false).as_deref(), Some("eval_strategy"));
        assert_eq!(path("{}", true).as_deref(), Some("eval_strategy"));
        assert_eq!(path("{}", false), None);
        assert_eq!(path("{ eval_steps: 7 }", true), None);
    }

    #[test]
    fn what_is_kept_is_not_in_the_key() {
        let (saving, key, problems) =
            read_yaml("{ save_strategy: steps, save_steps: 7, save_total_limit: 3 }", read_saving);
        assert_eq!((saving, key.len(), problems.len()), (Saving { every: Every::Steps(7), n_kept: 3 }, 0, 0));
        assert_eq!(read_yaml("{}", read_saving).0, Saving { every: Every::Epoch, n_kept: 2 });
        assert_eq!(read_yaml("{ save_steps: 7 }", read_saving).2.len(), 1);
    }
}
