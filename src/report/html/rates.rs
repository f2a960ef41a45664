//! How fast a stage was: a sentence per phase, and a curve where it took long enough for one.

use std::fmt::Write as _;
use std::time::Duration;

use pipe_contract::figures::{Chart, Mark, Series};

use super::chart;
use super::data::{ProgressPoint, StageData};
use super::markup::escape;
use crate::report::numbers;
use crate::report::progress::{amount, rate as show_rate, word};

/// A shorter phase says nothing about speed.
const PHASE_MIN: Duration = Duration::from_secs(1);
/// Points of a curve: each the mean of a stretch of the phase, so that it does not jump with every report.
const N_STRETCHES: usize = 60;
/// Below that a curve is three points and a guess.
const N_STRETCHES_MIN: usize = 8;

/// Empty where there is nothing to say.
pub(super) fn render(stage: &StageData) -> String {
    let mut html = String::new();
    let mut charts = String::new();
    for phase in phases(&stage.progress) {
        let (Some(first), Some(last)) = (phase.first(), phase.last()) else { continue };
        let took = last.at.saturating_sub(first.at);
        if took < PHASE_MIN || last.done <= first.done {
            continue;
        }
        let n_done = last.done - first.done;
        let rate = n_done as f64 / took.as_secs_f64();
        let text =
            format!("{} in {}: {}", amount(n_done, last.unit), numbers::duration(took), show_rate(rate, last.unit));
        writeln!(html, "<p class=\"rate\">{}</p>", escape(&text)).expect("to a String");
        if let Some(curve) = curve(phase) {
            charts.push_str(&chart::render(&curve));
        }
    }
    if !charts.is_empty() {
        write!(html, "<div class=\"charts\">{charts}</div>").expect("to a String");
    }
    html
}

/// Reports of one kind, with the same total, that do not fall.
fn phases(progress: &[ProgressPoint]) -> impl Iterator<Item = &[ProgressPoint]> {
    progress.chunk_by(|a, b| a.unit == b.unit && a.total == b.total && a.done <= b.done)
}

fn curve(phase: &[ProgressPoint]) -> Option<Chart> {
    let stretch = phase.len().div_ceil(N_STRETCHES).max(1);
    // Neighbouring stretches share a report: no time is left out.
    let ends: Vec<&ProgressPoint> = phase.iter().step_by(stretch).collect();
    let origin = phase.first()?.at;
    let points: Vec<(f64, f64)> = ends
        .windows(2)
        .filter_map(|pair| {
            let seconds = pair[1].at.checked_sub(pair[0].at)?.as_secs_f64();
            let rate = (pair[1].done - pair[0].done) as f64 / seconds;
            (seconds > 0.0).then(|| (pair[1].at.saturating_sub(origin).as_secs_f64(), rate))
        })
        .collect();
    if points.len() < N_STRETCHES_MIN {
        return None;
    }
    let unit = word(phase[0].unit);
    Some(Chart {
        title: "Throughput".into(),
        x_label: "time since it began (s)".into(),
        y_label: format!("{unit} per second"),
        mark: Mark::Line,
        series: vec![Series { name: unit.into(), points }],
        threshold: None,
        caption: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use pipe_contract::Unit;

    use super::*;

    fn stage(reports: impl IntoIterator<Item = (u64, u64)>) -> StageData {
        let point =
            |(second, done)| ProgressPoint { at: Duration::from_secs(second), done, total: 1_000, unit: Unit::Tokens };
        StageData { progress: reports.into_iter().map(point).collect(), ..StageData::default() }
    }

    #[test]
    fn a_sentence_per_phase_and_a_curve_for_long_ones() {
        assert_eq!(render(&stage([(0, 0)])), "");
        assert_eq!(render(&stage([(0, 0), (4, 100), (5, 10), (7, 1000)])).matches("class=\"rate\"").count(), 2);
        let html = render(&stage((0..=20).map(|second| (second, second * 50))));
        assert!(html.contains("1,000 tokens in 20.0 s: 50 tokens/s"), "{html}");
        assert!(html.contains("tokens per second"), "{html}");
    }
}
