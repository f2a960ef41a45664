//! Rotary positions (arXiv 2104.09864, eq. 34), paired as Hugging Face does: channel i with i + D/2.
//!
//! `y_i = x_i cos(p f_i) - x_{i+D/2} sin(p f_i)`, `y_{i+D/2} = x_{i+D/2} cos(p f_i) + x_i sin(p f_i)`, with
//! `f_i = theta^(-2i/D)`. A rotation: its backward is the rotation by the negative angle.

use std::cell::OnceCell;

use candle_core::{Device, Result, Tensor};
use pipe_kernels::rope as kernel;

use super::{cpu_slice, from_cpu, is_fast, once};

/// Cosines and sines of every position.
pub struct RopeTable {
    kernel: kernel::Table,
    n_positions: usize,
    half_dim: usize,
}

impl RopeTable {
    /// Positions 0..n_positions, D = head_dim, in f32 as transformers computes them (`modeling_rope_utils.py`,
    /// `_compute_default_rope_parameters`).
    pub fn new(theta: f64, head_dim: usize, n_positions: usize) -> Self {
        RopeTable {
            kernel: kernel::Table::new(n_positions, head_dim, theta as f32),
            n_positions,
            half_dim: head_dim / 2,
        }
    }

    /// How many positions it has.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    fn rows(&self, values: &[f32], positions: &[u32], like: &Tensor) -> Result<Tensor> {
        let gathered: Vec<f32> = positions
            .iter()
            .flat_map(|&p| values[p as usize * self.half_dim..(p as usize + 1) * self.half_dim].iter().copied())
            .collect();
        // (T, 1, D/2): the same for every head.
        Tensor::from_vec(gathered, (positions.len(), 1, self.half_dim), &Device::Cpu)?
            .to_dtype(like.dtype())?
            .to_device(like.device())
    }
}

/// The positions of a sequence. Where rotating is done in tensor operations, their cosines and sines go to the device once.
pub struct Positions<'a> {
    table: &'a RopeTable,
    /// (T), below the table's.
    ids: &'a [u32],
    cos_sin: OnceCell<(Tensor, Tensor)>,
}

impl<'a> Positions<'a> {
    /// `ids`: (T), each below [`RopeTable::n_positions`].
    pub fn new(table: &'a RopeTable, ids: &'a [u32]) -> Self {
        Positions { table, ids, cos_sin: OnceCell::new() }
    }

    /// Both (T, 1, D/2), in the dtype and on the device of the first tensor that was rotated.
    fn cos_sin(&self, like: &Tensor) -> Result<&(Tensor, Tensor)> {
        let rows = |values| self.table.rows(values, self.ids, like);
        once(&self.cos_sin, || Ok((rows(&self.table.kernel.cos)?, rows(&self.table.kernel.sin)?)))
    }
}

/// Which way to rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The forward pass.
    Forward,
    /// The backward pass: by the negative angle.
    Backward,
}

/// x: (T, n_heads D). Returns the same shape.
pub fn rotate(x: &Tensor, n_heads: usize, positions: &Positions<'_>, direction: Direction) -> Result<Tensor> {
    if !is_fast(x) {
        return plain(x, n_heads, positions, direction);
    }
    let Positions { table, ids, .. } = positions;
    let mut y = cpu_slice(x)?.to_vec();
    match direction {
        Direction::Forward => kernel::rotate(&mut y, n_heads, 2 * table.half_dim, &table.kernel, ids),
        Direction::Backward => kernel::rotate_back(&mut y, n_heads, 2 * table.half_dim, &table.kernel, ids),
    }
    from_cpu(y, x.dims())
}

/// [`rotate`] in tensor operations.
pub fn plain(x: &Tensor, n_heads: usize, positions: &Positions<'_>, direction: Direction) -> Result<Tensor> {
    let (n_tokens, width) = x.dims2()?;
    let halves = x.reshape((n_tokens, n_heads, 2, positions.table.half_dim))?;
    let (first, second) = (halves.narrow(2, 0, 1)?.squeeze(2)?, halves.narrow(2, 1, 1)?.squeeze(2)?);
    let (cos, sin) = positions.cos_sin(x)?;
    let (first_sin, second_sin) = (first.broadcast_mul(sin)?, second.broadcast_mul(sin)?);
    let (first_cos, second_cos) = (first.broadcast_mul(cos)?, second.broadcast_mul(cos)?);
    let (first, second) = match direction {
        Direction::Forward => ((first_cos - second_sin)?, (second_cos + first_sin)?),
        Direction::Backward => ((first_cos + second_sin)?, (second_cos - first_sin)?),
    };
    Tensor::stack(&[first, second], 2)?.reshape((n_tokens, width))
}
