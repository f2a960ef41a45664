//! The matrix products of a model, each alone: what an engine could reach if it did nothing else.
//!
//! ```text
//! each distinct matrix (out, in) of the model, in its dtype on disk, with T rows
//!   forward          y  = x W^T
//!   input gradient   dx = dy W
//!   weight gradient  dW = dy^T x      (full training only)
//! ```
//!
//! Values are made up: the time does not depend on them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use half::{bf16, f16};
use pipe_contract::StageError;
use pipe_kernels::gemm::{self, Elements, Matrix, Scratch, Start};
use pipe_llm::program::{Layout, Op, WeightIdx};
use pipe_llm::{Program, load, weights};
use pipe_records::thousands;
use safetensors::Dtype;
use serde::Serialize;

use super::peak::Peak;
use super::report::{FORMAT_VERSION, median};
use super::train::model;

/// Repeats of a product, of which the median counts; one before them warms up.
const N_REPEATS: usize = 7;
/// Elements of a product, so that the head's fits into memory: 64 MiB.
const PRODUCT_LEN_MAX: usize = 1 << 24;

/// The result of `pipe bench gemm`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GemmReport {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Threads that worked together.
    pub threads: usize,
    /// The machine's f32 peak on them.
    pub peak_gflops: f64,
    /// Forward and input gradient of all matrices of the model together, as in LoRA training.
    pub all_gflops: f64,
    /// Each distinct matrix.
    pub products: Vec<Product>,
}

/// The products with one matrix of the model, or with several of its shape.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Product {
    /// Last parts of the modules' names.
    pub modules: Vec<String>,
    /// How many matrices of the model have this shape.
    pub n_matrices: usize,
    /// Output channels.
    pub n_out: usize,
    /// Input channels.
    pub n_in: usize,
    /// Rows of x and y.
    pub n_rows: usize,
    /// Of the matrix: `f32`, `bf16` or `f16`.
    pub dtype: &'static str,
    /// `x W^T`.
    pub forward_gflops: f64,
    /// `dy W`.
    pub input_gradient_gflops: f64,
    /// `dy^T x`.
    pub weight_gradient_gflops: f64,
}

impl GemmReport {
    /// Measures the matrices of the model in `folder` with `n_rows` rows, on the threads of the current pool.
    ///
    /// # Errors
    /// A model that cannot be read or is not supported.
    pub fn measure(folder: &Path, n_rows: usize) -> Result<Self, StageError> {
        let artifact = model(folder)?;
        let program = Program::new(&load::model_config(&artifact)?, &[])?;
        let files = load::weight_files(&artifact)?;
        weights::check(&program, &files)?;
        let products: Vec<Product> = matrices(&program)
            .into_iter()
            .map(|((n_out, n_in), found)| {
                let dtype = files.entries()[&program.weights[found[0].0].name].dtype;
                let n_rows = n_rows.min(PRODUCT_LEN_MAX / n_out).max(1);
                Product::measure((n_rows, n_out, n_in), found.into_iter().map(|(_, module)| module).collect(), dtype)
            })
            .collect();
        let peak = Peak::measure();
        let flops = |p: &Product| (p.n_matrices * p.n_out * p.n_in) as f64;
        let all = products.iter().map(|p| 2.0 * flops(p)).sum::<f64>();
        let seconds = products.iter().map(|p| flops(p) * (1.0 / p.forward_gflops + 1.0 / p.input_gradient_gflops));
        Ok(GemmReport {
            format_version: FORMAT_VERSION,
            threads: peak.threads,
            peak_gflops: peak.peak_gflops,
            all_gflops: all / seconds.sum::<f64>(),
            products,
        })
    }

    /// A table for people.
    pub fn text(&self) -> String {
        let mut text = format!("GFLOP/s on {} threads, of {:.1} in f32 at most\n", self.threads, self.peak_gflops);
        let mut line = |cells: [&str; 6]| {
            let [name, shape, dtype, forward, input, weight] = cells;
            writeln!(text, "{name:32} {shape:>24} {dtype:5} {forward:>8} {input:>8} {weight:>8}").expect("to a String");
        };
        line(["matrices", "rows x out x in", "dtype", "x W^T", "dy W", "dy^T x"]);
        for product in &self.products {
            let shape = [product.n_rows, product.n_out, product.n_in].map(|n| thousands(n as u64)).join(" x ");
            let name = format!("{} of {}", product.n_matrices, product.modules.join(", "));
            let rates = [product.forward_gflops, product.input_gradient_gflops, product.weight_gradient_gflops];
            let [forward, input, weight] = rates.map(|rate| format!("{rate:.1}"));
            line([&name, &shape, product.dtype, &forward, &input, &weight]);
        }
        let share = 100.0 * self.all_gflops / self.peak_gflops;
        writeln!(text, "all, x W^T and dy W: {:.1} GFLOP/s, {share:.1} % of the peak", self.all_gflops)
            .expect("to a String");
        text
    }
}

/// The matrices that rows are multiplied with and the last parts of their modules' names, by shape.
fn matrices(program: &Program) -> BTreeMap<(usize, usize), Vec<(WeightIdx, String)>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for op in &program.ops {
        let (weight, layout, module) = match *op {
            Op::Linear { weight, layout, .. } => {
                let path = program.weights[weight].name.trim_end_matches(".weight");
                (weight, layout, path.rsplit('.').next().unwrap_or(path).to_string())
            }
            // Also where its matrix is the embedding's.
            Op::Head { weight, .. } => (weight, Layout::OutIn, "lm_head".to_string()),
            _ => continue,
        };
        let [n_in, n_out] = program.linear_shape(weight, layout);
        found.entry((n_out, n_in)).or_default().push((weight, module));
    }
    found
}

impl Product {
    fn measure((n_rows, n_out, n_in): (usize, usize, usize), mut modules: Vec<String>, dtype: Dtype) -> Self {
        let n_matrices = modules.len();
        modules.sort();
        modules.dedup();
        let values = |len: usize| -> Vec<f32> { (0..len).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect() };
        let (x, dy) = (values(n_rows * n_in), values(n_rows * n_out));
        let (x, dy) = (Matrix::new(&x[..], n_rows, n_in), Matrix::new(&dy[..], n_rows, n_out));
        let full = values(n_out * n_in);
        let (narrow, half): (Vec<bf16>, Vec<f16>);
        let (weight, dtype) = match dtype {
            Dtype::BF16 => {
                narrow = full.iter().copied().map(bf16::from_f32).collect();
                (Matrix::new(Elements::Bf16(&narrow), n_out, n_in), "bf16")
            }
            Dtype::F16 => {
                half = full.iter().copied().map(f16::from_f32).collect();
                (Matrix::new(Elements::F16(&half), n_out, n_in), "f16")
            }
            _ => (Matrix::new(&full[..], n_out, n_in), "f32"),
        };
        let gflops = |left, right, out_len| gflops(left, right, out_len, (2 * n_rows * n_out * n_in) as f64);
        Product {
            modules,
            n_matrices,
            n_out,
            n_in,
            n_rows,
            dtype,
            forward_gflops: gflops(x, weight.transposed(), n_rows * n_out),
            input_gradient_gflops: gflops(dy, weight, n_rows * n_in),
            weight_gradient_gflops: gflops(dy.transposed(), x, n_out * n_in),
        }
    }
}

fn gflops(left: Matrix<'_>, right: Matrix<'_>, out_len: usize, flops: f64) -> f64 {
    let (mut out, mut scratch) = (vec![0.0; out_len], Scratch::default());
    let mut once = || {
        let begin = Instant::now();
        gemm::multiply(left, right, &mut out, Start::Zero, &mut scratch);
        black_box(&out);
        begin.elapsed().as_secs_f64()
    };
    once();
    flops / median((0..N_REPEATS).map(|_| once()).collect()) / 1e9
}
