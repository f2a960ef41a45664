//! A part of a pipeline: some stages and all that they wait for.
//!
//! Keys hold no names and no positions, so a stage has the same fingerprint in a part as in the whole.

use std::collections::BTreeSet;

use super::Pipeline;

impl Pipeline {
    /// Leaves out all stages but those at `wanted` and, directly or not, those they wait for. Order stays, positions change.
    pub fn restrict_to(&mut self, wanted: &BTreeSet<usize>) {
        let kept = self.with_what_is_waited_for(wanted);
        self.is_part |= kept.len() < self.stages.len();
        let mut position = vec![usize::MAX; self.stages.len()];
        kept.iter().enumerate().for_each(|(new, &old)| position[old] = new);
        let mut stages = Vec::with_capacity(kept.len());
        for (old, mut stage) in std::mem::take(&mut self.stages).into_iter().enumerate() {
            if kept.contains(&old) {
                stage.inputs.iter_mut().for_each(|(_, input)| input.stage = position[input.stage]);
                stage.needs.iter_mut().for_each(|need| *need = position[*need]);
                stages.push(stage);
            }
        }
        self.stages = stages;
        self.order.retain(|old| kept.contains(old));
        self.order.iter_mut().for_each(|stage| *stage = position[*stage]);
    }
    /// These stages and, directly or not, those they wait for.
    pub fn with_what_is_waited_for(&self, stages: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut found = stages.clone();
        let mut open: Vec<usize> = stages.iter().copied().collect();
        while let Some(stage) = open.pop() {
            open.extend(self.stages[stage].waits_for().filter(|&before| found.insert(before)));
        }
        found
    }

    /// These stages and, directly or not, those that wait for them.
    pub fn with_what_waits_for(&self, stages: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut found = stages.clone();
        for &stage in &self.order {
            if self.stages[stage].waits_for().any(|before| found.contains(&before)) {
                found.insert(stage);
            }
        }
        found
    }
}
