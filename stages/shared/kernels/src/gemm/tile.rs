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

/// One tile of the output: rows of `out`, which holds six or fewer rows of `row_len`, from `column` on, `width` of them. The products of a chunk are
/// added to it, or put in its place.
#[inline(always)]
pub(super) fn multiply_tile(
    left: &[Column],
    right: &[Chunk],
    out: &mut [f32],
    row_len: usize,
    column: usize,
    width: usize,
    overwrites: bool,
) {
    let tile = products(left, right);
    if width == N_COLUMNS && out.len() == N_ROWS * row_len {
        // With constant lengths the tile goes from registers to memory.
        for (row, sums) in tile.iter().enumerate() {
            let out: &mut Chunk = out[row * row_len + column..].first_chunk_mut().expect("a whole tile has 16 columns");
            store(out, sums, overwrites);
        }
    } else {
        for (row, sums) in out.chunks_exact_mut(row_len).zip(&tile) {
            store(&mut row[column..column + width], &sums[..width], overwrites);
        }
    }
}

#[inline(always)]
fn store(out: &mut [f32], sums: &[f32], overwrites: bool) {
    if overwrites {
        out.copy_from_slice(sums);
    } else {
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
    }
}

/// At `[r][c]` the sum over i of `left[i][r] * right[i][c]`, a chain in the order of `i`.
#[inline(always)]
fn products(left: &[Column], right: &[Chunk]) -> Tile {
    let mut sums = [[0.0_f32; N_COLUMNS]; N_ROWS];
    for (left, right) in left.iter().zip(right) {
        for row in 0..N_ROWS {
            for column in 0..N_COLUMNS {
                sums[row][column] = left[row].mul_add(right[column], sums[row][column]);
            }
        }
    }
    sums
}
