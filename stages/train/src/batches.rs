//! Which packs an optimizer step takes: a function of the seed and the step's number, so a resumed run needs no state.
//!
//! ```text
//! 10 packs, global batch 4, 2 epochs      epoch 0: | 7 1 4 0 | 9 2 8 3 | 6 5 |   epoch 1: | 3 8 ... (another order)
//! ```
//!
//! As in the Hugging Face Trainer, the last optimizer step of an epoch takes what is left.

use pipe_kernels::random::Stream;

/// The plan of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batches {
    n_packs: usize,
    global_batch: usize,
    /// Optimizer steps in all (T).
    pub n_steps: u64,
    shuffle_seed: Option<u64>,
}

impl Batches {
    /// `n_packs`, `global_batch`: at least 1. `max_steps` goes before `n_epochs`. `shuffle_seed`: `None` keeps the order.
    pub fn new(
        n_packs: usize,
        global_batch: usize,
        n_epochs: f64,
        max_steps: Option<u64>,
        shuffle_seed: Option<u64>,
    ) -> Self {
        let per_epoch = n_packs.div_ceil(global_batch) as f64;
        let n_steps = max_steps.unwrap_or_else(|| (n_epochs * per_epoch).ceil() as u64);
        Batches { n_packs, global_batch, n_steps, shuffle_seed }
    }

    /// Optimizer steps of one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.n_packs.div_ceil(self.global_batch) as u64
    }

    /// Whether an epoch ends with the optimizer step `step_idx`, counted from 0.
    pub fn ends_epoch(&self, step_idx: u64) -> bool {
        (step_idx + 1).is_multiple_of(self.steps_per_epoch())
    }

    /// Indices of the packs of the optimizer step `step_idx`, counted from 0; `order` keeps the order of its epoch.
    pub fn packs(&self, step_idx: u64, order: &mut EpochOrder) -> Vec<usize> {
        let epoch = step_idx / self.steps_per_epoch();
        if order.epoch != Some(epoch) {
            *order = EpochOrder { epoch: Some(epoch), packs: self.epoch_order(epoch) };
        }
        let start = (step_idx % self.steps_per_epoch()) as usize * self.global_batch;
        order.packs[start..(start + self.global_batch).min(self.n_packs)].to_vec()
    }

    /// Fisher-Yates over a named stream.
    fn epoch_order(&self, epoch: u64) -> Vec<usize> {
        let mut packs: Vec<usize> = (0..self.n_packs).collect();
        if let Some(seed) = self.shuffle_seed {
            let stream = Stream::named(seed, &format!("order of epoch {epoch}"));
            for last in (1..packs.len()).rev() {
                // The high half of the product is uniform in 0..=last, to within 2^-64 of the range.
                let pick = (u128::from(stream.bits(last as u64)) * (last as u128 + 1)) >> 64;
                packs.swap(last, pick as usize);
            }
        }
        packs
    }
}

/// The order of one epoch, kept between optimizer steps.
#[derive(Clone, Debug, Default)]
pub struct EpochOrder {
    epoch: Option<u64>,
    packs: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(batches: &Batches) -> Vec<Vec<usize>> {
        let mut order = EpochOrder::default();
        (0..batches.n_steps).map(|step_idx| batches.packs(step_idx, &mut order)).collect()
    }

    #[test]
    fn an_epoch_has_every_pack_once_and_a_short_last_step() {
        let batches = Batches::new(10, 4, 2.0, None, Some(7));
        let steps = all(&batches);
        assert_eq!(steps.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2, 4, 4, 2]);
        for epoch in steps.chunks(3) {
            let mut packs: Vec<usize> = epoch.concat();
            packs.sort_unstable();
            assert_eq!(packs, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(steps[..3], steps[3..], "each epoch has its own order");
        assert_eq!((0..6).filter(|&s| batches.ends_epoch(s)).collect::<Vec<_>>(), [2, 5]);
    }

    #[test]
    fn a_step_does_not_depend_on_the_ones_before_it() {
        let batches = Batches::new(10, 4, 3.0, None, Some(7));
        let together = all(&batches);
        for (step_idx, packs) in together.iter().enumerate() {
            assert_eq!(&batches.packs(step_idx as u64, &mut EpochOrder::default()), packs);
        }
    }

    #[test]
    fn without_a_seed_packs_come_in_file_order() {
        assert_eq!(all(&Batches::new(5, 2, 1.0, None, None)), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(Batches::new(5, 2, 0.5, None, None).n_steps, 2);
        assert_eq!(Batches::new(5, 2, 1.0, Some(7), None).n_steps, 7);
    }
}
