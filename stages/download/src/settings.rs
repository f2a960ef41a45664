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
    /// A hub id, or a path: see [`crate::local::find`].
    pub from: String,
    /// Branch, tag, pull request (`refs/pr/1`) or commit.
    pub revision: String,
    /// Data sets only.
    pub split: String,
    /// Data sets only: the configuration, a folder of the data set.
    pub subset: Option<String>,
    /// Patterns of the files to take, instead of choosing them.
    pub files: Option<Vec<String>>,
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
    let (split, subset) = read_data_set_settings(reader, wanted);
    Settings { wanted, from, revision, split, subset, files: reader.text_list("files") }
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
