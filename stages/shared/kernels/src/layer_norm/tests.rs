//! Equality with the plain versions, central differences, known answers.

use super::*;
use crate::testing::{assert_same_bits, central_differences, noise, on_every_pool, relative_difference, wide};

const EPS: f32 = 1e-5;
const SHAPES: [(usize, usize); 5] = [(1, 1), (3, 17), (5, 64), (97, 131), (64, 576)];

/// The rows of x lie off zero, so that a mean that is left out shows.
struct Inputs {
    x: Vec<f32>,
    dy: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// (D): what the gradients of weight and bias are added to.
    before: Vec<f32>,
}

impl Inputs {
    fn new(n: usize, d: usize) -> Self {
        let x = noise("x", n * d).into_iter().map(|x| x + 0.75).collect();
        let [weight, bias, before] = ["weight", "bias", "before"].map(|name| noise(name, d));
        Self { x, dy: noise("dy", n * d), weight, bias, before }
    }
}

/// y, mean, inv_std, dx, d_weight, d_bias.
type Outputs = [Vec<f32>; 6];
const NAMES: [&str; 6] = ["y", "mean", "inv_std", "dx", "d_weight", "d_bias"];

/// The gradients of the parameters in two calls.
fn fast(n: usize, d: usize, i: &Inputs) -> Outputs {
    let [mut y, mut mean, mut inv_std, mut dx] = [n * d, n, n, n * d].map(|len| vec![f32::NAN; len]);
    let (mut d_weight, mut d_bias) = (i.before.clone(), i.before.clone());
    forward(&i.x, &i.weight, &i.bias, EPS, &mut y, &mut mean, &mut inv_std);
    backward(&i.dy, &i.x, &i.weight, &mean, &inv_std, &mut dx);
    let half = n / 2;
    for (rows, elements) in [(0..half, 0..half * d), (half..n, half * d..n * d)] {
        let (dy, x) = (&i.dy[elements.clone()], &i.x[elements]);
        parameter_gradients(dy, x, &mean[rows.clone()], &inv_std[rows], &mut d_weight, &mut d_bias);
    }
    [y, mean, inv_std, dx, d_weight, d_bias]
}

fn plain(n: usize, d: usize, i: &Inputs) -> Outputs {
    let [mut y, mut mean, mut inv_std, mut dx] = [n * d, n, n, n * d].map(|len| vec![f32::NAN; len]);
    let (mut d_weight, mut d_bias) = (i.before.clone(), i.before.clone());
    reference::forward(&i.x, &i.weight, &i.bias, EPS, &mut y, &mut mean, &mut inv_std);
    reference::backward(&i.dy, &i.x, &i.weight, &mean, &inv_std, &mut dx);
    reference::parameter_gradients(&i.dy, &i.x, &mean, &inv_std, &mut d_weight, &mut d_bias);
    [y, mean, inv_std, dx, d_weight, d_bias]
}

#[test]
fn everything_equals_the_reference_to_the_bit() {
    for (n, d) in SHAPES {
        let inputs = Inputs::new(n, d);
        let expected = plain(n, d, &inputs);
        for (pool, got) in on_every_pool(|| fast(n, d, &inputs)) {
            for ((name, got), expected) in NAMES.iter().zip(&got).zip(&expected) {
                assert_same_bits(got, expected, &format!("{name} of ({n}, {d}) on {pool}"));
            }
        }
    }
}

/// The loss `sum(dy * y)` of all rows in f64, the textbook way.
fn loss(x: &[f64], weight: &[f64], bias: &[f64], dy: &[f64]) -> f64 {
    let d = weight.len();
    let row_loss = |(x, dy): (&[f64], &[f64])| -> f64 {
        let mean = x.iter().sum::<f64>() / d as f64;
        let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / d as f64;
        let y = |i: usize| (x[i] - mean) / (variance + f64::from(EPS)).sqrt() * weight[i] + bias[i];
        (0..d).map(|i| dy[i] * y(i)).sum()
    };
    x.chunks(d).zip(dy.chunks(d)).map(row_loss).sum()
}

#[test]
fn the_gradients_match_central_differences() {
    /// f32 rounding of sums of 33 terms.
    const TOLERANCE: f64 = 1e-6;
    let (n, d) = (3, 33);
    let inputs = Inputs { before: vec![0.0; d], ..Inputs::new(n, d) };
    let [_, _, _, dx, d_weight, d_bias] = fast(n, d, &inputs);
    let (x, weight, bias, dy) = (wide(&inputs.x), wide(&inputs.weight), wide(&inputs.bias), wide(&inputs.dy));
    let expected = [
        central_differences(&inputs.x, |x| loss(x, &weight, &bias, &dy)),
        central_differences(&inputs.weight, |weight| loss(&x, weight, &bias, &dy)),
        central_differences(&inputs.bias, |bias| loss(&x, &weight, bias, &dy)),
    ];
    for ((name, got), expected) in ["dx", "d_weight", "d_bias"].into_iter().zip([dx, d_weight, d_bias]).zip(expected) {
        let difference = relative_difference(&got, &expected);
        assert!(difference < TOLERANCE, "{name}: relative difference {difference:e}");
    }
}

#[test]
fn torch_gives_the_same_values() {
    // torch.nn.functional.layer_norm(x, (5,), weight, bias, 1e-5) and its gradients for dy, PyTorch 2.15 on the CPU.
    let x = [0.5, -1.25, 3.0, 2.0, 0.0];
    let (weight, bias, dy) = ([1.0, 0.5, -2.0, 1.5, 0.25], [0.0, 0.125, -0.5, 1.0, 2.0], [1.0, -1.0, 0.5, 2.0, -0.75]);
    let (mut y, mut mean, mut inv_std, mut dx) = ([0.0; 5], [0.0], [0.0], [0.0; 5]);
    let (mut d_weight, mut d_bias) = ([0.0; 5], [0.0; 5]);
    forward(&x, &weight, &bias, EPS, &mut y, &mut mean, &mut inv_std);
    backward(&dy, &x, &weight, &mean, &inv_std, &mut dx);
    parameter_gradients(&dy, &x, &mean, &inv_std, &mut d_weight, &mut d_bias);
    for (name, got, expected) in [
        ("y", y, [-0.233_853_09, -0.576_559_2, -3.373_052_1, 2.152_561_4, 1.858_017_8]),
        ("dx", dx, [0.404_218_5, -0.372_574_03, -1.254_134_7, 1.547_291_8, -0.324_801_6]),
        ("d_weight", d_weight, [-0.233_853_1, 1.403_118_4, 0.718_263, 1.536_748_6, 0.425_946_68]),
    ] {
        let difference = relative_difference(&got, &wide(&expected));
        assert!(difference < 3e-7, "{name}: relative difference {difference:e}");
    }
    assert_eq!(d_bias, dy);
}

#[test]
fn a_far_mean_keeps_its_variance() {
    // 1000, 1001: a variance from the sum of squares would be off by a tenth.
    let (mut y, mut mean, mut inv_std) = ([0.0; 2], [0.0], [0.0]);
    forward(&[1000.0, 1001.0], &[1.0; 2], &[0.0; 2], 0.0, &mut y, &mut mean, &mut inv_std);
    assert_eq!((y, mean, inv_std), ([-1.0, 1.0], [1000.5], [2.0]));
}

#[test]
#[should_panic(expected = "x is not (N, D)")]
fn a_wrong_length_is_refused() {
    forward(&[0.0; 5], &[1.0; 2], &[0.0; 2], EPS, &mut [0.0; 5], &mut [0.0; 2], &mut [0.0; 2]);
}
