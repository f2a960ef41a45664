//! The micro-kernel: 6 rows by 16 columns of the output in registers.
//!
//! 12 AVX2 registers of sums, 2 for a [`Chunk`] of the right side, 1 for an element of the left side that is spread over all lanes: 12 fused
//! multiply-adds for 8 loads, so both multipliers are busy in every cycle.

/// 16 neighbouring columns of the right side at one index of the reduced dimension.
pub(super) type Chunk = [f32; N_COLUMNS];
/// 6 neighbouring rows of the left side at one index.
pub(super) type Column = [f32; N_ROWS];
/// Columns of a tile.
pub(super) const N_COLUMNS: usize = 16;
/// Rows of a tile.
pub(super) const N_ROWS: usize = 6;

type Tile = [Chunk; N_ROWS];

/// One tile of the output: rows of `out`, which holds six or fewer rows of `row_len`, from `column` on, `width` of them.
#[inline(always)]
pub(super) fn multiply_tile(
    left: &[Column],
    right: &[Chunk],
    out: &mut [f32],
    row_len: usize,
    column: usize,
    width: usize,
    starts_at_zero: bool,
) {
    let is_whole = width == N_COLUMNS && out.len() == N_ROWS * row_len;
    let mut tile = [[0.0; N_COLUMNS]; N_ROWS];
    if is_whole {
        // With constant lengths the tile is loaded into registers and stored from them.
        if !starts_at_zero {
            for (row, sums) in tile.iter_mut().enumerate() {
                *sums = *out[row * row_len + column..].first_chunk().expect("a whole tile has 16 columns");
            }
        }
        add_products(&mut tile, left, right);
        for (row, sums) in tile.iter().enumerate() {
            *out[row * row_len + column..].first_chunk_mut().expect("a whole tile has 16 columns") = *sums;
        }
    } else {
        if !starts_at_zero {
            for (sums, row) in tile.iter_mut().zip(out.chunks_exact(row_len)) {
                sums[..width].copy_from_slice(&row[column..column + width]);
            }
        }
        add_products(&mut tile, left, right);
        for (sums, row) in tile.iter().zip(out.chunks_exact_mut(row_len)) {
            row[column..column + width].copy_from_slice(&sums[..width]);
        }
    }
}

/// `tile[r][c] += sum over i of left[i][r] * right[i][c]`, a chain in the order of `i`.
#[inline(always)]
fn add_products(tile: &mut Tile, left: &[Column], right: &[Chunk]) {
    let mut sums = *tile;
    for (left, right) in left.iter().zip(right) {
        for row in 0..N_ROWS {
            for column in 0..N_COLUMNS {
                sums[row][column] = left[row].mul_add(right[column], sums[row][column]);
            }
        }
    }
    *tile = sums;
}
