//! What `download` says about what it got, and what `pipe show` prints of it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use pipe_contract::{Artifact, ArtifactKind, Context, StageError};
use pipe_records::open_rows;
use pipe_records::show::show_rows;
use serde_json::Value;

/// Fields of `config.json` that say what a model is, in this order.
const CONFIG_FIELDS: [&str; 10] = [
    "architectures",
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "torch_dtype",
];

/// Features and number of rows of a data set; architecture and size of a model: as log lines and facts.
///
/// # Errors
/// When rows cannot be read: better here than in the stage that needs them.
pub fn report(artifact: &Artifact, ctx: &Context<'_>) -> Result<(), StageError> {
    let size_bytes: u64 = artifact.files.values().map(|file| file.size_bytes).sum();
    ctx.fact("size", bytes(size_bytes));
    match artifact.kind {
        ArtifactKind::Rows => {
            let rows = open_rows(artifact)?;
            ctx.log(format!("features: {}", rows.features()));
            ctx.log(format!("num_rows: {}", grouped(rows.num_rows())));
            ctx.fact("features", rows.features());
            ctx.fact("num_rows", grouped(rows.num_rows()));
        }
        ArtifactKind::Model => {
            let config = read_json(artifact, "config.json");
            let architecture =
                config.as_ref().and_then(|config| config["architectures"][0].as_str()).unwrap_or("unknown");
            ctx.fact("architecture", architecture);
            if let Some(n_parameters) = count_parameters(artifact) {
                ctx.fact("parameters", grouped(n_parameters));
                ctx.log(format!("{architecture} with {} parameters, {}", grouped(n_parameters), bytes(size_bytes)));
            }
        }
        _ => {
            let config = read_json(artifact, "adapter_config.json");
            let text = |name: &str| config.as_ref().map_or("unknown".to_string(), |config| plain(&config[name]));
            ctx.log(format!(
                "{} adapter with r {}, target modules {}",
                text("peft_type"),
                text("r"),
                text("target_modules")
            ));
        }
    }
    Ok(())
}

/// Rows: the first `n_rows`, wrapped at 50 columns. Else the configuration and the files.
///
/// # Errors
/// When rows cannot be read.
pub fn show(artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
    let mut text = String::new();
    if artifact.kind == ArtifactKind::Rows {
        let rows = open_rows(artifact)?;
        writeln!(text, "features: {}\nnum_rows: {}\n", rows.features(), grouped(rows.num_rows())).expect(NEVER);
        text.push_str(&show_rows(rows, n_rows)?);
        return Ok(text);
    }
    let is_model = artifact.kind == ArtifactKind::Model;
    let (file, fields) = match is_model {
        true => ("config.json", &CONFIG_FIELDS[..]),
        false => {
            ("adapter_config.json", &["peft_type", "base_model_name_or_path", "r", "lora_alpha", "target_modules"][..])
        }
    };
    if let Some(config) = read_json(artifact, file) {
        for field in fields.iter().filter(|field| !config[**field].is_null()) {
            writeln!(text, "{field}: {}", plain(&config[*field])).expect(NEVER);
        }
    }
    if let Some(n_parameters) = count_parameters(artifact) {
        writeln!(text, "parameters: {}", grouped(n_parameters)).expect(NEVER);
    }
    text.push('\n');
    for (name, file) in &artifact.files {
        writeln!(text, "{:>16}  {name}", grouped(file.size_bytes)).expect(NEVER);
    }
    Ok(text)
}

const NEVER: &str = "writing to a String cannot fail";

/// `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `817 B`, `24.2 MB`: powers of 1,000, as the hub's pages have them.
pub(crate) fn bytes(size_bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut size = size_bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if size < 1000.0 {
            break;
        }
        size /= 1000.0;
        unit = larger;
    }
    if unit == "B" { format!("{size_bytes} B") } else { format!("{size:.1} {unit}") }
}

fn read_json(artifact: &Artifact, name: &str) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(artifact.get(name)?).ok()?).ok()
}

/// A JSON value without quotes and brackets around it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Numbers in all tensors, from the headers of the safetensors files.
fn count_parameters(artifact: &Artifact) -> Option<u64> {
    let mut files = artifact.with_suffix(".safetensors").peekable();
    files.peek()?;
    files.map(|(_, path)| parameters_of(path)).sum()
}

/// A safetensors file begins with the length of its header (8 bytes, little endian) and the header, a JSON object.
fn parameters_of(path: &Path) -> Option<u64> {
    let mut file = File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > 100_000_000 {
        return None; // The limit of the safetensors library.
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    let tensors = header.as_object()?.iter().filter(|(name, _)| *name != "__metadata__");
    let size_of = |tensor: &Value| tensor["shape"].as_array()?.iter().map(Value::as_u64).product::<Option<u64>>();
    tensors.map(|(_, tensor)| size_of(tensor)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([grouped(7), grouped(1000), grouped(1_234_567)], ["7", "1,000", "1,234,567"]);
        assert_eq!([bytes(999), bytes(1000), bytes(24_246_638)], ["999 B", "1.0 kB", "24.2 MB"]);
    }
}
