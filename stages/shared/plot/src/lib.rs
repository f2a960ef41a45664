//! Draws a [`Chart`] to SVG and PNG.
//!
//! ```text
//! Loss                               title
//! 2.313 -> 2.101                     caption
//! -- each  == mean of the last 32    legend, where there are several series
//!                 threshold 1,024    above the plot, where no grid line crosses it
//!   |      :     :      :            grid each way, at round numbers
//!   |\_/\__:_/\__:__/\__:            every line once, the last one strongest
//!   +------------------  axis names with their units below and at the left
//! ```
//!
//! One drawing gives both files. Their bytes are a function of the chart: the font comes with the program (fonts of the
//! machine would give other pixels, and so other digests), and there is no arithmetic but what IEEE 754 fixes to the bit.
//!
//! Reading order: `ticks` (round numbers and how they are written), `axis` and `frame` (numbers to places), `points` (a hundred
//! thousand points become what can be seen of them), `pixels` (the PNG), `paint` (the drawing).
//!
//! It deliberately has no dark version and nothing to hover over: `pipe report` draws the same charts for a browser.

mod axis;
mod error;
mod frame;
mod paint;
mod pixels;
mod points;
mod ticks;

use std::path::Path;

use pipe_figures::Chart;
use plotters::prelude::{IntoDrawingArea, SVGBackend};

pub use error::PlotError;

/// Width and height of a picture, in CSS pixels: wide enough for 50 bars, and readable in a README.
pub const SIZE: (u32, u32) = (1200, 680);

/// Units of the drawing per CSS pixel. Places are whole units, so curves are smooth to half a pixel.
pub(crate) const SCALE: u32 = 2;

/// [`SIZE`] in units of the drawing.
const UNITS: (u32, u32) = (SIZE.0 * SCALE, SIZE.1 * SCALE);

/// Writes `NAME.svg` and `NAME.png` into `folder`.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_files(folder: &Path, name: &str, chart: &Chart) -> Result<(), PlotError> {
    let path = folder.join(format!("{name}.svg"));
    std::fs::write(&path, svg(chart)?).map_err(|source| PlotError::Io { path, source })?;
    let mut rgb = pixels::white(UNITS);
    paint::paint(&pixels::Pixels::new(&mut rgb, UNITS).into_drawing_area(), chart)?;
    pixels::write_png(&folder.join(format!("{name}.png")), &rgb, SIZE)
}

/// The chart as an SVG document.
///
/// # Errors
/// When the font that comes with the program cannot be used.
pub fn svg(chart: &Chart) -> Result<String, PlotError> {
    let mut drawn = String::new();
    paint::paint(&SVGBackend::with_string(&mut drawn, UNITS).into_drawing_area(), chart)?;
    // The library's own head has the units as the size, and no words for those who cannot see the picture.
    let (_, body) = drawn.split_once('\n').unwrap_or_default();
    let (width, height) = SIZE;
    let (title, caption) = (escaped(&paint::clean(&chart.title)), escaped(&paint::clean(&chart.caption)));
    Ok(format!(
        "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {} {}\" xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" \
         stroke-linejoin=\"round\" stroke-linecap=\"round\">\n<title>{title}</title>\n<desc>{caption}</desc>\n{body}",
        UNITS.0, UNITS.1
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
