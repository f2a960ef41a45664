//! The chat templates of a model folder, and the special tokens that they may name.
//!
//! ```text
//! chat_template.jinja  (additional_chat_templates/NAME.jinja)      since transformers 4.50
//! chat_template.json       {"chat_template": "..."}                 of processors
//! tokenizer_config.json    "chat_template": "..."  or  [{"name": "default", "template": "..."}, ...]
//! *.gguf                   tokenizer.chat_template, where there is no tokenizer_config.json
//! ```
//!
//! The first that is there counts, as in transformers' `tokenization_utils_base.py`. Of several, `tool_use` is for
//! conversations with tools, `default` for all others.

use std::collections::BTreeMap;

use minijinja::Value;
use pipe_contract::Artifact;
use serde_json::Value as Json;

use crate::TemplateError;

const TEMPLATE_FILE: &str = "chat_template.jinja";
const FURTHER_FOLDER: &str = "additional_chat_templates/";
const PROCESSOR_FILE: &str = "chat_template.json";
const CONFIG_FILE: &str = "tokenizer_config.json";
const MAP_FILE: &str = "special_tokens_map.json";
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// What a model folder says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelTemplates {
    /// Name to source.
    templates: BTreeMap<String, String>,
    /// `bos_token` to `<s>`.
    tokens: BTreeMap<String, String>,
}

impl ModelTemplates {
    /// Reads the small files of `model`; having no template is no error here.
    ///
    /// # Errors
    /// `Io`, `Json`, `Weights` for a GGUF that cannot be read, and `Field` for a template that is no text.
    pub fn read(model: &Artifact) -> Result<Self, TemplateError> {
        let config = read_json(model, CONFIG_FILE)?;
        let mut tokens = token_texts(&read_json(model, MAP_FILE)?);
        tokens.extend(token_texts(&config));
        let mut templates = match files(model)? {
            templates if !templates.is_empty() => templates,
            _ => match read_json(model, PROCESSOR_FILE)?.get("chat_template") {
                Some(template) if !template.is_null() => named(PROCESSOR_FILE, template)?,
                _ => named(CONFIG_FILE, &config["chat_template"])?,
            },
        };
        if model.get(CONFIG_FILE).is_none()
            && let Some(vocabulary) = pipe_weights::gguf_vocabulary(model)?
        {
            for (name, text) in vocabulary.special_tokens() {
                tokens.entry(name.to_string()).or_insert_with(|| text.to_string());
            }
            if templates.is_empty() {
                templates.extend(vocabulary.chat_template.map(|source| (DEFAULT.to_string(), source)));
            }
        }
        Ok(ModelTemplates { templates, tokens })
    }

    /// Name and source of the template for conversations, with tools or without.
    ///
    /// # Errors
    /// `NoChatTemplate`; `NoDefault`.
    pub fn chat(&self, has_tools: bool) -> Result<(&str, &str), TemplateError> {
        let wanted = if has_tools { [TOOL_USE, DEFAULT] } else { [DEFAULT, DEFAULT] };
        let found = wanted.into_iter().find_map(|name| self.templates.get_key_value(name));
        match found {
            Some((name, source)) => Ok((name, source)),
            None if self.templates.is_empty() => Err(TemplateError::NoChatTemplate),
            None => Err(TemplateError::NoDefault { names: self.templates.keys().cloned().collect() }),
        }
    }

    /// Special tokens as variables of templates: `bos_token`, `eos_token`, ...
    pub fn variables(&self) -> impl Iterator<Item = (String, Value)> {
        self.tokens.iter().map(|(name, text)| (name.clone(), Value::from(text)))
    }
}

fn files(model: &Artifact) -> Result<BTreeMap<String, String>, TemplateError> {
    let mut templates = BTreeMap::new();
    if model.get(TEMPLATE_FILE).is_some() {
        templates.insert(DEFAULT.to_string(), read_text(model, TEMPLATE_FILE)?);
    }
    for (file, _) in model.with_suffix(".jinja") {
        if let Some(name) = file.strip_prefix(FURTHER_FOLDER) {
            let name = name.strip_suffix(".jinja").unwrap_or(name);
            templates.insert(name.to_string(), read_text(model, file)?);
        }
    }
    Ok(templates)
}

/// A text, or a list of names and texts.
fn named(file: &'static str, value: &Json) -> Result<BTreeMap<String, String>, TemplateError> {
    let bad = || TemplateError::Field {
        file,
        key: "chat_template".to_string(),
        expected: "a text, or a list of `name` and `template`",
    };
    match value {
        Json::Null => Ok(BTreeMap::new()),
        Json::String(source) => Ok(BTreeMap::from([(DEFAULT.to_string(), source.clone())])),
        Json::Array(items) => items
            .iter()
            .map(|item| match (item["name"].as_str(), item["template"].as_str()) {
                (Some(name), Some(source)) => Ok((name.to_string(), source.to_string())),
                _ => Err(bad()),
            })
            .collect(),
        _ => Err(bad()),
    }
}

/// Every `..._token` that is a text, or an object with its text under `content`.
fn token_texts(config: &Json) -> BTreeMap<String, String> {
    let entries = config.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token"));
    let texts = entries.filter_map(|(name, value)| {
        let text = value.as_str().or_else(|| value["content"].as_str())?;
        Some((name.clone(), text.to_string()))
    });
    texts.collect()
}

fn read_json(model: &Artifact, file: &'static str) -> Result<Json, TemplateError> {
    if model.get(file).is_none() {
        return Ok(Json::Null);
    }
    serde_json::from_str(&read_text(model, file)?).map_err(|source| TemplateError::Json { file, source })
}

fn read_text(model: &Artifact, file: &str) -> Result<String, TemplateError> {
    let path = model.get(file).expect("the file is there: its name comes from the model");
    std::fs::read_to_string(path).map_err(|source| TemplateError::Io { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use pipe_contract::ArtifactKind;

    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<ModelTemplates, TemplateError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        ModelTemplates::read(&Artifact::from_folder(ArtifactKind::Model, folder.path()).unwrap())
    }

    #[test]
    fn a_template_is_found_in_each_place() {
        let config = (
            CONFIG_FILE,
            r#"{"chat_template": "in config", "bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null}"#,
        );
        let model = read(&[config]).unwrap();
        assert_eq!(model.chat(true).unwrap(), ("default", "in config"));
        let variables: Vec<String> = model.variables().map(|(name, text)| format!("{name} {text}")).collect();
        assert_eq!(variables, ["bos_token <s>", "eos_token </s>"]);
        let processor = (PROCESSOR_FILE, r#"{"chat_template": "of the processor"}"#);
        assert_eq!(read(&[config, processor]).unwrap().chat(false).unwrap().1, "of the processor");
        let file = (TEMPLATE_FILE, "in its file\n");
        assert_eq!(read(&[config, processor, file]).unwrap().chat(false).unwrap().1, "in its file\n");
        let tools = ("additional_chat_templates/tool_use.jinja", "with tools");
        let model = read(&[config, file, tools]).unwrap();
        assert_eq!(
            (model.chat(false).unwrap().1, model.chat(true).unwrap()),
            ("in its file\n", ("tool_use", "with tools"))
        );
    }

    #[test]
    fn of_several_templates_the_default_is_taken() {
        let list = |name: &str| {
            format!(
                r#"{{"chat_template": [{{"name": "rag", "template": "r"}}, {{"name": "{name}", "template": "d"}}]}}"#
            )
        };
        assert_eq!(read(&[(CONFIG_FILE, &list("default"))]).unwrap().chat(true).unwrap().1, "d");
        let error = read(&[(CONFIG_FILE, &list("mine"))]).unwrap().chat(false).unwrap_err();
        assert!(error.to_string().ends_with("none of them is called `default`: mine, rag"), "{error}");
        assert_eq!(read(&[]).unwrap().chat(false).unwrap_err().slug(), "no-chat-template");
        assert_eq!(read(&[(CONFIG_FILE, r#"{"chat_template": 3}"#)]).unwrap_err().slug(), "bad-model");
        assert_eq!(read(&[(CONFIG_FILE, "{")]).unwrap_err().slug(), "bad-model");
    }

    #[test]
    fn a_gguf_has_its_template_and_tokens_in_its_metadata() {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let string = |key: &str, value: &str| [&text(key)[..], &8_u32.to_le_bytes(), &text(value)].concat();
        let (list, strings) = (9_u32.to_le_bytes(), 8_u32.to_le_bytes());
        let bytes = [
            &b"GGUF"[..],
            &3_u32.to_le_bytes(),
            &[0_u64, 4].map(u64::to_le_bytes).concat(),
            &string("tokenizer.chat_template", "{{ eos_token }}"),
            &string("tokenizer.ggml.model", "gpt2"),
            &text("tokenizer.ggml.tokens"),
            &[list, strings].concat(),
            &2_u64.to_le_bytes(),
            &[text("a"), text("</s>")].concat(),
            &text("tokenizer.ggml.eos_token_id"),
            &[4_u32, 1].map(u32::to_le_bytes).concat(),
        ]
        .concat();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.gguf"), bytes).unwrap();
        let read =
            || ModelTemplates::read(&Artifact::from_folder(ArtifactKind::Model, folder.path()).unwrap()).unwrap();
        assert_eq!(read().chat(false).unwrap(), ("default", "{{ eos_token }}"));
        assert_eq!(read().tokens, BTreeMap::from([("eos_token".to_string(), "</s>".to_string())]));
        // Files beside it go before.
        std::fs::write(folder.path().join("chat_template.jinja"), "{{ messages }}").unwrap();
        assert_eq!(read().chat(false).unwrap().1, "{{ messages }}");
        std::fs::write(folder.path().join("tokenizer_config.json"), "{}").unwrap();
        assert!(read().tokens.is_empty());
    }
}
