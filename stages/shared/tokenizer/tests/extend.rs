//! New tokens in a tokenizer: their ids, and what makes them.

use std::path::Path;

use pipe_contract::{Artifact, ArtifactKind};
use pipe_tokenizer::{Extension, ModelTokenizer, train_bpe};

const TEXTS: [&str; 2] = ["the cat and the hat and the cat", "<|user|> is the plum of the cat"];

/// A byte-level tokenizer of 262 tokens in a model folder with 300 rows.
fn model(folder: &Path) -> Artifact {
    let tokenizer = train_bpe(&TEXTS, 262, &["</s>"]).expect("a tokenizer");
    std::fs::write(folder.join("tokenizer.json"), tokenizer).expect("written");
    std::fs::write(folder.join("config.json"), r#"{ "vocab_size": 300 }"#).expect("written");
    let config = r#"{ "eos_token": "</s>", "added_tokens_decoder": { "0": { "content": "</s>", "special": true } } }"#;
    std::fs::write(folder.join("tokenizer_config.json"), config).expect("written");
    Artifact::from_folder(ArtifactKind::Model, folder).expect("a folder")
}

fn texts(tokens: &[&str]) -> Vec<String> {
    tokens.iter().map(|token| (*token).to_string()).collect()
}

#[test]
fn new_tokens_get_the_ids_behind_the_last_and_only_ordinary_ones_come_from_text() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = model(folder.path());
    let before = ModelTokenizer::load(&model).expect("a tokenizer");
    let extension = Extension::new(&model, &texts(&["plum", "é!"]), &texts(&["<|user|>"])).expect("an extension");
    assert_eq!((extension.n_before, extension.n_rows()), (262, 265));
    let listed: Vec<_> = extension.tokens.iter().map(|t| (t.id, t.content.as_str(), t.is_special)).collect();
    assert_eq!(listed, [(262, "plum", false), (263, "é!", false), (264, "<|user|>", true)]);
    for token in &extension.tokens {
        assert_eq!(before.decode(&token.pieces).expect("a text"), token.content);
        assert!(token.pieces.len() > 1, "it was no token: {:?}", token.pieces);
    }

    for (name, bytes) in &extension.files {
        std::fs::write(folder.path().join(name), bytes).expect("written");
    }
    let after = ModelTokenizer::load(&Artifact::from_folder(ArtifactKind::Model, folder.path()).expect("a folder"));
    let after = after.expect("a tokenizer");
    let text = "<|user|> the plum";
    let (old, new) = (before.encode(text).expect("ids"), after.encode(text).expect("ids"));
    assert_eq!(new.ids.last(), Some(&262));
    assert_eq!(new.spans.last(), Some(&(13, 17)));
    assert!(!new.ids.contains(&264), "data makes no special token: {:?}", new.ids);
    assert_eq!(after.decode(&new.ids).expect("a text"), text);
    // What has no new token is cut as before.
    let n_shared = new.ids.len() - 1;
    assert_eq!(new.ids[..n_shared], old.ids[..n_shared]);
    assert!(after.special_tokens().contains(&"<|user|>".to_string()));

    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("tokenizer_config.json")).expect("read"))
            .expect("JSON");
    assert_eq!(config["additional_special_tokens"], serde_json::json!(["<|user|>"]));
    assert_eq!(config["added_tokens_decoder"]["264"]["special"], true);
    assert_eq!(config["added_tokens_decoder"]["262"]["normalized"], true);
}

#[test]
fn what_is_a_token_already_is_no_new_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = model(folder.path());
    for (token, why) in [("</s>", "is a token already, with id 0"), ("the", "is a token already"), ("", "is empty")] {
        let error = Extension::new(&model, &texts(&[token]), &[]).err().expect(why).to_string();
        assert!(error.contains(why), "{error}");
    }
    let error = Extension::new(&model, &texts(&["x1"]), &texts(&["x1"])).err().expect("twice").to_string();
    assert!(error.contains("listed twice"), "{error}");
}
