//! Real tokenizers and trained ones, through the public interface.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use pipe_contract::{Artifact, ArtifactKind, StageError};
use pipe_records::{Example, Marks, SpecialTokens};
use pipe_tokenizer::{ModelTokenizer, TokenizerError, train_bpe};

/// The folder of shared test data, or a line on stderr that says what was skipped.
fn test_data(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("PIPE_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        writeln!(std::io::stderr(), "SKIPPED {test}: PIPE_TEST_DATA is not set").expect("stderr can be written to");
    }
    folder
}

fn load(folder: &Path) -> Result<ModelTokenizer, TokenizerError> {
    ModelTokenizer::load(&Artifact::from_folder(ArtifactKind::Model, folder).unwrap())
}

/// A model folder with a tokenizer trained on `texts` and one special token, `<|endoftext|>`.
fn trained(texts: &[&str], vocab_size: usize, config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), train_bpe(texts, vocab_size, &["<|endoftext|>"]).unwrap())
        .unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"eos_token": "<|endoftext|>"}"#).unwrap();
    folder
}

const TEXTS: [&str; 3] = ["the cat sat on the mat, the end", "the cat 你好 the mat", "a theatre of cats and mats"];

#[test]
fn stories260k_begins_once_and_covers_the_text() {
    let Some(data) = test_data("stories260k_begins_once_and_covers_the_text") else { return };
    let tokenizer = load(&data.join("models/stories260K")).unwrap();
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (Some(1), Some(2)));
    assert_eq!((tokenizer.vocab_size(), tokenizer.max_positions()), (512, Some(512)));

    let text = "Once upon a time, é was 😀 here";
    let encoded = tokenizer.encode(text).unwrap();
    assert_eq!(encoded.ids.iter().filter(|id| **id == 1).count(), 1);
    assert_eq!((encoded.ids[0], encoded.spans[0]), (1, (0, 0)));
    // Every character is covered, in order, and the four bytes of 😀 each cover it.
    let n_characters = text.chars().count() as u32;
    let covered: std::collections::BTreeSet<u32> = encoded.spans.iter().flat_map(|(start, end)| *start..*end).collect();
    assert_eq!(covered.len() as u32, n_characters);
    assert!(encoded.spans.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    let smiley = text.chars().position(|c| c == '😀').unwrap() as u32;
    assert_eq!(encoded.spans.iter().filter(|span| **span == (smiley, smiley + 1)).count(), 4);
    assert_eq!(tokenizer.decode(&encoded.ids[1..]).unwrap(), text);
}

#[test]
fn a_text_cannot_create_a_special_id() {
    let Some(data) = test_data("a_text_cannot_create_a_special_id") else { return };
    let tokenizer = load(&data.join("models/stories260K")).unwrap();
    for text in ["</s>", "<s></s><unk>", "a </s> b", "<s> at the front"] {
        let ids = tokenizer.encode(text).unwrap().ids;
        assert_eq!(ids[0], 1);
        assert!(ids[1..].iter().all(|id| ![1, 2].contains(id)), "{text}: {ids:?}");
    }
}

#[test]
fn the_gpt2_family_leaves_the_end_of_text_to_templates() {
    let Some(data) = test_data("the_gpt2_family_leaves_the_end_of_text_to_templates") else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(data.join("tokenizers/gpt2").join(name), folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("config.json"), r#"{"vocab_size": 50257}"#).unwrap();
    let tokenizer = load(folder.path()).unwrap();
    assert_eq!(tokenizer.eos_id(), Some(50256));
    let encoded = tokenizer.encode("a<|endoftext|>b").unwrap();
    assert!(!encoded.ids.contains(&50256), "{:?}", encoded.ids);
    assert_eq!(tokenizer.decode(&encoded.ids).unwrap(), "a<|endoftext|>b");
    // White space is covered too: a line break that covers nothing would never be supervised.
    assert_eq!(tokenizer.encode("a\n\nb").unwrap().spans, [(0, 1), (1, 2), (2, 3), (3, 4)]);
    assert_eq!(tokenizer.encode("a b").unwrap().spans, [(0, 1), (1, 3)]);
}

#[test]
fn a_batch_is_the_texts_in_order() {
    let folder = trained(&TEXTS, 300, r#"{"vocab_size": 300}"#);
    let tokenizer = load(folder.path()).unwrap();
    let texts: Vec<String> = (0..500).map(|i| format!("the cat {i} sat on mat {}", i * 7)).collect();
    let batch = tokenizer.encode_batch(&texts).unwrap();
    for (text, encoded) in texts.iter().zip(&batch) {
        assert_eq!(*encoded, tokenizer.encode(text).unwrap());
    }
}

/// Ids and covered characters against the library's, text by text.
fn check_against_the_library(ours: &ModelTokenizer, library: &tokenizers::Tokenizer, text: &str) {
    let encoded = ours.encode(text).unwrap();
    let expected = library.encode(text, false).unwrap();
    assert_eq!(encoded.ids, expected.get_ids(), "{text:?}");
    let characters = |(start, end): (usize, usize)| {
        let first = text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= start).count() as u32;
        (first, text.char_indices().take_while(|(at, _)| *at < end).count() as u32)
    };
    let spans: Vec<(u32, u32)> = expected.get_offsets().iter().map(|offsets| characters(*offsets)).collect();
    assert_eq!(encoded.spans, spans, "{text:?}");
}

/// The tokenizer file of `folder` as the library loads it, without what it adds around a text.
fn plain(folder: &Path) -> tokenizers::Tokenizer {
    let mut library = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    library.set_encode_special_tokens(true);
    library.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
    library
}

const TRICKY: [&str; 12] = [
    "",
    " ",
    "   \n\n \t x",
    "it's they'll 'S 123456 ,.;!? --",
    "naïve café 你好，世界 😀👩‍👩‍👧",
    "\u{0}\u{7f}\u{feff}\u{202e}",
    "<|endoftext|> and <|endoftext|>",
    "a b  c   d    e",
    "trailing  ",
    "\r\n\r\n",
    "e\u{301}\u{301}\u{301}",
    "ſtraße İı ǅ",
];

#[test]
fn pieces_give_what_the_library_gives() {
    let mut folders: Vec<PathBuf> = Vec::new();
    let folder = trained(&TEXTS, 300, r#"{"vocab_size": 300}"#);
    folders.push(folder.path().to_path_buf());
    // Llama 3's way: an expression of its own before the bytes.
    let own = trained(&TEXTS, 300, r#"{"vocab_size": 300}"#);
    let path = own.path().join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["pre_tokenizer"] = serde_json::json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}|[a-m]+|\\s+"}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    ]});
    std::fs::write(&path, json.to_string()).unwrap();
    folders.push(own.path().to_path_buf());
    // Qwen's way: characters are composed first, and some added tokens are made of any text.
    let composed = trained(&TEXTS, 300, r#"{"vocab_size": 301}"#);
    let path = composed.path().join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["normalizer"] = serde_json::json!({"type": "NFC"});
    let id = tokenizers::Tokenizer::from_file(&path).unwrap().get_vocab_size(true);
    json["added_tokens"].as_array_mut().unwrap().push(serde_json::json!({
        "id": id, "content": "cat sat", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": false,
    }));
    std::fs::write(&path, json.to_string()).unwrap();
    folders.push(composed.path().to_path_buf());
    for folder in &folders {
        let (ours, library) = (load(folder).unwrap(), plain(folder));
        // Twice: the second time every piece is known.
        for text in TRICKY.iter().chain(&TRICKY).chain(&TEXTS) {
            check_against_the_library(&ours, &library, text);
        }
        let long = "abcdefgh".repeat(400);
        check_against_the_library(&ours, &library, &long);
        check_against_the_library(&ours, &library, &long);
    }
}

#[test]
fn pieces_give_what_the_library_gives_on_real_texts() {
    let Some(data) = test_data("pieces_give_what_the_library_gives_on_real_texts") else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in ["xgen", "gpt2"] {
        std::fs::copy(data.join("tokenizers").join(name).join("tokenizer.json"), folder.path().join("tokenizer.json"))
            .unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"vocab_size": 51200}"#).unwrap();
        let (ours, library) = (load(folder.path()).unwrap(), plain(folder.path()));
        for file in ["alpaca_zh_demo.json", "llamafactory_wiki_demo.txt", "llamafactory_glaive_toolcall_en_demo.json"] {
            let text = std::fs::read_to_string(data.join("data").join(file)).unwrap();
            let lines: Vec<String> = text.lines().take(300).map(|line| line.chars().take(300).collect()).collect();
            assert!(lines.len() > 10, "{file}");
            lines.iter().for_each(|line| check_against_the_library(&ours, &library, &format!("{line}\n")));
        }
        // More different pieces than a table holds.
        let numbers: Vec<String> = (0..12_000).map(|i| format!("{i} a{i} {}", i * i + 1_000_000)).collect();
        numbers.iter().for_each(|text| check_against_the_library(&ours, &library, text));
        TRICKY.iter().for_each(|text| check_against_the_library(&ours, &library, text));
    }
}

/// Llama 2's tokenizer as it is, as Gemma's is written, with Metaspace, and with a merge across a space, which must not be cut there.
#[test]
fn words_give_what_the_library_gives_on_real_texts() {
    let Some(data) = test_data("words_give_what_the_library_gives_on_real_texts") else { return };
    let bytes = std::fs::read(data.join("tokenizers/llama2/tokenizer.json")).unwrap();
    let mut original: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    original["post_processor"] = serde_json::Value::Null;
    let replace = serde_json::json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let split = serde_json::json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
    let metaspace = |scheme: &str| serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
    let of = |normalizer: serde_json::Value, pre_tokenizer: serde_json::Value| {
        let mut json = original.clone();
        (json["normalizer"], json["pre_tokenizer"]) = (normalizer, pre_tokenizer);
        json
    };
    let mut crossing = original.clone();
    let id = crossing["model"]["vocab"].as_object().unwrap().len();
    crossing["model"]["vocab"]["a▁"] = id.into();
    crossing["model"]["merges"].as_array_mut().unwrap().push(serde_json::json!(["a", "▁"]));
    let forms = [
        original.clone(),
        of(replace, split),
        of(serde_json::Value::Null, metaspace("first")),
        of(serde_json::Value::Null, metaspace("always")),
        of(serde_json::Value::Null, metaspace("never")),
        crossing,
    ];
    let mut lines: Vec<String> = Vec::new();
    for file in ["alpaca_zh_demo.json", "llamafactory_wiki_demo.txt", "llamafactory_glaive_toolcall_en_demo.json"] {
        let text = std::fs::read_to_string(data.join("data").join(file)).unwrap();
        let n_before = lines.len();
        lines.extend(text.lines().take(150).map(|line| line.chars().take(300).collect::<String>() + "\n"));
        assert!(lines.len() > n_before + 10, "{file}");
    }
    lines.extend(TRICKY.iter().chain(&TRICKY).map(|text| (*text).to_string()));
    lines.extend(["▁", "a▁b ▁ c▁ ", " ▁▁a", "a ".repeat(300).as_str(), "x▁y"].map(str::to_string));
    for json in forms {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"vocab_size": 32001}"#).unwrap();
        let (ours, library) = (load(folder.path()).unwrap(), plain(folder.path()));
        lines.iter().for_each(|line| check_against_the_library(&ours, &library, line));
    }
}

#[test]
fn what_was_trained_decodes_to_the_same_text() {
    let folder = trained(&TEXTS, 320, r#"{"vocab_size": 320}"#);
    let tokenizer = load(folder.path()).unwrap();
    assert_eq!(tokenizer.eos_id(), Some(0));
    for text in ["the cat", "", "  two  spaces\n\ttab\r\n", "Ünïcödé 你好 😀 \u{0}\u{200b}", "<|endoftext|>", "</s>"]
    {
        let encoded = tokenizer.encode(text).unwrap();
        assert!(!encoded.ids.contains(&0), "{text:?} created the end of text");
        assert_eq!(tokenizer.decode(&encoded.ids).unwrap(), text);
    }
    // It learned something: frequent words are one token.
    assert_eq!(tokenizer.encode("the").unwrap().ids.len(), 1);
}

/// An example whose completion starts at the character `start`.
fn question(text: &str, start: u32) -> Example {
    Example { text: text.into(), completion: start..text.chars().count() as u32, ..Example::default() }
}

/// For every place where a completion may start: the prompt's text, then what the other ids say, is the text.
fn check_prompts(tokenizer: &ModelTokenizer, text: &str) {
    let whole = tokenizer.encode(text).unwrap().ids;
    for start in 0..=text.chars().count() {
        let prompt = tokenizer.prompt(&question(text, start as u32)).unwrap();
        assert!(prompt.end as usize <= start && whole.starts_with(&prompt.ids));
        let expected: String = text.chars().skip(prompt.end as usize).collect();
        let rest = tokenizer.continuation(&prompt.ids, &whole[prompt.ids.len()..]).unwrap();
        assert_eq!(rest, expected, "{text:?} from character {start}, {prompt:?}");
    }
}

#[test]
fn a_prompt_and_its_continuation_are_the_text() {
    let folder = trained(&TEXTS, 320, r#"{"vocab_size": 320}"#);
    let tokenizer = load(folder.path()).unwrap();
    check_prompts(&tokenizer, "the cat sat:\non the mat");
    check_prompts(&tokenizer, "你好 the 😀 mat\n\n你好");
    assert_eq!(tokenizer.end_ids(), [0]);
}

#[test]
fn stories260k_goes_on_from_where_a_prompt_ends() {
    let Some(data) = test_data("stories260k_goes_on_from_where_a_prompt_ends") else { return };
    let tokenizer = load(&data.join("models/stories260K")).unwrap();
    check_prompts(&tokenizer, "Once upon a time, é was 😀 here.\n\nThe end");
    let prompt = tokenizer.prompt(&question("Tom sat on the mat", 3)).unwrap();
    assert_eq!((prompt.ids[0], prompt.end), (1, 3));
    let ids = tokenizer.encode("Tom sat on the mat").unwrap().ids;
    assert_eq!(tokenizer.continuation(&prompt.ids, &ids[prompt.ids.len()..]).unwrap(), " sat on the mat");
}

/// The text of a template, in which these words are its special tokens, each in the order given.
fn templated(text: &str, control: &[&str], special_tokens: SpecialTokens) -> Example {
    let mut at = 0;
    let mut span = |token: &&str| {
        let start = at + text[at..].find(token).unwrap();
        at = start + token.len();
        let characters = |byte: usize| text[..byte].chars().count() as u32;
        characters(start)..characters(at)
    };
    let control = control.iter().map(&mut span).collect();
    Example { text: text.into(), marks: Marks { control, special_tokens, ..Marks::default() }, ..Example::default() }
}

#[test]
fn only_the_templates_special_tokens_become_special_ids() {
    let folder = trained(&TEXTS, 320, r#"{"vocab_size": 320}"#);
    let tokenizer = load(folder.path()).unwrap();
    let end = "<|endoftext|>";
    let text = format!("你好 the cat{end} says {end} 😀 mat{end}");
    let example = templated(&text, &[end], SpecialTokens::Template);
    let encoded = tokenizer.encode_example(&example).unwrap();
    assert_eq!(encoded.ids.iter().filter(|id| **id == 0).count(), 1);
    assert_eq!(encoded.spans[encoded.ids.iter().position(|id| *id == 0).unwrap()], (10, 23));
    // Around it all is as it is without it, and every character is covered, in order.
    let parts = [
        tokenizer.encode("你好 the cat").unwrap().ids,
        tokenizer.encode(&text[text.find(" says").unwrap()..]).unwrap().ids,
    ];
    assert_eq!(encoded.ids, [&parts[0][..], &[0], &parts[1]].concat());
    let covered: std::collections::BTreeSet<u32> = encoded.spans.iter().flat_map(|(start, end)| *start..*end).collect();
    assert_eq!(covered.len(), text.chars().count());
    assert!(encoded.spans.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    assert_eq!(tokenizer.decode(&encoded.ids).unwrap(), text);
    let all = tokenizer.encode_example(&templated(&text, &[end, end, end], SpecialTokens::Template)).unwrap();
    assert_eq!(all.ids.iter().filter(|id| **id == 0).count(), 3);
    assert_eq!(tokenizer.special_tokens(), [end]);
    assert!(tokenizer.has_special_words(&text) && !tokenizer.has_special_words("a < b <|endoftext>"));
    let error = tokenizer.encode_example(&templated("a</s>", &["</s>"], SpecialTokens::Template)).unwrap_err();
    assert!(
        error.to_string().contains("the special token `</s>`, which the model's tokenizer does not have"),
        "{error}"
    );
}

/// tests/chat_ids.json: scripts/make_template_goldens.py. No data in it has the words of a special token.
#[test]
fn the_ids_of_a_chat_are_those_of_transformers() {
    let Some(data) = test_data("the_ids_of_a_chat_are_those_of_transformers") else { return };
    let goldens: serde_json::Value = serde_json::from_str(include_str!("chat_ids.json")).unwrap();
    let goldens = goldens.as_array().unwrap();
    let mut tokenizers = std::collections::BTreeMap::new();
    for golden in goldens {
        let name = golden["tokenizer"].as_str().unwrap();
        let tokenizer = tokenizers.entry(name).or_insert_with(|| {
            let folder = tempfile::tempdir().unwrap();
            for file in ["tokenizer.json", "tokenizer_config.json"] {
                std::fs::copy(data.join(name).join(file), folder.path().join(file)).unwrap();
            }
            std::fs::write(folder.path().join("config.json"), r#"{"vocab_size": 60000}"#).unwrap();
            load(folder.path()).unwrap()
        });
        let text = golden["text"].as_str().unwrap();
        let special = tokenizer.special_tokens();
        let mut found: Vec<(usize, &str)> =
            special.iter().flat_map(|token| text.match_indices(token.as_str())).collect();
        found.sort_unstable();
        let control: Vec<&str> = found.into_iter().map(|(_, token)| token).collect();
        assert!(!control.is_empty(), "{name}: {text}");
        let encoded = tokenizer.encode_example(&templated(text, &control, SpecialTokens::Template)).unwrap();
        let expected: Vec<u32> =
            golden["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(encoded.ids, expected, "{name}: {text}");
    }
    assert!(goldens.len() >= 50 && tokenizers.len() == 4, "{} texts, {} tokenizers", goldens.len(), tokenizers.len());
}

#[test]
fn a_sequence_begins_once_whoever_begins_it() {
    let Some(data) = test_data("a_sequence_begins_once_whoever_begins_it") else { return };
    let tokenizer = load(&data.join("models/stories260K")).unwrap();
    let plain = tokenizer.encode("Tom sat").unwrap().ids;
    let ids = |text: &str, control: &[&str], special_tokens| {
        tokenizer.encode_example(&templated(text, control, special_tokens)).unwrap().ids
    };
    assert_eq!(ids("<s>Tom sat", &["<s>"], SpecialTokens::Both)[..1], plain[..1]);
    assert_eq!(ids("<s>Tom sat", &["<s>"], SpecialTokens::Both).iter().filter(|id| **id == 1).count(), 1);
    assert_eq!(ids("Tom sat</s>", &["</s>"], SpecialTokens::Both), [&plain[..], &[2]].concat());
    assert_eq!(ids("<s><s>Tom", &["<s>", "<s>"], SpecialTokens::Template).iter().filter(|id| **id == 1).count(), 1);
    // A chat has what its template writes: nothing else is put before it.
    assert_eq!(ids("Tom sat", &[], SpecialTokens::Template), plain[1..]);
    // A later sequence begins where the template says.
    assert_eq!(
        ids("<s>Tom</s><s>sat</s>", &["<s>", "</s>", "<s>", "</s>"], SpecialTokens::Template)
            .iter()
            .filter(|id| **id <= 2)
            .count(),
        4
    );
}

#[test]
fn training_gives_the_same_bytes_on_any_number_of_threads() {
    let texts: Vec<String> = (0..3000u64)
        .map(|i| {
            format!("row {} of the {} table: {}", i % 97, ["small", "large", "first"][i as usize % 3], i * i % 1013)
        })
        .collect();
    let train = |n_threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| train_bpe(&texts, 600, &["<|endoftext|>"]).unwrap())
    };
    let one = train(1);
    assert_eq!(one, train(1));
    assert_eq!(one, train(2));
    assert_eq!(one, train(3));
}

#[test]
fn an_id_outside_the_vocabulary_is_refused() {
    let folder = trained(&TEXTS, 300, r#"{"vocab_size": 259}"#);
    let tokenizer = load(folder.path()).unwrap();
    let message = tokenizer.encode("the").unwrap_err().to_string();
    assert!(message.contains("but `vocab_size` in `config.json` is 259"), "{message}");
    let (at, _) = tokenizer.encode_batch(&["a", "b", "the"]).unwrap_err();
    assert_eq!(at, 2);
}

#[test]
fn missing_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    let error = StageError::from(load(folder.path()).err().unwrap());
    assert_eq!((error.slug, error.message.as_str()), ("missing-file", "the model has no `tokenizer.json`"));

    let folder = trained(&TEXTS, 300, "{}");
    let message = load(folder.path()).err().unwrap().to_string();
    assert!(message.contains("`vocab_size`"), "{message}");
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    assert_eq!(load(folder.path()).err().unwrap().to_string(), "the model has no `config.json`");
}
