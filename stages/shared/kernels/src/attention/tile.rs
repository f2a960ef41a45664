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
/// Where sums begin.
pub(super) const ZEROS: Tile = [[0.0; N_COLUMNS]; N_ROWS];

/// `tile[r] += sum over i of rows[r][i] * b[i]`; the rows are at least as long as b.
#[inline(always)]
pub(super) fn add_rows(tile: &mut Tile, rows: [&[f32]; N_ROWS], b: &[Chunk]) {
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
pub(super) fn first_of(rows: [&[f32]; N_ROWS], len: usize) -> [&[f32]; N_ROWS] {
    let [r0, r1, r2, r3, r4, r5] = rows;
    [&r0[..len], &r1[..len], &r2[..len], &r3[..len], &r4[..len], &r5[..len]]
}

/// `tile[r] += sum over i of a[i / 16 * stride + r][i % 16] * b[i]`: the left side is six rows of channel panels that lie `stride` chunks apart.
#[inline(always)]
pub(super) fn add_panels(tile: &mut Tile, a: &[Chunk], stride: usize, b: &[Chunk]) {
    let mut sums = *tile;
    let (panels, tail) = b.as_chunks::<N_COLUMNS>();
    for (panel, b) in panels.iter().enumerate() {
        let a: &Tile = a[panel * stride..].first_chunk().expect("panels have a multiple of six rows");
        for i in 0..N_COLUMNS {
            add_outer(&mut sums, [a[0][i], a[1][i], a[2][i], a[3][i], a[4][i], a[5][i]], &b[i]);
        }
    }
    if !tail.is_empty() {
        let a: &Tile = a[panels.len() * stride..].first_chunk().expect("as above");
        for (i, b) in tail.iter().enumerate() {
            add_outer(&mut sums, [a[0][i], a[1][i], a[2][i], a[3][i], a[4][i], a[5][i]], b);
        }
    }
    *tile = sums;
}

/// `tile[r] += sum over i of a[i][first + r] * b[i]`: the left side lies on its side. `a` and `b` have one length.
#[inline(always)]
pub(super) fn add_columns(tile: &mut Tile, a: &[[f32; BLOCK_LEN]], first: usize, b: &[Chunk]) {
    let mut sums = *tile;
    for (a, b) in a.iter().zip(b) {
        let a = a[first..].first_chunk().expect("the group lies within the block");
        add_outer(&mut sums, *a, b);
    }
    *tile = sums;
}

/// `sums[r] += a[r] * b`.
#[inline(always)]
fn add_outer(sums: &mut Tile, a: [f32; N_ROWS], b: &Chunk) {
    for row in 0..N_ROWS {
        for column in 0..N_COLUMNS {
            sums[row][column] = a[row].mul_add(b[column], sums[row][column]);
        }
    }
}
