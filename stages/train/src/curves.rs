//! The curves of a training run: loss, learning rate and gradient norm over optimizer steps.
//!
//! ```text
//! metrics.jsonl --[charts]--> pipe-plot: loss.svg, loss.png, learning_rate.svg, ... in the artifact
//!                        \--> a report
//! ```
//!
//! Where the loss on port `eval` was computed, it stands in the same chart. Beside the loss of each optimizer step, which is noisy, stands a moving mean where there are enough of them. It looks
//! back only: what it shows at an optimizer step was known there.

use pipe_contract::figures::{Chart, Facts, Mark, Series};
use pipe_records::thousands;

use crate::metrics::{History, MetricsLine};

/// From this many optimizer steps on there is a moving mean.
const STEPS_FOR_A_MEAN: usize = 40;
/// The mean is over one such part of the run: short enough to follow it, long enough to be smooth.
const PARTS: usize = 20;

/// Names of the pictures' files without their ends, and the charts.
pub fn charts(history: &History) -> [(&'static str, Chart); 3] {
    let lines = &history.steps;
    [("loss", loss(history)), ("learning_rate", learning_rate(lines)), ("grad_norm", grad_norm(lines))]
}

/// How much was trained, and from where to where the loss went.
pub fn facts(history: &History) -> Facts {
    let lines = &history.steps;
    let mut facts = Vec::new();
    let mut fact = |name: &str, value: String| facts.push((name.to_string(), value));
    if let (Some(first), Some(last)) = (lines.first(), lines.last()) {
        fact("optimizer steps", thousands(last.step));
        fact("epochs", format!("{:.2}", last.epoch));
        fact("tokens", thousands(last.num_tokens));
        fact("supervised tokens", thousands(lines.iter().map(|line| line.num_supervised_tokens).sum()));
        fact("first loss (nats)", format!("{:.4}", first.loss));
        fact("last loss (nats)", format!("{:.4}", last.loss));
        if let (Some(n), Some(mean)) = (window(lines.len()), means(lines).last()) {
            fact(&format!("mean loss of the last {n} optimizer steps (nats)"), format!("{:.4}", mean.1));
        }
    }
    if let (Some(first), Some(last), Some(best)) = (history.evals.first(), history.evals.last(), history.best()) {
        fact("first evaluation loss (nats)", format!("{:.4}", first.eval_loss));
        fact("last evaluation loss (nats)", format!("{:.4}", last.eval_loss));
        fact("best evaluation loss (nats)", format!("{:.4}", best.eval_loss));
        fact("best after optimizer step", thousands(best.step));
    }
    Facts { title: "Training".to_string(), facts }
}

fn loss(history: &History) -> Chart {
    let lines = &history.steps;
    let mut series = vec![Series { name: "each optimizer step".to_string(), points: points(lines, |line| line.loss) }];
    if let Some(n) = window(lines.len()) {
        series.push(Series { name: format!("mean of the last {n}"), points: means(lines) });
    }
    let mut caption = match (lines.first(), lines.last()) {
        (Some(first), Some(last)) => format!(
            "first {:.3}   last {:.3}   {} optimizer steps   {} tokens",
            first.loss,
            last.loss,
            thousands(last.step),
            thousands(last.num_tokens)
        ),
        _ => String::new(),
    };
    if let Some(best) = history.best() {
        let points = history.evals.iter().map(|line| (line.step as f64, line.eval_loss)).collect();
        series.push(Series { name: "evaluation".to_string(), points });
        caption.push_str(&format!(
            "   best evaluation {:.3} after optimizer step {}",
            best.eval_loss,
            thousands(best.step)
        ));
    }
    chart("Loss", "loss (nats per supervised token)", series, caption)
}

fn learning_rate(lines: &[MetricsLine]) -> Chart {
    let peak = lines.iter().max_by(|a, b| a.learning_rate.total_cmp(&b.learning_rate).then(b.step.cmp(&a.step)));
    let caption = peak.map_or_else(String::new, |line| {
        format!("highest {:e} at optimizer step {}", line.learning_rate, thousands(line.step))
    });
    let series = vec![Series { name: "learning rate".to_string(), points: points(lines, |line| line.learning_rate) }];
    chart("Learning rate", "learning rate", series, caption)
}

fn grad_norm(lines: &[MetricsLine]) -> Chart {
    let largest = lines.iter().max_by(|a, b| a.grad_norm.total_cmp(&b.grad_norm).then(b.step.cmp(&a.step)));
    let caption = largest.map_or_else(String::new, |line| {
        format!("largest {:.3} at optimizer step {}", line.grad_norm, thousands(line.step))
    });
    let series = vec![Series { name: "gradient norm".to_string(), points: points(lines, |line| line.grad_norm) }];
    chart("Gradient norm", "L2 norm before clipping", series, caption)
}

fn chart(title: &str, y_label: &str, series: Vec<Series>, caption: String) -> Chart {
    Chart {
        title: title.to_string(),
        x_label: "optimizer step".to_string(),
        y_label: y_label.to_string(),
        mark: Mark::Line,
        series,
        threshold: None,
        caption,
    }
}

fn points(lines: &[MetricsLine], value: impl Fn(&MetricsLine) -> f64) -> Vec<(f64, f64)> {
    lines.iter().map(|line| (line.step as f64, value(line))).collect()
}

/// Optimizer steps that the moving mean of `n_steps` covers.
fn window(n_steps: usize) -> Option<usize> {
    (n_steps >= STEPS_FOR_A_MEAN).then(|| (n_steps / PARTS).max(5))
}

/// The mean loss of each optimizer step and those before it in the window; from where the window is full.
fn means(lines: &[MetricsLine]) -> Vec<(f64, f64)> {
    let Some(n) = window(lines.len()) else { return Vec::new() };
    let mut sum = 0.0;
    let mut means = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        sum += line.loss;
        if i >= n {
            sum -= lines[i - n].loss;
        }
        if i + 1 >= n {
            means.push((line.step as f64, sum / n as f64));
        }
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::EvalLine;

    fn history(n: u64) -> History {
        let line = |step: u64| MetricsLine {
            step,
            epoch: step as f64 / 50.0,
            loss: step as f64,
            grad_norm: 1.0 / step as f64,
            learning_rate: 2e-4 * step.min(10) as f64 / 10.0,
            num_tokens: 100 * step,
            num_supervised_tokens: 90,
        };
        History { steps: (1..=n).map(line).collect(), evals: Vec::new() }
    }

    #[test]
    fn a_long_run_has_a_mean_that_looks_back() {
        let [(_, loss), ..] = charts(&history(200));
        assert_eq!(loss.series[1].name, "mean of the last 10");
        assert_eq!(loss.series[1].points[0], (10.0, 5.5));
        assert_eq!(loss.series[1].points.last(), Some(&(200.0, 195.5)));
        assert_eq!(loss.series[0].points.len(), 200);
        assert_eq!(loss.caption, "first 1.000   last 200.000   200 optimizer steps   20,000 tokens");
        assert_eq!(charts(&history(39))[0].1.series.len(), 1);
        assert_eq!(charts(&history(40))[0].1.series[1].name, "mean of the last 5");
    }

    #[test]
    fn evaluations_are_the_last_series_of_the_loss_and_facts() {
        let eval = |step: u64, eval_loss: f64| EvalLine { step, epoch: 0.0, eval_loss };
        let history = History { evals: vec![eval(10, 3.0), eval(20, 2.0), eval(30, 2.5)], ..history(40) };
        let [(_, loss), ..] = charts(&history);
        let names: Vec<&str> = loss.series.iter().map(|series| series.name.as_str()).collect();
        assert_eq!(names, ["each optimizer step", "mean of the last 5", "evaluation"]);
        assert_eq!(loss.series[2].points, [(10.0, 3.0), (20.0, 2.0), (30.0, 2.5)]);
        assert!(loss.caption.ends_with("   best evaluation 2.000 after optimizer step 20"), "{}", loss.caption);
        let facts = facts(&history).facts;
        let last: Vec<&str> = facts[facts.len() - 4..].iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(last, ["3.0000", "2.5000", "2.0000", "20"]);
    }

    #[test]
    fn captions_name_the_highest() {
        let [_, (_, rate), (_, norm)] = charts(&history(20));
        assert_eq!(rate.caption, "highest 2e-4 at optimizer step 10");
        assert_eq!(norm.caption, "largest 1.000 at optimizer step 1");
        let [(_, loss), (_, rate), _] = charts(&History::default());
        assert_eq!((loss.caption.as_str(), rate.caption.as_str(), loss.series.len()), ("", "", 1));
    }

    #[test]
    fn facts_sum_up_the_run() {
        let facts = facts(&history(100)).facts;
        let value = |name: &str| facts.iter().find(|fact| fact.0 == name).map(|fact| fact.1.as_str());
        assert_eq!((value("optimizer steps"), value("epochs")), (Some("100"), Some("2.00")));
        assert_eq!((value("tokens"), value("supervised tokens")), (Some("10,000"), Some("9,000")));
        assert_eq!(value("mean loss of the last 5 optimizer steps (nats)"), Some("98.0000"));
    }
}
