//! The tokenizer of XGen that is built in, against the checked one of PIPE_TEST_DATA/tokenizers/xgen.

/// The texts of the test data.
mod data;

use std::path::Path;

use pipe_contract::{Artifact, ArtifactKind};
use pipe_tokenizer::{ModelTokenizer, xgen};
use proptest::prelude::*;

use crate::data::{each_text, test_data};

const CONFIG: &str = r#"{"vocab_size": 51200, "bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": 0}"#;
/// What the model's folder has on the hub, as far as it is known.
const TOKENIZER_CONFIG: &str = r#"{"add_eos_token": false, "auto_map": {"AutoTokenizer": ["tokenization_xgen.XgenTokenizer", null]},
    "model_max_length": 8192, "pad_token": null, "tokenizer_class": "XgenTokenizer"}"#;
/// Ids that no text may create: `<|endoftext|>`, and all from `<fim_prefix>` on.
const FIRST_SPECIAL_ID: u32 = 50_295;

fn folder_of(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Artifact) {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(folder.path().join(name), bytes).unwrap());
    let artifact = Artifact::from_folder(ArtifactKind::Model, folder.path()).unwrap();
    (folder, artifact)
}

fn built_in() -> ModelTokenizer {
    let files = [("config.json", CONFIG.as_bytes()), ("tokenizer_config.json", TOKENIZER_CONFIG.as_bytes())];
    ModelTokenizer::load(&folder_of(&files).1).unwrap()
}

fn reference(data: &Path) -> ModelTokenizer {
    let json = std::fs::read(data.join("tokenizers/xgen/tokenizer.json")).unwrap();
    ModelTokenizer::load(&folder_of(&[("config.json", CONFIG.as_bytes()), ("tokenizer.json", &json)]).1).unwrap()
}

/// Ids that are equal, that no special token is among, and that decode to the text.
fn check(ours: &ModelTokenizer, reference: Option<&ModelTokenizer>, text: &str) -> usize {
    let encoded = ours.encode(text).unwrap();
    if let Some(reference) = reference {
        assert_eq!(encoded, reference.encode(text).unwrap(), "{text:?}");
        assert_eq!(reference.decode(&encoded.ids).unwrap(), text);
    }
    let is_special = |id: &&u32| **id == 50_256 || **id >= FIRST_SPECIAL_ID;
    assert_eq!(encoded.ids.iter().find(is_special), None, "{text:?}");
    assert_eq!(ours.decode(&encoded.ids).unwrap(), text);
    encoded.ids.len()
}

#[test]
fn what_is_known_of_its_ids_holds() {
    let tokenizer = built_in();
    let ids = |text: &str| tokenizer.encode(text).unwrap().ids;
    assert_eq!(ids("!"), [0]);
    assert_eq!((ids(&" ".repeat(40)), ids("\t\t\t")), (vec![50_257, 50_279], vec![50_293]));
    assert_eq!(
        (ids(&" ".repeat(31)), ids("  "), ids(&"\t".repeat(9)), ids("\t\t")),
        (vec![50_257], vec![50_286], vec![50_287], vec![50_294])
    );
    assert_eq!(ids("Hello world"), [15_496, 995]);
    assert_eq!((tokenizer.eos_id(), tokenizer.bos_id()), (Some(50_256), Some(50_256)));
    assert_eq!(tokenizer.end_ids(), [50_256]);
    // Each id decodes to its token, and there are 50,313 of them.
    assert_eq!(tokenizer.decode(&[50_256, 50_295, 50_312]).unwrap(), "<|endoftext|><fim_prefix><reponame>");
    assert_eq!(tokenizer.decode(&[50_313, 51_199]).unwrap(), "");
    let json: serde_json::Value = serde_json::from_slice(&xgen::xgen_json().unwrap()).unwrap();
    assert_eq!(json["model"]["vocab"].as_object().unwrap().len(), 50_295);
    assert_eq!(
        (json["added_tokens"].as_array().unwrap().len(), json["added_tokens"][18]["id"].as_u64()),
        (19, Some(50_312))
    );
    // Nothing is put around a text, and none of its special tokens comes from one.
    for text in ["", "<|endoftext|>", "a<fim_prefix>b", "<reponame><filename>", " <|endoftext|>\n"] {
        check(&tokenizer, None, text);
    }
}

#[test]
fn it_is_the_checked_file_token_for_token_and_merge_for_merge() {
    let Some(data) = test_data("it_is_the_checked_file_token_for_token_and_merge_for_merge") else { return };
    let ours: serde_json::Value = serde_json::from_slice(&xgen::xgen_json().unwrap()).unwrap();
    let bytes = std::fs::read(data.join("tokenizers/xgen/tokenizer.json")).unwrap();
    let theirs: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let merges = |json: &serde_json::Value| -> Vec<String> {
        let parts = |merge: &serde_json::Value| match merge.as_array() {
            Some(pair) => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
            None => merge.as_str().unwrap().to_string(),
        };
        json["model"]["merges"].as_array().unwrap().iter().map(parts).collect()
    };
    assert!(ours["model"]["vocab"] == theirs["model"]["vocab"], "the vocabularies differ");
    assert!(merges(&ours) == merges(&theirs), "the merges differ");
    assert_eq!(ours["added_tokens"], theirs["added_tokens"]);
    assert_eq!(ours["pre_tokenizer"], theirs["pre_tokenizer"]);
}

#[test]
fn ids_of_all_the_data_are_those_of_the_checked_file() {
    let Some(data) = test_data("ids_of_all_the_data_are_those_of_the_checked_file") else { return };
    let (ours, reference) = (built_in(), reference(&data));
    let (mut n_texts, mut n_ids) = (0, 0);
    let mut check_text = |text: &str| {
        n_ids += check(&ours, Some(&reference), text);
        n_texts += 1;
    };
    each_text(&data, &mut check_text);
    assert!(n_texts > 25_000 && n_ids > 1_500_000, "{n_texts} texts, {n_ids} ids");
}

#[test]
fn a_tokenizer_json_in_the_folder_wins_and_other_classes_have_none() {
    let files = [("config.json", CONFIG.as_bytes()), ("tokenizer_config.json", TOKENIZER_CONFIG.as_bytes())];
    let (_folder, xgen) = folder_of(&files);
    assert!(xgen::is_built_in(&xgen).unwrap());
    let (_folder, with_file) = folder_of(&[files[0], files[1], ("tokenizer.json", b"{}")]);
    assert!(!xgen::is_built_in(&with_file).unwrap() && xgen::generated_files(&with_file).unwrap().is_empty());
    let (_folder, other) =
        folder_of(&[files[0], ("tokenizer_config.json", br#"{"tokenizer_class": "QWenTokenizer"}"#)]);
    assert!(!xgen::is_built_in(&other).unwrap());
    let error = ModelTokenizer::load(&other).err().unwrap();
    assert_eq!(error.to_string(), "the model has no `tokenizer.json`");
}

#[test]
fn what_is_generated_for_others_is_the_same_tokenizer() {
    let files = [("config.json", CONFIG.as_bytes()), ("tokenizer_config.json", TOKENIZER_CONFIG.as_bytes())];
    let (_folder, xgen) = folder_of(&files);
    let generated = xgen::generated_files(&xgen).unwrap();
    let [("tokenizer.json", json), ("tokenizer_config.json", config)] = generated.as_slice() else { panic!() };
    let fields: serde_json::Value = serde_json::from_slice(config).unwrap();
    let expected = serde_json::json!({
        "add_eos_token": false, "clean_up_tokenization_spaces": false, "eos_token": "<|endoftext|>", "model_max_length": 8192,
        "pad_token": null, "tokenizer_class": "PreTrainedTokenizerFast",
    });
    assert_eq!(fields, expected);
    let (_folder, exported) = folder_of(&[files[0], ("tokenizer.json", json), ("tokenizer_config.json", config)]);
    let (exported, ours) = (ModelTokenizer::load(&exported).unwrap(), built_in());
    assert_eq!((exported.eos_id(), exported.end_ids()), (ours.eos_id(), ours.end_ids()));
    check(&ours, Some(&exported), "def f(x):\n        return\tx  # 你好 😀 <|endoftext|>");
}

/// Texts that are hard on it: letters of many scripts, runs of white space, and the special tokens' text.
fn hard_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        any::<String>(),
        " {0,70}",
        "\t{0,20}",
        "[ \t\n\r\u{a0}]{0,12}",
        "[a-zA-Z0-9' .,!?]{0,20}",
        "[à-ÿΑ-ωא-ת一-龥あ-ん]{0,8}",
        Just("<|endoftext|>".to_string()),
        Just("<fim_prefix>".to_string()),
        Just("<reponame>".to_string()),
        Just("👩‍👩‍👧‍👦🏳️‍🌈".to_string()),
    ];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

#[test]
fn ids_of_random_texts_are_those_of_the_checked_file() {
    let Some(data) = test_data("ids_of_random_texts_are_those_of_the_checked_file") else { return };
    let (ours, reference) = (built_in(), reference(&data));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(2_000));
    let tested = runner.run(&hard_text(), |text| {
        check(&ours, Some(&reference), &text);
        Ok(())
    });
    tested.unwrap();
}
