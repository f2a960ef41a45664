//! The stage as the runner calls it, on folders.

use std::path::Path;
use std::sync::Mutex;

use pipe_contract::{Artifact, ArtifactKind, Context, Figure, StageError, StageEvent, StageKind, read_yaml};
use pipe_records::{Example, ExamplesWriter};
use pipe_stage_init::KIND;
use pipe_tokenizer::ModelTokenizer;
use safetensors::SafeTensors;

const SETTINGS: &str = "{ vocab_size: 300, config: { hidden_size: 32, intermediate_size: 40, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 64 } }";

fn write_examples(folder: &Path, n_rows: usize) {
    std::fs::create_dir_all(folder).unwrap();
    let mut writer = ExamplesWriter::create(folder).unwrap();
    for row in 0..n_rows {
        let text =
            format!("row {row} of the table, grüße 你好 {}", ["once", "twice", "three times"][row % 3].repeat(2));
        let n_characters = text.chars().count() as u32;
        writer.write(&Example { text, prompt: 0..0, completion: 0..n_characters, ..Example::default() }).unwrap();
    }
    writer.finish().unwrap();
}

fn run(
    settings: &str,
    n_rows: usize,
    n_threads: usize,
    folder: &Path,
) -> Result<(Artifact, Vec<StageEvent>), StageError> {
    let (examples, work) = (folder.join("examples"), folder.join("work"));
    write_examples(&examples, n_rows);
    std::fs::remove_dir_all(&work).ok();
    let (stage, _, problems) = read_yaml(settings, |reader| KIND.read(reader));
    assert_eq!(problems, []);
    let events = Mutex::new(Vec::new());
    let emit = |event| events.lock().unwrap().push(event);
    let mut ctx = Context::new(&work, &emit);
    ctx.inputs.insert("examples".into(), Artifact::from_folder(ArtifactKind::Examples, &examples).unwrap());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
    pool.install(|| stage.run(&mut ctx))?;
    drop(ctx);
    let model = Artifact::from_folder(ArtifactKind::Model, &work.join("outputs/model")).unwrap();
    Ok((model, events.into_inner().unwrap()))
}

fn bytes(model: &Artifact) -> Vec<(String, Vec<u8>)> {
    model.files.iter().map(|(name, file)| (name.clone(), std::fs::read(&file.path).unwrap())).collect()
}

#[test]
fn a_model_folder_is_complete_and_its_tokenizer_round_trips() {
    let folder = tempfile::tempdir().unwrap();
    let (model, _) = run(SETTINGS, 500, 2, folder.path()).unwrap();
    let names: Vec<&str> = model.files.keys().map(String::as_str).collect();
    let expected = ["config.json", "generation_config.json", "model.safetensors", "special_tokens_map.json"];
    assert_eq!(names[..4], expected);
    assert_eq!(names[4..], ["tokenizer.json", "tokenizer_config.json"]);

    let tokenizer = ModelTokenizer::load(&model).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.max_positions()), (300, Some(64)));
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (None, Some(0)));
    for text in ["row 7 of the table", "grüße 你好 😀", "<|endoftext|> in a text\n\n\tand white  space "] {
        let encoded = tokenizer.encode(text).unwrap();
        assert!(!encoded.ids.contains(&0));
        assert_eq!(tokenizer.decode(&encoded.ids).unwrap(), text);
    }
    assert!(KIND.show("model", &model, 0).unwrap().starts_with(
        "a Llama of 23,584 parameters: 2 layers, 32 channels, 4 heads (2 for keys and values), 300 tokens"
    ));
    let figures = KIND.figures("model", &model).unwrap();
    let [Figure::Facts(facts)] = figures.as_slice() else { panic!("{figures:?}") };
    for (name, value) in [("parameters", "23,584"), ("tensors", "20"), ("stored as", "float32"), ("layers", "2")] {
        assert!(facts.facts.contains(&(name.to_string(), value.to_string())), "{name}: {facts:?}");
    }
}

#[test]
fn tensors_are_those_of_a_llama_with_tied_embeddings() {
    let folder = tempfile::tempdir().unwrap();
    let (model, _) = run(SETTINGS, 500, 2, folder.path()).unwrap();
    let weights = std::fs::read(model.file("model.safetensors").unwrap()).unwrap();
    let tensors = SafeTensors::deserialize(&weights).unwrap();
    assert_eq!(tensors.len(), 1 + 2 * 9 + 1);
    let shape = |name: &str| tensors.tensor(name).unwrap().shape().to_vec();
    assert_eq!(shape("model.embed_tokens.weight"), [300, 32]);
    assert_eq!(shape("model.layers.1.self_attn.k_proj.weight"), [16, 32]);
    assert_eq!(shape("model.layers.0.mlp.down_proj.weight"), [32, 40]);
    let norm = tensors.tensor("model.norm.weight").unwrap();
    assert!(norm.data().chunks_exact(4).all(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]) == 1.0));
}

#[test]
fn the_bytes_depend_on_settings_only() {
    let folder = tempfile::tempdir().unwrap();
    let one = bytes(&run(SETTINGS, 2500, 1, folder.path()).unwrap().0);
    assert!(one == bytes(&run(SETTINGS, 2500, 2, folder.path()).unwrap().0), "1 and 2 threads differ");
    let other_seed = SETTINGS.replace("vocab_size: 300,", "vocab_size: 300, seed: 43,");
    let other = bytes(&run(&other_seed, 2500, 2, folder.path()).unwrap().0);
    let differing: Vec<&str> = one.iter().zip(&other).filter(|(a, b)| a != b).map(|(a, _)| a.0.as_str()).collect();
    assert_eq!(differing, ["model.safetensors"]);
    let digest = |name: &str| blake3::hash(&one.iter().find(|(n, _)| n == name).unwrap().1).to_hex().to_string();
    assert_eq!(
        ["model.safetensors", "tokenizer.json", "config.json"].map(digest),
        GOLDEN,
        "a change needs a new version of the kind"
    );
}

const GOLDEN: [&str; 3] = [
    "ddb362f455f4f4760171bd03e4d32f345228959fbd6cedeb3562057ce3dbae8d",
    "257a19b5f1fabbd531f0ddb18796365124be076fe46b0a951ce1b80ef3dad8fd",
    "ae29308c75d4890dabcddb3d08012c79e8fb6dda7d9357e2adc2001c0ec0d035",
];

#[test]
fn bfloat16_halves_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let size = |settings: &str| run(settings, 50, 2, folder.path()).unwrap().0.files["model.safetensors"].size_bytes;
    let half = SETTINGS.replace("vocab_size: 300,", "vocab_size: 300, dtype: bfloat16,");
    let (full, half) = (size(SETTINGS), size(&half));
    assert!(half * 2 < full + 4000 && half * 2 + 4000 > full, "{half} of {full} bytes");
}

#[test]
fn few_texts_give_a_smaller_vocabulary_and_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let (model, events) = run(&SETTINGS.replace("300", "5000"), 3, 1, folder.path()).unwrap();
    let vocab_size = ModelTokenizer::load(&model).unwrap().vocab_size();
    assert!((258..400).contains(&vocab_size), "{vocab_size}");
    let warned =
        format!("the texts give {vocab_size} tokens, less than `vocab_size` (5000): no further pair occurs twice");
    assert!(events.contains(&StageEvent::Warning { line: warned }), "{events:?}");
    assert_eq!(run(SETTINGS, 0, 1, folder.path()).unwrap_err().slug, "no-rows");
}
