//! How long a run takes compared with the shortest that is possible, with the scheduler itself on a clock of its own.
//!
//! ```text
//! seeded graphs of 100 to 300 stages: makespan / max(longest path, work / slots)
//! every small graph and all durations: makespan / the best of all timetables
//! ```
//!
//! Every stage takes one slot, and its duration is known (a run knows it from its history; see also the line "counting stages").
//!
//! *Every small graph*: all 2^(n(n-1)/2) graphs on n stages whose edges go forward in file order, for n up to 7. Two of them whose
//! stages wait for the same ones, directly or not, and up to the names of the stages, have the same timetables; so one of each such
//! class is run (2,045 of 2,097,152 for n = 7) with all 3^n durations of 1 to 3, and counts as often as there are graphs in its class.
//! The best timetable may also leave a slot empty for a while; it is found by trying all of them.
//!
//! `just makespan` goes up to 7 stages; a plain `cargo test` up to 5.

use std::collections::BTreeMap;
use std::thread;

use pipe_lm::graph::StageGraph;
use pipe_lm::schedule::{CpuWish, Forecast, Scheduler, Slots, Wish, forecast};

/// The figures to keep.
const MEAN_MAX: f64 = 1.05;
const WORST_MAX: f64 = 1.5;

#[test]
fn a_thousand_seeded_graphs_of_100_or_more_stages() {
    let mut ratios: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut unweighted = Vec::new();
    for seed in 0..1000 {
        let graph = LargeGraph::new(seed);
        let bound = graph.bound() as f64;
        let known = graph.run(&graph.durations);
        graph.check(&known);
        ratios.entry(graph.shape).or_default().push(known.makespan as f64 / bound);
        unweighted.push(graph.run(&vec![1; graph.durations.len()]).makespan as f64 / bound);
    }
    for (shape, ratios) in &ratios {
        eprintln!("{shape:>12}: {}", shown(ratios));
    }
    let all: Vec<f64> = ratios.into_values().flatten().collect();
    eprintln!("         all: {}; counting stages: {}", shown(&all), shown(&unweighted));
    assert_eq!(all.len(), 1000);
    assert!(mean(&all) <= MEAN_MAX, "a run takes {:.4} times the bound", mean(&all));
}

#[test]
fn every_graph_of_up_to_5_stages() {
    every_small_graph(1..=5);
}

#[test]
#[ignore = "a minute; `just makespan`"]
fn every_graph_of_up_to_7_stages() {
    every_small_graph(1..=7);
}

fn mean(ratios: &[f64]) -> f64 {
    ratios.iter().sum::<f64>() / ratios.len() as f64
}

fn shown(ratios: &[f64]) -> String {
    let worst = ratios.iter().copied().fold(0.0, f64::max);
    format!("{} graphs, mean {:.4}, worst {worst:.4}", ratios.len(), mean(ratios))
}

fn schedule(needs: &[Vec<usize>], n_slots: usize, durations: &[u64], weights: &[u64]) -> Forecast {
    let edges = needs.iter().enumerate().flat_map(|(to, needs)| needs.iter().map(move |&from| (from, to)));
    let graph = StageGraph::from_edges(needs.len(), edges).expect("edges go forward");
    let slots = Slots { threads: n_slots, ..Slots::default() };
    let wishes = vec![Wish::of_threads(CpuWish::One); needs.len()];
    forecast(Scheduler::new(graph, wishes, slots).with_weights(weights), durations)
}

// ---- Large graphs.

/// A graph that a seed determines.
struct LargeGraph {
    shape: &'static str,
    needs: Vec<Vec<usize>>,
    durations: Vec<u64>,
    n_slots: usize,
}

impl LargeGraph {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let n_stages = random.between(100, 300);
        let (shape, needs) = match seed % 5 {
            0 => ("layers", layers(&mut random, n_stages)),
            1 => ("sparse", sparse(&mut random, n_stages)),
            2 => ("fork-join", fork_join(&mut random, n_stages)),
            3 => ("sweeps", sweeps(&mut random, n_stages)),
            _ => ("tree", tree(&mut random, n_stages)),
        };
        // From equal ones to a few that take as long as a hundred others.
        let is_skewed = random.between(0, 1) == 1;
        let duration = |random: &mut Random| match is_skewed {
            true => 1 << random.between(0, 9),
            false => random.between(50, 1000) as u64,
        };
        let durations = (0..n_stages).map(|_| duration(&mut random)).collect();
        LargeGraph { shape, needs, durations, n_slots: random.between(2, 16) }
    }

    fn run(&self, weights: &[u64]) -> Forecast {
        schedule(&self.needs, self.n_slots, &self.durations, weights)
    }

    /// No timetable is shorter.
    fn bound(&self) -> u64 {
        let mut end = vec![0; self.needs.len()];
        for stage in 0..end.len() {
            let begin = self.needs[stage].iter().map(|&need| end[need]).max().unwrap_or(0);
            end[stage] = begin + self.durations[stage];
        }
        let longest_path = end.into_iter().max().unwrap_or(0);
        longest_path.max(self.durations.iter().sum::<u64>().div_ceil(self.n_slots as u64))
    }

    /// Needs first, and never more stages at a time than slots.
    fn check(&self, forecast: &Forecast) {
        let mut changes = Vec::new();
        for (stage, &(begin, end, ref grant)) in forecast.stages.iter().enumerate() {
            assert!(self.needs[stage].iter().all(|&need| forecast.stages[need].1 <= begin));
            assert_eq!((end - begin, grant.threads), (self.durations[stage], 1));
            changes.extend([(begin, 1), (end, -1)]);
        }
        // What ends at a moment makes room for what begins then.
        changes.sort_unstable();
        let mut n_running = 0;
        for (_, change) in changes {
            n_running += change;
            assert!(n_running <= self.n_slots as i64);
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn between(&mut self, least: usize, most: usize) -> usize {
        least + (self.next() % (most - least + 1) as u64) as usize
    }

    /// Some of `from`, at least one where there is one.
    fn some_of(&mut self, from: std::ops::Range<usize>, most: usize) -> Vec<usize> {
        if from.is_empty() {
            return Vec::new();
        }
        (0..self.between(1, most)).map(|_| self.between(from.start, from.end - 1)).collect()
    }
}

/// Each stage needs some of the layer before it.
fn layers(random: &mut Random, n_stages: usize) -> Vec<Vec<usize>> {
    let mut needs = Vec::new();
    let mut before = 0..0;
    while needs.len() < n_stages {
        let layer = needs.len()..(needs.len() + random.between(1, 24)).min(n_stages);
        needs.extend(layer.clone().map(|_| random.some_of(before.clone(), 4)));
        before = layer;
    }
    needs
}

/// Each stage needs up to three of those before it, or none.
fn sparse(random: &mut Random, n_stages: usize) -> Vec<Vec<usize>> {
    let need = |stage: usize| if random.between(0, 9) == 0 { Vec::new() } else { random.some_of(0..stage, 3) };
    (0..n_stages).map(need).collect()
}

/// One, then several side by side, then one that needs them all; again and again.
fn fork_join(random: &mut Random, n_stages: usize) -> Vec<Vec<usize>> {
    let mut needs: Vec<Vec<usize>> = vec![Vec::new()];
    while needs.len() < n_stages {
        let fork = needs.len() - 1;
        let middle = needs.len()..(needs.len() + random.between(2, 20)).min(n_stages);
        needs.extend(middle.clone().map(|_| vec![fork]));
        if needs.len() < n_stages {
            needs.push(middle.collect());
        }
    }
    needs
}

/// What a matrix over settings makes: chains that share a beginning, and one stage that compares their ends.
fn sweeps(random: &mut Random, n_stages: usize) -> Vec<Vec<usize>> {
    let n_shared = random.between(1, 6);
    let mut needs: Vec<Vec<usize>> = (0..n_shared).map(|stage| random.some_of(0..stage, 2)).collect();
    let mut ends = Vec::new();
    while needs.len() + 1 < n_stages {
        let length = random.between(1, 8).min(n_stages - 1 - needs.len());
        needs.push(random.some_of(0..n_shared, 2));
        (1..length).for_each(|_| needs.push(vec![needs.len() - 1]));
        ends.push(needs.len() - 1);
    }
    needs.push(ends);
    needs
}

/// Every stage but the first needs one other.
fn tree(random: &mut Random, n_stages: usize) -> Vec<Vec<usize>> {
    (0..n_stages).map(|stage| random.some_of(0..stage, 1)).collect()
}

// ---- Small graphs.

/// Slots of the small graphs.
const N_SLOTS: usize = 2;
/// Durations of their stages are 1 to this.
const DURATION_MAX: usize = 3;

/// How many classes of n stages there are: partially ordered sets without names (OEIS A000112).
const N_CLASSES: [usize; 8] = [1, 1, 2, 5, 16, 63, 318, 2045];

/// Who waits for whom, directly or not: by stage, a bit for each earlier stage.
type Order = Vec<u8>;

fn every_small_graph(sizes: std::ops::RangeInclusive<usize>) {
    let mut all = Ratios::default();
    for n_stages in sizes {
        let classes = classes(n_stages);
        assert_eq!(classes.len(), N_CLASSES[n_stages]);
        let n_graphs: u64 = classes.iter().map(|(_, n)| n).sum();
        assert_eq!(n_graphs, 1 << (n_stages * (n_stages - 1) / 2));
        let n_threads = thread::available_parallelism().map_or(1, usize::from);
        let of_size = thread::scope(|scope| {
            let part = |from: usize| classes.iter().skip(from).step_by(n_threads);
            let started: Vec<_> =
                (0..n_threads).map(|from| scope.spawn(move || Ratios::of(part(from), n_stages))).collect();
            let ended = started.into_iter().map(|part| part.join().expect("it does not panic"));
            ended.fold(Ratios::default(), Ratios::and)
        });
        eprintln!("{n_stages} stages, {} classes of {n_graphs} graphs: {}", classes.len(), of_size.shown());
        all = all.and(of_size);
    }
    eprintln!("all: {}", all.shown());
    assert!(all.sum / all.n <= MEAN_MAX && all.sum_of_classes / all.n_of_classes <= MEAN_MAX);
    assert!(all.worst <= WORST_MAX);
}

/// Sums over graphs with durations.
#[derive(Default)]
struct Ratios {
    n: f64,
    sum: f64,
    sum_counting_stages: f64,
    worst: f64,
    /// The same where each class counts once.
    n_of_classes: f64,
    sum_of_classes: f64,
}

impl Ratios {
    fn of<'c>(classes: impl Iterator<Item = &'c (Order, u64)>, n_stages: usize) -> Self {
        let mut ratios = Ratios::default();
        for (order, n_graphs) in classes {
            let earlier = |mask: u8| (0..n_stages).filter(move |stage| mask >> stage & 1 == 1).collect();
            let needs: Vec<Vec<usize>> = order.iter().map(|&mask| earlier(mask)).collect();
            for durations in all_durations(n_stages) {
                let best = Best::new(order, &durations).time(0, None) as f64;
                let ratio = schedule(&needs, N_SLOTS, &durations, &durations).makespan as f64 / best;
                let unweighted = schedule(&needs, N_SLOTS, &durations, &vec![1; n_stages]).makespan as f64 / best;
                let n = *n_graphs as f64;
                ratios.n += n;
                ratios.sum += n * ratio;
                ratios.sum_counting_stages += n * unweighted;
                ratios.worst = ratios.worst.max(ratio);
                ratios.n_of_classes += 1.0;
                ratios.sum_of_classes += ratio;
            }
        }
        ratios
    }

    fn and(self, other: Self) -> Self {
        Ratios {
            n: self.n + other.n,
            sum: self.sum + other.sum,
            sum_counting_stages: self.sum_counting_stages + other.sum_counting_stages,
            worst: self.worst.max(other.worst),
            n_of_classes: self.n_of_classes + other.n_of_classes,
            sum_of_classes: self.sum_of_classes + other.sum_of_classes,
        }
    }

    fn shown(&self) -> String {
        format!(
            "mean {:.5} (each class once: {:.5}; counting stages: {:.5}), worst {:.4}",
            self.sum / self.n,
            self.sum_of_classes / self.n_of_classes,
            self.sum_counting_stages / self.n,
            self.worst
        )
    }
}

fn all_durations(n_stages: usize) -> impl Iterator<Item = Vec<u64>> {
    (0..DURATION_MAX.pow(n_stages as u32)).map(move |mut number| {
        let mut digit = || {
            let digit = number % DURATION_MAX;
            number /= DURATION_MAX;
            digit as u64 + 1
        };
        (0..n_stages).map(|_| digit()).collect()
    })
}

/// One order of each class, and how many graphs are of that class.
fn classes(n_stages: usize) -> Vec<(Order, u64)> {
    let mut n_graphs: BTreeMap<Order, u64> = BTreeMap::new();
    for edges in 0u32..1 << (n_stages * (n_stages - 1) / 2) {
        *n_graphs.entry(order_of(edges, n_stages)).or_default() += 1;
    }
    // Orders that differ by the names of their stages are led into each other by exchanging neighbours that do not wait for
    // each other, one pair after the other.
    let mut classes = Vec::new();
    while let Some((order, n)) = n_graphs.pop_first() {
        let mut n_of_class = n;
        let mut open = vec![order.clone()];
        while let Some(order) = open.pop() {
            let exchanged = (1..n_stages).filter_map(|stage| exchange(&order, stage));
            for other in exchanged {
                if let Some(n) = n_graphs.remove(&other) {
                    n_of_class += n;
                    open.push(other);
                }
            }
        }
        classes.push((order, n_of_class));
    }
    classes
}

fn order_of(mut edges: u32, n_stages: usize) -> Order {
    let mut order: Order = Vec::with_capacity(n_stages);
    for stage in 0..n_stages {
        let direct = edges & ((1 << stage) - 1);
        edges >>= stage;
        let needs = (0..stage).filter(|need| direct >> need & 1 == 1);
        order.push(needs.fold(direct as u8, |all, need| all | order[need]));
    }
    order
}

/// With the names of `stage` and the one before it exchanged; `None` where one waits for the other.
fn exchange(order: &Order, stage: usize) -> Option<Order> {
    let before = stage - 1;
    if order[stage] >> before & 1 == 1 {
        return None;
    }
    let mut other = order.clone();
    other.swap(before, stage);
    for mask in &mut other[stage + 1..] {
        let (low, high) = (*mask >> before & 1, *mask >> stage & 1);
        *mask = *mask & !(1 << before | 1 << stage) | high << before | low << stage;
    }
    Some(other)
}

/// The best of all timetables on two slots.
struct Best<'a> {
    order: &'a [u8],
    durations: &'a [u64],
    /// By what is done, and by what still runs and for how long; 0 where it is not known yet.
    known: Vec<u8>,
}

impl<'a> Best<'a> {
    fn new(order: &'a [u8], durations: &'a [u64]) -> Self {
        let n_running = 1 + order.len() * DURATION_MAX;
        Best { order, durations, known: vec![0; n_running << order.len()] }
    }

    /// From a moment on in which the stages `done` have ended, and one may be running for so long still. Stages begin at the
    /// beginning or when another one ends: in any other timetable they can be moved forward.
    fn time(&mut self, done: u8, running: Option<(usize, u64)>) -> u64 {
        let n_stages = self.order.len();
        if done.count_ones() as usize == n_stages {
            return 0;
        }
        let what_runs = running.map_or(0, |(stage, left)| 1 + stage * DURATION_MAX + left as usize - 1);
        let key = what_runs << n_stages | usize::from(done);
        if self.known[key] != 0 {
            return u64::from(self.known[key]);
        }
        let is_running = |stage: usize| running.is_some_and(|(other, _)| other == stage);
        let can_begin =
            |stage: &usize| done >> stage & 1 == 0 && !is_running(*stage) && self.order[*stage] & !done == 0;
        let ready: Vec<usize> = (0..n_stages).filter(can_begin).collect();
        let best = match running {
            Some((stage, left)) => {
                let mut best = left + self.time(done | 1 << stage, None);
                for &other in &ready {
                    best = best.min(self.both(done, (stage, left), (other, self.durations[other])));
                }
                best
            }
            None => {
                let mut best = u64::MAX;
                for (position, &one) in ready.iter().enumerate() {
                    best = best.min(self.durations[one] + self.time(done | 1 << one, None));
                    for &other in &ready[position + 1..] {
                        best = best.min(self.both(done, (one, self.durations[one]), (other, self.durations[other])));
                    }
                }
                best
            }
        };
        self.known[key] = best as u8;
        best
    }

    /// Until the first of two ends, and from there on.
    fn both(&mut self, done: u8, one: (usize, u64), other: (usize, u64)) -> u64 {
        let (first, second) = if one.1 <= other.1 { (one, other) } else { (other, one) };
        let done = done | 1 << first.0;
        if first.1 == second.1 {
            first.1 + self.time(done | 1 << second.0, None)
        } else {
            first.1 + self.time(done, Some((second.0, second.1 - first.1)))
        }
    }
}

#[test]
fn the_best_timetable_may_leave_a_slot_empty() {
    // 0 (1) -> 2 (3), 1 (1) alone ... : starting the long 3 at 0 instead of waiting for 2 costs time.
    let order = vec![0, 0, 0b01, 0];
    let durations = [1, 1, 3, 3];
    assert_eq!(Best::new(&order, &durations).time(0, None), 4);
    // A chain and as much beside it: nothing is lost.
    assert_eq!(Best::new(&[0, 1, 3, 0], &[1, 2, 3, 3]).time(0, None), 6);
}
