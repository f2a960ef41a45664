//! Tile products whose left side does not lie in rows.

use super::BLOCK_LEN;
use crate::tile::{Chunk, N_COLUMNS, Tile, add_outer};

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
