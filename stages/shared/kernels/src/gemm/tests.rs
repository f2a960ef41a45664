use half::{bf16, f16};

use super::{CHUNK_MAX, Elements, Matrix, SLAB_INNER_MAX, Scratch, Start, multiply, multiply_into_rows_of, reference};
use crate::testing::{assert_same_bits, noise, on_every_pool, relative_difference};

/// Numbers in one of the stored forms.
enum Stored {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
}

impl Stored {
    fn elements(&self) -> Elements<'_> {
        match self {
            Stored::F32(x) => Elements::F32(x),
            Stored::Bf16(x) => Elements::Bf16(x),
            Stored::F16(x) => Elements::F16(x),
        }
    }
}

fn stored_forms(name: &str, len: usize) -> Vec<Stored> {
    let x = noise(name, len);
    vec![
        Stored::Bf16(x.iter().map(|x| bf16::from_f32(*x)).collect()),
        Stored::F16(x.iter().map(|x| f16::from_f32(*x)).collect()),
        Stored::F32(x),
    ]
}

/// (n_rows, n_columns), stored so or transposed.
fn view<'a>(elements: impl Into<Elements<'a>>, n_rows: usize, n_columns: usize, is_transposed: bool) -> Matrix<'a> {
    if is_transposed {
        Matrix::new(elements, n_columns, n_rows).transposed()
    } else {
        Matrix::new(elements, n_rows, n_columns)
    }
}

/// A product equals the reference, on every pool, from zero and from the output.
fn check(m: usize, k: usize, n: usize) {
    let left = noise("left", m * k);
    let before = noise("out", m * n);
    for right in stored_forms("right", k * n) {
        for (turned_left, turned_right) in [(false, false), (false, true), (true, false), (true, true)] {
            for start in [Start::Zero, Start::Output] {
                let (left, right) = (view(&left[..], m, k, turned_left), view(right.elements(), k, n, turned_right));
                let mut expected = before.clone();
                reference::multiply(left, right, &mut expected, start);
                let what = format!("({m}, {k}) x ({k}, {n}), turned {turned_left} {turned_right}, {start:?}");
                for (pool, got) in on_every_pool(|| {
                    let (mut out, mut scratch) = (before.clone(), Scratch::default());
                    multiply(left, right, &mut out, start, &mut scratch);
                    out
                }) {
                    assert_same_bits(&got, &expected, &format!("{what}, {pool}"));
                }
            }
        }
    }
}

#[test]
fn products_equal_the_reference_to_the_bit_at_odd_sizes() {
    for (m, k, n) in [(1, 1, 1), (7, 5, 3), (6, 16, 16), (13, 31, 17), (50, 97, 101)] {
        check(m, k, n);
    }
}

#[test]
fn chunks_are_added_from_slab_to_slab() {
    for k in [CHUNK_MAX + 1, SLAB_INNER_MAX + 3] {
        check(7, k, 5);
    }
}

#[test]
fn a_wide_product_is_made_in_several_slabs() {
    let (m, k, n) = (7, 1500, 1000);
    let (left, right) = (noise("left", m * k), noise("right", k * n));
    let (left, right) = (Matrix::new(&left[..], m, k), Matrix::new(&right[..], k, n));
    let (mut got, mut expected) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
    multiply(left, right, &mut got, Start::Zero, &mut Scratch::default());
    reference::multiply(left, right, &mut expected, Start::Zero);
    assert_same_bits(&got, &expected, "several slabs");
}

#[test]
fn rows_may_be_longer_than_what_is_in_them() {
    for (m, k, n) in [(2, 3, 35), (50, 97, 101)] {
        let (left_len, right_len, out_len) = (k + 5, n + 3, n + 16);
        let (left, right) = (noise("left", m * left_len), noise("right", k * right_len));
        let (left, right) =
            (Matrix::in_rows_of(left_len, &left[..], m, k), Matrix::in_rows_of(right_len, &right[..], k, n));
        for start in [Start::Zero, Start::Output] {
            let before = noise("out", m * out_len);
            let mut expected: Vec<f32> = before.chunks(out_len).flat_map(|row| &row[..n]).copied().collect();
            reference::multiply(left, right, &mut expected, start);
            let mut got = before.clone();
            multiply_into_rows_of(out_len, left, right, &mut got, start, &mut Scratch::default());
            for ((got, expected), before) in got.chunks(out_len).zip(expected.chunks(n)).zip(before.chunks(out_len)) {
                assert_same_bits(&got[..n], expected, &format!("({m}, {k}) x ({k}, {n}), {start:?}"));
                assert_same_bits(&got[n..], &before[n..], "what lies behind a row");
            }
        }
    }
}

#[test]
fn scratch_of_a_larger_product_does_no_harm() {
    let mut scratch = Scratch::default();
    let big = noise("big", 40 * 40);
    let mut out = vec![0.0; 40 * 40];
    multiply(Matrix::new(&big[..], 40, 40), Matrix::new(&big[..], 40, 40), &mut out, Start::Zero, &mut scratch);
    let x = [1.0, 2.0, 3.0];
    let mut one = [0.0];
    multiply(Matrix::new(&x[..], 1, 3), Matrix::new(&x[..], 3, 1), &mut one, Start::Zero, &mut scratch);
    assert_eq!(one, [14.0]);
}

#[test]
fn nothing_to_reduce_is_zero_or_what_was_there() {
    let mut out = [5.0, 6.0];
    let (left, right) = (Matrix::new(&[][..], 2, 0), Matrix::new(&[][..], 0, 1));
    multiply(left, right, &mut out, Start::Output, &mut Scratch::default());
    assert_eq!(out, [5.0, 6.0]);
    multiply(left, right, &mut out, Start::Zero, &mut Scratch::default());
    assert_eq!(out, [0.0, 0.0]);
    multiply(
        Matrix::new(&[][..], 0, 2),
        Matrix::new(&[1.0, 2.0][..], 2, 1),
        &mut [],
        Start::Zero,
        &mut Scratch::default(),
    );
}

#[test]
fn a_product_matches_f64() {
    /// Chains of 384 roundings and 128 sums of them. One chain alone would miss it by a factor of 30.
    const TOLERANCE: f64 = 3e-6;
    let (m, k, n) = (5, 49_152, 7);
    let (left, right) = (noise("left", m * k), noise("right", k * n));
    let mut got = vec![0.0; m * n];
    multiply(
        Matrix::new(&left[..], m, k),
        Matrix::new(&right[..], k, n),
        &mut got,
        Start::Zero,
        &mut Scratch::default(),
    );
    let exact = |row: usize, column: usize| -> f64 {
        (0..k).map(|i| f64::from(left[row * k + i]) * f64::from(right[i * n + column])).sum()
    };
    let expected: Vec<f64> = (0..m * n).map(|i| exact(i / n, i % n)).collect();
    let difference = relative_difference(&got, &expected);
    assert!(difference < TOLERANCE, "relative difference {difference:e}");
}

#[test]
fn every_f16_is_widened_exactly() {
    let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    // 1 x: one product with 1 shows each element as it was packed, as a straight and as a turned panel.
    for is_transposed in [false, true] {
        let mut out = vec![0.0; all.len()];
        let right = view(Elements::F16(&all), 1, all.len(), is_transposed);
        multiply(Matrix::new(&[1.0][..], 1, 1), right, &mut out, Start::Zero, &mut Scratch::default());
        for (x, got) in all.iter().zip(&out) {
            // -0 times 1 added to 0 is 0, which compares equal; a NaN may change its payload.
            assert!(x.to_f32() == *got || (x.is_nan() && got.is_nan()), "{:#06x} became {got:e}", x.to_bits());
        }
    }
}

#[test]
#[should_panic(expected = "columns of the left side and rows of the right one")]
fn sides_that_do_not_fit_are_refused() {
    let x = [0.0; 6];
    multiply(Matrix::new(&x[..], 2, 3), Matrix::new(&x[..], 2, 3), &mut [0.0; 6], Start::Zero, &mut Scratch::default());
}
