//! The settings of `train`: Hugging Face's names and, unless said, TRL's defaults (`SFTConfig`, peft `LoraConfig`).
//!
//! Those that say when state is saved and evaluated are in [`crate::points`].

use pipe_contract::{KeySettings, KeyValue, ProblemKind, Reader};
use pipe_llm::TrainingDevice;
use pipe_llm::schedule::ScheduleType;

use crate::points::{self, Evaluating, Saving};

/// `target_modules: all-linear`: every linear module but the head, as PEFT.
const ALL_LINEAR: &str = "all-linear";

/// Settings as resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `method:` with what belongs to it.
    pub method: Method,
    /// Packs of an optimizer step: `per_device_train_batch_size` x `gradient_accumulation_steps`.
    pub global_batch: usize,
    /// The largest learning rate.
    pub learning_rate: f64,
    /// Shape of the learning rate over the optimizer steps.
    pub schedule_type: ScheduleType,
    /// Length of the warmup.
    pub warmup: Warmup,
    /// First moment's decay.
    pub adam_beta1: f64,
    /// Second moment's decay.
    pub adam_beta2: f64,
    /// Added to the denominator.
    pub adam_epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Gradients are clipped to this norm; 0 does not clip.
    pub max_grad_norm: f64,
    /// Passes over the data.
    pub num_train_epochs: f64,
    /// Optimizer steps, if given: then the epochs do not count.
    pub max_steps: Option<u64>,
    /// Seed of the adapter's first values, of dropout and of the order of packs.
    pub seed: u64,
    /// Whether packs are shuffled anew in each epoch.
    pub is_shuffled: bool,
    /// Optimizer steps between lines of the log.
    pub logging_steps: u64,
    /// When training state is saved, and how much of it is kept.
    pub saving: Saving,
    /// When the loss on port `eval` is computed, and whether it decides what is written.
    pub evaluating: Evaluating,
    /// `device:`.
    pub device: TrainingDevice,
}

/// What is trained.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// `lora`: an adapter on a frozen model.
    Lora(LoraSettings),
    /// `full`: the weights themselves.
    Full {
        /// Patterns of the weights that are not.
        freeze: Vec<String>,
    },
}

/// `lora:`.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraSettings {
    /// r.
    pub lora_rank: usize,
    /// Numerator of the scale.
    pub lora_alpha: f64,
    /// On the adapter's input.
    pub lora_dropout: f64,
    /// alpha / sqrt(r).
    pub use_rslora: bool,
    /// Modules that get an adapter.
    pub target_modules: Targets,
    /// Tokens that get rows of their own, rising; `None`: the new tokens of the model.
    pub trainable_token_indices: Option<Vec<u32>>,
    /// The fields that are not at their default: an adapter to start from must agree with them.
    pub given: Vec<&'static str>,
}

/// `target_modules:`. Which modules there are, only the model can say.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// PEFT's default for the model's family.
    Default,
    /// `all-linear`: every linear module but the head, as PEFT.
    AllLinear,
    /// By name, sorted.
    Named(Vec<String>),
}

/// Length of the warmup.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warmup {
    /// In optimizer steps.
    Steps(u64),
    /// As a share of all, rounded up.
    Ratio(f64),
}

impl Warmup {
    /// W for T optimizer steps.
    pub fn n_steps(self, n_all: u64) -> u64 {
        match self {
            Warmup::Steps(n) => n,
            Warmup::Ratio(ratio) => (ratio * n_all as f64).ceil() as u64,
        }
    }
}

/// Settings that say how far a run goes and which of its states is written, not what is computed on the way: runs that
/// differ in these only go on from each other's checkpoints.
const OF_THE_END: [&str; 3] = ["max_steps", "num_train_epochs", "load_best_model_at_end"];

/// `key` without the settings that only extend a run.
pub fn trajectory(key: &KeySettings) -> KeySettings {
    let computed = key.iter().filter(|(name, _)| !OF_THE_END.contains(&name.as_str()));
    computed.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Reads the `with:` block.
pub fn read(reader: &mut Reader) -> Settings {
    refuse_unbuilt(reader);
    let method = read_method(reader);
    let schedule_type = read_schedule_type(reader);
    let logging_steps = read_logging_steps(reader);
    Settings {
        method,
        global_batch: read_global_batch(reader),
        learning_rate: reader.float("learning_rate", 2e-5, 0.0..=10.0),
        schedule_type,
        warmup: read_warmup(reader, schedule_type),
        adam_beta1: reader.float("adam_beta1", 0.9, 0.0..=0.999_999),
        adam_beta2: reader.float("adam_beta2", 0.999, 0.0..=0.999_999_9),
        adam_epsilon: reader.float("adam_epsilon", 1e-8, 1e-16..=1.0),
        weight_decay: reader.float("weight_decay", 0.0, 0.0..=10.0),
        max_grad_norm: reader.float("max_grad_norm", 1.0, 0.0..=1e6),
        num_train_epochs: reader.float("num_train_epochs", 3.0, 0.000_1..=10_000.0),
        max_steps: read_max_steps(reader),
        seed: reader.integer("seed", 42, 0..=(1 << 53)),
        is_shuffled: reader.choice("train_sampling_strategy", "random", &["random", "sequential"]) == "random",
        logging_steps,
        saving: points::read_saving(reader),
        evaluating: points::read_evaluating(reader, logging_steps),
        device: TrainingDevice::read(reader),
    }
}

fn read_method(reader: &mut Reader) -> Method {
    let method = reader.choice("method", "lora", &["lora", "full"]);
    let freeze = read_freeze(reader);
    let lora = reader.section("lora", read_lora);
    if method == "lora" {
        if reader.has("freeze") {
            let message = "`freeze` does nothing with `method: lora`: every weight of the model is frozen";
            reader.problem("freeze", ProblemKind::OutOfRange, message, Some("set `method: full`, or remove it".into()));
        }
        return Method::Lora(lora);
    }
    if reader.has("lora") {
        let message = "`lora` does nothing with `method: full`: the weights themselves are trained";
        reader.problem("lora", ProblemKind::OutOfRange, message, Some("remove `lora`, or set `method: lora`".into()));
    }
    Method::Full { freeze }
}

/// The order of patterns has no meaning.
fn read_freeze(reader: &mut Reader) -> Vec<String> {
    let mut patterns = reader.text_list("freeze").unwrap_or_default();
    reader.not_in_key("freeze");
    patterns.sort();
    patterns.dedup();
    if !patterns.is_empty() {
        reader.record_key("freeze", KeyValue::List(patterns.iter().cloned().map(KeyValue::Text).collect()));
    }
    patterns
}

fn read_lora(reader: &mut Reader) -> LoraSettings {
    reader.choice("task_type", "CAUSAL_LM", &["CAUSAL_LM"]);
    reader.choice("bias", "none", &["none"]);
    off(reader, "use_dora");
    // It follows from the model, and PEFT too sets it right with a warning.
    reader.bool("fan_in_fan_out", false);
    reader.not_in_key("fan_in_fan_out");
    only_null(reader, "modules_to_save");
    if !reader.bool("init_lora_weights", true) {
        let message = "`init_lora_weights: false` starts from a random B, which is not built";
        reader.problem("init_lora_weights", ProblemKind::Unsupported, message, Some("leave it out".into()));
    }
    let mut lora = LoraSettings {
        lora_rank: reader.integer("r", 8, 1..=1024) as usize,
        lora_alpha: reader.float("lora_alpha", 8.0, 1e-6..=1e6),
        lora_dropout: reader.float("lora_dropout", 0.0, 0.0..=0.99),
        use_rslora: reader.bool("use_rslora", false),
        target_modules: read_targets(reader),
        trainable_token_indices: read_token_indices(reader),
        given: Vec::new(),
    };
    // By value, not by whether it was written: a default written down means what leaving it out means.
    let is_given = [
        ("r", lora.lora_rank != 8),
        ("lora_alpha", lora.lora_alpha != 8.0),
        ("use_rslora", lora.use_rslora),
        ("target_modules", lora.target_modules != Targets::Default),
        ("trainable_token_indices", lora.trainable_token_indices.is_some()),
    ];
    lora.given = is_given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
    lora
}

/// The order of names has no meaning. The default, `all-linear` and a list are different keys even where they come to the same modules: only the model
/// can say to which, and it is known when the stage runs.
fn read_targets(reader: &mut Reader) -> Targets {
    let given = reader.text_list("target_modules");
    reader.not_in_key("target_modules");
    let Some(mut names) = given else { return Targets::Default };
    if names == [ALL_LINEAR] {
        reader.record_key("target_modules", KeyValue::Text(ALL_LINEAR.into()));
        return Targets::AllLinear;
    }
    names.sort();
    names.dedup();
    if names.is_empty() {
        reader.problem("target_modules", ProblemKind::OutOfRange, "`target_modules` is empty", None);
    }
    let listed = names.iter().cloned().map(KeyValue::Text).collect();
    reader.record_key("target_modules", KeyValue::List(listed));
    Targets::Named(names)
}

/// The order of ids has no meaning. An empty list asks for none, also not for the model's new tokens.
fn read_token_indices(reader: &mut Reader) -> Option<Vec<u32>> {
    const NAME: &str = "trainable_token_indices";
    let words = reader.words(NAME)?;
    reader.not_in_key(NAME);
    let ids: Option<Vec<u32>> = words.iter().map(|word| word.parse().ok()).collect();
    let Some(mut ids) = ids else {
        let message = format!("`{NAME}` is a list of token ids, whole numbers from 0 on");
        let help = "leave it out to train the tokens that `extend` gave the model";
        reader.problem(NAME, ProblemKind::WrongType, message, Some(help.into()));
        return None;
    };
    ids.sort_unstable();
    ids.dedup();
    reader.record_key(NAME, KeyValue::List(ids.iter().map(|&id| KeyValue::Int(i64::from(id))).collect()));
    Some(ids)
}

/// The split of an optimizer step into micro-batches does not change its bits, so only their product is in the key.
fn read_global_batch(reader: &mut Reader) -> usize {
    let batch = reader.integer("per_device_train_batch_size", 8, 1..=65_536);
    let accumulation = reader.integer("gradient_accumulation_steps", 1, 1..=65_536);
    reader.not_in_key("per_device_train_batch_size");
    reader.not_in_key("gradient_accumulation_steps");
    let product = batch * accumulation;
    if product != 8 {
        reader.record_key("global_batch", KeyValue::Int(product as i64));
    }
    product as usize
}

fn read_schedule_type(reader: &mut Reader) -> ScheduleType {
    let names = ScheduleType::NAMES.map(|(name, _)| name);
    let name = reader.choice("lr_scheduler_type", "linear", &names);
    ScheduleType::NAMES.into_iter().find(|(n, _)| *n == name).map_or(ScheduleType::Linear, |(_, t)| t)
}

/// `warmup_steps` counts; below 1 it is a ratio, as in transformers 5. `warmup_ratio` is the older name of that.
fn read_warmup(reader: &mut Reader, schedule_type: ScheduleType) -> Warmup {
    if reader.has("warmup_steps") && reader.has("warmup_ratio") {
        let message = "`warmup_steps` and `warmup_ratio` say the same thing twice";
        reader.problem("warmup_ratio", ProblemKind::OutOfRange, message, Some("keep one of them".into()));
    }
    for name in ["warmup_steps", "warmup_ratio"] {
        if reader.has(name) && schedule_type == ScheduleType::Constant {
            let message = format!("`{name}` does nothing with `lr_scheduler_type: constant`");
            let help = "set `lr_scheduler_type: constant_with_warmup`";
            reader.problem(name, ProblemKind::OutOfRange, message, Some(help.into()));
        }
    }
    let steps = reader.float("warmup_steps", 0.0, 0.0..=1e9);
    let ratio = reader.float("warmup_ratio", 0.0, 0.0..=1.0);
    reader.not_in_key("warmup_steps");
    reader.not_in_key("warmup_ratio");
    if steps >= 1.0 && steps.fract() != 0.0 {
        let message = format!("`warmup_steps` is `{steps}`; it must be a whole number, or a ratio below 1");
        reader.problem("warmup_steps", ProblemKind::OutOfRange, message, None);
    }
    if steps >= 1.0 {
        reader.record_key("warmup_steps", KeyValue::Int(steps as i64));
        return Warmup::Steps(steps as u64);
    }
    let ratio = if steps > 0.0 { steps } else { ratio };
    if let (true, Some(value)) = (ratio > 0.0, KeyValue::float(ratio)) {
        reader.record_key("warmup_ratio", value);
    }
    Warmup::Ratio(ratio)
}

/// -1, Hugging Face's default, stands for none.
fn read_max_steps(reader: &mut Reader) -> Option<u64> {
    if reader.is_number("max_steps", -1) {
        return None;
    }
    reader.optional_integer("max_steps", 1..=1_000_000_000)
}

fn read_logging_steps(reader: &mut Reader) -> u64 {
    let steps = reader.integer("logging_steps", 10, 1..=1_000_000_000);
    reader.not_in_key("logging_steps");
    reader.choice("report_to", "none", &["none"]);
    steps
}

/// Names that users paste and that ask for what is not built: refused, so that nobody believes they are heard.
fn refuse_unbuilt(reader: &mut Reader) {
    reader.choice("optim", "adamw_torch", &["adamw_torch", "adamw_torch_fused"]);
    reader.not_in_key("optim");
    for name in ["bf16", "fp16", "load_in_8bit", "load_in_4bit", "gradient_checkpointing", "group_by_length"] {
        off(reader, name);
    }
}

fn off(reader: &mut Reader, name: &'static str) {
    if reader.bool(name, false) {
        let message = format!("`{name}: true` is not built; training computes in f32 and keeps its activations");
        reader.problem(name, ProblemKind::Unsupported, message, Some(format!("remove `{name}`")));
    }
}

fn only_null(reader: &mut Reader, name: &'static str) {
    if !reader.raw(name).is_null() {
        let message = format!("`{name}` is not built: only the low-rank matrices are trained");
        reader.problem(name, ProblemKind::Unsupported, message, Some(format!("remove `{name}`")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipe_contract::Problem;

    fn parse(yaml: &str) -> (Settings, KeySettings, Vec<Problem>) {
        pipe_contract::read_yaml(yaml, read)
    }

    fn key(yaml: &str) -> KeySettings {
        let (_, key, problems) = parse(yaml);
        assert_eq!(problems, [], "{yaml}");
        key
    }

    #[test]
    fn the_settings_of_the_article_are_read() {
        let (settings, _, problems) = parse(
            "{ lora: { r: 16, lora_alpha: 32, lora_dropout: 0.05, task_type: CAUSAL_LM }, per_device_train_batch_size: 4,
               optim: adamw_torch, learning_rate: 2.0e-4, warmup_ratio: 0.1, lr_scheduler_type: linear,
               num_train_epochs: 1, logging_steps: 80, save_strategy: epoch }",
        );
        assert_eq!(problems, []);
        let Method::Lora(lora) = &settings.method else { panic!("lora is the default") };
        assert_eq!((lora.lora_rank, lora.lora_alpha, settings.global_batch), (16, 32.0, 4));
        assert_eq!(settings.warmup, Warmup::Ratio(0.1));
        assert_eq!(settings.warmup.n_steps(61), 7);
        assert_eq!(lora.target_modules, Targets::Default);
    }

    #[test]
    fn what_does_not_change_the_bytes_is_not_in_the_key() {
        for yaml in [
            "{ logging_steps: 3 }",
            "{ save_strategy: steps, save_steps: 7, save_total_limit: 9 }",
            "{ device: cpu }",
            "{ per_device_train_batch_size: 2, gradient_accumulation_steps: 4 }",
            "{ max_steps: -1 }",
            "{ optim: adamw_torch_fused }",
        ] {
            assert_eq!(key(yaml), key("{}"), "{yaml}");
        }
        assert_eq!(key("{ warmup_steps: 0.1 }"), key("{ warmup_ratio: 0.1 }"));
        assert_eq!(
            key("{ lora: { target_modules: [v_proj, q_proj] } }"),
            key("{ lora: { target_modules: [q_proj, v_proj, q_proj] } }")
        );
    }

    #[test]
    fn what_changes_the_bytes_is_in_the_key() {
        for yaml in [
            "{ lora: { r: 4 } }",
            "{ lora: { lora_alpha: 4 } }",
            "{ lora: { lora_dropout: 0.1 } }",
            "{ lora: { use_rslora: true } }",
            "{ lora: { target_modules: [q_proj] } }",
            "{ lora: { target_modules: [q_proj, v_proj] } }",
            "{ lora: { target_modules: all-linear } }",
            "{ per_device_train_batch_size: 4 }",
            "{ learning_rate: 1.0e-4 }",
            "{ lr_scheduler_type: cosine }",
            "{ warmup_steps: 3 }",
            "{ adam_beta1: 0.8 }",
            "{ adam_beta2: 0.99 }",
            "{ adam_epsilon: 1.0e-6 }",
            "{ weight_decay: 0.1 }",
            "{ max_grad_norm: 0.5 }",
            "{ num_train_epochs: 2 }",
            "{ max_steps: 5 }",
            "{ seed: 1 }",
            "{ train_sampling_strategy: sequential }",
        ] {
            assert_ne!(key(yaml), key("{}"), "{yaml}");
        }
    }

    #[test]
    fn runs_of_one_trajectory_differ_in_their_end_only() {
        let of = |yaml: &str| trajectory(&key(yaml));
        for yaml in ["{ max_steps: 5 }", "{ num_train_epochs: 2 }", "{ save_strategy: no }"] {
            assert_eq!(of(yaml), of("{}"), "{yaml}");
        }
        let best = "{ eval_steps: 5, load_best_model_at_end: true, max_steps: 7 }";
        assert_eq!(of(best), of("{ eval_steps: 5 }"));
        for yaml in ["{ eval_steps: 5 }", "{ lr_scheduler_type: cosine }", "{ warmup_steps: 3 }", "{ seed: 1 }"] {
            assert_ne!(of(yaml), of("{}"), "{yaml}");
        }
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for name in ["bf16", "load_in_8bit", "gradient_checkpointing"] {
            let (_, _, problems) = parse(&format!("{{ {name}: true }}"));
            assert!(problems.len() == 1 && problems[0].message.contains(name), "{problems:?}");
        }
        let (_, _, problems) =
            parse("{ lora: { use_dora: true, modules_to_save: [lm_head] }, warmup_steps: 2, warmup_ratio: 0.5 }");
        assert_eq!(problems.len(), 3, "{problems:?}");
        let (_, _, problems) = parse("{ lr_scheduler_type: constant, warmup_ratio: 0.5 }");
        assert_eq!(problems[0].help.as_deref(), Some("set `lr_scheduler_type: constant_with_warmup`"));
    }

    #[test]
    fn full_training_has_its_own_settings() {
        let (settings, key_full, problems) = parse("{ method: full, freeze: [model.embed_tokens, '*.mlp'] }");
        assert_eq!(problems, []);
        assert_eq!(settings.method, Method::Full { freeze: vec!["*.mlp".into(), "model.embed_tokens".into()] });
        assert_eq!(key("{ freeze: ['*.mlp', model.embed_tokens], method: full }"), key_full, "order has no meaning");
        for other in ["{ method: full }", "{ method: full, freeze: ['*.mlp'] }", "{}"] {
            assert_ne!(key(other), key_full, "{other}");
        }
        assert_eq!(key("{ method: lora }"), key("{}"));
        for (yaml, path) in [("{ method: full, lora: { r: 4 } }", "lora"), ("{ freeze: ['*.mlp'] }", "freeze")] {
            let (_, _, problems) = parse(yaml);
            assert_eq!(problems.iter().map(|p| p.path.join(".")).collect::<Vec<_>>(), [path], "{yaml}");
        }
    }
}
