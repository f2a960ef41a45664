//! Generation: the cache against whole passes, and greedy ids against transformers'.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, IndexOp, Tensor};
use pipe_llm::engine::{Extension, KvCache};
use pipe_llm::generate::{GenerationSettings, Prompt, Sampling, generate};
use pipe_llm::weights::{self, WeightFiles};
use pipe_llm::{CandleEngine, LlmError, ModelConfig, Program, Sequence};

use crate::common::{FAMILIES, Parity, fixtures, largest_difference, test_data};

/// f32: the rows of a pass are multiplied in other shapes.
const CACHE_TOLERANCE: f64 = 2e-5;

fn settings(max_new_tokens: usize, eos_ids: Vec<u32>, sampling: Option<Sampling>) -> GenerationSettings {
    GenerationSettings { max_new_tokens, eos_ids, repetition_penalty: 1.0, sampling, seed: 7 }
}

fn run(engine: &CandleEngine, prompts: &[Prompt], settings: &GenerationSettings) -> Vec<Vec<u32>> {
    generate::<LlmError>(engine, None, prompts, settings, |_, _| false, |_| Ok(())).expect("a generation")
}

#[test]
fn a_cached_pass_has_the_logits_of_a_whole_one() {
    let in_f32 = FAMILIES.map(|family| (family, DType::F32, CACHE_TOLERANCE));
    let in_f64 = ["qwen2", "gemma2", "gpt2"].map(|family| (family, DType::F64, 1e-12));
    for (family, dtype, tolerance) in in_f32.into_iter().chain(in_f64) {
        let parity = Parity::open(fixtures().join(family));
        let engine = parity.engine(dtype);
        let ids: [Vec<u32>; 2] = [(3..23).collect(), (50..57).collect()];
        let whole = |ids: &[u32]| -> Tensor {
            engine.logits(None, &Sequence::plain(&parity.config, ids).expect("a sequence")).expect("logits")
        };
        let mut cache = KvCache::new(&engine, 2);
        // A prompt of 5, then one by one; the second sequence joins on the way, with several at once.
        let mut n_read = [0, 0];
        for (first, second) in [(5, 0), (1, 3), (1, 1), (3, 2), (1, 1), (9, 0)] {
            let mut extensions = Vec::new();
            for (sequence_idx, n) in [(0, first), (1, second)].into_iter().filter(|(_, n)| *n > 0) {
                let start = n_read[sequence_idx];
                n_read[sequence_idx] += n;
                extensions.push(Extension { sequence_idx, ids: &ids[sequence_idx][start..start + n] });
            }
            let logits = engine.extend(None, &mut cache, &extensions).expect("logits");
            for (row, extension) in extensions.iter().enumerate() {
                let n = n_read[extension.sequence_idx];
                let expected = whole(&ids[extension.sequence_idx][..n]).i(n - 1).expect("the last row");
                let difference = largest_difference(&logits.i(row).expect("a row"), &expected);
                assert!(difference < tolerance, "{family} {dtype:?}, {n} tokens: {difference:e}");
            }
        }
        assert_eq!((cache.n_tokens(0), cache.n_tokens(1)), (20, 7));
    }
}

#[test]
fn a_window_lets_go_of_what_no_later_token_sees() {
    // A window of 6 tokens, and blocks of 96: the first block is dropped at 101 tokens, the second at 197.
    let mut parity = Parity::open(fixtures().join("mistral"));
    parity.config.max_positions = 300;
    let engine = parity.engine_for(Program::new(&parity.config, &[]).expect("no targets"), DType::F32);
    let ids: Vec<u32> = (0..250).map(|i| i * i % 61).collect();
    let mut cache = KvCache::new(&engine, 1);
    let mut n_read = 0;
    for n_new in [98].into_iter().chain([1; 20]).chain([40, 1, 30, 1, 1, 7, 50, 1]) {
        let extension = [Extension { sequence_idx: 0, ids: &ids[n_read..n_read + n_new] }];
        n_read += n_new;
        let logits = engine.extend(None, &mut cache, &extension).expect("logits").i(0).expect("a row");
        let whole = Sequence::plain(&parity.config, &ids[..n_read]).expect("a sequence");
        let expected = engine.logits(None, &whole).expect("logits").i(n_read - 1).expect("the last row");
        let difference = largest_difference(&logits, &expected);
        assert!(difference < CACHE_TOLERANCE, "{n_read} tokens: {difference:e}");
    }
    assert_eq!(cache.n_tokens(0), 249);
}

#[test]
fn an_adapter_takes_part_in_generation() {
    let parity = Parity::open(fixtures().join("llama"));
    let engine = parity.engine(DType::F32);
    let adapter = parity.adapter("adapter", &engine);
    let sequence = Sequence::plain(&parity.config, &[9, 8, 7]).expect("a sequence");
    let expected = engine.logits(Some(&adapter), &sequence).expect("logits").i(2).expect("a row");
    let mut cache = KvCache::new(&engine, 1);
    let extension = [Extension { sequence_idx: 0, ids: &[9, 8, 7] }];
    let logits = engine.extend(Some(&adapter), &mut cache, &extension).expect("logits").i(0).expect("a row");
    assert!(largest_difference(&logits, &expected) < CACHE_TOLERANCE);
    let base = engine.logits(None, &sequence).expect("logits").i(2).expect("a row");
    assert!(largest_difference(&logits, &base) > 1e-3, "the adapter changes something");
}

#[test]
fn a_prompt_does_not_notice_the_batch() {
    let parity = Parity::open(fixtures().join("llama"));
    let engine = parity.engine(DType::F32);
    let prompts: Vec<Prompt> =
        (0..5).map(|i| Prompt { ids: (3 + i..6 + 3 * i).collect(), stream: u64::from(i) }).collect();
    for sampling in [None, Some(Sampling { temperature: 1.0, top_k: 20, top_p: 0.9 })] {
        let settings = settings(12, vec![2], sampling);
        let together = run(&engine, &prompts, &settings);
        let alone: Vec<Vec<u32>> =
            prompts.iter().map(|prompt| run(&engine, std::slice::from_ref(prompt), &settings).remove(0)).collect();
        assert_eq!(together, alone);
        let mut turned = prompts.clone();
        turned.reverse();
        let mut backward = run(&engine, &turned, &settings);
        backward.reverse();
        assert_eq!(together, backward);
    }
}

#[test]
fn generation_ends_where_it_should() {
    let parity = Parity::open(fixtures().join("llama"));
    let engine = parity.engine(DType::F32);
    let prompt = [Prompt { ids: vec![5, 6, 7], stream: 0 }];
    let free = run(&engine, &prompt, &settings(8, vec![], None)).remove(0);
    assert_eq!(free.len(), 8);
    let position = free.iter().position(|id| *id == free[3]).expect("it is there");
    assert_eq!(run(&engine, &prompt, &settings(8, vec![free[3]], None))[0], free[..position]);
    let stop =
        generate::<LlmError>(&engine, None, &prompt, &settings(8, vec![], None), |_, ids| ids.len() == 2, |_| Ok(()));
    assert_eq!(stop.expect("a generation")[0], free[..2]);
    // 64 positions: 3 of the prompt, and a token may be read at each that is left; the last one need not be read.
    assert_eq!(run(&engine, &prompt, &settings(1000, vec![], None))[0].len(), 62);
    assert_eq!(run(&engine, &prompt, &settings(0, vec![], None))[0].len(), 0);
    let none = generate::<LlmError>(
        &engine,
        None,
        &[Prompt { ids: vec![], stream: 0 }],
        &settings(1, vec![], None),
        |_, _| false,
        |_| Ok(()),
    );
    assert!(none.expect_err("no tokens").to_string().contains("prompt 0 has no tokens"));
}

fn engine_of(model: &Path) -> CandleEngine {
    let text = std::fs::read_to_string(model.join("config.json")).expect("config.json");
    let config = ModelConfig::from_json(&text).expect("a supported config");
    let program = Program::new(&config, &[]).expect("no targets");
    let files =
        WeightFiles::open(vec![("model.safetensors".into(), model.join("model.safetensors"))]).expect("readable");
    let weights = weights::load(&program, &files, &Device::Cpu).expect("weights");
    CandleEngine::new(program, weights, config.max_positions.min(4096), Device::Cpu, DType::F32).expect("an engine")
}

/// Continues the ten prompts of tests/fixtures/generation/NAME.json.
fn check_greedy(name: &str, model: &Path) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/fixtures/generation").join(format!("{name}.json"));
    let fixture: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("the fixture")).expect("JSON");
    let lists = |key: &str| -> Vec<Vec<u32>> { serde_json::from_value(fixture[key].clone()).expect("lists of ids") };
    let eos_ids = serde_json::from_value(fixture["eos_ids"].clone()).expect("ids");
    let max_new_tokens = fixture["max_new_tokens"].as_u64().expect("a number") as usize;
    let prompts: Vec<Prompt> = lists("prompts").into_iter().map(|ids| Prompt { ids, stream: 0 }).collect();
    let expected = lists("greedy");
    assert_eq!((prompts.len(), expected.len()), (10, 10));
    let ours = run(&engine_of(model), &prompts, &settings(max_new_tokens, eos_ids, None));
    for (prompt_idx, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
        assert_eq!(ours, expected, "{name}, prompt {prompt_idx}");
    }
    assert!(expected.iter().map(Vec::len).sum::<usize>() > 100, "{name}: hardly any tokens were compared");
}

#[test]
fn greedy_ids_of_the_fixture_equal_transformers() {
    check_greedy("llama", &fixtures().join("llama"));
}

#[test]
fn greedy_ids_of_stories260k_equal_transformers() {
    if let Some(data) = test_data("greedy_ids_of_stories260k_equal_transformers") {
        check_greedy("stories260K", &data.join("models/stories260K"));
    }
}

#[test]
#[ignore = "needs SmolLM2-135M in PIPE_SMOLLM2: `just real`"]
fn greedy_ids_of_smollm2_equal_transformers() {
    let model = std::env::var_os("PIPE_SMOLLM2").map(PathBuf::from).expect("PIPE_SMOLLM2 names the model's folder");
    check_greedy("smollm2", &model);
}
