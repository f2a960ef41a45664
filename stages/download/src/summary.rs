//! What `download` says about what it got, and what `pipe show` and reports show of it.

use std::fmt::Write as _;

use pipe_contract::figures::Facts;
use pipe_contract::{Artifact, ArtifactKind, Context, Figure, StageError};
use pipe_records::folders::{self, plain, read_config, read_json};
use pipe_records::show::{show_rows, table_of_rows};
use pipe_records::{OnBadRow, ReadOptions, bytes, open_rows, open_rows_with, thousands};

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

/// Fields of `adapter_config.json`, likewise.
const ADAPTER_FIELDS: [&str; 5] = ["peft_type", "base_model_name_or_path", "r", "lora_alpha", "target_modules"];

/// Rows in a report.
const ROWS_IN_REPORT: usize = 3;

/// A line for `n_files` files of `place`, `total` bytes in all, of which `n_received` came over the network.
pub(crate) fn arrived(place: &str, n_files: usize, total: u64, n_received: u64) -> String {
    let source = if n_received == 0 { "all from the cache".to_string() } else { bytes(n_received) + " received" };
    format!("{place}: {n_files} files, {}, {source}", bytes(total))
}

/// Features and number of rows of a data set; architecture and size of a model: as log lines and facts.
///
/// # Errors
/// When rows cannot be read: better here than in the stage that needs them.
pub fn report(artifact: &Artifact, ctx: &Context<'_>) -> Result<(), StageError> {
    let size_bytes: u64 = artifact.files.values().map(|file| file.size_bytes).sum();
    ctx.fact("size", bytes(size_bytes));
    match artifact.kind {
        ArtifactKind::Rows => {
            // Whether a bad row ends the pipeline is for a stage that reads the rows to say.
            let options = ReadOptions { on_bad_row: OnBadRow::Drop, n_named_max: 1 };
            let rows = open_rows_with(artifact, options)?;
            if let Some(first) = rows.bad_rows().first.first() {
                let n_bad = thousands(rows.bad_rows().n_rows);
                ctx.warn(format!("{n_bad} rows cannot be read, the first is: {first}"));
            }
            ctx.log(format!("features: {}", rows.features()));
            ctx.log(format!("num_rows: {}", thousands(rows.num_rows())));
            ctx.fact("features", rows.features());
            ctx.fact("num_rows", thousands(rows.num_rows()));
        }
        ArtifactKind::Model => {
            let config = read_config(artifact);
            let architecture =
                config.as_ref().and_then(|config| config["architectures"][0].as_str()).unwrap_or("unknown");
            ctx.fact("architecture", architecture);
            if let Some(n_parameters) = folders::tensors(artifact).map(|tensors| tensors.n_parameters) {
                ctx.fact("parameters", thousands(n_parameters));
                ctx.log(format!("{architecture} with {} parameters, {}", thousands(n_parameters), bytes(size_bytes)));
            } else {
                // Pickles and GGUF: how many parameters they hold is said by the stage that reads them.
                ctx.log(format!("{architecture}, {}", bytes(size_bytes)));
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
        writeln!(text, "features: {}\nnum_rows: {}\n", rows.features(), thousands(rows.num_rows())).expect(NEVER);
        text.push_str(&show_rows(rows, n_rows)?);
        return Ok(text);
    }
    let is_model = artifact.kind == ArtifactKind::Model;
    let (config, fields) = match is_model {
        true => (read_config(artifact), &CONFIG_FIELDS[..]),
        false => (read_json(artifact, "adapter_config.json"), &ADAPTER_FIELDS[..]),
    };
    if let Some(config) = config {
        for field in fields.iter().filter(|field| !config[**field].is_null()) {
            writeln!(text, "{field}: {}", plain(&config[*field])).expect(NEVER);
        }
    }
    if let Some(n_parameters) = folders::tensors(artifact).map(|tensors| tensors.n_parameters) {
        writeln!(text, "parameters: {}", thousands(n_parameters)).expect(NEVER);
    }
    text.push('\n');
    for (name, file) in &artifact.files {
        writeln!(text, "{:>16}  {name}", thousands(file.size_bytes)).expect(NEVER);
    }
    Ok(text)
}

const NEVER: &str = "writing to a String cannot fail";

/// What a report shows: of rows their number, columns and the first few; of a model or an adapter what it is.
///
/// # Errors
/// When the artifact cannot be read.
pub fn figures(artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
    if artifact.kind == ArtifactKind::Model && artifact.get("config.json").is_none() && read_config(artifact).is_none()
    {
        // A GGUF of a model that we do not know.
        let files = artifact.files.keys().cloned().collect::<Vec<_>>().join(", ");
        let size_bytes = artifact.files.values().map(|file| file.size_bytes).sum();
        let facts = vec![("files".to_string(), files), ("size".to_string(), bytes(size_bytes))];
        return Ok(vec![Figure::Facts(Facts { title: "Model".to_string(), facts })]);
    }
    if artifact.kind != ArtifactKind::Rows {
        return folders::figures(artifact);
    }
    let rows = open_rows(artifact)?;
    let size_bytes = artifact.files.values().map(|file| file.size_bytes).sum();
    let facts = [
        ("num_rows", thousands(rows.num_rows())),
        ("features", rows.features()),
        ("files", artifact.files.len().to_string()),
        ("size", bytes(size_bytes)),
    ];
    let facts = facts.map(|(name, value)| (name.to_string(), value)).to_vec();
    let shown = table_of_rows(rows, "The first rows", ROWS_IN_REPORT)?;
    Ok(vec![Figure::Facts(Facts { title: "Rows".to_string(), facts }), Figure::Table(shown)])
}
