//! Keys: all that determines the bytes of a stage's outputs, as one digest.
//!
//! ```text
//! kind, version, settings, source, (port, artifact kind, content digest) of each input --BLAKE3--> semantic key
//! (port, artifact kind, file) of each output, where the pipeline file declares them    --'
//! semantic key + compute class --BLAKE3--> fingerprint, under which the manifest is stored
//! the same with the settings that extend a run left out --BLAKE3--> trajectory, which names the checkpoints
//! ```
//!
//! The encoding is of the struct, never of text, and free of ambiguity: every text is preceded by its length as u64 LE,
//! every collection by its count, every variant by an ordinal byte; maps are sorted by name.
//!
//! Deliberately not in a key: stage names, order, comments, paths, threads, logging intervals, host and time. A change to
//! the encoding changes every key: it bumps [`ENCODING_VERSION`], and the golden keys below move in the same commit.

use std::collections::BTreeMap;

use pipe_contract::{ArtifactKind, KeySettings, KeyValue};

/// Version of the encoding itself.
pub const ENCODING_VERSION: u64 = 1;

/// What determines a stage's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageKey {
    /// The word after `uses:`.
    pub kind: String,
    /// The kind's implementation version.
    pub kind_version: u32,
    /// The settings that differ from their defaults.
    pub settings: KeySettings,
    /// What fixes the bytes besides settings and inputs.
    pub source: KeySource,
    /// By port.
    pub inputs: BTreeMap<String, KeyInput>,
    /// By port, where the pipeline file declares them; else none.
    pub outputs: BTreeMap<String, KeyOutput>,
}

/// A source as it enters the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Nothing.
    Computed,
    /// `(name, digest)` of each local file, sorted by name; where they lie is left out.
    Files(Vec<(String, String)>),
    /// The immutable id that a remote name was resolved to.
    Commit(String),
}

/// An input as it enters the key: what it contains, not who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInput {
    /// Its artifact kind.
    pub kind: ArtifactKind,
    /// Its content digest, 64 hex digits.
    pub digest: String,
}

/// A declared output as it enters the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOutput {
    /// Its artifact kind.
    pub kind: ArtifactKind,
    /// The name of its only file, where that is declared too.
    pub file: Option<String>,
}

impl KeySource {
    /// As [`StageKey::preimage`] has it.
    pub fn readable(&self) -> serde_json::Value {
        match self {
            KeySource::Computed => serde_json::Value::Null,
            KeySource::Files(files) => {
                let files: BTreeMap<&String, &String> = files.iter().map(|(name, digest)| (name, digest)).collect();
                serde_json::json!({ "files": files })
            }
            KeySource::Commit(id) => serde_json::json!({ "commit": id }),
        }
    }
}

impl StageKey {
    /// The digest of all of it, 64 hex digits.
    pub fn semantic_key(&self) -> String {
        let mut encoder = Encoder::new("semantic key");
        encoder.text(&self.kind);
        encoder.number(u64::from(self.kind_version));
        encoder.settings(&self.settings);
        encoder.source(&self.source);
        encoder.number(self.inputs.len() as u64);
        for (port, input) in &self.inputs {
            encoder.text(port);
            encoder.text(input.kind.name());
            encoder.text(&input.digest);
        }
        encoder.outputs(&self.outputs);
        encoder.finish()
    }

    /// The key in a form that a person or a tool can read and compare; kept in the manifest.
    pub fn preimage(&self) -> serde_json::Value {
        let settings: serde_json::Map<String, serde_json::Value> =
            self.settings.iter().map(|(name, value)| (name.clone(), readable(value))).collect();
        let inputs: serde_json::Map<String, serde_json::Value> = self
            .inputs
            .iter()
            .map(|(port, input)| {
                (port.clone(), serde_json::json!({ "kind": input.kind.name(), "digest": input.digest }))
            })
            .collect();
        let mut preimage = serde_json::json!({
            "encoding": ENCODING_VERSION,
            "kind": self.kind,
            "kind_version": self.kind_version,
            "settings": settings,
            "source": self.source.readable(),
            "inputs": inputs,
        });
        if !self.outputs.is_empty() {
            preimage["outputs"] = readable_outputs(&self.outputs);
        }
        preimage
    }
}

/// As [`StageKey::preimage`] has them: port to kind, or to `{ "file": NAME }`.
pub fn readable_outputs(outputs: &BTreeMap<String, KeyOutput>) -> serde_json::Value {
    let readable = |output: &KeyOutput| match &output.file {
        Some(name) => serde_json::json!({ "file": name }),
        None => output.kind.name().into(),
    };
    outputs.iter().map(|(port, output)| (port.clone(), readable(output))).collect()
}

/// What a manifest is stored under: the semantic key itself, or with the compute class where the bytes depend on it.
pub fn fingerprint(semantic_key: &str, compute_class: Option<&str>) -> String {
    let Some(class) = compute_class else { return semantic_key.to_string() };
    let mut encoder = Encoder::new("fingerprint");
    encoder.text(semantic_key);
    encoder.text(class);
    encoder.finish()
}

/// A setting as JSON. A float is shown as its shortest decimal form that reads back to the same bits.
pub fn readable(value: &KeyValue) -> serde_json::Value {
    match value {
        KeyValue::Bool(value) => (*value).into(),
        KeyValue::Int(value) => (*value).into(),
        KeyValue::FloatBits(bits) => {
            let value = f64::from_bits(*bits);
            serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), serde_json::Value::Number)
        }
        KeyValue::Text(value) => value.clone().into(),
        KeyValue::List(items) => items.iter().map(readable).collect(),
        KeyValue::Map(map) => map.iter().map(|(name, value)| (name.clone(), readable(value))).collect(),
    }
}

/// Feeds BLAKE3 with the encoding described above.
struct Encoder(blake3::Hasher);

impl Encoder {
    fn new(what: &str) -> Self {
        let mut encoder = Encoder(blake3::Hasher::new());
        encoder.text(what);
        encoder.number(ENCODING_VERSION);
        encoder
    }

    fn ordinal(&mut self, ordinal: u8) {
        self.0.update(&[ordinal]);
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn settings(&mut self, settings: &KeySettings) {
        self.number(settings.len() as u64);
        for (name, value) in settings {
            self.text(name);
            self.value(value);
        }
    }

    fn value(&mut self, value: &KeyValue) {
        match value {
            KeyValue::Bool(value) => {
                self.ordinal(0);
                self.ordinal(u8::from(*value));
            }
            KeyValue::Int(value) => {
                self.ordinal(1);
                self.0.update(&value.to_le_bytes());
            }
            KeyValue::FloatBits(bits) => {
                self.ordinal(2);
                self.number(*bits);
            }
            KeyValue::Text(value) => {
                self.ordinal(3);
                self.text(value);
            }
            KeyValue::List(items) => {
                self.ordinal(4);
                self.number(items.len() as u64);
                items.iter().for_each(|item| self.value(item));
            }
            KeyValue::Map(map) => {
                self.ordinal(5);
                self.settings(map);
            }
        }
    }

    fn source(&mut self, source: &KeySource) {
        match source {
            KeySource::Computed => self.ordinal(0),
            KeySource::Files(files) => {
                self.ordinal(1);
                self.number(files.len() as u64);
                for (name, digest) in files {
                    self.text(name);
                    self.text(digest);
                }
            }
            KeySource::Commit(id) => {
                self.ordinal(2);
                self.text(id);
            }
        }
    }

    /// Nothing where none are declared, so that kinds with ports of their own have the keys they had before there were others.
    fn outputs(&mut self, outputs: &BTreeMap<String, KeyOutput>) {
        if outputs.is_empty() {
            return;
        }
        self.number(outputs.len() as u64);
        for (port, output) in outputs {
            self.text(port);
            self.text(output.kind.name());
            match &output.file {
                None => self.ordinal(0),
                Some(name) => {
                    self.ordinal(1);
                    self.text(name);
                }
            }
        }
    }

    fn finish(self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> StageKey {
        StageKey {
            kind: "train".into(),
            kind_version: 3,
            settings: [
                ("learning_rate", KeyValue::float(2e-4).expect("not NaN")),
                ("lora", KeyValue::Map([("r".to_string(), KeyValue::Int(16))].into())),
            ]
            .into(),
            source: KeySource::Computed,
            inputs: [
                ("data".into(), KeyInput { kind: ArtifactKind::Packed, digest: "aa".into() }),
                ("model".into(), KeyInput { kind: ArtifactKind::Model, digest: "bb".into() }),
            ]
            .into(),
            outputs: BTreeMap::new(),
        }
    }

    /// A changed literal means that every store is cold: bump `ENCODING_VERSION` and say so in the changelog.
    #[test]
    fn golden_keys() {
        let computed = sample();
        let files = StageKey { source: KeySource::Files(vec![("rows.jsonl".into(), "cc".into())]), ..sample() };
        let commit = StageKey { source: KeySource::Commit("0123".into()), ..sample() };
        let bare = StageKey { settings: KeySettings::default(), inputs: BTreeMap::new(), ..sample() };
        let declared = StageKey { outputs: declare("report", ArtifactKind::File, Some("report.html")), ..sample() };
        let table = [
            (computed.semantic_key(), "c9b2512b058b1c91f199712476d01a065801eed7bc5f08f1a16d6c8cb2080dfc"),
            (files.semantic_key(), "3a364a67fa902cee7c544e32c7ce528ff52148f30a7f5b625a33312537ab659b"),
            (commit.semantic_key(), "e931a5439d723f6c67bec76ff7ae22a6f2be597000404b0397f60ead0cf6308e"),
            (bare.semantic_key(), "5baa721243181dbd96213d4cf9a698816cc6cfe4e8a445f3736774786a42c0b0"),
            (declared.semantic_key(), "aaa34f48a4ebf9a32dedd3854e3f9f7251e9e62ef7767f42b80e2d588350088c"),
            (
                fingerprint(&computed.semantic_key(), Some("cpu-f32/1")),
                "a94eec6b243a1ce9da88e3f9b2cea85c03322519bdada12b805d133ef5eba1d4",
            ),
        ];
        let (keys, golden): (Vec<String>, Vec<&str>) = table.into_iter().unzip();
        assert_eq!(keys, golden);
    }

    fn declare(port: &str, kind: ArtifactKind, file: Option<&str>) -> BTreeMap<String, KeyOutput> {
        [(port.to_string(), KeyOutput { kind, file: file.map(str::to_string) })].into()
    }

    #[test]
    fn each_field_alone_changes_the_key() {
        type Change = (&'static str, fn(&mut StageKey));
        let changes: [Change; 19] = [
            ("kind", |k| k.kind = "trains".into()),
            ("version", |k| k.kind_version = 4),
            ("a float by one bit", |k| {
                k.settings.insert("learning_rate", KeyValue::FloatBits(2e-4f64.to_bits() + 1));
            }),
            ("a nested setting", |k| {
                k.settings.insert("lora", KeyValue::Map([("r".to_string(), KeyValue::Int(8))].into()));
            }),
            ("the type of a setting", |k| {
                k.settings.insert("lora", KeyValue::Map([("r".to_string(), KeyValue::Text("16".into()))].into()));
            }),
            ("one more setting", |k| {
                k.settings.insert("seed", KeyValue::Int(1));
            }),
            ("one setting less", |k| {
                k.settings.remove("lora");
            }),
            ("the order of a list", |k| {
                k.settings.insert("formats", KeyValue::List(vec![KeyValue::Int(1), KeyValue::Int(2)].into()));
            }),
            ("the other order of it", |k| {
                k.settings.insert("formats", KeyValue::List(vec![KeyValue::Int(2), KeyValue::Int(1)].into()));
            }),
            ("source", |k| k.source = KeySource::Commit("0123".into())),
            ("a file's name", |k| k.source = KeySource::Files(vec![("b".into(), "cc".into())])),
            ("an input's digest", |k| k.inputs.get_mut("data").expect("sample has it").digest = "ab".into()),
            ("an input's kind", |k| k.inputs.get_mut("data").expect("sample has it").kind = ArtifactKind::Examples),
            ("an input's port", |k| {
                let input = k.inputs.remove("data").expect("sample has it");
                k.inputs.insert("eval".into(), input);
            }),
            ("an output", |k| k.outputs = declare("report", ArtifactKind::File, Some("report"))),
            ("an output's port", |k| k.outputs = declare("summary", ArtifactKind::File, Some("report"))),
            ("an output's kind", |k| k.outputs = declare("report", ArtifactKind::Rows, None)),
            ("the name of an output's file", |k| {
                k.outputs = declare("report", ArtifactKind::File, Some("report.html"))
            }),
            ("one more output", |k| {
                k.outputs = declare("report", ArtifactKind::File, Some("report"));
                k.outputs.extend(declare("summary", ArtifactKind::File, Some("report")));
            }),
        ];
        let mut seen = BTreeMap::from([(sample().semantic_key(), "nothing")]);
        for (what, change) in changes {
            let mut key = sample();
            change(&mut key);
            let earlier = seen.insert(key.semantic_key(), what);
            assert_eq!(earlier, None, "changing {what} gives the key of changing {earlier:?}");
        }
    }

    #[test]
    fn text_cannot_move_between_neighbours() {
        let with = |name: &str, value: &str| StageKey {
            settings: [(name.to_string(), KeyValue::Text(value.to_string()))].into(),
            ..sample()
        };
        assert_ne!(with("ab", "c").semantic_key(), with("a", "bc").semantic_key());
    }

    #[test]
    fn the_compute_class_is_in_the_fingerprint_only() {
        let key = sample().semantic_key();
        assert_eq!(fingerprint(&key, None), key);
        assert_ne!(fingerprint(&key, Some("cpu-f32/1")), key);
        assert_ne!(fingerprint(&key, Some("cpu-f32/1")), fingerprint(&key, Some("cpu-f32/2")));
    }

    #[test]
    fn the_preimage_shows_settings_as_written() {
        let preimage = sample().preimage();
        assert_eq!(preimage["settings"]["learning_rate"].to_string(), "0.0002");
        assert_eq!(preimage["settings"]["lora"]["r"], 16);
        assert_eq!(preimage["inputs"]["data"]["digest"], "aa");
    }
}
