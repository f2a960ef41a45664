//! A piece of a matrix product whose sums stay in registers, for [`crate::gemm`] and [`crate::attention`].
//!
//! A tile is 6 rows by 16 columns: 12 AVX2 registers of sums, 2 for a [`Chunk`] of the right side and 1 for an element of the left side that is
//! spread over all lanes: 12 fused multiply-adds for 8 loads, so both multipliers are busy in every cycle. Every element of a tile is one chain
//! of fused multiply-adds in the order of the reduced index, whatever the tile's shape.

/// 16 neighbouring columns.
pub(crate) type Chunk = [f32; N_COLUMNS];
/// Columns of a tile.
pub(crate) const N_COLUMNS: usize = 16;
/// Rows of a tile.
pub(crate) const N_ROWS: usize = 6;
/// Sums of 6 rows by 16 columns.
pub(crate) type Tile = [Chunk; N_ROWS];
/// Where sums begin.
pub(crate) const ZEROS: Tile = [[0.0; N_COLUMNS]; N_ROWS];

/// `tile[r] += sum over i of rows[r][i] * b[i]`; the rows are at least as long as b.
#[inline(always)]
pub(crate) fn add_rows(tile: &mut Tile, rows: [&[f32]; N_ROWS], b: &[Chunk]) {
    let mut sums = *tile;
    // Iterators side by side: with indices the compiler checks six bounds per step.
    let [r0, r1, r2, r3, r4, r5] = first_of(rows, b.len());
    for ((((((b, a0), a1), a2), a3), a4), a5) in b.iter().zip(r0).zip(r1).zip(r2).zip(r3).zip(r4).zip(r5) {
        add_outer(&mut sums, [*a0, *a1, *a2, *a3, *a4, *a5], b);
    }
    *tile = sums;
}

/// The first `len` elements of each row. Written out: `map` would be a call.
#[inline(always)]
pub(crate) fn first_of(rows: [&[f32]; N_ROWS], len: usize) -> [&[f32]; N_ROWS] {
    let [r0, r1, r2, r3, r4, r5] = rows;
    [&r0[..len], &r1[..len], &r2[..len], &r3[..len], &r4[..len], &r5[..len]]
}

/// `sums[r] += a[r] * b`.
#[inline(always)]
pub(crate) fn add_outer(sums: &mut Tile, a: [f32; N_ROWS], b: &Chunk) {
    for row in 0..N_ROWS {
        for column in 0..N_COLUMNS {
            sums[row][column] = a[row].mul_add(b[column], sums[row][column]);
        }
    }
}
