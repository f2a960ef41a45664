//! The plain version.

use super::{Elements, Matrix, Start, chunk_len};

/// As [`super::multiply`], element by element.
pub fn multiply(left: Matrix<'_>, right: Matrix<'_>, out: &mut [f32], start: Start) {
    for row in 0..left.n_rows {
        for column in 0..right.n_columns {
            let sum = &mut out[row * right.n_columns + column];
            if start == Start::Zero {
                *sum = 0.0;
            }
            for first in (0..left.n_columns).step_by(chunk_len(left.n_columns)) {
                let end = left.n_columns.min(first + chunk_len(left.n_columns));
                let product = |sum, i| element(left, row, i).mul_add(element(right, i, column), sum);
                *sum += (first..end).fold(0.0_f32, product);
            }
        }
    }
}

fn element(matrix: Matrix<'_>, row: usize, column: usize) -> f32 {
    let (row, column) = if matrix.is_transposed { (column, row) } else { (row, column) };
    let place = row * matrix.row_len + column;
    match matrix.elements {
        Elements::F32(x) => x[place],
        Elements::Bf16(x) => x[place].to_f32(),
        Elements::F16(x) => x[place].to_f32(),
    }
}
