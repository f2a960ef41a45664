//! The templates `chat` and `jinja`, from rows in files to `examples.parquet`. Real rows: `llamafactory_glaive_toolcall_en_demo.json`
//! and `llamafactory_v1_sft_demo.jsonl` of PIPE_TEST_DATA/data.

use std::path::Path;

use pipe_contract::{Artifact, ArtifactKind, Source, StageEvent, StageKind as _, read_yaml};
use pipe_records::examples::form;
use pipe_records::{Example, SpecialTokens};
use pipe_stage_format::KIND;
use pipe_tokenizer::train_bpe;

use crate::{run_on, run_with, test_data};

const SPECIAL: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

/// A model folder with one of the templates of `pipe-template`, and a tokenizer with the special tokens of ChatML.
fn model(template: &str) -> tempfile::TempDir {
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/template/tests/templates");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(templates.join(format!("{template}.jinja")), folder.path().join("chat_template.jinja")).unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), train_bpe(&["a b c"], 260, &SPECIAL).unwrap()).unwrap();
    std::fs::write(folder.path().join("config.json"), r#"{"vocab_size": 300}"#).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"eos_token": "<|im_end|>"}"#).unwrap();
    folder
}

fn one_file(path: &Path) -> (tempfile::TempDir, Artifact) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(path, folder.path().join(path.file_name().unwrap())).unwrap();
    let artifact = Artifact::from_folder(ArtifactKind::Rows, folder.path()).unwrap();
    (folder, artifact)
}

fn turns(example: &Example) -> Vec<&str> {
    example.marks.assistant.iter().map(|turn| example.part(turn.clone())).collect()
}

const MESSAGES: &str = r#"{"messages": [{"role": "user", "content": "é <|im_end|>"}, {"role": "assistant", "content": "ü"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]}
"#;

#[test]
fn messages_become_the_text_of_the_models_template() {
    let model = model("chatml");
    let outcome = run_with(MESSAGES, Some(model.path()), "{ template: chat }");
    let example = &outcome.examples()[0];
    let expected = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\né <|im_end|><|im_end|>\n<|im_start|>assistant\nü<|im_end|>\n<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\nc<|im_end|>\n";
    assert_eq!(example.text, expected);
    assert_eq!(turns(example), ["ü<|im_end|>", "c<|im_end|>"]);
    assert_eq!((example.part(example.completion.clone()), example.part(example.said())), ("c<|im_end|>", "c"));
    assert_eq!(
        (example.prompt.clone(), example.marks.special_tokens),
        (0..example.completion.start, SpecialTokens::Template)
    );
    // Eleven times a special token stands there, ten of them by the template.
    assert_eq!((example.text.matches("<|im_").count(), example.marks.control.len()), (11, 10));
    assert_eq!((outcome.fact("rows"), outcome.fact("turns of the assistant")), (Some("1"), Some("2")));
    let form = form(&outcome.examples).unwrap();
    assert_eq!((form.is_completion_only, form.has_turns), (false, true));
    // Without turns the file is smaller, and the text the same.
    let without = run_with(MESSAGES, Some(model.path()), "{ template: chat, return_assistant_tokens_mask: false }");
    let without = without.examples();
    assert_eq!(
        (&without[0].text, without[0].marks.assistant.len(), &without[0].completion),
        (&example.text, 0, &example.completion)
    );
}

#[test]
fn show_prints_the_turns_in_brackets() {
    let model = model("chatml_training");
    let outcome = run_with(&MESSAGES.replace(" <|im_end|>", ""), Some(model.path()), "{ template: chat }");
    outcome.result.as_ref().expect("format succeeds");
    let shown = KIND.show("examples", &outcome.examples, 1).unwrap();
    let expected = "row 0: prompt 0..114, completion 114..125, turns 2\n  <|im_start|>user\n  é<|im_end|>\n  <|im_start|>assistant\n  ⟦ü<|im_end|>⟧\n  <|im_start|>user\n  b<|im_end|>\n  <|im_start|>assistant\n  ⟦c<|im_end|>⟧\n\n";
    assert_eq!(shown, expected);
}

#[test]
fn the_real_calls_of_tools_become_turns() {
    let Some(data) = test_data("the_real_calls_of_tools_become_turns") else { return };
    let path = data.join("data/llamafactory_glaive_toolcall_en_demo.json");
    let rows: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let (model, (_folder, artifact)) = (model("qwen2_5"), one_file(&path));
    let outcome = run_on(artifact, Some(model.path()), "{ template: chat }");
    let examples = outcome.examples();
    let rows = rows.as_array().unwrap();
    assert_eq!((examples.len(), rows.len()), (300, 300));
    for (row, example) in rows.iter().zip(&examples) {
        let messages = row["conversations"].as_array().unwrap().iter();
        let said: Vec<(&str, &str)> = messages
            .map(|m| (m["from"].as_str().unwrap(), m["value"].as_str().unwrap()))
            .filter(|(from, _)| ["gpt", "function_call"].contains(from))
            .collect();
        let turns = turns(example);
        assert_eq!(turns.len(), said.len());
        for ((from, value), turn) in said.iter().zip(&turns) {
            match *from {
                "gpt" => assert_eq!(*turn, format!("{value}<|im_end|>")),
                _ => {
                    let call: serde_json::Value = serde_json::from_str(value).unwrap();
                    let start = format!("<tool_call>\n{{\"name\": {}, \"arguments\": ", call["name"]);
                    assert!(turn.starts_with(&start) && turn.ends_with("}\n</tool_call><|im_end|>"), "{turn}");
                }
            }
        }
        let n_tools = serde_json::from_str::<serde_json::Value>(row["tools"].as_str().unwrap())
            .unwrap()
            .as_array()
            .unwrap()
            .len();
        assert_eq!(example.text.matches("\n{\"type\": \"function\", \"function\": {\"name\": ").count(), n_tools);
    }
    assert_eq!(outcome.fact("turns changed"), None);
}

#[test]
fn real_messages_with_parts_and_weights_are_read() {
    let Some(data) = test_data("real_messages_with_parts_and_weights_are_read") else { return };
    let (model, (_folder, artifact)) =
        (model("chatml_training"), one_file(&data.join("data/llamafactory_v1_sft_demo.jsonl")));
    let outcome = run_on(artifact, Some(model.path()), "{ template: chat }");
    let examples = outcome.examples();
    assert!(examples.len() > 50, "{}", examples.len());
    assert!(examples.iter().all(|example| !turns(example).is_empty()));
    let expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nHello! I am {{name}}, an AI assistant developed by {{author}}. How can I assist you today?<|im_end|>\n";
    assert_eq!(examples[0].text, expected);
}

#[test]
fn a_template_of_the_user_marks_what_is_learned() {
    let rows = "{\"q\": \"é?\", \"a\": \"yes <|im_end|>\"}\n{\"q\": \"x\", \"a\": \"\"}\n";
    let settings = "{ template: jinja, template_text: \"Q: {{ q }}\\nA:{% generation %} {{ a }}{{ eos_token }}{% endgeneration %}\" }";
    let model = model("chatml");
    let with_model = run_with(rows, Some(model.path()), settings);
    let example = &with_model.examples()[0];
    assert_eq!((example.text.as_str(), example.prompt.clone()), ("Q: é?\nA: yes <|im_end|><|im_end|>", 0..8));
    assert_eq!(
        (turns(example), example.marks.control.clone()),
        (vec![" yes <|im_end|><|im_end|>"], vec![std::ops::Range { start: 23, end: 33 }])
    );
    assert_eq!(example.marks.special_tokens, SpecialTokens::Both);
    let without = run_with(rows, None, &settings.replace("{{ eos_token }}", ""));
    let example = &without.examples()[0];
    assert_eq!((example.text.as_str(), example.marks.control.len()), ("Q: é?\nA: yes <|im_end|>", 0));
    assert!(form(&without.examples).unwrap().is_completion_only);
    let unmarked = run_with(rows, None, "{ template: jinja, template_text: '{{ q }}|{{ a }}' }");
    assert_eq!((unmarked.examples()[1].completion.clone(), form(&unmarked.examples).unwrap().has_turns), (0..2, false));
}

#[test]
fn a_template_file_is_a_source_of_the_stage() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("t.jinja"), "{{ a }}").unwrap();
    let read = |settings: &str| {
        let (stage, key, problems) = read_yaml(settings, |reader| KIND.read(reader));
        assert!(problems.is_empty(), "{problems:?}");
        (stage, key)
    };
    let (stage, key) = read("{ template: jinja, template_path: ./t.jinja }");
    let expected = Source::Files { root: dir.path().to_path_buf(), names: vec!["t.jinja".to_string()] };
    assert_eq!(
        (stage.source(dir.path()).unwrap(), key.keys().cloned().collect::<Vec<_>>()),
        (expected, vec!["template".to_string()])
    );
    let (stage, _) = read("{ template: chat, chat_template_path: none.jinja }");
    assert_eq!(stage.source(dir.path()).unwrap_err().slug, "io");
}

#[test]
fn what_templates_need_is_said_before_anything_runs() {
    let problems = |settings: &str| {
        let (stage, _, problems) = read_yaml(settings, |reader| KIND.read(reader));
        let messages: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
        let of_inputs = |connected: &[&str]| stage.check_inputs(connected).len();
        (messages.join("; "), of_inputs(&["rows"]), of_inputs(&["rows", "model"]))
    };
    assert_eq!(problems("{ template: chat }"), (String::new(), 1, 0));
    assert_eq!(problems("{}"), (String::new(), 0, 1));
    assert_eq!(problems("{ template: jinja }").0, "template `jinja` needs `template_text` or `template_path`");
    assert!(problems("{ template: jinja, template_text: a, template_path: b }").0.contains("both given"));
    assert!(problems("{ template: chat, chat_template_path: /t.jinja }").0.contains("is absolute"));
    assert_eq!(problems("{ template: chat, date: today }").0, "`today` is not a date");
    assert!(problems("{ template: chat, chat_template_kwargs: [a] }").0.contains("must be a mapping"));
    assert_eq!(problems("{ template: alpaca, date: 2024-01-01 }").0, "unknown setting `date`");
    assert_eq!(
        problems("{ template: chat, columns: { input: a } }").0,
        "template `chat` does not use the column `input`"
    );
}

#[test]
fn further_variables_are_given_and_in_the_key() {
    let model = model("qwen3");
    let question = "{\"prompt\": \"hi\", \"completion\": \"yo\"}\n";
    let key = |settings: &str| read_yaml(settings, |reader| KIND.read(reader)).1;
    let with = "{ template: chat, chat_template_kwargs: { enable_thinking: false, n: 1, x: 0.5, t: a } }";
    assert_ne!(key(with), key(&with.replace("false", "true")));
    assert_eq!(
        key(with),
        key("{ template: chat, chat_template_kwargs: { t: a, x: 0.5, n: 1, enable_thinking: false } }")
    );
    let outcome = run_with(question, Some(model.path()), with);
    let example = &outcome.examples()[0];
    assert_eq!(
        example.part(example.prompt.clone()),
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    );
    assert_eq!(example.part(example.completion.clone()), "yo<|im_end|>");
    assert!(form(&outcome.examples).unwrap().is_completion_only);
}

#[test]
fn what_a_template_refuses_is_named_by_its_row() {
    let gemma = model("gemma2");
    let rows = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n{\"messages\": [{\"role\": \"system\", \"content\": \"a\"}]}\n";
    let outcome = run_with(rows, Some(gemma.path()), "{ template: chat }");
    let expected = "template-refuses: failed to format row 1: the template `default` refuses the conversation: System role not supported";
    assert_eq!(outcome.error(), expected);
    let outcome = run_with("{\"text\": \"a\"}\n", Some(gemma.path()), "{ template: chat }");
    assert!(
        outcome.error().starts_with("missing-column: template `chat` needs the column `messages`"),
        "{}",
        outcome.error()
    );
    let outcome = run_with("{\"messages\": [{\"role\": \"user\"}]}\n", Some(gemma.path()), "{ template: chat }");
    assert_eq!(outcome.error(), "bad-message: message 0 of row 0 has no `content` and no `tool_calls`");
    let llama = model("llama3");
    let outcome = run_with(rows, Some(llama.path()), "{ template: chat }");
    assert!(outcome.error().starts_with("needs-date: failed to format row 0"), "{}", outcome.error());
    run_with(rows, Some(llama.path()), "{ template: chat, date: 2024-07-26 }").result.expect("the date is known");
    std::fs::remove_file(llama.path().join("chat_template.jinja")).unwrap();
    assert!(run_with(rows, Some(llama.path()), "{ template: chat }").error().starts_with("no-chat-template: "));
}

#[test]
fn thinking_that_the_template_leaves_out_is_counted() {
    let qwen = model("qwen3");
    let rows = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>\nt\n</think>\n\nb"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}
"#;
    let outcome = run_with(&(MESSAGES.replace("<|im_end|>", "") + rows), Some(qwen.path()), "{ template: chat }");
    let examples = outcome.examples();
    assert_eq!((turns(&examples[0]).len(), turns(&examples[1])), (2, vec!["<think>\n\n</think>\n\nd<|im_end|>"]));
    assert_eq!(outcome.fact("turns changed"), Some("1"));
    assert!(
        outcome
            .events
            .iter()
            .any(|event| matches!(event, StageEvent::Warning { line } if line.ends_with("the first is in row 1")))
    );
}

#[test]
fn the_bytes_do_not_depend_on_threads_and_have_a_golden_digest() {
    let model = model("chatml");
    let rows: String = (0..3000)
        .map(|i| {
            format!("{{\"messages\": [{{\"role\": \"user\", \"content\": \"Say {i} ü\"}}, {{\"role\": \"assistant\", \"content\": \"{i}\"}}]}}\n")
        })
        .collect();
    let digest = |n_threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| run_with(&rows, Some(model.path()), "{ template: chat }")).digest()
    };
    let one = digest(1);
    assert_eq!(one, digest(3));
    // Other bytes under the same key are a lie to every store: bump `version` in src/lib.rs with this.
    assert_eq!(one, "449654da3bbe90632afd0d64cab821a5003d0fe400d831d618f517a621631d01");
}
