//! The artifact `metrics`: a line per optimizer step and per evaluation, the same as a Trainer's `trainer_state.json`, and as
//! pictures; and the chain of checkpoint digests.
//!
//! ```text
//! metrics.jsonl   {"step":49, "epoch":0.8, "loss":1.93, ...}
//!                 {"step":50, "epoch":0.82, "loss":1.88, ...}
//!                 {"step":50, "epoch":0.82, "eval_loss":2.01}      behind the optimizer step it follows
//! ```
//!
//! Their fields are Hugging Face's, whose reader refuses others, so neither file has a format version.
//! No times, memory or rates: those belong to a run, not to an artifact.

use std::fmt::Write as _;
use std::path::Path;

use pipe_contract::{Artifact, Figure, StageError};
use pipe_records::lines::write_lines;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::chain::Link;
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

/// One evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalLine {
    /// Optimizer steps taken.
    pub step: u64,
    /// Epochs done, as a fraction.
    pub epoch: f64,
    /// Mean loss of the supervised tokens of port `eval`, in nats, without dropout.
    pub eval_loss: f64,
}

/// Losses of a run, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// One line per optimizer step, from the first one on.
    pub steps: Vec<MetricsLine>,
    /// One line per evaluation.
    pub evals: Vec<EvalLine>,
}

/// A line of `metrics.jsonl`: their fields tell which it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Line<'h> {
    Step(&'h MetricsLine),
    Eval(&'h EvalLine),
}

impl History {
    /// The evaluation with the lowest loss, the first of equal ones.
    pub fn best(&self) -> Option<&EvalLine> {
        self.evals.iter().reduce(|best, line| if line.eval_loss < best.eval_loss { line } else { best })
    }

    fn lines(&self) -> Vec<Line<'_>> {
        let mut evals = self.evals.iter().peekable();
        let mut lines = Vec::with_capacity(self.steps.len() + self.evals.len());
        for line in &self.steps {
            lines.push(Line::Step(line));
            lines.extend(std::iter::from_fn(|| evals.next_if(|eval| eval.step <= line.step)).map(Line::Eval));
        }
        lines
    }
}

/// Writes `metrics.jsonl`, `trainer_state.json`, `checkpoints.jsonl` and the pictures of [`curves`] into `folder`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(
    folder: &Path,
    history: &History,
    links: &[Link],
    max_steps: u64,
    num_train_epochs: f64,
) -> Result<(), TrainError> {
    let lines = history.lines();
    let path = folder.join("metrics.jsonl");
    write_lines(&path, &lines).map_err(|source| TrainError::Io { verb: "write", path: path.clone(), source })?;
    let path = folder.join("checkpoints.jsonl");
    write_lines(&path, links).map_err(|source| TrainError::Io { verb: "write", path: path.clone(), source })?;
    let (best, last) = (history.best(), history.steps.last());
    let state = json!({
        "best_metric": best.map(|line| line.eval_loss),
        "best_model_checkpoint": best.map(|line| format!("checkpoint-{}", line.step)),
        "epoch": last.map_or(0.0, |line| line.epoch),
        "global_step": history.steps.len(),
        "is_hyper_param_search": false,
        "is_local_process_zero": true,
        "is_world_process_zero": true,
        "log_history": lines,
        "max_steps": max_steps,
        "num_input_tokens_seen": last.map_or(0, |line| line.num_tokens),
        "num_train_epochs": num_train_epochs,
        "stateful_callbacks": {},
    });
    let path = folder.join("trainer_state.json");
    let text = serde_json::to_string_pretty(&state).expect("a JSON value can be written") + "\n";
    std::fs::write(&path, text).map_err(|source| TrainError::Io { verb: "write", path, source })?;
    for (name, chart) in curves::charts(history) {
        pipe_plot::draw_files(folder, name, &chart).map_err(|source| TrainError::Picture { name, source })?;
    }
    Ok(())
}

fn read(artifact: &Artifact) -> Result<History, StageError> {
    let path = artifact.file("metrics.jsonl")?;
    let text = std::fs::read_to_string(path).map_err(|e| StageError::io("read", path, e))?;
    parse(&text).map_err(|e| StageError::user("metrics", "`metrics.jsonl` is broken").because(e))
}

fn parse(text: &str) -> serde_json::Result<History> {
    let mut history = History::default();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        if line.get("eval_loss").is_some() {
            history.evals.push(serde_json::from_value(line)?);
        } else {
            history.steps.push(serde_json::from_value(line)?);
        }
    }
    Ok(history)
}

/// What a report shows: facts, and the curves.
///
/// # Errors
/// When the file cannot be read.
pub fn figures(artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
    let history = read(artifact)?;
    let charts = curves::charts(&history).map(|(_, chart)| Figure::Chart(chart));
    Ok(std::iter::once(Figure::Facts(curves::facts(&history))).chain(charts).collect())
}

/// The first and last `n_rows` optimizer steps as a table, and as many evaluations where there are some.
///
/// # Errors
/// When the file cannot be read.
pub fn show(artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
    let history = read(artifact)?;
    let lines = &history.steps;
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
    table.push_str(&show_evaluations(&history, n_rows));
    Ok(table)
}

fn show_evaluations(history: &History, n_rows: usize) -> String {
    let Some(best) = history.best() else { return String::new() };
    let mut table = format!("\n{:>8} {:>8} {:>10}\n", "step", "epoch", "eval_loss");
    let n_hidden = history.evals.len().saturating_sub(2 * n_rows);
    for (row, EvalLine { step, epoch, eval_loss }) in history.evals.iter().enumerate() {
        if n_hidden > 0 && row == n_rows {
            writeln!(table, "{:>8} ({n_hidden} more)", "...").expect("writing to a String cannot fail");
        }
        if row < n_rows || row >= history.evals.len().saturating_sub(n_rows) {
            writeln!(table, "{step:>8} {epoch:>8.3} {eval_loss:>10.4}").expect("writing to a String cannot fail");
        }
    }
    writeln!(table, "best {:.4} after optimizer step {}", best.eval_loss, best.step)
        .expect("writing to a String cannot fail");
    table
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
        let eval = |step: u64, eval_loss: f64| EvalLine { step, epoch: step as f64 / 4.0, eval_loss };
        let evals = vec![eval(4, 2.75), eval(8, 2.25), eval(9, 2.25)];
        let history = History { steps: (1..=9).map(line).collect(), evals };
        let links = [Link { step: 9, digest: "aa".into(), chain: "bb".into() }];
        write(&folder, &history, &links, 9, 2.25).expect("written");
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file");
        let behind: Vec<String> = text("metrics.jsonl").lines().skip(3).take(2).map(str::to_string).collect();
        assert!(behind[0].starts_with("{\"step\":4,\"epoch\":1.0,\"loss\":2.5,"), "{behind:?}");
        assert_eq!(behind[1], "{\"step\":4,\"epoch\":1.0,\"eval_loss\":2.75}");
        assert_eq!(parse(&text("metrics.jsonl")).expect("JSON"), history);
        assert_eq!(text("checkpoints.jsonl"), "{\"step\":9,\"digest\":\"aa\",\"chain\":\"bb\"}\n");
        let artifact = Artifact::from_folder(ArtifactKind::Metrics, &folder).expect("an artifact");
        let table = show(&artifact, 2).expect("a table");
        assert_eq!(table.lines().count(), 6 + 6, "{table}");
        assert!(table.contains("(5 more)"), "{table}");
        assert!(table.ends_with("best 2.2500 after optimizer step 8\n"), "{table}");
        let state: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("trainer_state.json")).expect("a file"))
                .expect("JSON");
        assert_eq!(state["global_step"], 9);
        assert_eq!(state["log_history"][10]["num_tokens"], 900);
        assert_eq!(state["log_history"][4]["eval_loss"], 2.75);
        assert_eq!((&state["best_metric"], &state["best_model_checkpoint"]), (&json!(2.25), &json!("checkpoint-8")));
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
