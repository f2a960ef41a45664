//! Tile products whose left side does not lie in rows.

use super::BLOCK_LEN;
use crate::tile::{Chunk, N_COLUMNS, N_ROWS, Tile, add_outer, left_half, put_left_half};

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
        add_outer(&mut sums, six_of(a, first), b);
    }
    *tile = sums;
}

/// As [`add_columns`], for the left halves of two tiles at once: alone, the six chains of one would leave the multipliers idle for a third of the time.
#[inline(always)]
pub(super) fn add_half_columns(
    [tile0, tile1]: [&mut Tile; 2],
    [a0, a1]: [&[[f32; BLOCK_LEN]]; 2],
    first: usize,
    [b0, b1]: [&[Chunk]; 2],
) {
    let (mut sums0, mut sums1) = (left_half(tile0), left_half(tile1));
    for ((a0, b0), (a1, b1)) in a0.iter().zip(b0).zip(a1.iter().zip(b1)) {
        add_outer(&mut sums0, six_of(a0, first), b0);
        add_outer(&mut sums1, six_of(a1, first), b1);
    }
    put_left_half(tile0, sums0);
    put_left_half(tile1, sums1);
}

#[inline(always)]
fn six_of(row: &[f32; BLOCK_LEN], first: usize) -> [f32; N_ROWS] {
    *row[first..].first_chunk().expect("the group lies within the block")
}
