//! The settings of `generate`: names and defaults of transformers' `GenerationConfig`.

use pipe_contract::{ProblemKind, Reader};
use pipe_llm::device::DeviceChoice;
use pipe_llm::generate::Sampling;

/// `with:` of a `generate` stage, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How many prompts, of those that are not in training.
    pub max_examples: u64,
    /// Most tokens of a sample.
    pub max_new_tokens: usize,
    /// How tokens are drawn; `None` takes the likeliest each time.
    pub sampling: Option<Sampling>,
    /// What the logits of tokens that are there already are divided by (or multiplied, below zero); 1 changes nothing.
    pub repetition_penalty: f64,
    /// Texts that end a sample.
    pub stop_strings: Vec<String>,
    /// Samples per prompt.
    pub n_samples: usize,
    /// Names the random numbers.
    pub seed: u64,
    /// Samples that are made together.
    pub batch_size: usize,
    /// Where the model runs.
    pub device: DeviceChoice,
}

impl Settings {
    /// Reads `with:`.
    pub fn read(reader: &mut Reader) -> Self {
        let is_sampled = reader.bool("do_sample", false);
        let sampling = Sampling {
            temperature: reader.float("temperature", 1.0, 0.001..=100.0),
            top_k: reader.integer("top_k", 50, 0..=10_000_000) as usize,
            top_p: reader.float("top_p", 1.0, 0.001..=1.0),
        };
        let n_samples = reader.integer("num_return_sequences", 1, 1..=1024) as usize;
        let seed = reader.integer("seed", 42, 0..=(1 << 53));
        if !is_sampled {
            refuse_unheard(reader, &sampling, n_samples);
        }
        Settings {
            max_examples: reader.integer("max_examples", 8, 1..=1_000_000_000),
            max_new_tokens: reader.integer("max_new_tokens", 64, 1..=65_536) as usize,
            sampling: is_sampled.then_some(sampling),
            repetition_penalty: reader.float("repetition_penalty", 1.0, 0.01..=100.0),
            stop_strings: read_stop_strings(reader),
            n_samples,
            seed,
            batch_size: reader.integer("per_device_eval_batch_size", 8, 1..=65_536) as usize,
            device: DeviceChoice::read(reader),
        }
    }
}

/// Without sampling the four do nothing. By value, not by whether they were written: a default written down means what
/// leaving it out means.
fn refuse_unheard(reader: &mut Reader, sampling: &Sampling, n_samples: usize) {
    let unheard = [
        ("temperature", sampling.temperature != 1.0, "does nothing"),
        ("top_k", sampling.top_k != 50, "does nothing"),
        ("top_p", sampling.top_p != 1.0, "does nothing"),
        ("num_return_sequences", n_samples != 1, "gives the same sample again"),
    ];
    for (name, _, does) in unheard.into_iter().filter(|(_, is_changed, _)| *is_changed) {
        let message = format!("`{name}` {does} with `do_sample: false`");
        reader.problem(name, ProblemKind::OutOfRange, message, Some("set `do_sample: true`, or leave it out".into()));
    }
    for name in ["temperature", "top_k", "top_p", "seed"] {
        reader.not_in_key(name);
    }
}

fn read_stop_strings(reader: &mut Reader) -> Vec<String> {
    let texts = reader.text_list("stop_strings").unwrap_or_default();
    if texts.is_empty() {
        reader.not_in_key("stop_strings");
    }
    if texts.iter().any(String::is_empty) {
        let message = "`stop_strings` has an empty text, which every sample contains";
        reader.problem("stop_strings", ProblemKind::OutOfRange, message, None);
    }
    texts
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
            "{ max_examples: 8, max_new_tokens: 64, do_sample: false, temperature: 1.0, top_k: 50, top_p: 1, seed: 42 }",
            "{ repetition_penalty: 1, stop_strings: [], num_return_sequences: 1, per_device_eval_batch_size: 8, device: cpu }",
            "{ seed: 7 }", // nothing is drawn
        ] {
            assert_eq!(key(yaml), key("{}"), "{yaml}");
        }
    }

    #[test]
    fn what_changes_the_bytes_is_in_the_key() {
        for with in [
            "max_examples: 9",
            "max_new_tokens: 65",
            "repetition_penalty: 1.1",
            "stop_strings: [\"\\n\"]",
            "per_device_eval_batch_size: 1",
            "do_sample: true",
        ] {
            assert_ne!(key(&format!("{{ {with} }}")), key("{}"), "{with}");
        }
        for with in ["temperature: 0.7", "top_k: 0", "top_p: 0.9", "seed: 7", "num_return_sequences: 2"] {
            assert_ne!(key(&format!("{{ do_sample: true, {with} }}")), key("{ do_sample: true }"), "{with}");
        }
    }

    #[test]
    fn every_problem_is_reported() {
        let (settings, _, problems) = parse("{ temperature: 0.7, top_p: 0.9, num_return_sequences: 3 }");
        assert_eq!((settings.sampling, problems.len()), (None, 3), "{problems:?}");
        let (_, _, problems) = parse("{ do_sample: true, temperature: 0, stop_strings: [\"\"], max_tokens: 3 }");
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert_eq!(parse("{ stop_strings: \"###\" }").0.stop_strings, ["###"]);
    }
}
