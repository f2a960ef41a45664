//! The histogram as a chart: what `pipe-plot` draws into the artifact, and what a report shows.

use pipe_contract::figures::{Chart, Mark, Series, Threshold};
use pipe_records::thousands;

use crate::summary::{Summary, decimal};

/// The picture as pixels.
pub(crate) const PNG_FILE: &str = "histogram.png";
/// The same, as vectors.
pub(crate) const SVG_FILE: &str = "histogram.svg";
/// Both names without their ends.
pub(crate) const PICTURE: &str = "histogram";

/// The histogram of `summary`.
pub(crate) fn histogram(summary: &Summary, title: &str) -> Chart {
    let statistics = summary.of_unit();
    let threshold = thousands(summary.threshold.into());
    let caption = format!(
        "mean {}   median {}   longest {}   above {threshold}: {} ({:.1} %)   repeated texts {}",
        decimal(statistics.mean),
        decimal(statistics.median()),
        thousands(statistics.max.into()),
        thousands(statistics.n_above_threshold),
        statistics.share_above_threshold * 100.0,
        thousands(summary.duplicates.n_duplicates),
    );
    let bins = summary.histogram.bins();
    Chart {
        title: title.to_string(),
        x_label: format!("length of a text ({})", summary.unit),
        y_label: "number of texts".to_string(),
        mark: Mark::Bars { width: summary.histogram.width.into() },
        series: vec![Series {
            name: "texts".to_string(),
            points: bins.map(|(from, _, count)| (from as f64, count as f64)).collect(),
        }],
        threshold: Some(Threshold { x: summary.threshold.into(), label: format!("threshold {threshold}") }),
        caption,
    }
}

/// `Length of 1,234 texts in characters`.
pub(crate) fn default_title(summary: &Summary) -> String {
    format!("Length of {} texts in {}", thousands(summary.n_rows), summary.unit)
}
