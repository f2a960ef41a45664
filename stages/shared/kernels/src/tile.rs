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
/// Columns of half a tile: enough for heads of up to 8 channels.
pub(crate) const N_HALF: usize = N_COLUMNS / 2;
/// Sums of 6 rows by 16 columns.
pub(crate) type Tile = [Chunk; N_ROWS];
/// Where sums begin.
pub(crate) const ZEROS: Tile = [[0.0; N_COLUMNS]; N_ROWS];

/// `tile[r] += sum over i of rows[r][i] * b[i]`; the rows are at least as long as b.
#[inline(always)]
pub(crate) fn add_rows(tile: &mut Tile, rows: [&[f32]; N_ROWS], b: &[Chunk]) {
    let mut sums = *tile;
    add_rows_to(&mut sums, rows, b);
    *tile = sums;
}

/// As [`add_rows`], for the left half of the tile.
#[inline(always)]
pub(crate) fn add_half_rows(tile: &mut Tile, rows: [&[f32]; N_ROWS], b: &[Chunk]) {
    let mut sums = left_half(tile);
    add_rows_to(&mut sums, rows, b);
    put_left_half(tile, sums);
}

#[inline(always)]
fn add_rows_to<const W: usize>(sums: &mut [[f32; W]; N_ROWS], rows: [&[f32]; N_ROWS], b: &[Chunk]) {
    // Iterators side by side: with indices the compiler checks six bounds per step.
    let [r0, r1, r2, r3, r4, r5] = first_of(rows, b.len());
    for ((((((b, a0), a1), a2), a3), a4), a5) in b.iter().zip(r0).zip(r1).zip(r2).zip(r3).zip(r4).zip(r5) {
        add_outer(sums, [*a0, *a1, *a2, *a3, *a4, *a5], b);
    }
}

/// Sums of the first 8 columns.
pub(crate) type HalfTile = [[f32; N_HALF]; N_ROWS];

/// Written out, so that it stays in registers.
#[inline(always)]
pub(crate) fn left_half(tile: &Tile) -> HalfTile {
    let [r0, r1, r2, r3, r4, r5] = tile;
    [half_of(r0), half_of(r1), half_of(r2), half_of(r3), half_of(r4), half_of(r5)]
}

#[inline(always)]
fn half_of(row: &Chunk) -> [f32; N_HALF] {
    *row.first_chunk().expect("8 of 16")
}

#[inline(always)]
pub(crate) fn put_left_half(tile: &mut Tile, half: HalfTile) {
    for (row, half) in tile.iter_mut().zip(half) {
        *row.first_chunk_mut().expect("8 of 16") = half;
    }
}

/// The first `len` elements of each row. Written out: `map` would be a call.
#[inline(always)]
pub(crate) fn first_of(rows: [&[f32]; N_ROWS], len: usize) -> [&[f32]; N_ROWS] {
    let [r0, r1, r2, r3, r4, r5] = rows;
    [&r0[..len], &r1[..len], &r2[..len], &r3[..len], &r4[..len], &r5[..len]]
}

/// `sums[r] += a[r] * b`, in as many columns as there are sums.
#[inline(always)]
pub(crate) fn add_outer<const W: usize>(sums: &mut [[f32; W]; N_ROWS], a: [f32; N_ROWS], b: &Chunk) {
    for row in 0..N_ROWS {
        for column in 0..W {
            sums[row][column] = a[row].mul_add(b[column], sums[row][column]);
        }
    }
}
