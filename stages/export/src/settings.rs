//! The settings of `export`.

use pipe_contract::{KeyValue, ProblemKind, Reader};
use safetensors::Dtype;

/// What can be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// A PEFT adapter folder.
    Adapter,
    /// A model folder with the adapter added in.
    Merged,
}

/// Settings as resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What to write, sorted.
    pub formats: Vec<Format>,
    /// Dtype of merged weights; `None` keeps each tensor's.
    pub dtype: Option<Dtype>,
    /// Most bytes of a file of merged weights.
    pub max_shard_size_bytes: u64,
    /// Written into `adapter_config.json`, so that PEFT finds the base.
    pub base_model: Option<String>,
    /// Likewise: the base's commit.
    pub revision: Option<String>,
}

/// Reads the `with:` block.
pub fn read(reader: &mut Reader) -> Settings {
    Settings {
        formats: read_formats(reader),
        dtype: match reader.choice("dtype", "auto", &["auto", "float32", "float16", "bfloat16"]) {
            "float32" => Some(Dtype::F32),
            "float16" => Some(Dtype::F16),
            "bfloat16" => Some(Dtype::BF16),
            _ => None,
        },
        max_shard_size_bytes: read_shard_size(reader),
        base_model: read_base_model(reader),
        revision: reader.optional_text("revision"),
    }
}

/// A local folder's name is left out: it says nothing elsewhere, and no path belongs into an artifact.
fn read_base_model(reader: &mut Reader) -> Option<String> {
    let base_model = reader.optional_text("base_model_name_or_path");
    let is_local = base_model.as_ref().is_some_and(|name| name.starts_with(['.', '/', '~']));
    if is_local {
        reader.not_in_key("base_model_name_or_path");
    }
    base_model.filter(|_| !is_local)
}

fn read_formats(reader: &mut Reader) -> Vec<Format> {
    let names = reader.text_list("formats").unwrap_or_else(|| vec!["adapter".into(), "merged".into()]);
    reader.not_in_key("formats");
    let mut formats = Vec::new();
    for name in &names {
        match name.as_str() {
            "adapter" => formats.push(Format::Adapter),
            "merged" => formats.push(Format::Merged),
            other => {
                let help = nearest_format(other).map(|near| format!("did you mean `{near}`?"));
                let message = format!("`formats` has `{other}`, but must be a list of `adapter`, `merged`");
                reader.problem("formats", ProblemKind::OutOfRange, message, help);
            }
        }
    }
    formats.sort();
    formats.dedup();
    if names.is_empty() {
        reader.problem("formats", ProblemKind::OutOfRange, "`formats` is empty", None);
    }
    if formats.len() == 1 {
        let name = if formats == [Format::Adapter] { "adapter" } else { "merged" };
        reader.record_key("formats", KeyValue::List(vec![KeyValue::Text(name.into())].into()));
    }
    formats
}

fn nearest_format(wrong: &str) -> Option<&'static str> {
    pipe_settings::nearest(wrong, &["adapter", "merged"])
}

/// `5GB` as transformers writes it: powers of 1000, or `GiB` for powers of 1024.
fn read_shard_size(reader: &mut Reader) -> u64 {
    const DEFAULT: &str = "5GB";
    let text = reader.text("max_shard_size", DEFAULT);
    parse_size(&text).unwrap_or_else(|| {
        let message = format!("`max_shard_size` is `{text}`, but must be a size such as `5GB` or `512MiB`");
        reader.problem("max_shard_size", ProblemKind::OutOfRange, message, None);
        5_000_000_000
    })
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[digits..].trim() {
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor).filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> (Settings, pipe_contract::KeySettings, Vec<pipe_contract::Problem>) {
        pipe_contract::read_yaml(yaml, read)
    }

    #[test]
    fn the_order_of_formats_has_no_meaning() {
        let (settings, key, problems) = parse("{ formats: [merged, adapter] }");
        assert_eq!(
            (settings.formats, key, problems),
            (vec![Format::Adapter, Format::Merged], Default::default(), vec![])
        );
        assert_ne!(parse("{ formats: [adapter] }").1, parse("{ formats: [merged] }").1);
    }

    #[test]
    fn bad_settings_are_named() {
        let (_, _, problems) = parse("{ formats: [adaptor, gguf], max_shard_size: 5, dtype: float8 }");
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert_eq!(problems.iter().filter_map(|p| p.help.as_deref()).next(), Some("did you mean `adapter`?"));
    }

    #[test]
    fn a_local_base_is_not_named() {
        let (settings, key, _) = parse("{ base_model_name_or_path: ../models/mine }");
        assert_eq!((settings.base_model, key), (None, Default::default()));
        assert_eq!(parse("{ base_model_name_or_path: owner/name }").0.base_model.as_deref(), Some("owner/name"));
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(
            (parse_size("5GB"), parse_size("2 MiB"), parse_size("7")),
            (Some(5_000_000_000), Some(2 << 20), None)
        );
    }
}
