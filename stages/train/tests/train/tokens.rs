//! New tokens, and others with rows of their own.

use pipe_contract::{Artifact, ArtifactKind};
use pipe_llm::new_tokens::{NewToken, NewTokens};
use safetensors::SafeTensors;

use crate::work::{FULL, Ran, WITH, Work};

const EMBEDDING: &str = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta";
const HEAD: &str = "base_model.model.lm_head.token_adapter.trainable_tokens_delta";
const N_BEFORE: u32 = 120;
const WIDTH: usize = 32;

/// The tiny Llama, two of whose 128 tokens are new. No pack of the tests has token 127.
fn extended(work: &Work) -> Artifact {
    let folder = work.folder.path().join("extended");
    std::fs::create_dir_all(&folder).expect("a folder");
    let model = Work::model();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(model.file(name).expect("there"), folder.join(name)).expect("copied");
    }
    let token = |id: u32, content: &str, from: &[u32]| NewToken {
        id,
        content: content.into(),
        special: true,
        from: from.to_vec(),
    };
    let tokens = vec![token(124, "<|user|>", &[]), token(127, "<|unseen|>", &[3, 5])];
    NewTokens::new(N_BEFORE, tokens).write(&folder).expect("written");
    Artifact::from_folder(ArtifactKind::Model, &folder).expect("a folder")
}

fn inputs(work: &Work) -> Vec<(&'static str, Artifact)> {
    vec![("data", work.packs(true)), ("model", extended(work))]
}

fn tensor(bytes: &[u8], name: &str) -> Option<Vec<f32>> {
    let file = SafeTensors::deserialize(bytes).expect("safetensors");
    let view = file.tensor(name).ok()?;
    Some(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

fn of_adapter(ran: &Ran, name: &str) -> Option<Vec<f32>> {
    tensor(&ran.files["adapter/adapter_model.safetensors"], name)
}

fn base(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(Work::model().file("model.safetensors").expect("weights")).expect("readable");
    tensor(&bytes, name).expect("there")
}

/// The mean of rows, as the new tokens begin.
fn mean(matrix: &[f32], ids: impl ExactSizeIterator<Item = usize>) -> Vec<f32> {
    let n = ids.len() as f64;
    let mut sums = vec![0.0; WIDTH];
    for id in ids {
        sums.iter_mut().zip(&matrix[id * WIDTH..]).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    sums.into_iter().map(|sum| (sum / n) as f32).collect()
}

#[test]
fn the_models_new_tokens_are_trained_without_being_asked_for() {
    let work = Work::new();
    // With a rate of 0 the rows are what they began with.
    let still = work.run("still", &WITH.replace("0.01", "0.0"), &inputs(&work), None).well();
    let ran = work.run("new", WITH, &inputs(&work), None).well();
    for (name, matrix) in [(EMBEDDING, "model.embed_tokens.weight"), (HEAD, "lm_head.weight")] {
        let matrix = base(matrix);
        let first = [mean(&matrix, 0..N_BEFORE as usize), mean(&matrix, [3, 5].into_iter())].concat();
        assert_eq!(of_adapter(&still, name).expect("rows"), first, "{name}");
        let rows = of_adapter(&ran, name).expect("rows");
        let has_moved = |range: std::ops::Range<usize>| rows[range.clone()] != first[range];
        assert!(has_moved(0..WIDTH), "{name}");
        // What no pack has, the head still learns not to say.
        assert_eq!(has_moved(WIDTH..2 * WIDTH), name == HEAD, "{name}");
    }
    ran.assert_says("in 4 modules and 2 tokens");
    ran.assert_says("no pack has the tokens `<|unseen|>`");
    let config: serde_json::Value = serde_json::from_slice(&ran.files["adapter/adapter_config.json"]).expect("JSON");
    let indices = serde_json::json!({ "embed_tokens": [124, 127], "lm_head": [124, 127] });
    assert_eq!(config["trainable_token_indices"], indices);

    // An adapter to start from brings its rows; one without them is said to leave the new tokens alone.
    let start = [inputs(&work), vec![("adapter", work.adapter_of("new"))]].concat();
    let next = work.run("next", &WITH.replace("0.01", "0.0"), &start, None).well();
    assert_eq!(of_adapter(&next, HEAD), of_adapter(&ran, HEAD));
    work.run("plain", WITH, &work.inputs(), None).well();
    let start = [inputs(&work), vec![("adapter", work.adapter_of("plain"))]].concat();
    work.run("without", WITH, &start, None).well().assert_says("new tokens `<|user|>`, `<|unseen|>`: in embedding");
}

#[test]
fn tokens_are_chosen_by_id_or_left_out() {
    let work = Work::new();
    let with = |ids: &str| WITH.replace("r: 4,", &format!("r: 4, trainable_token_indices: {ids},"));
    let none = work.run("none", &with("[]"), &inputs(&work), None).well();
    assert_eq!(of_adapter(&none, EMBEDDING), None);
    none.assert_says("nothing trains the rows of the model's new tokens `<|user|>`, `<|unseen|>`");
    let chosen = work.run("chosen", &with("[9, 7, 9]"), &work.inputs(), None).well();
    assert_eq!(of_adapter(&chosen, EMBEDDING).expect("rows").len(), 2 * WIDTH);
    let error = work.run("beyond", &with("[128]"), &work.inputs(), None).result.expect_err("128 tokens");
    assert!(error.message.contains("lists the token 128, but the model has 128"), "{error}");
    let (_, _, problems) = pipe_contract::read_yaml(&with("[-1, three]"), pipe_stage_train::settings::read);
    assert!(problems[0].message.contains("list of token ids"), "{problems:?}");
}

#[test]
fn full_training_begins_new_rows_where_they_can_be_read() {
    let work = Work::new();
    let still = FULL.replace("0.01", "0.0").replace("freeze: [model.embed_tokens, '*.mlp']", "freeze: ['*.mlp']");
    let ran = work.run("full", &still, &inputs(&work), None).well();
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let (before, after) = (base(name), tensor(&ran.files["model/model.safetensors"], name).expect("there"));
        assert_eq!(after[124 * WIDTH..125 * WIDTH], mean(&before, 0..N_BEFORE as usize), "{name}");
        assert_eq!(after[..124 * WIDTH], before[..124 * WIDTH], "{name}");
    }
    assert!(!ran.files.contains_key("model/new_tokens.json"), "they are new no more");
    work.run("frozen", FULL, &inputs(&work), None).well().assert_says("nothing trains the rows");
}

#[test]
fn a_run_with_tokens_goes_on_with_equal_bits() {
    let work = Work::new();
    let whole = work.run("whole", WITH, &inputs(&work), None).well();
    let stopped = work.run("stopped", WITH, &inputs(&work), Some(4));
    assert!(stopped.result.is_err_and(|error| error.is_cancelled));
    let again = work.run("stopped", WITH, &inputs(&work), None).well();
    again.assert_says("goes on from the checkpoint");
    assert_eq!(again.files, whole.files);
}
