//! The graph of a pipeline: stages and who waits for whom, from `inputs:` and `needs:` alike.
//!
//! ```text
//! dataset -> text -> packed --> adapter --> released
//! base ----------------^----------^------------^
//! ```
//!
//! Stages are their positions in [`Pipeline::stages`]. It is acyclic by construction: cycles are found by `spec` and
//! reported there. It deliberately knows nothing of keys, verdicts or time.

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::spec::{Cycles, Pipeline, sort_stages};

/// A directed acyclic graph over `0..n_stages`; an edge goes from a stage to one that waits for it.
#[derive(Clone, Debug)]
pub struct StageGraph {
    graph: DiGraph<(), ()>,
    order: Vec<usize>,
}

impl StageGraph {
    /// The graph of a checked pipeline.
    pub fn new(pipeline: &Pipeline) -> Self {
        let edges =
            pipeline.stages.iter().enumerate().flat_map(|(to, stage)| stage.waits_for().map(move |from| (from, to)));
        StageGraph::from_edges(pipeline.stages.len(), edges).expect("a loaded pipeline has no cycle")
    }

    /// The graph with `edges` of (stage, a stage that waits for it); an edge given twice counts once.
    ///
    /// # Errors
    /// The cycles, a stage that waits for itself being one.
    ///
    /// # Panics
    /// When an edge names a stage that is not in `0..n_stages`.
    pub fn from_edges(n_stages: usize, edges: impl IntoIterator<Item = (usize, usize)>) -> Result<Self, Cycles> {
        let mut edges: Vec<(usize, usize)> = edges.into_iter().collect();
        edges.sort_unstable();
        edges.dedup();
        let mut waits_for = vec![Vec::new(); n_stages];
        for &(from, to) in &edges {
            assert!(from < n_stages, "the edge ({from}, {to}) leaves a graph of {n_stages} stages");
            waits_for[to].push(from);
        }
        let order = sort_stages(&waits_for)?;
        let mut graph = DiGraph::with_capacity(n_stages, edges.len());
        (0..n_stages).for_each(|_| {
            graph.add_node(());
        });
        // petgraph lists the edge that was added last first: added in reverse, neighbours come in file order.
        for &(from, to) in edges.iter().rev() {
            graph.add_edge(NodeIndex::new(from), NodeIndex::new(to), ());
        }
        Ok(StageGraph { graph, order })
    }

    /// How many stages it has.
    pub fn n_stages(&self) -> usize {
        self.order.len()
    }

    /// Every stage after those it waits for; in file order among equals.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// What `stage` waits for directly, in file order.
    pub fn predecessors(&self, stage: usize) -> impl Iterator<Item = usize> {
        self.graph.neighbors_directed(NodeIndex::new(stage), Direction::Incoming).map(NodeIndex::index)
    }

    /// What waits for `stage` directly, in file order.
    pub fn successors(&self, stage: usize) -> impl Iterator<Item = usize> {
        self.graph.neighbors_directed(NodeIndex::new(stage), Direction::Outgoing).map(NodeIndex::index)
    }

    /// All that waits for `stage`, directly or not, in file order: what a failure of it makes impossible.
    pub fn descendants(&self, stage: usize) -> Vec<usize> {
        let mut found = vec![false; self.n_stages()];
        let mut pending = vec![stage];
        while let Some(current) = pending.pop() {
            for next in self.successors(current) {
                if !std::mem::replace(&mut found[next], true) {
                    pending.push(next);
                }
            }
        }
        (0..self.n_stages()).filter(|&idx| found[idx]).collect()
    }

    /// Per stage: the heaviest path from it to an end, its own weight included. The ready stage with the largest value
    /// is the one to start first.
    pub fn longest_remaining(&self, weight: impl Fn(usize) -> u64) -> Vec<u64> {
        let mut remaining = vec![0; self.n_stages()];
        for &stage in self.order.iter().rev() {
            let after = self.successors(stage).map(|next| remaining[next]).max().unwrap_or(0);
            remaining[stage] = weight(stage).saturating_add(after);
        }
        remaining
    }

    /// Per stage: the number of stages on the longest path before it; 0 where nothing is. Stages of one layer can run
    /// together.
    pub fn layers(&self) -> Vec<usize> {
        let mut layers = vec![0; self.n_stages()];
        for &stage in &self.order {
            layers[stage] = self.predecessors(stage).map(|before| layers[before] + 1).max().unwrap_or(0);
        }
        layers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0 -> 1 -> 3, 0 -> 2 -> 3, 4 alone.
    fn diamond() -> StageGraph {
        StageGraph::from_edges(5, [(2, 3), (0, 2), (1, 3), (0, 1), (0, 1)]).expect("no cycle")
    }

    #[test]
    fn neighbours_come_once_and_in_file_order() {
        let graph = diamond();
        assert_eq!(graph.successors(0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(graph.predecessors(3).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(graph.descendants(0), [1, 2, 3]);
        assert_eq!(graph.descendants(4), [] as [usize; 0]);
    }

    #[test]
    fn order_is_topological_and_the_file_order_among_equals() {
        assert_eq!(diamond().order(), [0, 1, 2, 3, 4]);
        let graph = StageGraph::from_edges(4, [(3, 0), (2, 1)]).expect("no cycle");
        assert_eq!(graph.order(), [2, 1, 3, 0]);
    }

    #[test]
    fn longest_remaining_is_the_heaviest_path_to_an_end() {
        let weights = [1, 10, 2, 5, 3];
        assert_eq!(diamond().longest_remaining(|idx| weights[idx]), [16, 15, 7, 5, 3]);
        assert_eq!(diamond().layers(), [0, 1, 1, 2, 0]);
    }

    #[test]
    fn a_cycle_is_an_error_with_its_path() {
        assert_eq!(
            StageGraph::from_edges(4, [(0, 1), (1, 2), (2, 1), (2, 3)]).expect_err("1 and 2 wait for each other"),
            [[1, 2]]
        );
        assert_eq!(StageGraph::from_edges(1, [(0, 0)]).expect_err("it waits for itself"), [[0]]);
    }
}
