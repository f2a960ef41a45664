//! Sums of gradients over packs, in an order that no split into micro-batches changes.
//!
//! ```text
//! tree    ((p0 + p1) + (p2 + p3)) + (p4 + p5)     adapters, small models: a leaf is one pack
//! chain   ((((0 + p0) + p1) + p2) + ..            full training of a larger model: one buffer, no second copy of its size
//! ```
//!
//! The tree joins pack `2 i` with pack `2 i + 1` first, so whoever holds an aligned block of a power of two of packs can add it up alone.

use crate::program::{ParameterIdx, Program};

/// Trained elements up to which full training takes the tree: leaves of 16 MiB.
const TREE_ELEMENTS_MAX: usize = 1 << 22;

/// How gradients of packs are joined. Part of the result's definition, so it follows from the program alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// A fixed binary tree.
    Tree,
    /// One pack after another into one buffer.
    Chain,
}

impl Order {
    pub(super) fn of(program: &Program) -> Self {
        if program.n_trained_elements() <= TREE_ELEMENTS_MAX { Order::Tree } else { Order::Chain }
    }
}

/// A gradient of every parameter, row-major, `None` until a backward has written it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Gradients {
    tensors: Vec<Option<Vec<f32>>>,
}

impl Gradients {
    pub(super) fn new(n_parameters: usize) -> Self {
        Gradients { tensors: vec![None; n_parameters] }
    }

    /// The gradient of a parameter of `len` elements, to be added to; zero at first.
    pub(super) fn tensor(&mut self, parameter: ParameterIdx, len: usize) -> &mut [f32] {
        self.tensors[parameter].get_or_insert_with(|| vec![0.0; len])
    }

    pub(super) fn into_tensors(self) -> Vec<Option<Vec<f32>>> {
        self.tensors
    }

    fn add(mut self, other: Gradients) -> Self {
        for (sum, other) in self.tensors.iter_mut().zip(other.tensors) {
            match (sum, other) {
                (Some(sum), Some(other)) => pipe_kernels::reduce::add_assign(sum, &other),
                (sum @ None, other) => *sum = other,
                (Some(_), None) => {}
            }
        }
        self
    }
}

/// The tree, filled from its first leaf to its last. It holds one sum per level.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// At `i` the sum of `2^i` leaves that waits for its neighbour.
    levels: Vec<Option<Gradients>>,
}

impl Tree {
    pub(super) fn push(&mut self, mut leaf: Gradients) {
        for level in &mut self.levels {
            match level.take() {
                Some(left) => leaf = left.add(leaf),
                None => {
                    *level = Some(leaf);
                    return;
                }
            }
        }
        self.levels.push(Some(leaf));
    }

    /// The sum of all leaves, `None` of none.
    pub(super) fn sum(self) -> Option<Gradients> {
        self.levels.into_iter().flatten().reduce(|right, left| left.add(right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(x: f32) -> Gradients {
        Gradients { tensors: vec![Some(vec![x])] }
    }

    fn tree_of(leaves: &[f32]) -> f32 {
        let mut tree = Tree::default();
        leaves.iter().for_each(|x| tree.push(leaf(*x)));
        tree.sum().expect("there are leaves").into_tensors()[0].as_ref().expect("written")[0]
    }

    #[test]
    fn neighbours_are_joined_first() {
        let tiny = 2.0_f32.powi(-24);
        // (1 + tiny) rounds to 1, (tiny + tiny) does not vanish beside 1.
        assert_eq!(tree_of(&[1.0, tiny, tiny, tiny]), 1.0 + 2.0 * tiny);
        assert_eq!(tree_of(&[1.0, tiny, tiny]), 1.0);
        assert_eq!(tree_of(&[tiny, tiny, 1.0, tiny]), 1.0 + 2.0 * tiny);
    }

    #[test]
    fn an_aligned_block_can_be_added_up_alone() {
        let leaves: Vec<f32> = (0..11).map(|i| libm::sinf(i as f32)).collect();
        let blocks = [tree_of(&leaves[..4]), tree_of(&leaves[4..8]), tree_of(&leaves[8..])];
        assert_eq!(tree_of(&leaves).to_bits(), tree_of(&blocks).to_bits());
    }

    #[test]
    fn what_no_pack_has_written_stays_unwritten() {
        let mut tree = Tree::default();
        tree.push(Gradients::new(2));
        let mut second = Gradients::new(2);
        second.tensor(1, 1)[0] = 3.0;
        tree.push(second);
        assert_eq!(tree.sum().expect("two leaves").into_tensors(), [None, Some(vec![3.0])]);
    }
}
