//! Tests of both directions, and a measurement.

use super::{BLOCK_LEN, Scores, Shape, backward, extend, forward, reference};
use crate::testing::{assert_same_bits, central_differences, noise, on_every_pool, relative_difference, wide};
use std::ops::Range;

/// A shape with the lengths of its documents.
fn case(n_heads: usize, n_kv_heads: usize, head_dim: usize, lengths: &[usize]) -> (Shape, Vec<Range<usize>>) {
    let mut documents = Vec::new();
    let mut end = 0;
    for length in lengths {
        documents.push(end..end + length);
        end += length;
    }
    (Shape { n_tokens: end, n_heads, n_kv_heads, head_dim }, documents)
}

/// q, k, v and d_o.
struct Inputs {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    d_o: Vec<f32>,
}

impl Inputs {
    fn new(shape: Shape) -> Self {
        Self {
            q: noise("q", shape.n_query_elements()),
            k: noise("k", shape.n_key_elements()),
            v: noise("v", shape.n_key_elements()),
            d_o: noise("d_o", shape.n_query_elements()),
        }
    }
}

/// o, log_sum_exp, dq, dk, dv.
type Outputs = [Vec<f32>; 5];
const NAMES: [&str; 5] = ["o", "log_sum_exp", "dq", "dk", "dv"];

fn outputs(shape: Shape) -> Outputs {
    let (n_queries, n_keys) = (shape.n_query_elements(), shape.n_key_elements());
    [n_queries, shape.n_tokens * shape.n_heads, n_queries, n_keys, n_keys].map(|len| vec![f32::NAN; len])
}

#[test]
fn new_tokens_have_the_bits_they_have_in_the_whole_document() {
    let [whole, windowed, capped, both] = every_kind_of_scores(1.0);
    for (n_heads, n_kv_heads, head_dim, n_all, kind) in [
        (1, 1, 1, 1, whole),
        (4, 2, 7, 5, both),
        (3, 1, 16, 97, windowed),
        (6, 2, 24, 211, whole),
        (6, 2, 24, 211, capped),
        (2, 1, 8, 311, both),
    ] {
        let (shape, documents) = case(n_heads, n_kv_heads, head_dim, &[n_all]);
        let scores = Scores { scale: scores(shape).scale, ..kind };
        let x = Inputs::new(shape);
        let whole = &plain(shape, &documents, scores, &x)[0];
        for n_new in [1, 2, n_all / 2, n_all].into_iter().filter(|n| (1..=n_all).contains(n)) {
            let first = (n_all - n_new) * n_heads * head_dim;
            let new = Shape { n_tokens: n_new, ..shape };
            let run = || {
                let mut o = vec![f32::NAN; new.n_query_elements()];
                // Blocks before the first that a new token sees need not be there.
                let n_missing = scores.first_key(n_all - n_new) / BLOCK_LEN * BLOCK_LEN;
                let [k, v] = [&x.k, &x.v].map(|x| &x[n_missing * n_kv_heads * head_dim..]);
                extend(new, scores, &x.q[first..], k, v, &mut o);
                o
            };
            for (pool, o) in on_every_pool(run) {
                assert_same_bits(&o, &whole[first..], &format!("{n_new} of {n_all} tokens, {scores:?} on {pool}"));
            }
        }
    }
}

fn scores(shape: Shape) -> Scores {
    Scores::scaled(1.0 / (shape.head_dim as f32).sqrt())
}

/// Neither cap nor window, a window, a cap that bends most scores, both.
fn every_kind_of_scores(scale: f32) -> [Scores; 4] {
    let plain = Scores::scaled(scale);
    let (window, cap) = (Some(37), Some(1.5));
    [plain, Scores { window, ..plain }, Scores { cap, ..plain }, Scores { window: Some(100), cap, ..plain }]
}

fn fast(shape: Shape, documents: &[Range<usize>], scores: Scores, x: &Inputs) -> Outputs {
    let [mut o, mut lse, mut dq, mut dk, mut dv] = outputs(shape);
    forward(shape, documents, scores, &x.q, &x.k, &x.v, &mut o, &mut lse);
    backward(shape, documents, scores, &x.q, &x.k, &x.v, &o, &lse, &x.d_o, &mut dq, &mut dk, &mut dv);
    [o, lse, dq, dk, dv]
}

fn plain(shape: Shape, documents: &[Range<usize>], scores: Scores, x: &Inputs) -> Outputs {
    let [mut o, mut lse, mut dq, mut dk, mut dv] = outputs(shape);
    reference::forward(shape, documents, scores, &x.q, &x.k, &x.v, &mut o, &mut lse);
    reference::backward(shape, documents, scores, &x.q, &x.k, &x.v, &o, &lse, &x.d_o, &mut dq, &mut dk, &mut dv);
    [o, lse, dq, dk, dv]
}

#[test]
fn both_directions_equal_the_reference_to_the_bit() {
    for (shape, documents) in [
        case(1, 1, 1, &[1]),
        case(2, 1, 3, &[1, 1, 5, 1]),
        case(3, 3, 8, &[7, 97]),
        case(4, 2, 17, &[96, 1, 31, 101]),
        case(9, 3, 64, &[6, 205, 193]),
    ] {
        assert_equals_the_reference(shape, &documents, scores(shape));
    }
}

#[track_caller]
fn assert_equals_the_reference(shape: Shape, documents: &[Range<usize>], scores: Scores) {
    let x = Inputs::new(shape);
    let expected = plain(shape, documents, scores, &x);
    for (pool, got) in on_every_pool(|| fast(shape, documents, scores, &x)) {
        for ((name, got), expected) in NAMES.iter().zip(&got).zip(&expected) {
            assert_same_bits(got, expected, &format!("{name} of {shape:?}, {scores:?} on {pool}"));
        }
    }
}

#[test]
fn windows_and_caps_equal_the_reference_to_the_bit() {
    for (shape, documents) in
        [case(2, 1, 3, &[1, 1, 5, 1]), case(2, 1, 17, &[1, 31, 250]), case(2, 2, 8, &[7, 97, 12, 20, 110])]
    {
        for scores in every_kind_of_scores(scores(shape).scale) {
            assert_equals_the_reference(shape, &documents, scores);
        }
    }
    let (shape, documents) = case(1, 1, 8, &[290]);
    for window in [1, 2, 96, 97, 98, 193, 194, usize::MAX] {
        assert_equals_the_reference(shape, &documents, Scores { window: Some(window), ..scores(shape) });
    }
}

#[test]
fn a_window_as_long_as_the_document_hides_nothing() {
    let (shape, documents) = case(2, 1, 8, &[10, 200]);
    let x = Inputs::new(shape);
    let whole = fast(shape, &documents, scores(shape), &x);
    for (window, is_same) in [(200, true), (199, false)] {
        let windowed = fast(shape, &documents, Scores { window: Some(window), ..scores(shape) }, &x);
        assert_eq!(whole == windowed, is_same, "window {window}");
    }
}

#[test]
fn what_a_window_hides_has_no_effect() {
    let (shape, documents) = case(2, 1, 8, &[250]);
    let scores = Scores { window: Some(40), ..scores(shape) };
    let x = Inputs::new(shape);
    let before = fast(shape, &documents, scores, &x);
    let mut changed = Inputs::new(shape);
    // Keys 0 to 99 are seen by no query from 139 on.
    for tensor in [&mut changed.k, &mut changed.v] {
        tensor[..100 * 8].iter_mut().for_each(|x| *x = *x * 3.0 + 1.0);
    }
    let after = fast(shape, &documents, scores, &changed);
    for tensor in [0, 2] {
        let row = shape.n_heads * shape.head_dim;
        assert_same_bits(&after[tensor][139 * row..], &before[tensor][139 * row..], NAMES[tensor]);
        assert_ne!(after[tensor][138 * row..139 * row], before[tensor][138 * row..139 * row], "query 138 sees key 99");
    }
}

/// Softmax attention in f64, the textbook way; o as (T, H, D).
fn naive(shape: Shape, documents: &[Range<usize>], scores: Scores, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
    let Shape { n_heads, n_kv_heads, head_dim: d, .. } = shape;
    let mut o = vec![0.0; q.len()];
    for document in documents {
        for (query, head) in document.clone().flat_map(|query| (0..n_heads).map(move |head| (query, head))) {
            let kv_head = head * n_kv_heads / n_heads;
            let row = (query * n_heads + head) * d;
            let column = |key: usize| (key * n_kv_heads + kv_head) * d;
            let first_key = scores.window.map_or(document.start, |w| document.start.max((query + 1).saturating_sub(w)));
            let score = |key| {
                let product: f64 = (0..d).map(|i| q[row + i] * k[column(key) + i]).sum();
                let scaled = product * f64::from(scores.scale);
                scores.cap.map(f64::from).map_or(scaled, |cap| cap * libm::tanh(scaled / cap))
            };
            let weights: Vec<f64> = (first_key..=query).map(score).map(libm::exp).collect();
            let total: f64 = weights.iter().sum();
            for (key, weight) in (first_key..=query).zip(weights) {
                for i in 0..d {
                    o[row + i] += weight / total * v[column(key) + i];
                }
            }
        }
    }
    o
}

#[test]
fn the_forward_matches_a_softmax_in_f64() {
    /// Sums of up to 300 terms in f32.
    const TOLERANCE: f64 = 2e-6;
    for (shape, documents) in [case(4, 2, 20, &[1, 300, 40]), case(9, 3, 64, &[205, 97])] {
        let x = Inputs::new(shape);
        for scores in every_kind_of_scores(scores(shape).scale) {
            let [o, ..] = fast(shape, &documents, scores, &x);
            let expected = naive(shape, &documents, scores, &wide(&x.q), &wide(&x.k), &wide(&x.v));
            let difference = relative_difference(&o, &expected);
            assert!(difference < TOLERANCE, "{shape:?}, {scores:?}: relative difference {difference:e}");
        }
    }
}

#[test]
fn the_backward_matches_central_differences() {
    /// f32 sums of up to 25 terms, two of them in a row.
    const TOLERANCE: f64 = 3e-6;
    let (shape, documents) = case(4, 2, 5, &[1, 25, 3]);
    let x = Inputs::new(shape);
    let (q, k, v) = (wide(&x.q), wide(&x.k), wide(&x.v));
    let plain = scores(shape);
    for scores in [plain, Scores { window: Some(7), cap: Some(1.5), ..plain }] {
        let [_, _, dq, dk, dv] = fast(shape, &documents, scores, &x);
        let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
            naive(shape, &documents, scores, q, k, v).iter().zip(&x.d_o).map(|(o, d_o)| o * f64::from(*d_o)).sum()
        };
        let expected = [
            central_differences(&x.q, |q| loss(q, &k, &v)),
            central_differences(&x.k, |k| loss(&q, k, &v)),
            central_differences(&x.v, |v| loss(&q, &k, v)),
        ];
        for ((name, got), expected) in ["dq", "dk", "dv"].into_iter().zip([dq, dk, dv]).zip(expected) {
            let difference = relative_difference(&got, &expected);
            assert!(difference < TOLERANCE, "{name}, {scores:?}: relative difference {difference:e}");
        }
    }
}

#[test]
fn a_document_does_not_see_its_neighbours() {
    let (shape, documents) = case(2, 1, 16, &[50, 130, 20]);
    let x = Inputs::new(shape);
    let before = fast(shape, &documents, scores(shape), &x);
    let mut changed = Inputs::new(shape);
    for tensor in [&mut changed.q, &mut changed.k, &mut changed.v, &mut changed.d_o] {
        let row_len = tensor.len() / shape.n_tokens;
        tensor[..50 * row_len].iter_mut().for_each(|x| *x = *x * 3.0 + 1.0);
        tensor[180 * row_len..].iter_mut().for_each(|x| *x = *x * 3.0 + 1.0);
    }
    let after = fast(shape, &documents, scores(shape), &changed);
    for ((name, before), after) in NAMES.iter().zip(&before).zip(&after) {
        let row_len = before.len() / shape.n_tokens;
        assert_same_bits(&after[50 * row_len..180 * row_len], &before[50 * row_len..180 * row_len], name);
        assert_ne!(after[..row_len], before[..row_len], "{name} of the changed document");
    }
}

#[test]
fn a_document_does_not_know_its_place() {
    let (shape, documents) = case(2, 1, 16, &[50, 130]);
    let x = Inputs::new(shape);
    let packed = fast(shape, &documents, scores(shape), &x);
    let (alone_shape, alone_documents) = case(2, 1, 16, &[130]);
    let rest = |x: &[f32]| x[50 * (x.len() / 180)..].to_vec();
    let alone_x = Inputs { q: rest(&x.q), k: rest(&x.k), v: rest(&x.v), d_o: rest(&x.d_o) };
    for ((name, alone), packed) in
        NAMES.iter().zip(fast(alone_shape, &alone_documents, scores(shape), &alone_x)).zip(&packed)
    {
        assert_same_bits(&alone, &rest(packed), name);
    }
}

#[test]
fn large_scores_stay_finite() {
    let (shape, documents) = case(1, 1, 16, &[120]);
    let mut x = Inputs::new(shape);
    x.q.iter_mut().for_each(|q| *q *= 1e3);
    for (name, values) in NAMES.iter().zip(fast(shape, &documents, scores(shape), &x)) {
        assert!(values.iter().all(|x| x.is_finite()), "{name} is not finite");
    }
}

#[test]
fn no_tokens_are_no_work() {
    let (shape, documents) = case(2, 1, 16, &[]);
    assert!(fast(shape, &documents, scores(shape), &Inputs::new(shape)).iter().all(Vec::is_empty));
}

#[test]
#[should_panic(expected = "documents do not cover the tokens")]
fn documents_that_leave_tokens_out_are_refused() {
    let (shape, _) = case(1, 1, 2, &[3]);
    fast(shape, &[0..1, 1..2], scores(shape), &Inputs::new(shape));
}
