//! What transformers makes of conversations, against what this crate makes of them: scripts/make_template_goldens.py.
//!
//! PIPE_TEMPLATE_GOLDENS names a second file of that script, with the templates of others in it.

use std::collections::BTreeMap;
use std::path::Path;

use pipe_template::{Date, Template, TemplateError, Value};
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    format_version: u32,
    templates: BTreeMap<String, String>,
    conversations: BTreeMap<String, Conversation>,
    data: Value,
    expressions: Vec<Expression>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Conversation {
    messages: Value,
    tools: Option<Value>,
    documents: Option<Value>,
}

/// One template and what comes out.
#[derive(Deserialize)]
struct Expression {
    source: String,
    #[serde(flatten)]
    expected: Expected,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    conversation: String,
    add_generation_prompt: bool,
    variables: Value,
    #[serde(flatten)]
    expected: Expected,
}

/// A text with its blocks in characters; or an error: the message of `raise_exception`, null for any other.
#[derive(Deserialize)]
struct Expected {
    text: Option<String>,
    #[serde(default)]
    generation: Vec<(usize, usize)>,
    error: Option<String>,
}

fn read(path: &Path) -> Goldens {
    let goldens: Goldens =
        serde_json::from_str(&std::fs::read_to_string(path).expect("the file is there")).expect("JSON");
    assert_eq!(goldens.format_version, 1);
    goldens
}

fn ours() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// What differs, in words; nothing where all is equal.
fn difference(source: &str, context: &Value, expected: &Expected) -> Option<String> {
    let date = Date::parse("2024-07-26").expect("a date");
    let rendered = Template::compile("golden", source, Some(date)).and_then(|template| template.render(context));
    match (rendered, &expected.text) {
        (Ok(rendered), Some(text)) => {
            let characters = |byte: usize| rendered.text[..byte].chars().count();
            let blocks: Vec<_> = rendered.generation.iter().map(|r| (characters(r.start), characters(r.end))).collect();
            if rendered.text != *text {
                return Some(format!("\n  is        {:?}\n  should be {text:?}", rendered.text));
            }
            (blocks != expected.generation).then(|| format!("blocks {blocks:?}, not {:?}", expected.generation))
        }
        (Ok(rendered), None) => Some(format!("{:?}, but it fails there with {:?}", rendered.text, expected.error)),
        (Err(TemplateError::Raised { message, .. }), None) => {
            (Some(&message) != expected.error.as_ref()).then(|| format!("raises `{message}`, not {:?}", expected.error))
        }
        // Why an operation fails is said in other words.
        (Err(error), None) => expected.error.as_ref().map(|raised| format!("{error}, but it raises `{raised}` there")),
        (Err(error), Some(text)) => Some(format!("{error}\n  should be {text:?}")),
    }
}

fn check_cases(goldens: &Goldens, source_of: impl Fn(&str) -> String) -> Vec<String> {
    let mut differences = Vec::new();
    for case in &goldens.cases {
        let conversation = &goldens.conversations[&case.conversation];
        let context = context(conversation, case);
        let found = difference(&source_of(&case.template), &context, &case.expected);
        let (template, conversation, prompt) = (&case.template, &case.conversation, case.add_generation_prompt);
        differences.extend(found.map(|found| format!("{template}, {conversation}, prompt {prompt}: {found}")));
    }
    differences
}

/// As `apply_chat_template` prepares it; `pipe_template::Chat` does the same, and is tested on its own.
fn context(conversation: &Conversation, case: &Case) -> Value {
    let without_nulls = |message: Value| {
        let pairs = message.as_object().expect("a map").try_iter_pairs().expect("a map").filter(|(_, v)| !v.is_none());
        Value::from_pairs(pairs)
    };
    let messages: Vec<Value> =
        conversation.messages.try_iter().expect("a list").map(without_nulls).map(with_reasoning).collect();
    let variables = case.variables.as_object().expect("a map").try_iter_pairs().expect("a map").collect::<Vec<_>>();
    let given = [
        ("messages", Value::from(messages)),
        ("tools", Value::from(conversation.tools.clone())),
        ("documents", Value::from(conversation.documents.clone())),
        ("add_generation_prompt", Value::from(case.add_generation_prompt)),
    ];
    Value::from_pairs(variables.into_iter().chain(given.map(|(name, value)| (Value::from(name), value))))
}

fn with_reasoning(message: Value) -> Value {
    let given = |name: &str| message.get_attr(name).ok().filter(|value| !value.is_undefined());
    let Some(reasoning) = ["reasoning_content", "thinking", "reasoning"].into_iter().find_map(given) else {
        return message;
    };
    let pairs: Vec<_> = message.as_object().expect("a map").try_iter_pairs().expect("a map").collect();
    let more = ["thinking", "reasoning_content"].map(|name| (Value::from(name), reasoning.clone()));
    Value::from_pairs(pairs.into_iter().chain(more))
}

fn report(differences: &[String], n_cases: usize) {
    assert!(differences.is_empty(), "{} of {n_cases} differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn conversations_of_thirteen_templates_are_the_texts_of_transformers() {
    let goldens = read(&ours().join("goldens.json"));
    let source = |name: &str| {
        std::fs::read_to_string(ours().join("templates").join(format!("{name}.jinja"))).expect("it is there")
    };
    assert!(goldens.cases.len() >= 300, "{} cases only", goldens.cases.len());
    report(&check_cases(&goldens, source), goldens.cases.len());
}

#[test]
fn expressions_give_what_jinja2_gives() {
    let goldens = read(&ours().join("goldens.json"));
    let message = Value::from_pairs([("role", "user"), ("content", "x")]);
    let variables = goldens.data.as_object().expect("a map").try_iter_pairs().expect("a map");
    let context = Value::from_pairs(variables.chain([(Value::from("messages"), Value::from(vec![message]))]));
    let checked = goldens.expressions.iter().filter_map(|expression| {
        let found = difference(&expression.source, &context, &expression.expected)?;
        Some(format!("{}: {found}", expression.source))
    });
    report(&checked.collect::<Vec<_>>(), goldens.expressions.len());
}

#[test]
fn the_templates_of_others_give_the_texts_of_transformers() {
    let Some(path) = std::env::var_os("PIPE_TEMPLATE_GOLDENS") else {
        use std::io::Write as _;
        let name = "the_templates_of_others_give_the_texts_of_transformers";
        writeln!(std::io::stderr(), "SKIPPED {name}: PIPE_TEMPLATE_GOLDENS is not set")
            .expect("stderr can be written to");
        return;
    };
    let goldens = read(Path::new(&path));
    report(&check_cases(&goldens, |name| goldens.templates[name].clone()), goldens.cases.len());
}
