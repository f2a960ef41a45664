//! The PNG: a backend of `plotters` that draws at twice the size, with lines by distance, and halves the result.
//!
//! `plotters` draws a line of more than one pixel as a polygon, whose corners leave the line where it is noisy. Here the
//! colour of a pixel follows from its distance to the nearest piece of the line: round joins, no spikes, and a pale line
//! does not darken where it crosses itself.

use std::convert::Infallible;
use std::path::Path;

use plotters::prelude::BitMapBackend;
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind};

use crate::points::{Place, distance};
use crate::{PlotError, SCALE};

/// An image of `size` in white: (height, width, 3) u8.
pub(crate) fn white(size: (u32, u32)) -> Vec<u8> {
    vec![255; 3 * size.0 as usize * size.1 as usize]
}

/// Draws into an image.
pub(crate) struct Pixels<'a> {
    rgb: &'a mut [u8],
    size: (u32, u32),
}

impl<'a> Pixels<'a> {
    /// `rgb`: as [`white`] makes it.
    pub(crate) fn new(rgb: &'a mut [u8], size: (u32, u32)) -> Self {
        Pixels { rgb, size }
    }

    /// `share` of `color` over what is there; outside of the image nothing.
    fn mix(&mut self, (x, y): BackendCoord, color: BackendColor, share: f64) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
        if x >= self.size.0 || y >= self.size.1 {
            return;
        }
        let at = 3 * (y as usize * self.size.0 as usize + x as usize);
        let (r, g, b) = color.rgb;
        for (old, new) in self.rgb[at..at + 3].iter_mut().zip([r, g, b]) {
            let mixed = f64::from(*old) + (f64::from(new) - f64::from(*old)) * share * color.alpha;
            *old = mixed.round().clamp(0.0, 255.0) as u8;
        }
    }

    /// Within `radius` of `path`, with a soft edge of one unit.
    fn stroke(&mut self, path: &[Place], radius: f64, color: BackendColor) {
        let reach = radius + 1.0;
        let clamp = |x: f64, end: u32| x.clamp(0.0, f64::from(end)) as usize;
        let range =
            |a: f64, b: f64, end: u32| clamp((a.min(b) - reach).floor(), end)..clamp((a.max(b) + reach).ceil(), end);
        // Shares of the rows that the path passes; the largest of all its pieces counts.
        let (top, bottom) = path.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), p| (a.min(p.1), b.max(p.1)));
        let rows = range(top, bottom, self.size.1);
        let width = self.size.0 as usize;
        let mut shares = vec![0.0_f32; rows.len() * width];
        let single = path.iter().map(|place| (*place, *place)).take(usize::from(path.len() == 1));
        for (a, b) in path.windows(2).map(|pair| (pair[0], pair[1])).chain(single) {
            for y in range(a.1, b.1, self.size.1) {
                let row = &mut shares[(y - rows.start) * width..][..width];
                for x in range(a.0, b.0, self.size.0) {
                    // A unit's own place is its middle.
                    let away = distance((x as f64 + 0.5, y as f64 + 0.5), a, b);
                    row[x] = row[x].max((radius + 0.5 - away).clamp(0.0, 1.0) as f32);
                }
            }
        }
        for (i, share) in shares.into_iter().enumerate().filter(|(_, share)| *share > 0.0) {
            self.mix(((i % width) as i32, (rows.start + i / width) as i32), color, share.into());
        }
    }
}

/// Of a font's size; measured: the tops of digits stand this much too high.
const FREE_ABOVE: f64 = 0.14;

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

impl DrawingBackend for Pixels<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, point: BackendCoord, color: BackendColor) -> Drawn {
        self.mix(point, color, 1.0);
        Ok(())
    }

    /// The right and lower edges excluded, as in an SVG; always filled, and nothing shines through.
    fn draw_rect<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S, _fill: bool) -> Drawn {
        let clamp = |x: i32, end: u32| x.clamp(0, end as i32);
        let (start, end) = (clamp(from.0, self.size.0) as usize, clamp(to.0, self.size.0) as usize);
        let (r, g, b) = style.color().rgb;
        for y in clamp(from.1, self.size.1)..clamp(to.1, self.size.1) {
            let row = &mut self.rgb[3 * self.size.0 as usize * y as usize..];
            for pixel in row[3 * start..3 * end.max(start)].chunks_exact_mut(3) {
                pixel.copy_from_slice(&[r, g, b]);
            }
        }
        Ok(())
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Drawn {
        let path: Vec<Place> = path.into_iter().map(|(x, y)| (f64::from(x), f64::from(y))).collect();
        self.stroke(&path, f64::from(style.stroke_width()) / 2.0, style.color());
        Ok(())
    }

    /// As `plotters` does it, but lower by what it leaves free above a line, so that the middle of digits stands at the place
    /// of [`VPos::Center`], as in the SVG.
    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, place: BackendCoord) -> Drawn {
        let no_font = |error| DrawingErrorKind::FontError(Box::new(error));
        let ((_, _), (width, height)) = style.layout_box(text).map_err(no_font)?;
        let dx = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Center => -width / 2,
            HPos::Right => -width,
        };
        let dy = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => -height / 2,
            VPos::Bottom => -height,
        };
        let lower = (style.size() * FREE_ABOVE).round() as i32;
        let drawn = style.draw(text, (0, 0), |x, y, color| {
            let (x, y) = style.transform().transform(x + dx, y + dy + lower);
            self.draw_pixel((place.0 + x, place.1 + y), color)
        });
        drawn.map_err(no_font)?
    }

    fn draw_circle<S: BackendStyle>(&mut self, center: BackendCoord, radius: u32, style: &S, _fill: bool) -> Drawn {
        self.stroke(&[(f64::from(center.0), f64::from(center.1))], f64::from(radius), style.color());
        Ok(())
    }
}

/// Writes `rgb`, [`SCALE`] times as wide and high as `size`, as a PNG of `size`.
pub(crate) fn write_png(path: &Path, rgb: &[u8], size: (u32, u32)) -> Result<(), PlotError> {
    let small = halved(rgb, size);
    let failed = |message: String| PlotError::Png { path: path.to_path_buf(), message };
    let mut file = BitMapBackend::new(path, size);
    file.blit_bitmap((0, 0), size, &small).map_err(|e| failed(e.to_string()))?;
    file.present().map_err(|e| failed(e.to_string()))
}

/// Each pixel the mean of [`SCALE`] x [`SCALE`].
fn halved(rgb: &[u8], (width, height): (u32, u32)) -> Vec<u8> {
    let (scale, row_length) = (SCALE as usize, 3 * (width * SCALE) as usize);
    let mut small = Vec::with_capacity(3 * width as usize * height as usize);
    for y in 0..height as usize {
        for x in 0..width as usize {
            for channel in 0..3 {
                let at = |i: usize| (scale * y + i / scale) * row_length + 3 * (scale * x + i % scale) + channel;
                let sum: usize = (0..scale * scale).map(|i| usize::from(rgb[at(i)])).sum();
                small.push(((sum + scale * scale / 2) / (scale * scale)) as u8);
            }
        }
    }
    small
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLACK: BackendColor = BackendColor { alpha: 1.0, rgb: (0, 0, 0) };

    #[test]
    fn a_line_is_as_wide_as_it_says_and_round_at_its_ends() {
        let mut rgb = white((20, 20));
        Pixels::new(&mut rgb, (20, 20)).stroke(&[(5.0, 10.0), (15.0, 10.0)], 2.0, BLACK);
        let dark = |x: usize, y: usize| 255 - rgb[3 * (20 * y + x)];
        let column = |x: usize| (0..20).map(|y| u32::from(dark(x, y))).sum::<u32>();
        assert_eq!(column(10), 4 * 255);
        assert!(column(3) > 0 && column(3) < column(4) && column(2) == 0, "{} {}", column(3), column(4));
    }

    #[test]
    fn what_lies_outside_is_not_drawn() {
        let mut rgb = white((4, 4));
        let mut pixels = Pixels::new(&mut rgb, (4, 4));
        pixels.stroke(&[(-1e6, 2.0), (1e6, 2.0)], 1.0, BLACK);
        pixels.mix((-1, 0), BLACK, 1.0);
        pixels.mix((0, 4), BLACK, 1.0);
        assert_eq!(rgb.iter().filter(|byte| **byte == 0).count(), 3 * 4 * 2);
    }

    #[test]
    fn a_pixel_is_the_mean_of_four() {
        let mut rgb = white((4, 2));
        rgb[0] = 0; // Red of the upper left one.
        assert_eq!(halved(&rgb, (2, 1)), [191, 255, 255, 255, 255, 255]);
    }
}
