//! The histogram as a picture, PNG and SVG from one drawing.
//!
//! ```text
//! title
//! one line: mean, median, longest, share above the threshold
//!          threshold 1,024    <- above the plot, where no grid line crosses it
//!   | |#|      :              <- a dashed line
//!   |##|#|     :
//!   +-----------------  axis name and unit below, "texts" at the left
//! ```
//!
//! The font comes with the program: fonts of the machine would give other pixels, and so other digests, elsewhere.

use std::path::Path;
use std::sync::Once;

use pipe_records::thousands;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordu64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::AnalyzeError;
use crate::summary::{Summary, decimal};

/// The pictures.
pub(crate) const PNG_FILE: &str = "histogram.png";
/// The same, as vectors.
pub(crate) const SVG_FILE: &str = "histogram.svg";

/// Pixels: wide enough for 50 bars, and readable in a README.
const SIZE: (u32, u32) = (1200, 680);
/// As an SVG names it: our font, then one that most machines have.
const FONT: &str = "DejaVu Sans, Verdana, sans-serif";

const INK: RGBColor = RGBColor(38, 43, 51);
const QUIET_INK: RGBColor = RGBColor(92, 99, 110);
const GRID: RGBColor = RGBColor(226, 229, 233);
const BARS: RGBColor = RGBColor(76, 120, 168);
const MARK: RGBColor = RGBColor(192, 57, 43);

/// Draws `summary` into `folder`, twice. `title`: of the picture.
pub(crate) fn draw_files(folder: &Path, summary: &Summary, title: &str) -> Result<(), AnalyzeError> {
    register_fonts()?;
    let png = folder.join(PNG_FILE);
    let failed = |file: &'static str| move |message: String| AnalyzeError::Chart { file, message };
    draw(&BitMapBackend::new(&png, SIZE).into_drawing_area(), summary, title).map_err(failed(PNG_FILE))?;
    let svg = folder.join(SVG_FILE);
    draw(&SVGBackend::new(&svg, SIZE).into_drawing_area(), summary, title).map_err(failed(SVG_FILE))
}

/// `1,234 texts: length in characters`.
pub(crate) fn default_title(summary: &Summary) -> String {
    format!("Length of {} texts in {}", thousands(summary.n_rows), summary.unit)
}

fn register_fonts() -> Result<(), AnalyzeError> {
    static ONCE: Once = Once::new();
    let mut is_valid = true;
    ONCE.call_once(|| {
        is_valid = register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_ok()
            && register_font(FONT, FontStyle::Bold, dejavu::sans::bold()).is_ok();
    });
    let message = "the font that comes with the program cannot be used".to_string();
    if is_valid { Ok(()) } else { Err(AnalyzeError::Chart { file: PNG_FILE, message }) }
}

type Area<DB> = DrawingArea<DB, Shift>;
type Chart<'a, DB> = ChartContext<'a, DB, Cartesian2d<RangedCoordu64, RangedCoordu64>>;

fn draw<DB: DrawingBackend>(area: &Area<DB>, summary: &Summary, title: &str) -> Result<(), String> {
    area.fill(&WHITE).map_err(text)?;
    let (head, body) = area.split_vertically(96);
    draw_head(&head, summary, title)?;

    let (start, end) = x_range(summary);
    let tallest = summary.histogram.counts.iter().copied().max().unwrap_or(1).max(1);
    let mut chart: Chart<DB> = ChartBuilder::on(&body)
        .margin_top(28)
        .margin_left(22)
        .margin_right(36)
        .margin_bottom(14)
        .x_label_area_size(62)
        .y_label_area_size(84)
        .build_cartesian_2d(start..end, 0..tallest + tallest.div_ceil(12))
        .map_err(text)?;
    let number = |value: &u64| thousands(*value);
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(QUIET_INK)
        .x_labels(12)
        .y_labels(8)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .label_style((FONT, 17).into_font().color(&QUIET_INK))
        .axis_desc_style((FONT, 19).into_font().color(&INK))
        .x_desc(format!("length of a text ({})", summary.unit))
        .y_desc("number of texts")
        .draw()
        .map_err(text)?;
    draw_bars(&mut chart, summary)?;
    draw_threshold(area, &chart, summary, (start, end))?;
    area.present().map_err(text)
}

fn draw_head<DB: DrawingBackend>(head: &Area<DB>, summary: &Summary, title: &str) -> Result<(), String> {
    let statistics = summary.of_unit();
    let bold = (FONT, 29, FontStyle::Bold).into_font().color(&INK);
    head.draw(&Text::new(title.to_string(), (30, 20), bold)).map_err(text)?;
    let line = format!(
        "mean {}   median {}   longest {}   above {}: {} ({:.1} %)   repeated texts {}",
        decimal(statistics.mean),
        decimal(statistics.median()),
        thousands(statistics.max.into()),
        thousands(summary.threshold.into()),
        thousands(statistics.n_above_threshold),
        statistics.share_above_threshold * 100.0,
        thousands(summary.duplicates.n_duplicates),
    );
    let quiet = (FONT, 18).into_font().color(&QUIET_INK);
    head.draw(&Text::new(line, (31, 60), quiet)).map_err(text)
}

/// The bins; wide enough to show the threshold too, where it is not far off.
fn x_range(summary: &Summary) -> (u64, u64) {
    let (start, end) = (u64::from(summary.histogram.start), summary.histogram.end());
    let threshold = u64::from(summary.threshold);
    let margin = ((end - start) / 50).max(1);
    let shown_end = if threshold >= end && threshold - end <= end - start { threshold } else { end };
    (start.saturating_sub(margin), shown_end + margin)
}

fn draw_bars<DB: DrawingBackend>(chart: &mut Chart<DB>, summary: &Summary) -> Result<(), String> {
    let (start, end) = x_range(summary);
    let n_pixels = chart.plotting_area().dim_in_pixel().0;
    // A gap of two pixels between bars that are wide enough to spare them.
    let is_wide = u64::from(n_pixels) * u64::from(summary.histogram.width) >= 6 * (end - start);
    let gap = u32::from(is_wide);
    let bars = summary.histogram.bins().filter(|(_, _, count)| *count > 0).map(|(from, to, count)| {
        let mut bar = Rectangle::new([(from, 0), (to, count)], BARS.filled());
        bar.set_margin(0, 0, gap, gap);
        bar
    });
    chart.draw_series(bars).map_err(text)?;
    Ok(())
}

/// On the whole picture: the label stands above the plot.
fn draw_threshold<DB: DrawingBackend>(
    area: &Area<DB>,
    chart: &Chart<DB>,
    summary: &Summary,
    (start, end): (u64, u64),
) -> Result<(), String> {
    let threshold = u64::from(summary.threshold);
    if threshold < start || threshold > end {
        return Ok(());
    }
    let plot = chart.plotting_area();
    let (range_x, range_y) = plot.get_pixel_range();
    let x = plot.map_coordinate(&(threshold, 0)).0;
    let top = range_y.start;
    for dash in (top - 5..range_y.end).step_by(12) {
        let line = PathElement::new(vec![(x, dash), (x, (dash + 7).min(range_y.end))], MARK.stroke_width(2));
        area.draw(&line).map_err(text)?;
    }
    // Near the right end half of the label would be outside of the picture.
    let (h_pos, label_x) =
        if x + 70 < range_x.end { (HPos::Center, x) } else { (HPos::Right, (x + 70).min(range_x.end + 30)) };
    let style = (FONT, 17).into_font().color(&MARK).pos(Pos::new(h_pos, VPos::Bottom));
    let label = format!("threshold {}", thousands(threshold));
    area.draw(&Text::new(label, (label_x, top - 8), style)).map_err(text)
}

fn text<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> String {
    error.to_string()
}
