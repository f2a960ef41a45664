//! Which stage comes before which: a topological order, or the cycles that forbid one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::DiGraph;

/// Cycles of stages: each one lists the stages in the order in which data would flow, the last one feeding the first,
/// beginning with the one that comes first in the file. One for each group of stages that wait for each other.
pub type Cycles = Vec<Vec<usize>>;

/// Orders stages so that each comes after all it waits for, and as in the file where that leaves a choice.
/// `waits_for[stage]` lists what a stage waits for.
///
/// # Errors
/// The cycles, where there is no such order.
pub fn sort_stages(waits_for: &[Vec<usize>]) -> Result<Vec<usize>, Cycles> {
    let mut feeds = vec![Vec::new(); waits_for.len()];
    for (stage, before) in waits_for.iter().enumerate() {
        before.iter().for_each(|&from| feeds[from].push(stage));
    }
    let mut n_waiting: Vec<usize> = waits_for.iter().map(Vec::len).collect();
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..waits_for.len()).filter(|&stage| n_waiting[stage] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(waits_for.len());
    while let Some(Reverse(stage)) = ready.pop() {
        order.push(stage);
        for &next in &feeds[stage] {
            n_waiting[next] -= 1;
            if n_waiting[next] == 0 {
                ready.push(Reverse(next));
            }
        }
    }
    if order.len() == waits_for.len() { Ok(order) } else { Err(cycles(&feeds)) }
}

/// The shortest cycle through the first stage of each strongly connected group.
fn cycles(feeds: &[Vec<usize>]) -> Cycles {
    let mut graph: DiGraph<(), ()> = DiGraph::new();
    let nodes: Vec<_> = feeds.iter().map(|_| graph.add_node(())).collect();
    for (from, to) in feeds.iter().enumerate().flat_map(|(from, to)| to.iter().map(move |&to| (from, to))) {
        graph.add_edge(nodes[from], nodes[to], ());
    }
    let is_cyclic = |group: &[usize]| group.len() > 1 || feeds[group[0]].contains(&group[0]);
    let groups =
        kosaraju_scc(&graph).into_iter().map(|group| group.iter().map(|node| node.index()).collect::<Vec<_>>());
    let mut found: Cycles = groups
        .filter(|group| is_cyclic(group))
        .filter_map(|group| shortest_cycle(feeds, *group.iter().min().expect("a group has a stage")))
        .collect();
    found.sort_unstable();
    found
}

/// Breadth first from `first` until it is met again.
fn shortest_cycle(feeds: &[Vec<usize>], first: usize) -> Option<Vec<usize>> {
    let mut came_from = vec![None; feeds.len()];
    let mut pending = VecDeque::from([first]);
    while let Some(stage) = pending.pop_front() {
        for &next in &feeds[stage] {
            if next == first {
                let mut path: Vec<usize> = std::iter::successors(Some(stage), |&at| came_from[at]).collect();
                path.reverse();
                return Some(path);
            }
            if came_from[next].is_none() {
                came_from[next] = Some(stage);
                pending.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_group_of_stages_that_wait_for_each_other_gives_one_cycle() {
        // 0 -> 1 -> 0, and 2 -> 3 -> 4 -> 2 with a shortcut 2 -> 4, and 5 behind both.
        let waits_for = [vec![1], vec![0], vec![4], vec![2], vec![2, 3], vec![0, 2]];
        assert_eq!(sort_stages(&waits_for), Err(vec![vec![0, 1], vec![2, 4]]));
    }

    #[test]
    fn a_long_chain_needs_no_deep_stack() {
        let n = 100_000;
        let chain: Vec<Vec<usize>> = (0..n).map(|stage| vec![(stage + n - 1) % n]).collect();
        assert_eq!(sort_stages(&chain).expect_err("it is a ring")[0].len(), n);
    }

    proptest! {
        #[test]
        fn a_stage_comes_after_all_it_waits_for(edges in prop::collection::vec((0usize..30, 0usize..30), 0..80)) {
            let mut waits_for = vec![Vec::new(); 30];
            edges.iter().for_each(|&(from, to)| waits_for[to].push(from));
            match sort_stages(&waits_for) {
                Ok(order) => {
                    let mut place = vec![usize::MAX; 30];
                    order.iter().enumerate().for_each(|(at, &stage)| place[stage] = at);
                    for (stage, before) in waits_for.iter().enumerate() {
                        prop_assert!(before.iter().all(|&from| place[from] < place[stage]));
                    }
                }
                Err(cycles) => {
                    prop_assert!(!cycles.is_empty());
                    for cycle in cycles {
                        for (idx, stage) in cycle.iter().enumerate() {
                            let before = cycle[(idx + cycle.len() - 1) % cycle.len()];
                            prop_assert!(waits_for[*stage].contains(&before), "{before} does not feed {stage}");
                        }
                    }
                }
            }
        }
    }
}
