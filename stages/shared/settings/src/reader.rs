//! Reading a block of settings: one declaration gives type, default, range, nearest name and the way into the key.
//!
//! ```
//! # use pipe_settings::Reader;
//! let yaml = serde_yaml::from_str("{ max_length: 0, pakcing: true }").unwrap();
//! let mut reader = Reader::new(&yaml);
//! let max_length = reader.integer("max_length", 1024, 1..=1_048_576);
//! let packing = reader.bool("packing", false);
//! let (key, problems) = reader.finish();
//! assert_eq!((max_length, packing), (1024, false));
//! assert_eq!(problems.len(), 2); // out of range, and an unknown setting: did you mean `packing`?
//! # let _ = key;
//! ```
//!
//! All problems of a block are collected. It does not know lines: a [`Problem`] carries the path of keys, the runner adds
//! file, line and column.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_yaml::Value;

use crate::declared::{Declared, Form, merge};
use crate::key::{KeySettings, KeyValue, ToKey};

/// A setting as a stage kind read it, for whoever shows what a stage was run with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadSetting {
    /// Its keys below `with:`, dots between them: `lora.r`.
    pub name: String,
    /// The value in force; `None` where nothing is set and the stage decides.
    pub value: Option<KeyValue>,
    /// Whether the user wrote it.
    pub is_given: bool,
}

/// What is wrong with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ProblemKind {
    UnknownSetting,
    MissingSetting,
    WrongType,
    OutOfRange,
    Unsupported,
}

impl ProblemKind {
    /// The stable slug shown in brackets.
    pub fn slug(self) -> &'static str {
        match self {
            ProblemKind::UnknownSetting => "unknown-setting",
            ProblemKind::MissingSetting => "missing-setting",
            ProblemKind::WrongType => "wrong-type",
            ProblemKind::OutOfRange => "out-of-range",
            ProblemKind::Unsupported => "unsupported-setting",
        }
    }
}

/// One problem, at a path of keys below `with:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Keys (and list positions as decimal numbers) from `with:` down.
    pub path: Vec<String>,
    /// Whether to point at the key instead of its value.
    pub at_key: bool,
    /// What is wrong.
    pub kind: ProblemKind,
    /// The message, in the form of all messages.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
}

/// Reads one `with:` block or a section of it.
pub struct Reader<'a> {
    value: &'a Value,
    path: Vec<String>,
    known: Vec<&'static str>,
    key: KeySettings,
    problems: Vec<Problem>,
    settings: Vec<ReadSetting>,
    /// Kept only where somebody asks for it.
    declared: Option<Vec<Declared>>,
}

static NULL: Value = Value::Null;

impl<'a> Reader<'a> {
    /// Reads `value`, a mapping or null.
    pub fn new(value: &'a Value) -> Self {
        Reader::at(value, Vec::new())
    }

    fn at(value: &'a Value, path: Vec<String>) -> Self {
        let mut reader = Reader {
            value,
            path,
            known: Vec::new(),
            key: KeySettings::default(),
            problems: Vec::new(),
            settings: Vec::new(),
            declared: None,
        };
        if !matches!(value, Value::Mapping(_) | Value::Null) {
            reader.problems.push(Problem {
                path: reader.path.clone(),
                at_key: false,
                kind: ProblemKind::WrongType,
                message: format!("expected a mapping, found {}", describe(value)),
                help: None,
            });
        }
        reader
    }

    /// The raw value of `name`, marked as known; null where absent.
    pub fn raw(&mut self, name: &'static str) -> &'a Value {
        self.take(name, || Form::Any)
    }

    /// Whether `name` is this number, which stands for nothing.
    pub fn is_number(&mut self, name: &'static str, none: i64) -> bool {
        let value = self.take(name, || Form::Any);
        if let Some(declared) = &mut self.declared {
            merge(declared, vec![Declared { name, form: Form::Any, none: Some(none) }]);
        }
        value.as_i64() == Some(none)
    }

    /// The value of `name`; from here on it is known, and declared to be of this form.
    fn take(&mut self, name: &'static str, form: impl FnOnce() -> Form) -> &'a Value {
        if let Some(declared) = &mut self.declared {
            merge(declared, vec![Declared { name, form: form(), none: None }]);
        }
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        self.value.as_mapping().and_then(|map| map.get(name)).unwrap_or(&NULL)
    }

    /// Every setting that `read` reads of `value`, as it is declared.
    pub(crate) fn declared_by(value: &'a Value, read: impl FnOnce(&mut Reader<'a>)) -> Vec<Declared> {
        let mut reader = Reader { declared: Some(Vec::new()), ..Reader::new(value) };
        read(&mut reader);
        reader.declared.unwrap_or_default()
    }

    /// Whether `name` is given, and not null. Does not mark it as known.
    pub fn has(&self, name: &str) -> bool {
        self.value.as_mapping().and_then(|map| map.get(name)).is_some_and(|v| !v.is_null())
    }

    /// Records a problem at the value of `name`.
    pub fn problem(&mut self, name: &str, kind: ProblemKind, message: impl Into<String>, help: Option<String>) {
        let mut path = self.path.clone();
        path.push(name.to_string());
        self.problems.push(Problem {
            path,
            at_key: kind == ProblemKind::UnknownSetting,
            kind,
            message: message.into(),
            help,
        });
    }

    /// Puts `name` into the key unless it equals the default.
    fn record<T: ToKey + PartialEq>(&mut self, name: &str, value: &T, default: &T) {
        let key = value.to_key();
        self.note(name, key.clone());
        if value != default {
            self.key.insert(name.to_string(), key);
        }
    }

    /// Keeps a value that is in force and in the key.
    fn keep(&mut self, name: &str, key: KeyValue) {
        self.note(name, key.clone());
        self.key.insert(name.to_string(), key);
    }

    /// Keeps the value that is in force.
    fn note(&mut self, name: &str, value: KeyValue) {
        let is_given = self.has(name);
        match self.settings.iter_mut().find(|setting| setting.name == name) {
            Some(setting) => setting.value = Some(value),
            None => self.settings.push(ReadSetting { name: name.to_string(), value: Some(value), is_given }),
        }
    }

    /// Every setting that was read so far, defaults too, in the order of reading; those that are not set come last. They are taken out of the
    /// reader.
    pub fn take_settings(&mut self) -> Vec<ReadSetting> {
        let mut settings = std::mem::take(&mut self.settings);
        for name in &self.known {
            let prefix = format!("{name}.");
            if settings.iter().all(|setting| setting.name != *name && !setting.name.starts_with(&prefix)) {
                let written = self.value.as_mapping().and_then(|map| map.get(name));
                let value = written.filter(|value| !value.is_null()).map(as_written);
                settings.push(ReadSetting { name: (*name).to_string(), is_given: value.is_some(), value });
            }
        }
        settings.sort_by_key(|setting| setting.value.is_none());
        settings.shrink_to_fit();
        settings
    }

    /// Puts a derived value into the key under `name`.
    pub fn record_key(&mut self, name: &str, value: KeyValue) {
        if self.known.contains(&name) {
            self.note(name, value.clone());
        }
        self.key.insert(name.to_string(), value);
    }

    /// Takes `name` out of the key: it does not change the bytes (logging, memory, speed).
    pub fn not_in_key(&mut self, name: &str) {
        self.key.remove(name);
    }

    /// `true` or `false`.
    pub fn bool(&mut self, name: &'static str, default: bool) -> bool {
        let value = match self.take(name, || Form::Bool { default }) {
            Value::Null => default,
            Value::Bool(value) => *value,
            other => self.wrong_type(name, "`true` or `false`", other, default),
        };
        self.record(name, &value, &default);
        value
    }

    /// A whole number in `range`. YAML's `1e3` and `8.0` are taken as the whole numbers they are.
    pub fn integer(&mut self, name: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.take(name, || Form::Integer { default: Some(default), min: *range.start(), max: *range.end() });
        let value = self.optional_integer(name, range).unwrap_or(default);
        self.key.remove(name);
        self.record(name, &value, &default);
        value
    }

    /// A whole number in `range`, or nothing.
    pub fn optional_integer(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let raw = self.take(name, || Form::Integer { default: None, min: *range.start(), max: *range.end() });
        let value = match raw {
            Value::Null => return None,
            Value::Number(number) => number
                .as_u64()
                .or_else(|| number.as_f64().filter(|x| x.fract() == 0.0 && *x >= 0.0 && *x < 9.0e15).map(|x| x as u64)),
            _ => return self.wrong_type(name, "a whole number", raw, None),
        };
        match value {
            Some(value) if range.contains(&value) => {
                self.keep(name, value.to_key());
                Some(value)
            }
            _ => {
                let message = format!(
                    "`{name}` is {}, but must be a whole number from {} to {}",
                    show(raw),
                    range.start(),
                    range.end()
                );
                self.problem(name, ProblemKind::OutOfRange, message, None);
                None
            }
        }
    }

    /// A number in `range`; NaN and infinities are refused. Text such as `2e-4`, which YAML 1.2 core readers take as text
    /// where there is no dot, is read as the number it is.
    pub fn float(&mut self, name: &'static str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let raw = self.take(name, || Form::Float { default, min: *range.start(), max: *range.end() });
        let value = match raw {
            Value::Null => {
                self.note(name, default.to_key());
                return default;
            }
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse::<f64>().ok(),
            _ => None,
        };
        let Some(value) = value else { return self.wrong_type(name, "a number", raw, default) };
        if !range.contains(&value) {
            let message =
                format!("`{name}` is {}, but must be a number from {} to {}", show(raw), range.start(), range.end());
            self.problem(name, ProblemKind::OutOfRange, message, None);
            return default;
        }
        self.record(name, &value, &default);
        value
    }

    /// Text, or nothing.
    pub fn optional_text(&mut self, name: &'static str) -> Option<String> {
        let value = match self.take(name, || Form::Text { default: None }) {
            Value::Null => return None,
            Value::String(value) => value.clone(),
            other => return self.wrong_type(name, "text", other, None),
        };
        self.keep(name, value.to_key());
        Some(value)
    }

    /// Text with a default.
    pub fn text(&mut self, name: &'static str, default: &str) -> String {
        self.take(name, || Form::Text { default: Some(default.to_string()) });
        let value = self.optional_text(name).unwrap_or_else(|| default.to_string());
        self.key.remove(name);
        self.record(name, &value, &default.to_string());
        value
    }

    /// One of `choices`; the first is not special, `default` is.
    pub fn choice(&mut self, name: &'static str, default: &'static str, choices: &[&'static str]) -> &'static str {
        let raw = self.take(name, || Form::Choice { default, choices: choices.to_vec() });
        let found = match raw {
            Value::Null => Some(default),
            Value::String(text) => choices.iter().copied().find(|choice| choice == text),
            _ => None,
        };
        let Some(value) = found else {
            let listed: Vec<String> = choices.iter().map(|c| format!("`{c}`")).collect();
            let help =
                raw.as_str().and_then(|text| nearest(text, choices)).map(|near| format!("did you mean `{near}`?"));
            let message = format!("`{name}` is {}, but must be one of {}", show(raw), listed.join(", "));
            self.problem(name, ProblemKind::OutOfRange, message, help);
            return default;
        };
        self.note(name, KeyValue::Text(value.to_string()));
        if value != default {
            self.key.insert(name.to_string(), KeyValue::Text(value.to_string()));
        }
        value
    }

    /// A list of texts, or one text as a list of one; `None` where absent.
    pub fn text_list(&mut self, name: &'static str) -> Option<Vec<String>> {
        let raw = self.take(name, || Form::TextList);
        let items: Option<Vec<String>> = match raw {
            Value::Null => return None,
            Value::String(text) => Some(vec![text.clone()]),
            Value::Sequence(items) => items.iter().map(|item| item.as_str().map(str::to_string)).collect(),
            _ => None,
        };
        let Some(items) = items else { return self.wrong_type(name, "a list of texts", raw, None) };
        self.keep(name, items.to_key());
        Some(items)
    }

    /// A list of texts in which numbers, `true` and `false` stand for themselves; `None` where absent.
    pub fn words(&mut self, name: &'static str) -> Option<Vec<String>> {
        let raw = self.take(name, || Form::Words);
        let items = match raw {
            Value::Null => return None,
            Value::Sequence(items) => items,
            _ => return self.wrong_type(name, "a list of texts", raw, None),
        };
        let words: Vec<Option<String>> = items.iter().map(scalar_text).collect();
        for (idx, item) in items.iter().enumerate().filter(|(idx, _)| words[*idx].is_none()) {
            let message = format!("`{name}` must be a list of texts, but its item {} is {}", idx + 1, describe(item));
            self.problem_inside(name, &idx.to_string(), message);
        }
        let words: Vec<String> = words.into_iter().collect::<Option<_>>()?;
        self.keep(name, words.to_key());
        Some(words)
    }

    /// A mapping of names to texts, in which numbers, `true` and `false` stand for themselves; empty where absent.
    pub fn text_map(&mut self, name: &'static str) -> BTreeMap<String, String> {
        let raw = self.take(name, || Form::TextMap);
        let map = match raw {
            Value::Null => return BTreeMap::new(),
            Value::Mapping(map) => map,
            _ => return self.wrong_type(name, "a mapping of names to texts", raw, BTreeMap::new()),
        };
        let mut texts = BTreeMap::new();
        for (key, value) in map {
            let key = key.as_str().map_or_else(|| show(key), str::to_string);
            match scalar_text(value) {
                Some(text) => drop(texts.insert(key, text)),
                None => {
                    let message = format!("`{key}` in `{name}` must be text, found {}", describe(value));
                    self.problem_inside(name, &key, message);
                }
            }
        }
        let key: KeySettings = texts.iter().map(|(key, text)| (key.clone(), text.to_key())).collect();
        self.note(name, KeyValue::Map(key.clone()));
        if !key.is_empty() {
            self.key.insert(name.to_string(), KeyValue::Map(key));
        }
        texts
    }

    /// Records a wrong type of an item or entry of `name`.
    fn problem_inside(&mut self, name: &str, inner: &str, message: String) {
        self.problem(name, ProblemKind::WrongType, message, None);
        let problem = self.problems.last_mut().expect("just recorded");
        problem.path.push(inner.to_string());
    }

    /// A nested mapping, read by `read`; its key settings are nested in ours.
    pub fn section<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Reader<'a>) -> T) -> T {
        let raw = self.take(name, || Form::Section(Vec::new()));
        let mut path = self.path.clone();
        path.push(name.to_string());
        let mut inner = Reader { declared: self.declared.as_ref().map(|_| Vec::new()), ..Reader::at(raw, path) };
        let result = read(&mut inner);
        let nested = inner.take_settings().into_iter();
        self.settings.extend(nested.map(|setting| ReadSetting { name: format!("{name}.{}", setting.name), ..setting }));
        if let (Some(declared), Some(nested)) = (&mut self.declared, inner.declared.take()) {
            merge(declared, vec![Declared { name, form: Form::Section(nested), none: None }]);
        }
        let (key, problems) = inner.finish();
        self.problems.extend(problems);
        if !key.is_empty() {
            self.key.insert(name.to_string(), KeyValue::Map(key));
        }
        result
    }

    /// A list of nested mappings, or one of them, each read by `read`; in the key as a list, in their order.
    pub fn sections<T>(&mut self, name: &'static str, mut read: impl FnMut(&mut Reader<'a>) -> T) -> Vec<T> {
        let raw = self.take(name, || Form::Sections(Vec::new()));
        let path_of = |reader: &Self, idx: usize| [reader.path.as_slice(), &[name.into(), idx.to_string()]].concat();
        if let Some(declared) = &mut self.declared {
            let mut inner = Reader { declared: Some(Vec::new()), ..Reader::new(&NULL) };
            read(&mut inner);
            let form = Form::Sections(inner.declared.take().unwrap_or_default());
            merge(declared, vec![Declared { name, form, none: None }]);
        }
        let items = match raw {
            Value::Null => &[],
            Value::Sequence(items) => items.as_slice(),
            Value::Mapping(_) => std::slice::from_ref(raw),
            _ => return self.wrong_type(name, "a list of mappings", raw, Vec::new()),
        };
        let (mut results, mut keys) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for (idx, item) in items.iter().enumerate() {
            let mut inner = Reader::at(item, path_of(self, idx));
            results.push(read(&mut inner));
            let (key, problems) = inner.finish();
            self.problems.extend(problems);
            keys.push(KeyValue::Map(key));
        }
        if !keys.is_empty() {
            self.keep(name, KeyValue::List(keys.into()));
        }
        results
    }

    /// Ends the block: unknown settings become problems. Returns the key settings and all problems.
    pub fn finish(mut self) -> (KeySettings, Vec<Problem>) {
        let Some(map) = self.value.as_mapping() else { return (self.key, self.problems) };
        for name in map.keys() {
            let shown = match name {
                Value::String(text) if self.known.contains(&text.as_str()) => continue,
                Value::String(text) => text.clone(),
                other => show(other),
            };
            let help = nearest(&shown, &self.known).map_or_else(
                || format!("the settings here are {}", quoted_list(&self.known)),
                |near| format!("did you mean `{near}`?"),
            );
            let mut path = self.path.clone();
            path.push(shown.clone());
            self.problems.push(Problem {
                path,
                at_key: true,
                kind: ProblemKind::UnknownSetting,
                message: format!("unknown setting `{shown}`"),
                help: Some(help),
            });
        }
        (self.key, self.problems)
    }

    fn wrong_type<T>(&mut self, name: &str, expected: &str, found: &Value, fallback: T) -> T {
        let message = format!("`{name}` must be {expected}, found {}", describe(found));
        self.problem(name, ProblemKind::WrongType, message, None);
        fallback
    }
}

/// The name nearest to `wrong`, if one is near enough to be meant (Jaro-Winkler similarity of at least 0.8).
pub fn nearest<'n>(wrong: &str, names: &[&'n str]) -> Option<&'n str> {
    names
        .iter()
        .map(|name| (strsim::jaro_winkler(wrong, name), *name))
        .filter(|(similarity, _)| *similarity >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn quoted_list(names: &[&str]) -> String {
    if names.is_empty() {
        "none".to_string()
    } else {
        names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
    }
}

/// A scalar as text, numbers as YAML reads them.
fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// A value that a stage kind reads in its own way.
fn as_written(value: &Value) -> KeyValue {
    match value {
        Value::Null => KeyValue::Text("null".into()),
        Value::Bool(value) => KeyValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64().and_then(KeyValue::float)) {
            (Some(value), _) => KeyValue::Int(value),
            (None, Some(value)) => value,
            (None, None) => KeyValue::Text(number.to_string()),
        },
        Value::String(text) => KeyValue::Text(text.clone()),
        Value::Sequence(items) => KeyValue::List(items.iter().map(as_written).collect()),
        Value::Mapping(map) => {
            let name = |name: &Value| name.as_str().map_or_else(|| show(name), str::to_string);
            KeyValue::Map(map.iter().map(|(key, value)| (name(key), as_written(value))).collect())
        }
        Value::Tagged(tagged) => as_written(&tagged.value),
    }
}

/// A value as the user may recognize it: `"text"`, `12`, `a list`.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        Value::Number(number) => format!("`{number}`"),
        Value::Bool(value) => format!("`{value}`"),
        other => describe(other),
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(number) => format!("the number `{number}`"),
        Value::String(text) => format!("the text `{text}`"),
        Value::Sequence(_) => "a list".into(),
        Value::Mapping(_) => "a mapping".into(),
        Value::Tagged(_) => "a tagged value".into(),
    }
}

/// Reads `yaml` as a whole block: what `read` makes of it, what enters the key, and the problems. For tests of settings.
///
/// # Panics
/// When the text is not YAML.
pub fn read_yaml<T>(yaml: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> (T, KeySettings, Vec<Problem>) {
    let value = serde_yaml::from_str(yaml).expect("the test's YAML parses");
    let mut reader = Reader::new(&value);
    let read = read(&mut reader);
    let (key, problems) = reader.finish();
    (read, key, problems)
}

#[cfg(test)]
mod tests {
    use super::read_yaml as read;
    use super::*;

    #[test]
    fn a_default_written_out_is_not_in_the_key() {
        let (value, key, problems) = read("{ max_length: 1024 }", |r| r.integer("max_length", 1024, 1..=4096));
        assert_eq!((value, key.len(), problems.len()), (1024, 0, 0));
    }

    #[test]
    fn two_spellings_of_a_number_have_one_key() {
        let float = |yaml: &str| read(yaml, |r| r.float("learning_rate", 2e-5, 0.0..=1.0)).1;
        assert_eq!(float("{ learning_rate: 2.0e-4 }"), float("{ learning_rate: 0.0002 }"));
        assert_eq!(float("{ learning_rate: 2e-4 }"), float("{ learning_rate: 0.0002 }"));
        assert_ne!(float("{ learning_rate: 2e-4 }"), float("{ learning_rate: 3e-4 }"));
    }

    #[test]
    fn every_problem_of_a_block_is_reported() {
        let (_, _, problems) = read("{ r: 0, lora_alpa: 3, bias: [1] }", |r| {
            r.integer("r", 8, 1..=1024);
            r.float("lora_alpha", 8.0, 0.0..=1e6);
            r.text("bias", "none");
        });
        let slugs: Vec<&str> = problems.iter().map(|p| p.kind.slug()).collect();
        assert_eq!(slugs, ["out-of-range", "wrong-type", "unknown-setting"]);
        assert_eq!(problems[2].help.as_deref(), Some("did you mean `lora_alpha`?"));
    }

    #[test]
    fn every_setting_is_told_with_its_default() {
        let value: Value = serde_yaml::from_str("{ lora: { r: 4 }, warmup: [1, x] }").expect("the test's YAML parses");
        let mut reader = Reader::new(&value);
        reader.optional_integer("max_steps", 1..=9);
        reader.section("lora", |lora| (lora.integer("r", 8, 1..=64), lora.float("lora_alpha", 8.0, 0.0..=1e6)));
        reader.raw("warmup");
        reader.choice("optim", "adamw", &["adamw"]);
        let told = |setting: ReadSetting| {
            let how = if setting.is_given { "given" } else { "default" };
            format!("{} = {:?} {how}", setting.name, setting.value)
        };
        let eight = 8.0_f64.to_bits();
        let expected = [
            "lora.r = Some(Int(4)) given".to_string(),
            format!("lora.lora_alpha = Some(FloatBits({eight})) default"),
            "optim = Some(Text(\"adamw\")) default".to_string(),
            "warmup = Some(List([Int(1), Text(\"x\")])) given".to_string(),
            "max_steps = None default".to_string(),
        ];
        assert_eq!(reader.take_settings().into_iter().map(told).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn numbers_are_words_and_lists_are_not() {
        let (words, key, problems) = read("{ run: [a, 3, 0.5, true] }", |r| r.words("run"));
        assert_eq!(words.expect("a list"), ["a", "3", "0.5", "true"]);
        assert_eq!(
            (key["run"].clone(), problems),
            (["a", "3", "0.5", "true"].map(String::from).to_vec().to_key(), vec![])
        );
        let (words, key, problems) = read("{ run: [a, [b], ~] }", |r| r.words("run"));
        let paths: Vec<&[String]> = problems.iter().map(|problem| problem.path.as_slice()).collect();
        assert_eq!(
            (words, key.len(), paths),
            (None, 0, vec![&["run".into(), "1".into()][..], &["run".into(), "2".into()]])
        );
        let (texts, key, problems) = read("{ env: { B: 2, A: x, C: {} } }", |r| r.text_map("env"));
        assert_eq!(texts, [("A".into(), "x".into()), ("B".into(), "2".into())].into());
        assert_eq!(
            key["env"],
            KeyValue::Map(
                [("A".to_string(), "x".to_string().to_key()), ("B".to_string(), "2".to_string().to_key())].into()
            )
        );
        assert_eq!(problems[0].path, ["env", "C"]);
        assert_eq!(read("{ env: {} }", |r| r.text_map("env")).1, KeySettings::default());
    }

    #[test]
    fn a_list_of_sections_is_in_the_key_in_its_order() {
        let all = |yaml: &str| read(yaml, |r| r.sections("filter", |f| f.integer("least", 1, 1..=9)));
        let (least, key, problems) = all("{ filter: [{ least: 4 }, { least: 0, x: 1 }, {}] }");
        let entry = |least: i64| KeyValue::Map([("least".to_string(), KeyValue::Int(least))].into());
        assert_eq!(least, [4, 1, 1]);
        let none = || KeyValue::Map(KeySettings::default());
        assert_eq!(key["filter"], KeyValue::List(vec![entry(4), none(), none()].into()));
        assert_eq!(problems[0].path, ["filter", "1", "least"]);
        assert_eq!(problems[1].path, ["filter", "1", "x"]);
        assert_eq!(all("{ filter: { least: 4 } }").1["filter"], KeyValue::List(vec![entry(4)].into()));
        assert_eq!(all("{ filter: [] }").1, KeySettings::default());
        assert_eq!(all("{ filter: 3 }").2[0].message, "`filter` must be a list of mappings, found the number `3`");
    }

    #[test]
    fn sections_nest_in_path_and_key() {
        let (_, key, problems) = read("{ lora: { r: 4, x: 1 } }", |r| r.section("lora", |l| l.integer("r", 8, 1..=64)));
        assert_eq!(key["lora"], KeyValue::Map([("r".to_string(), KeyValue::Int(4))].into()));
        assert_eq!(problems[0].path, ["lora", "x"]);
    }
}
