//! Kernels: f32 slices in, f32 slices out.
//!
//! The arithmetic of a training step, one operation per module. A matrix argument is a row-major slice, its shape stands in the
//! documentation as `(N, D)`, and every entry checks lengths with `assert!`. Rows are spread over the current rayon pool.
//!
//! ```
//! let x = [3.0, 4.0]; // (N = 1, D = 2)
//! let (mut y, mut inv_rms) = ([0.0; 2], [0.0; 1]);
//! pipe_kernels::rms_norm::forward(&x, &[1.0, 1.0], 0.0, &mut y, &mut inv_rms);
//! assert!((y[0] - 3.0 / 12.5_f32.sqrt()).abs() < 1e-6);
//! ```
//!
//! **Same bits everywhere.** A result never depends on the number of threads or on the instruction set:
//!
//! - work is cut by shape only, and partial results meet in a fixed order;
//! - a horizontal sum runs over 16 lanes, element `i` in lane `i % 16`, and one tree joins the lanes ([`lanes`]);
//! - multiply-add is [`f32::mul_add`], one rounding with or without the instruction for it;
//! - `exp`, `tanh` and `ln` are ours ([`math`]), `cos`, `sin`, `pow` come from the `libm` crate; those of std differ between hosts.
//!
//! The same Rust body is compiled for each [`InstructionSet`], chosen at run time; there is no `unsafe` here.
//! Beside each kernel stands its `reference`: a plain version that tests compare with, to the bit where the kernel promises it.
//!
//! What is not here: tensors, devices, shapes beyond what a kernel needs, memory planning.

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod dropout;
pub mod gated_mlp;
pub mod gelu;
pub mod gemm;
pub mod lanes;
pub mod layer_norm;
pub mod math;
pub mod peak;
pub mod random;
pub mod reduce;
pub mod rms_norm;
pub mod rope;
pub mod softcap;

mod dispatch;
#[cfg(test)]
mod testing;
mod tile;

pub use dispatch::{InstructionSet, limit_instruction_set};
