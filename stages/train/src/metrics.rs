//! The artifact `metrics`: a line per optimizer step, the same as a Trainer's `trainer_state.json`, and as pictures.
//!
//! Their fields are Hugging Face's, whose reader refuses others, so neither file has a format version.
//! No times, memory or rates: those belong to a run, not to an artifact.

use std::fmt::Write as _;
use std::path::Path;

use pipe_contract::{Artifact, Figure, StageError};
use pipe_records::lines::write_lines;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::curves;
use crate::error::TrainError;

/// One optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricsLine {
    /// Optimizer steps taken, counted from 1.
    pub step: u64,
    /// Epochs done, as a fraction.
    pub epoch: f64,
    /// Mean loss of the supervised tokens, in nats.
    pub loss: f64,
    /// L2 norm of the gradients before clipping.
    pub grad_norm: f64,
    /// The learning rate used.
    pub learning_rate: f64,
    /// Tokens read so far.
    pub num_tokens: u64,
    /// Supervised tokens of this optimizer step.
    pub num_supervised_tokens: u64,
}

/// Writes `metrics.jsonl`, `trainer_state.json` and the pictures of [`curves`] into `folder`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(folder: &Path, lines: &[MetricsLine], max_steps: u64, num_train_epochs: f64) -> Result<(), TrainError> {
    let path = folder.join("metrics.jsonl");
    write_lines(&path, lines).map_err(|source| TrainError::Io { verb: "write", path: path.clone(), source })?;
    let state = json!({
        "best_metric": null,
        "best_model_checkpoint": null,
        "epoch": lines.last().map_or(0.0, |line| line.epoch),
        "global_step": lines.len(),
        "is_hyper_param_search": false,
        "is_local_process_zero": true,
        "is_world_process_zero": true,
        "log_history": lines,
        "max_steps": max_steps,
        "num_input_tokens_seen": lines.last().map_or(0, |line| line.num_tokens),
        "num_train_epochs": num_train_epochs,
        "stateful_callbacks": {},
    });
    let path = folder.join("trainer_state.json");
    let text = serde_json::to_string_pretty(&state).expect("a JSON value can be written") + "\n";
    std::fs::write(&path, text).map_err(|source| TrainError::Io { verb: "write", path, source })?;
    for (name, chart) in curves::charts(lines) {
        pipe_plot::draw_files(folder, name, &chart).map_err(|source| TrainError::Picture { name, source })?;
    }
    Ok(())
}

fn read(artifact: &Artifact) -> Result<Vec<MetricsLine>, StageError> {
    let path = artifact.file("metrics.jsonl")?;
    let text = std::fs::read_to_string(path).map_err(|e| StageError::io("read", path, e))?;
    let lines = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    lines.map_err(|e| StageError::user("metrics", "`metrics.jsonl` is broken").because(e))
}

/// What a report shows: facts, and the curves.
///
/// # Errors
/// When the file cannot be read.
pub fn figures(artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
    let lines = read(artifact)?;
    let charts = curves::charts(&lines).map(|(_, chart)| Figure::Chart(chart));
    Ok(std::iter::once(Figure::Facts(curves::facts(&lines))).chain(charts).collect())
}

/// The first and last `n_rows` lines as a table.
///
/// # Errors
/// When the file cannot be read.
pub fn show(artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
    let lines = read(artifact)?;
    let mut table = format!(
        "{:>8} {:>8} {:>10} {:>10} {:>14} {:>12}\n",
        "step", "epoch", "loss", "grad_norm", "learning_rate", "num_tokens"
    );
    let n_hidden = lines.len().saturating_sub(2 * n_rows);
    for (row, line) in lines.iter().enumerate() {
        if n_hidden > 0 && row == n_rows {
            writeln!(table, "{:>8} ({n_hidden} more)", "...").expect("writing to a String cannot fail");
        }
        if row < n_rows || row >= lines.len().saturating_sub(n_rows) {
            let MetricsLine { step, epoch, loss, grad_norm, learning_rate, num_tokens, .. } = line;
            writeln!(
                table,
                "{step:>8} {epoch:>8.3} {loss:>10.4} {grad_norm:>10.4} {learning_rate:>14.3e} {num_tokens:>12}"
            )
            .expect("writing to a String cannot fail");
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipe_contract::ArtifactKind;

    #[test]
    fn what_is_written_is_shown_and_read_as_a_trainers_state() {
        let folder = std::env::temp_dir().join(format!("pipe-train-metrics-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let line = |step: u64| MetricsLine {
            step,
            epoch: step as f64 / 4.0,
            loss: 2.5,
            grad_norm: 0.5,
            learning_rate: 1e-4,
            num_tokens: 100 * step,
            num_supervised_tokens: 90,
        };
        let lines: Vec<MetricsLine> = (1..=9).map(line).collect();
        write(&folder, &lines, 9, 2.25).expect("written");
        let artifact = Artifact::from_folder(ArtifactKind::Metrics, &folder).expect("an artifact");
        let table = show(&artifact, 2).expect("a table");
        assert_eq!(table.lines().count(), 6, "{table}");
        assert!(table.contains("(5 more)"), "{table}");
        let state: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("trainer_state.json")).expect("a file"))
                .expect("JSON");
        assert_eq!(state["global_step"], 9);
        assert_eq!(state["log_history"][8]["num_tokens"], 900);
        for name in ["loss", "learning_rate", "grad_norm"] {
            let svg = std::fs::read_to_string(folder.join(format!("{name}.svg"))).expect("a picture");
            assert!(svg.contains("optimizer step\n"), "{name}");
            let png = std::fs::read(folder.join(format!("{name}.png"))).expect("a picture");
            assert!(png.starts_with(b"\x89PNG") && png.len() > 5000, "{name}: {} bytes", png.len());
        }
        let figures = figures(&artifact).expect("figures");
        let titles: Vec<&str> = figures
            .iter()
            .map(|figure| match figure {
                Figure::Chart(chart) => chart.title.as_str(),
                Figure::Facts(facts) => facts.title.as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(titles, ["Training", "Loss", "Learning rate", "Gradient norm"]);
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
