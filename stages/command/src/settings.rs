//! `with:` of a command.

use std::collections::BTreeMap;

use pipe_contract::{KeyValue, ProblemKind, Reader};

use crate::sources::Source;

/// The settings as they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The program and its arguments, at least one; paths of ports are still expressions.
    pub run: Vec<String>,
    /// Files and folders whose content is in the key.
    pub sources: Vec<Source>,
    /// Name to value; paths of ports are still expressions.
    pub env: BTreeMap<String, String>,
    /// Names of variables of which only the names are in the key; sorted, each once.
    pub secrets: Vec<String>,
    /// Whether it may read and write only what is declared.
    pub is_strict: bool,
}

/// Reads them.
pub fn read(reader: &mut Reader) -> Settings {
    let run = run(reader);
    let sources = sources(reader);
    let env = reader.text_map("env");
    let secrets = secrets(reader);
    for (setting, name) in env.keys().map(|name| ("env", name)).chain(secrets.iter().map(|name| ("secrets", name))) {
        if name.is_empty() || name.contains(['=', '\0']) {
            let message = format!("`{name}` cannot be the name of an environment variable");
            reader.problem(setting, ProblemKind::OutOfRange, message, None);
        }
    }
    for name in env.keys().filter(|name| secrets.contains(name)) {
        let message = format!("`{name}` is in `env` and in `secrets`");
        reader.problem("secrets", ProblemKind::OutOfRange, message, Some("remove it from one of them".into()));
    }
    if run.iter().chain(env.values()).any(|text| text.contains('\0')) {
        reader.problem("run", ProblemKind::OutOfRange, "no argument or value can hold a NUL character", None);
    }
    let is_strict = reader.choice("sandbox", "none", &["none", "strict"]) == "strict";
    Settings { run, sources, env, secrets, is_strict }
}

fn run(reader: &mut Reader) -> Vec<String> {
    let help =
        || Some("write each argument by itself, `[python3, s.py]`; for a shell, `[sh, -c, \"...\"]`".to_string());
    match reader.raw("run").as_str() {
        Some(text) => {
            let message = format!("`run` must be a list of arguments, found the text `{text}`");
            reader.problem("run", ProblemKind::WrongType, message, help());
            return vec![text.to_string()];
        }
        None if !reader.has("run") => {
            reader.problem("run", ProblemKind::MissingSetting, "`run` is missing", help());
        }
        None => {}
    }
    let Some(words) = reader.words("run") else { return Vec::new() };
    if words.first().is_none_or(String::is_empty) {
        reader.problem("run", ProblemKind::OutOfRange, "`run` has no program", help());
    }
    words
}

/// What is in the key is the content of the files, with their names.
fn sources(reader: &mut Reader) -> Vec<Source> {
    let names = reader.text_list("sources").unwrap_or_default();
    reader.not_in_key("sources");
    let mut sources = Vec::with_capacity(names.len());
    for name in names {
        match Source::read(&name) {
            Ok(source) => sources.push(source),
            Err(what) => {
                let help = Some("name files or folders relative to the pipeline file".into());
                reader.problem("sources", ProblemKind::OutOfRange, format!("`{name}` in `sources` {what}"), help);
            }
        }
    }
    sources
}

fn secrets(reader: &mut Reader) -> Vec<String> {
    let mut names = reader.text_list("secrets").unwrap_or_default();
    names.sort_unstable();
    names.dedup();
    reader.not_in_key("secrets");
    if !names.is_empty() {
        reader.record_key("secrets", KeyValue::List(names.iter().cloned().map(KeyValue::Text).collect()));
    }
    names
}

#[cfg(test)]
mod tests {
    use pipe_contract::read_yaml;

    use super::*;

    #[test]
    fn everything_that_can_change_bytes_is_in_the_key_and_no_spelling_is() {
        let key = |yaml: &str| {
            let (_, key, problems) = read_yaml(yaml, read);
            assert_eq!(problems, [], "{yaml}");
            key
        };
        let base = key("{ run: [a, b] }");
        for same in [
            "{ run: [a, b], env: {}, secrets: [], sandbox: none }",
            "{ run: [a, b], sources: [s.py] }",
            "{ run: ['a', \"b\"] }",
        ] {
            assert_eq!(key(same), base, "{same}");
        }
        let others = [
            "{ run: [a, c] }",
            "{ run: [a, b, c] }",
            "{ run: [a, b], env: { X: '1' } }",
            "{ run: [a, b], env: { X: '2' } }",
            "{ run: [a, b], secrets: [X] }",
            "{ run: [a, b], sandbox: strict }",
        ];
        let mut seen = vec![base];
        for other in others {
            let now = key(other);
            assert!(!seen.contains(&now), "{other}");
            seen.push(now);
        }
        assert_eq!(key("{ run: [a], secrets: [X, Y, X] }"), key("{ run: [a], secrets: [Y, X] }"));
        assert_eq!(key("{ run: [a, 3, true], env: { N: 3 } }"), key("{ run: [a, '3', 'true'], env: { N: '3' } }"));
    }

    #[test]
    fn problems_are_told_all_at_once() {
        let told = |yaml: &str| -> Vec<String> {
            let (_, _, problems) = read_yaml(yaml, read);
            problems.into_iter().map(|problem| format!("{} {}", problem.kind.slug(), problem.message)).collect()
        };
        assert_eq!(told("{}"), ["missing-setting `run` is missing"]);
        assert_eq!(told("{ run: [] }"), ["out-of-range `run` has no program"]);
        assert_eq!(
            told("{ run: python s.py }"),
            ["wrong-type `run` must be a list of arguments, found the text `python s.py`"]
        );
        assert_eq!(
            told("{ run: [a, [b]], env: { X: [1], Y= : a }, secrets: [Z, ''], sources: [.], sandbox: strikt }"),
            [
                "wrong-type `run` must be a list of texts, but its item 2 is a list",
                "out-of-range `.` in `sources` holds the pipeline file itself, and what runs write beside it",
                "wrong-type `X` in `env` must be text, found a list",
                "out-of-range `Y=` cannot be the name of an environment variable",
                "out-of-range `` cannot be the name of an environment variable",
                "out-of-range `sandbox` is `strikt`, but must be one of `none`, `strict`",
            ]
        );
        assert_eq!(
            told("{ run: [a], env: { X: b }, secrets: [X] }"),
            ["out-of-range `X` is in `env` and in `secrets`"]
        );
    }
}
