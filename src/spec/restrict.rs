//! A part of a pipeline: some stages and all that they wait for.
//!
//! Keys hold no names and no positions, so a stage has the same fingerprint in a part as in the whole.

use std::collections::BTreeSet;

use super::Pipeline;

impl Pipeline {
    /// Leaves out all stages but those at `wanted` and, directly or not, those they wait for. Order stays, positions change.
    pub fn restrict_to(&mut self, wanted: &BTreeSet<usize>) {
        let mut kept = wanted.clone();
        let mut open: Vec<usize> = wanted.iter().copied().collect();
        while let Some(stage) = open.pop() {
            open.extend(self.stages[stage].waits_for().filter(|&before| kept.insert(before)));
        }
        self.is_part |= kept.len() < self.stages.len();
        let mut position = vec![usize::MAX; self.stages.len()];
        kept.iter().enumerate().for_each(|(new, &old)| position[old] = new);
        let mut stages = Vec::with_capacity(kept.len());
        for (old, mut stage) in std::mem::take(&mut self.stages).into_iter().enumerate() {
            if kept.contains(&old) {
                stage.inputs.values_mut().for_each(|input| input.stage = position[input.stage]);
                stage.needs.iter_mut().for_each(|need| *need = position[*need]);
                stages.push(stage);
            }
        }
        self.stages = stages;
        self.order.retain(|old| kept.contains(old));
        self.order.iter_mut().for_each(|stage| *stage = position[*stage]);
    }
}
