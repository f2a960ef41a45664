//! The settings of `evaluate`: names and defaults of TRL's `SFTConfig`, transformers' `TrainingArguments` and `GenerationConfig`.

use pipe_contract::{KeyValue, ProblemKind, Reader};
use pipe_llm::device::DeviceChoice;

/// TRL's. A model with fewer positions takes as many as it has.
pub const MAX_LENGTH_DEFAULT: usize = 1024;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Mean loss of the supervised tokens, and its exponential.
    Loss,
    /// The share of examples whose completion the model says by itself.
    ExactMatch,
}

/// The words after `metrics:`.
const METRICS: [(&str, Metric); 2] = [("loss", Metric::Loss), ("exact_match", Metric::ExactMatch)];

/// `with:` of an `evaluate` stage, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How many examples, of those that are not in training; `None`: all.
    pub max_examples: Option<u64>,
    /// Most tokens of a document that are scored; [`MAX_LENGTH_DEFAULT`] may be more than the model has positions.
    pub max_length: usize,
    /// Whether the end-of-sequence id is appended where it is absent.
    pub append_eos: bool,
    /// Whether only the completion is supervised; `None`: as the examples say.
    pub completion_only_loss: Option<bool>,
    /// Whether only what the assistant says is supervised.
    pub assistant_only_loss: bool,
    /// What is measured, sorted.
    pub metrics: Vec<Metric>,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// Prompts that are answered together.
    pub batch_size: usize,
    /// Where the model runs.
    pub device: DeviceChoice,
}

impl Settings {
    /// Reads `with:`.
    pub fn read(reader: &mut Reader) -> Self {
        let settings = Settings {
            max_examples: reader.optional_integer("max_examples", 1..=1_000_000_000),
            max_length: reader.integer("max_length", MAX_LENGTH_DEFAULT as u64, 1..=1_048_576) as usize,
            append_eos: reader.bool("append_eos", true),
            completion_only_loss: read_completion_only_loss(reader),
            assistant_only_loss: reader.bool("assistant_only_loss", false),
            metrics: read_metrics(reader),
            max_new_tokens: reader.integer("max_new_tokens", 64, 1..=65_536) as usize,
            batch_size: reader.integer("per_device_eval_batch_size", 8, 1..=65_536) as usize,
            device: DeviceChoice::read(reader),
        };
        // The loss takes one document at a time, so only answers can depend on these two.
        if !settings.metrics.contains(&Metric::ExactMatch) {
            reader.not_in_key("max_new_tokens");
            reader.not_in_key("per_device_eval_batch_size");
        }
        settings
    }

    /// Whether `metric` was asked for.
    pub fn wants(&self, metric: Metric) -> bool {
        self.metrics.contains(&metric)
    }
}

/// Absent means "as the examples say", which is another value than `false`: so both enter the key when given.
fn read_completion_only_loss(reader: &mut Reader) -> Option<bool> {
    let is_given = reader.has("completion_only_loss");
    let value = reader.bool("completion_only_loss", false);
    is_given.then(|| {
        reader.record_key("completion_only_loss", KeyValue::Bool(value));
        value
    })
}

/// A list without order; the default is the loss alone.
fn read_metrics(reader: &mut Reader) -> Vec<Metric> {
    let names = reader.text_list("metrics").unwrap_or_else(|| vec!["loss".into()]);
    reader.not_in_key("metrics");
    let mut metrics = Vec::new();
    for name in &names {
        match METRICS.iter().find(|(word, _)| word == name) {
            Some((_, metric)) => metrics.push(*metric),
            None => {
                let help = nearest_metric(name).map(|near| format!("did you mean `{near}`?"));
                let message = format!("`metrics` has `{name}`, but must be a list of `loss`, `exact_match`");
                reader.problem("metrics", ProblemKind::OutOfRange, message, help);
            }
        }
    }
    metrics.sort();
    metrics.dedup();
    if names.is_empty() {
        reader.problem("metrics", ProblemKind::OutOfRange, "`metrics` is empty", None);
    }
    if metrics != [Metric::Loss] {
        let word = |metric: &Metric| METRICS.iter().find(|(_, m)| m == metric).map_or("", |(word, _)| word);
        let listed = metrics.iter().map(|metric| KeyValue::Text(word(metric).into())).collect();
        reader.record_key("metrics", KeyValue::List(listed));
    }
    metrics
}

fn nearest_metric(wrong: &str) -> Option<&'static str> {
    pipe_settings::nearest(wrong, &METRICS.map(|(word, _)| word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipe_contract::{KeySettings, Problem};

    fn parse(yaml: &str) -> (Settings, KeySettings, Vec<Problem>) {
        pipe_contract::read_yaml(yaml, Settings::read)
    }

    fn key(yaml: &str) -> KeySettings {
        let (_, key, problems) = parse(yaml);
        assert_eq!(problems, [], "{yaml}");
        key
    }

    #[test]
    fn what_does_not_change_the_bytes_is_not_in_the_key() {
        for yaml in [
            "{ max_length: 1024, append_eos: true, completion_only_loss: null, max_new_tokens: 64 }",
            "{ metrics: loss, device: cpu, max_examples: null }",
            "{ per_device_eval_batch_size: 2, max_new_tokens: 7 }", // no answers are asked for
        ] {
            assert_eq!(key(yaml), key("{}"), "{yaml}");
        }
        assert_eq!(key("{ metrics: [exact_match, loss] }"), key("{ metrics: [loss, exact_match] }"));
    }

    #[test]
    fn what_changes_the_bytes_is_in_the_key() {
        for yaml in [
            "{ max_examples: 64 }",
            "{ max_length: 512 }",
            "{ append_eos: false }",
            "{ completion_only_loss: false }",
            "{ metrics: [exact_match] }",
            "{ metrics: [loss, exact_match] }",
        ] {
            assert_ne!(key(yaml), key("{}"), "{yaml}");
        }
        for with in ["max_new_tokens: 7", "per_device_eval_batch_size: 2"] {
            assert_ne!(key(&format!("{{ metrics: exact_match, {with} }}")), key("{ metrics: exact_match }"), "{with}");
        }
    }

    #[test]
    fn every_problem_is_reported() {
        let (settings, _, problems) = parse("{ metrics: [los, bleu], max_examples: 0, max_lenght: 3 }");
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert_eq!(problems.iter().filter_map(|p| p.help.as_deref()).collect::<Vec<_>>().len(), 2, "{problems:?}");
        assert!(problems.iter().any(|p| p.help.as_deref() == Some("did you mean `loss`?")), "{problems:?}");
        assert_eq!(settings.metrics, []);
        assert_eq!(parse("{ metrics: [] }").2.len(), 1);
    }
}
