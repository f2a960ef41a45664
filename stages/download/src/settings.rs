//! The settings of `download`: what, at which revision, and which of its files.

use pipe_contract::{ArtifactKind, KeyValue, OutputPort, ProblemKind, Reader};

/// What is downloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// `dataset:`
    Dataset,
    /// `model:`
    Model,
    /// `adapter:`
    Adapter,
}

impl Wanted {
    const ALL: [Wanted; 3] = [Wanted::Dataset, Wanted::Model, Wanted::Adapter];

    /// The setting that names it.
    pub fn setting(self) -> &'static str {
        match self {
            Wanted::Dataset => "dataset",
            Wanted::Model => "model",
            Wanted::Adapter => "adapter",
        }
    }

    /// Where it comes out.
    pub fn output(self) -> OutputPort {
        match self {
            Wanted::Dataset => OutputPort { name: "rows", kind: ArtifactKind::Rows },
            Wanted::Model => OutputPort { name: "model", kind: ArtifactKind::Model },
            Wanted::Adapter => OutputPort { name: "adapter", kind: ArtifactKind::Adapter },
        }
    }
}

/// Settings as resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Data set, model or adapter.
    pub wanted: Wanted,
    /// A hub id, a path, or an address: see [`crate::local::find`].
    pub from: String,
    /// Branch, tag, pull request (`refs/pr/1`) or commit.
    pub revision: String,
    /// Data sets only.
    pub split: String,
    /// Data sets only: the configuration, by its name in the README, or else a folder of the data set.
    pub subset: Option<String>,
    /// Patterns of the files to take, instead of choosing them.
    pub files: Option<Vec<String>>,
    /// Patterns of files that are never taken.
    pub ignore_patterns: Vec<String>,
    /// For an `https://` address: the SHA-256 of its bytes, 64 lowercase hex digits.
    pub sha256: Option<String>,
}

/// Reads the `with:` block. The id and the revision stay out of the key: the commit they resolve to, or the content of the
/// local files, enters it. What selects files is in it.
pub fn read(reader: &mut Reader) -> Settings {
    let given: Vec<Wanted> = Wanted::ALL.into_iter().filter(|wanted| reader.has(wanted.setting())).collect();
    if given.is_empty() {
        let help = Some("for instance `dataset: tatsu-lab/alpaca` or `model: ./my-model`".to_string());
        reader.problem(
            "dataset",
            ProblemKind::MissingSetting,
            "one of `dataset`, `model` and `adapter` is needed",
            help,
        );
    }
    for extra in given.iter().skip(1) {
        let message =
            format!("`{}` is given beside `{}`, but a stage downloads one thing", extra.setting(), given[0].setting());
        reader.problem(extra.setting(), ProblemKind::Unsupported, message, Some("use two stages".to_string()));
    }
    let wanted = given.first().copied().unwrap_or(Wanted::Dataset);
    let mut from = String::new();
    for candidate in Wanted::ALL {
        let text = reader.optional_text(candidate.setting());
        reader.not_in_key(candidate.setting());
        if candidate == wanted {
            from = text.unwrap_or_default();
        }
    }
    reader.record_key("wanted", KeyValue::Text(wanted.setting().to_string()));
    let has_revision = reader.has("revision");
    let revision = reader.text("revision", "main");
    reader.not_in_key("revision");
    if has_revision && crate::local::is_path(&from) {
        let message = "a local path has no revision".to_string();
        reader.problem("revision", ProblemKind::Unsupported, message, None);
    }
    if has_revision && (crate::local::is_web(&from) || crate::local::is_s3(&from)) {
        let message = "an address has no revision".to_string();
        reader.problem("revision", ProblemKind::Unsupported, message, None);
    }
    let (split, subset) = read_data_set_settings(reader, wanted);
    let files = reader.text_list("files");
    let ignore_patterns = reader.text_list("ignore_patterns").unwrap_or_default();
    let sha256 = read_sha256(reader, wanted, &from);
    Settings { wanted, from, revision, split, subset, files, ignore_patterns, sha256 }
}

/// The checksum stays out of the key: what the address stands for enters it, and that is the checksum.
fn read_sha256(reader: &mut Reader, wanted: Wanted, from: &str) -> Option<String> {
    let sha256 = reader.optional_text("sha256").map(|text| text.to_ascii_lowercase());
    reader.not_in_key("sha256");
    let is_web = crate::local::is_web(from);
    let is_checksum = |text: &String| text.len() == 64 && crate::net::checksum::is_hex(text);
    match &sha256 {
        Some(text) if !is_checksum(text) => {
            let message = format!("`sha256` is `{text}`, but a SHA-256 has 64 hex digits");
            let help = Some("`sha256sum FILE` prints it".to_string());
            reader.problem("sha256", ProblemKind::Unsupported, message, help);
        }
        Some(_) if !is_web => {
            let message =
                "`sha256` is for an `https://` address: a hub or a local path is checked without it".to_string();
            reader.problem("sha256", ProblemKind::Unsupported, message, None);
        }
        None if from.starts_with("http://") => {
            let message =
                "an `http://` address needs `sha256`, as anyone on the way may change what it gives".to_string();
            reader.problem(wanted.setting(), ProblemKind::Unsupported, message, Some("or use `https://`".to_string()));
        }
        _ => {}
    }
    if is_web && wanted != Wanted::Dataset {
        let message = format!("`{}` is an address of one file, but a folder is needed", wanted.setting());
        let help = Some("use a hub id, a local folder or `s3://bucket/folder/`".to_string());
        reader.problem(wanted.setting(), ProblemKind::Unsupported, message, help);
    }
    sha256.filter(is_checksum)
}

fn read_data_set_settings(reader: &mut Reader, wanted: Wanted) -> (String, Option<String>) {
    for name in ["split", "config", "name"] {
        if wanted != Wanted::Dataset && reader.has(name) {
            let message = format!("`{name}` is for data sets, but this is `{}`", wanted.setting());
            reader.problem(name, ProblemKind::Unsupported, message, None);
        }
    }
    let split = reader.text("split", "train");
    if split.contains(['[', '+', '%']) {
        let message = format!("`split` is `{split}`, but slices and sums of splits are not built yet");
        let help = Some("name one split, such as `train`".to_string());
        reader.problem("split", ProblemKind::Unsupported, message, help);
    }
    let (config, name) = (reader.optional_text("config"), reader.optional_text("name"));
    if config.is_some() && name.is_some() {
        let message = "`name` and `config` mean the same, give one";
        reader.problem("name", ProblemKind::Unsupported, message, None);
    }
    reader.not_in_key("config");
    reader.not_in_key("name");
    let subset = config.or(name);
    if let Some(subset) = &subset {
        reader.record_key("config", KeyValue::Text(subset.clone()));
    }
    (split, subset)
}
