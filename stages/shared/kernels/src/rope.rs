//! Rotary position embedding (Su et al., arXiv 2104.09864, equation 34), with the pairing of Hugging Face's `rotate_half`.
//!
//! In each head of D channels, channel `i` and channel `i + F` form a pair that turns by `position * frequency[i]`, where F is D/2, or less in models
//! that leave the last channels alone (`partial_rotary_factor`):
//!
//! ```text
//! y[i]     = x[i] cos - x[i + F] sin
//! y[i + F] = x[i + F] cos + x[i] sin
//! ```
//!
//! The rotation is linear, so its backward is its transpose: the rotation by the negative angle. The interleaved pairing (i, i + 1) of
//! the paper is not offered: checkpoints in Hugging Face's layout have their rows permuted for this one.

use crate::dispatch::{self, Body, rows_per_task};
use crate::math;
use rayon::prelude::*;

/// Cosines and sines of every position and frequency.
#[derive(Clone, Debug)]
pub struct Table {
    /// (P, F): cosine of `position * frequency`, times the attention factor.
    pub cos: Vec<f32>,
    /// (P, F): sine of `position * frequency`, likewise.
    pub sin: Vec<f32>,
    /// F: pairs of a head that turn, at most D/2.
    pub n_frequencies: usize,
}

impl Table {
    /// The table of `n_positions` positions with the frequencies `theta^(-2i/D)`, as Hugging Face's default rope.
    ///
    /// `head_dim` is even; `theta` is the model config's `rope_theta`.
    pub fn new(n_positions: usize, head_dim: usize, theta: f32) -> Self {
        Self::from_frequencies(n_positions, &default_frequencies(head_dim, theta), 1.0)
    }

    /// The table of `n_positions` positions with given frequencies in radians per position (scaled ropes): (F). Where F is less than D/2, only
    /// the first 2F channels of a head turn. `attention_factor` stretches what is turned; 1 in most ropes.
    ///
    /// The angle is an f32 product, as in the models' own code; its cosine and sine are exact to half an ulp.
    pub fn from_frequencies(n_positions: usize, frequencies: &[f32], attention_factor: f32) -> Self {
        let angles = || (0..n_positions).flat_map(|position| frequencies.iter().map(move |f| position as f32 * f));
        Self {
            cos: angles().map(|angle| math::cos(angle) * attention_factor).collect(),
            sin: angles().map(|angle| math::sin(angle) * attention_factor).collect(),
            n_frequencies: frequencies.len(),
        }
    }

    /// Appends the rows of another table with as many frequencies: a position may have more than one row.
    pub fn append(&mut self, other: Self) {
        assert_eq!(self.n_frequencies, other.n_frequencies, "rope: tables of different frequencies");
        self.cos.extend(other.cos);
        self.sin.extend(other.sin);
    }
}

/// The frequencies `1 / theta^(2i/D)` for `i` in `0..D/2`, in radians per position: (D/2).
pub fn default_frequencies(head_dim: usize, theta: f32) -> Vec<f32> {
    assert!(head_dim.is_multiple_of(2), "rope: head_dim {head_dim} is odd");
    (0..head_dim / 2).map(|i| 1.0 / math::pow(theta, (2 * i) as f32 / head_dim as f32)).collect()
}

/// Turns every head of every row, in place.
///
/// - x: (N, H, D) with H = `n_heads` and D = `head_dim`, at least 2F
/// - positions: (N), each a row of the table
///
/// The same bits as [`reference::rotate`].
pub fn rotate(x: &mut [f32], n_heads: usize, head_dim: usize, table: &Table, positions: &[u32]) {
    turn::<false>(x, n_heads, head_dim, table, positions);
}

/// Turns back what [`rotate`] turned: its backward, applied to a gradient of the same shape.
pub fn rotate_back(x: &mut [f32], n_heads: usize, head_dim: usize, table: &Table, positions: &[u32]) {
    turn::<true>(x, n_heads, head_dim, table, positions);
}

fn turn<const BACK: bool>(x: &mut [f32], n_heads: usize, head_dim: usize, table: &Table, positions: &[u32]) {
    let row_len = n_heads * head_dim;
    let half = table.n_frequencies;
    assert!(row_len > 0, "rope: no heads or no channels");
    assert!(2 * half <= head_dim, "rope: {half} pairs do not fit into a head of {head_dim} channels");
    assert_eq!(x.len(), positions.len() * row_len, "rope: x is not (N, H, D)");
    assert_eq!(table.cos.len(), table.sin.len(), "rope: the table's halves differ");
    let last = positions.iter().max().map_or(0, |last| *last as usize + 1);
    assert!(last * half <= table.cos.len(), "rope: position {last} - 1 is not in the table");
    (x.par_chunks_mut(row_len), positions.par_iter()).into_par_iter().with_min_len(rows_per_task(row_len)).for_each(
        |(x, position)| {
            let at = *position as usize * half..(*position as usize + 1) * half;
            dispatch::run(Row::<BACK> { x, head_dim, cos: &table.cos[at.clone()], sin: &table.sin[at] });
        },
    );
}

struct Row<'a, const BACK: bool> {
    x: &'a mut [f32],
    head_dim: usize,
    cos: &'a [f32],
    sin: &'a [f32],
}

impl<const BACK: bool> Body for Row<'_, BACK> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let half = self.cos.len();
        for head in self.x.chunks_exact_mut(self.head_dim) {
            let (low, rest) = head.split_at_mut(half);
            let high = &mut rest[..half];
            for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(self.cos).zip(self.sin) {
                let sin = if BACK { -sin } else { *sin };
                (*low, *high) = turned(*low, *high, *cos, sin);
            }
        }
    }
}

/// The pair (low, high) turned by an angle.
#[inline(always)]
fn turned(low: f32, high: f32, cos: f32, sin: f32) -> (f32, f32) {
    (low.mul_add(cos, -(high * sin)), high.mul_add(cos, low * sin))
}

/// The plain versions.
pub mod reference {
    use super::{Table, turned};

    /// As [`super::rotate`], or [`super::rotate_back`] with `direction` -1 instead of 1.
    pub fn rotate(x: &mut [f32], n_heads: usize, head_dim: usize, table: &Table, positions: &[u32], direction: f32) {
        let half = table.n_frequencies;
        for (row, position) in positions.iter().enumerate() {
            for head in 0..n_heads {
                let start = (row * n_heads + head) * head_dim;
                for i in 0..half {
                    let angle = *position as usize * half + i;
                    let (low, high) = (start + i, start + half + i);
                    (x[low], x[high]) = turned(x[low], x[high], table.cos[angle], direction * table.sin[angle]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_bits, noise, on_every_pool};

    #[test]
    fn rotation_equals_the_reference_to_the_bit() {
        for (n, n_heads, head_dim) in [(1, 1, 2), (7, 3, 10), (53, 9, 64)] {
            let table = Table::new(64, head_dim, 10_000.0);
            let positions: Vec<u32> = (0..n as u32).map(|i| i * 5 % 61).collect();
            let x = noise("x", n * n_heads * head_dim);
            for (direction, fast) in
                [(1.0, rotate as fn(&mut [f32], usize, usize, &Table, &[u32])), (-1.0, rotate_back)]
            {
                let mut expected = x.clone();
                reference::rotate(&mut expected, n_heads, head_dim, &table, &positions, direction);
                let run = || {
                    let mut x = x.clone();
                    fast(&mut x, n_heads, head_dim, &table, &positions);
                    x
                };
                for (pool, got) in on_every_pool(run) {
                    assert_same_bits(&got, &expected, &format!("({n}, {n_heads}, {head_dim}) on {pool}"));
                }
            }
        }
    }

    #[test]
    fn the_channels_behind_the_turned_ones_stay() {
        let mut table = Table::from_frequencies(8, &[1.0, 0.5, 0.25], 1.5);
        table.append(Table::from_frequencies(8, &[0.1, 0.2, 0.3], 2.0));
        let (x, positions) = (noise("x", 5 * 20), [0, 3, 7, 8, 15]);
        let mut expected = x.clone();
        reference::rotate(&mut expected, 2, 10, &table, &positions, 1.0);
        let run = || {
            let mut x = x.clone();
            rotate(&mut x, 2, 10, &table, &positions);
            x
        };
        for (pool, got) in on_every_pool(run) {
            assert_same_bits(&got, &expected, &pool);
        }
        for (head, (x, y)) in x.chunks(10).zip(expected.chunks(10)).enumerate() {
            assert_same_bits(&y[6..], &x[6..], "not turned");
            // Row 0 has no angle and the factor 1.5; row 8 is position 0 of the other table.
            let stretched = match head / 2 {
                0 => 1.5,
                3 => 2.0,
                _ => continue,
            };
            assert_eq!(y[..6], [0, 1, 2, 3, 4, 5].map(|i| x[i] * stretched));
        }
    }

    #[test]
    fn turning_back_undoes_turning() {
        /// Two roundings of numbers around 1.
        const TOLERANCE: f32 = 2e-6;
        let table = Table::new(100, 8, 10_000.0);
        let x = noise("x", 3 * 16);
        let mut y = x.clone();
        rotate(&mut y, 2, 8, &table, &[0, 17, 99]);
        assert_same_bits(&y[..16], &x[..16], "position 0 does not turn");
        assert!(y[16..].iter().zip(&x[16..]).all(|(y, x)| y != x), "other positions turn every channel");
        rotate_back(&mut y, 2, 8, &table, &[0, 17, 99]);
        for (y, x) in y.iter().zip(&x) {
            assert!((y - x).abs() < TOLERANCE, "{y} instead of {x}");
        }
    }

    #[test]
    fn the_table_holds_angles_of_positions() {
        let table = Table::new(3, 4, 100.0);
        // Frequencies 1 and 1/10; position 2.
        assert_eq!(table.cos.len(), 6);
        assert_eq!(table.cos[4..], [math::cos(2.0), math::cos(0.2)]);
        assert_eq!(table.sin[4..], [math::sin(2.0), math::sin(0.2)]);
    }

    #[test]
    #[should_panic(expected = "is not in the table")]
    fn a_position_beyond_the_table_is_refused() {
        rotate(&mut [0.0; 4], 1, 4, &Table::new(3, 4, 10.0), &[3]);
    }
}
