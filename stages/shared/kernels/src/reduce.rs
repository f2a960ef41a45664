//! Sums over whole tensors, and the two loops beside them.

use crate::dispatch::{self, Body};
use crate::lanes::{LANES, for_each_chunk};
use rayon::prelude::*;

/// Elements of one leaf of the tree. Part of the result's definition.
const LEAF_LEN: usize = 4096;

/// `sum(x^2)` in f64, for a gradient norm.
///
/// Every square is exact. Leaves of 4096 elements are summed over 16 lanes, the leaves in a balanced binary tree by index. The same bits
/// as [`reference::sum_of_squares`].
pub fn sum_of_squares(x: &[f32]) -> f64 {
    let leaves: Vec<f64> = x.par_chunks(LEAF_LEN).map(|leaf| dispatch::run(SumOfSquares(leaf))).collect();
    tree_sum(leaves)
}

/// Joins neighbours until one number is left; an odd one out waits for the next round. 0 for nothing.
pub fn tree_sum(mut sums: Vec<f64>) -> f64 {
    while sums.len() > 1 {
        sums = sums.chunks(2).map(|pair| pair.iter().sum()).collect();
    }
    sums.first().copied().unwrap_or(0.0)
}

struct SumOfSquares<'a>(&'a [f32]);

impl Body for SumOfSquares<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let mut acc = [0.0_f64; LANES];
        for_each_chunk(
            self.0,
            0.0,
            #[inline(always)]
            |chunk| {
                for lane in 0..LANES {
                    let x = f64::from(chunk[lane]);
                    acc[lane] += x * x;
                }
            },
        );
        joined(acc)
    }
}

/// The tree of [`crate::lanes::tree_sum`] in f64.
#[inline(always)]
fn joined(mut lanes: [f64; LANES]) -> f64 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

/// Elements of one task of the loops below. Never changes a result.
const TASK_LEN: usize = 32_768;

/// `y += x`, element by element; two slices of one length.
pub fn add_assign(y: &mut [f32], x: &[f32]) {
    assert_eq!(y.len(), x.len(), "add_assign: lengths differ");
    (y.par_chunks_mut(TASK_LEN), x.par_chunks(TASK_LEN)).into_par_iter().for_each(|(y, x)| dispatch::run(Add { y, x }));
}

struct Add<'a> {
    y: &'a mut [f32],
    x: &'a [f32],
}

impl Body for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (y, x) in self.y.iter_mut().zip(self.x) {
            *y += x;
        }
    }
}

/// `x *= factor`, element by element.
pub fn scale(x: &mut [f32], factor: f32) {
    x.par_chunks_mut(TASK_LEN).for_each(|x| dispatch::run(Scale { x, factor }));
}

struct Scale<'a> {
    x: &'a mut [f32],
    factor: f32,
}

impl Body for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for x in self.x.iter_mut() {
            *x *= self.factor;
        }
    }
}

/// Adds `row`, (D), to every row of `y`, (N, D): a bias.
pub fn add_row(y: &mut [f32], row: &[f32]) {
    assert!(y.len().is_multiple_of(row.len().max(1)), "add_row: y is not (N, D)");
    let rows_per_task = dispatch::rows_per_task(row.len());
    y.par_chunks_mut(rows_per_task * row.len().max(1)).for_each(|rows| {
        rows.chunks_exact_mut(row.len()).for_each(|y| dispatch::run(Add { y, x: row }));
    });
}

/// Columns that one task adds up.
const COLUMNS_PER_TASK: usize = 64;

/// Adds the rows of `x`, (N, D), to `sums`, (D), one after another: rows given in two calls make the bits of one.
pub fn add_column_sums(x: &[f32], sums: &mut [f32]) {
    assert!(x.len().is_multiple_of(sums.len().max(1)), "add_column_sums: x is not (N, D)");
    let width = sums.len();
    sums.par_chunks_mut(COLUMNS_PER_TASK).enumerate().for_each(|(task, sums)| {
        let first = task * COLUMNS_PER_TASK;
        for row in x.chunks_exact(width) {
            let x = &row[first..first + sums.len()];
            dispatch::run(Add { y: &mut *sums, x });
        }
    });
}

/// The plain version.
pub mod reference {
    use super::{LANES, LEAF_LEN, joined, tree_sum};

    /// As [`super::sum_of_squares`].
    pub fn sum_of_squares(x: &[f32]) -> f64 {
        let leaf_sum = |leaf: &[f32]| {
            let mut acc = [0.0; LANES];
            for (i, x) in leaf.iter().enumerate() {
                acc[i % LANES] += f64::from(*x) * f64::from(*x);
            }
            joined(acc)
        };
        tree_sum(x.chunks(LEAF_LEN).map(leaf_sum).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_bits, noise, on_every_pool};

    #[test]
    fn the_sum_of_squares_equals_the_reference_to_the_bit() {
        for len in [0, 1, 17, 4096, 4097, 50_021] {
            let x = noise("x", len);
            let expected = reference::sum_of_squares(&x);
            for (pool, got) in on_every_pool(|| sum_of_squares(&x)) {
                assert_eq!(got.to_bits(), expected.to_bits(), "length {len} on {pool}");
            }
        }
        assert_eq!(sum_of_squares(&[3.0, 4.0]), 25.0);
    }

    #[test]
    fn rows_and_columns_are_added_in_order() {
        for (n, d) in [(1, 1), (3, 17), (70, 130)] {
            let (x, row) = (noise("x", n * d), noise("row", d));
            let expected: Vec<f32> = x.iter().enumerate().map(|(i, x)| x + row[i % d]).collect();
            let mut sums = row.clone();
            x.iter().enumerate().for_each(|(i, x)| sums[i % d] += x);
            for (pool, (got, got_sums)) in on_every_pool(|| {
                let (mut y, mut sums) = (x.clone(), row.clone());
                add_row(&mut y, &row);
                let half = n / 2 * d;
                add_column_sums(&x[..half], &mut sums);
                add_column_sums(&x[half..], &mut sums);
                (y, sums)
            }) {
                assert_same_bits(&got, &expected, &pool);
                assert_same_bits(&got_sums, &sums, &pool);
            }
        }
    }

    #[test]
    fn the_tree_joins_neighbours() {
        assert_eq!(tree_sum(vec![]), 0.0);
        // (1 + tiny) + (-1 + tiny) loses both tiny terms; adding in order would keep the last one.
        let tiny = 2.0_f64.powi(-54);
        assert_eq!(tree_sum(vec![1.0, tiny, -1.0, tiny]), 0.0);
    }

    #[test]
    fn add_and_scale_touch_every_element() {
        let len = 40_003;
        let (x, y) = (noise("x", len), noise("y", len));
        let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| (y + x) * 0.3).collect();
        for (pool, got) in on_every_pool(|| {
            let mut y = y.clone();
            add_assign(&mut y, &x);
            scale(&mut y, 0.3);
            y
        }) {
            assert_same_bits(&got, &expected, &pool);
        }
    }
}
