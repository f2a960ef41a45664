//! Small matrix products whose results stay in registers.
//!
//! A tile is 6 rows by 16 columns: 12 AVX2 registers of sums, 2 for a [`Chunk`] of the right side and 1 for a broadcast element of the left
//! side. Every element of a tile is one chain of fused multiply-adds in the order of the reduced index, whatever the tile's shape.

use super::BLOCK_LEN;

/// 16 neighbouring columns.
pub(super) type Chunk = [f32; 16];
/// Columns of a tile.
pub(super) const N_COLUMNS: usize = 16;
/// Rows of a tile.
pub(super) const N_ROWS: usize = 6;
/// Sums of 6 rows by 16 columns.
pub(super) type Tile = [Chunk; N_ROWS];

/// `tile[r] += sum over i of rows[r][i] * b[i]`; the rows are at least as long as b.
#[inline(always)]
pub(super) fn add_rows(tile: &mut Tile, rows: [&[f32]; N_ROWS], b: &[Chunk]) {
    let n = b.len();
    let rows = rows.map(|row| &row[..n]);
    let mut sums = *tile;
    for i in 0..n {
        for row in 0..N_ROWS {
            for column in 0..N_COLUMNS {
                sums[row][column] = rows[row][i].mul_add(b[i][column], sums[row][column]);
            }
        }
    }
    *tile = sums;
}

/// `tile[r] += sum over i of a[i][first + r] * b[i]`: the left side lies on its side. `a` and `b` have one length.
#[inline(always)]
pub(super) fn add_columns(tile: &mut Tile, a: &[[f32; BLOCK_LEN]], first: usize, b: &[Chunk]) {
    let mut sums = *tile;
    for (a, b) in a.iter().zip(b) {
        let a = &a[first..first + N_ROWS];
        for row in 0..N_ROWS {
            for column in 0..N_COLUMNS {
                sums[row][column] = a[row].mul_add(b[column], sums[row][column]);
            }
        }
    }
    *tile = sums;
}
