//! Places boxes in layers from left to right, so that few lines cross and none runs through a box.
//!
//! ```text
//! layer 0     1        2                       Sugiyama, Tagawa, Toda (1981), in four steps:
//! [dataset]-->[text]-->[packed]--->[adapter]    1  layer = longest way from a start
//!                 \--->[lengths]   /            2  a line over several layers gets a point in each
//! [base]------ . ------ . --------/             3  order within layers by the mean of the neighbours
//! ```
//!
//! 4: heights, as near to the neighbours as the order and the gaps allow.
//!
//! It deliberately knows no names and no drawing.

use std::collections::BTreeMap;

/// Rounds of ordering; more has changed nothing on graphs of 30 boxes.
const N_ROUNDS: usize = 12;

/// A box with its size and where lines end on it, from its top.
#[derive(Clone, Debug, Default)]
pub(super) struct BoxSize {
    pub(super) height: f64,
    /// Ends of lines that come in.
    pub(super) inputs: Vec<f64>,
    /// Starts of lines that go out.
    pub(super) outputs: Vec<f64>,
}

/// From output `output` of box `from` to input `input` of box `to`; `from` comes before `to` in some order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) output: usize,
    pub(super) to: usize,
    pub(super) input: usize,
}

/// Where everything is.
#[derive(Debug)]
pub(super) struct Layout {
    /// The layer of each box.
    pub(super) layers: Vec<usize>,
    /// The top of each box.
    pub(super) tops: Vec<f64>,
    /// For each link, the heights at which it passes the layers between its boxes.
    pub(super) bends: Vec<Vec<f64>>,
    /// Of all of it.
    pub(super) height: f64,
}

/// A box, or a point of a line.
#[derive(Debug)]
struct Item {
    layer: usize,
    height: f64,
    /// (other item, end there, end here), the ends as offsets from the tops.
    before: Vec<(usize, f64, f64)>,
    after: Vec<(usize, f64, f64)>,
}

/// Lays out `boxes`, with `gap` between what is above each other.
pub(super) fn lay_out(boxes: &[BoxSize], links: &[Link], gap: f64) -> Layout {
    let layers = layers(boxes.len(), links);
    let mut items: Vec<Item> = boxes
        .iter()
        .zip(&layers)
        .map(|(size, &layer)| Item { layer, height: size.height, before: Vec::new(), after: Vec::new() })
        .collect();
    let ways: Vec<Vec<usize>> = {
        // Lines from one output share their points: they part as late as they can.
        let mut points: BTreeMap<(usize, usize, usize), usize> = BTreeMap::new();
        links.iter().map(|link| add_way(&mut items, &mut points, boxes, &layers, *link)).collect()
    };
    let n_layers = layers.iter().max().map_or(0, |last| last + 1);
    let mut order: Vec<Vec<usize>> = vec![Vec::new(); n_layers];
    (0..items.len()).for_each(|item| order[items[item].layer].push(item));
    sort(&mut order, &items);
    let tops = heights(&order, &items, gap);
    let bends = ways.iter().map(|way| way.iter().map(|&item| tops[item]).collect()).collect();
    let height = tops.iter().zip(&items).map(|(top, item)| top + item.height).fold(0.0, f64::max);
    Layout { layers, tops: tops[..boxes.len()].to_vec(), bends, height }
}

/// The longest way from a start; what has nothing before it stands just before what it feeds.
fn layers(n_boxes: usize, links: &[Link]) -> Vec<usize> {
    let mut layers = vec![0_usize; n_boxes];
    // As many rounds as the longest way is long; the links are acyclic.
    for _ in 0..n_boxes {
        let before = layers.clone();
        links.iter().for_each(|link| layers[link.to] = layers[link.to].max(layers[link.from] + 1));
        if layers == before {
            break;
        }
    }
    for stage in 0..n_boxes {
        let is_start = links.iter().all(|link| link.to != stage);
        let first_after = links.iter().filter(|link| link.from == stage).map(|link| layers[link.to]).min();
        if let (true, Some(first_after)) = (is_start, first_after) {
            layers[stage] = first_after.saturating_sub(1);
        }
    }
    layers
}

/// The points of a link, made where no other link of its output has made them.
fn add_way(
    items: &mut Vec<Item>,
    points: &mut BTreeMap<(usize, usize, usize), usize>,
    boxes: &[BoxSize],
    layers: &[usize],
    link: Link,
) -> Vec<usize> {
    let mut way = Vec::new();
    let (mut last, mut last_end) = (link.from, boxes[link.from].outputs[link.output]);
    for layer in layers[link.from] + 1..layers[link.to] {
        let point = *points.entry((link.from, link.output, layer)).or_insert_with(|| {
            items.push(Item { layer, height: 0.0, before: vec![(last, last_end, 0.0)], after: Vec::new() });
            let point = items.len() - 1;
            items[last].after.push((point, 0.0, last_end));
            point
        });
        way.push(point);
        (last, last_end) = (point, 0.0);
    }
    let end = boxes[link.to].inputs[link.input];
    items[link.to].before.push((last, last_end, end));
    items[last].after.push((link.to, end, last_end));
    way
}

/// Sorts every layer by the mean place of what its items are connected to, to and fro; the order with the fewest crossings stays.
fn sort(order: &mut Vec<Vec<usize>>, items: &[Item]) {
    let mut best = order.clone();
    let mut n_best = n_crossings(order, items);
    for round in 0..N_ROUNDS {
        let is_forth = round % 2 == 0;
        let layers: Vec<usize> = if is_forth { (0..order.len()).collect() } else { (0..order.len()).rev().collect() };
        for layer in layers {
            let places = places(order, items.len());
            let mean = |item: usize| {
                let neighbours = if is_forth { &items[item].before } else { &items[item].after };
                // Ends further down on a box count as a little more: its lines do not cross each other.
                let sum: f64 = neighbours.iter().map(|&(other, end, _)| places[other] + end / 1e4).sum();
                if neighbours.is_empty() { places[item] } else { sum / neighbours.len() as f64 }
            };
            let mut sorted: Vec<(f64, usize)> = order[layer].iter().map(|&item| (mean(item), item)).collect();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            order[layer] = sorted.into_iter().map(|(_, item)| item).collect();
        }
        let n = n_crossings(order, items);
        if n < n_best {
            (best, n_best) = (order.clone(), n);
        }
    }
    *order = best;
}

/// The place of each item in its layer, from 0 to 1.
fn places(order: &[Vec<usize>], n_items: usize) -> Vec<f64> {
    let mut places = vec![0.0; n_items];
    for layer in order {
        layer.iter().enumerate().for_each(|(place, &item)| places[item] = (place as f64 + 0.5) / layer.len() as f64);
    }
    places
}

fn n_crossings(order: &[Vec<usize>], items: &[Item]) -> usize {
    let places = places(order, items.len());
    let mut n = 0;
    for layer in order {
        let lines: Vec<(f64, f64)> = layer
            .iter()
            .flat_map(|&item| items[item].after.iter().map(move |&(other, end, here)| (item, other, end, here)))
            .map(|(item, other, end, here)| (places[item] + here / 1e4, places[other] + end / 1e4))
            .collect();
        for (position, a) in lines.iter().enumerate() {
            n += lines[position + 1..].iter().filter(|b| (a.0 - b.0) * (a.1 - b.1) < 0.0).count();
        }
    }
    n
}

/// Tops: as near as possible to where lines come from and go to, in the order given.
fn heights(order: &[Vec<usize>], items: &[Item], gap: f64) -> Vec<f64> {
    let mut tops = vec![0.0; items.len()];
    for layer in order {
        let mut top = 0.0;
        for &item in layer {
            tops[item] = top;
            top += items[item].height + gap;
        }
    }
    for round in 0..2 * N_ROUNDS {
        let layers: Vec<usize> =
            if round % 2 == 0 { (0..order.len()).collect() } else { (0..order.len()).rev().collect() };
        for layer in layers {
            let wish = |item: usize| {
                let neighbours = items[item].before.iter().chain(&items[item].after);
                let wishes: Vec<f64> = neighbours.map(|&(other, end, here)| tops[other] + end - here).collect();
                if wishes.is_empty() { tops[item] } else { wishes.iter().sum::<f64>() / wishes.len() as f64 }
            };
            let wishes: Vec<f64> = order[layer].iter().map(|&item| wish(item)).collect();
            let heights: Vec<f64> = order[layer].iter().map(|&item| items[item].height + gap).collect();
            let placed = keep_apart(&wishes, &heights);
            order[layer].iter().zip(placed).for_each(|(&item, top)| tops[item] = top);
        }
    }
    let highest = tops.iter().copied().fold(f64::INFINITY, f64::min);
    tops.iter().map(|top| top - highest).collect()
}

/// The tops nearest to `wishes` (least squares) of which each is at least the one before plus its height: pooling of adjacent
/// violators, on wishes from which the heights above are taken off.
fn keep_apart(wishes: &[f64], heights: &[f64]) -> Vec<f64> {
    let mut above = 0.0;
    // (sum of wishes, how many) of items that touch each other.
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (wish, height) in wishes.iter().zip(heights) {
        pools.push((wish - above, 1));
        above += height;
        while let [.., (sum_a, n_a), (sum_b, n_b)] = pools[..] {
            if sum_a / n_a as f64 <= sum_b / n_b as f64 {
                break;
            }
            pools.truncate(pools.len() - 2);
            pools.push((sum_a + sum_b, n_a + n_b));
        }
    }
    let mut above = 0.0;
    let means = pools.iter().flat_map(|&(sum, n)| std::iter::repeat_n(sum / n as f64, n));
    means
        .zip(heights)
        .map(|(mean, height)| {
            let top = mean + above;
            above += height;
            top
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes(n: usize) -> Vec<BoxSize> {
        vec![BoxSize { height: 40.0, inputs: vec![20.0; 4], outputs: vec![20.0] }; n]
    }

    fn link(from: usize, to: usize, input: usize) -> Link {
        Link { from, output: 0, to, input }
    }

    #[test]
    fn a_start_stands_just_before_what_it_feeds() {
        let layout = lay_out(&boxes(4), &[link(0, 1, 0), link(1, 2, 0), link(3, 2, 1)], 10.0);
        assert_eq!(layout.layers, [0, 1, 2, 1]);
    }

    #[test]
    fn boxes_do_not_touch_and_lines_pass_between_them() {
        // 0 -> 1 -> 2 -> 3, and 0 straight to 2 and 3: its line has a bend in the layers of 1 and of 2.
        let links = [link(0, 1, 0), link(1, 2, 0), link(2, 3, 0), link(0, 2, 1), link(0, 3, 1)];
        let layout = lay_out(&boxes(4), &links, 10.0);
        assert_eq!(layout.bends.iter().map(Vec::len).collect::<Vec<_>>(), [0, 0, 0, 1, 2]);
        assert_eq!(layout.bends[3][0], layout.bends[4][0], "lines of one output share their way");
        for (bend, stage) in [(layout.bends[4][0], 1), (layout.bends[4][1], 2)] {
            let top = layout.tops[stage];
            assert!(bend <= top - 10.0 + 1e-9 || bend >= top + 50.0 - 1e-9, "{bend} runs through {top}");
        }
    }

    #[test]
    fn crossings_that_can_be_avoided_are() {
        // Two chains, the second layer given in the wrong order.
        let links = [link(0, 3, 0), link(1, 2, 0)];
        let layout = lay_out(&boxes(4), &links, 10.0);
        assert_eq!(layout.tops[0] < layout.tops[1], layout.tops[3] < layout.tops[2]);
    }

    #[test]
    fn nearest_places_in_order() {
        assert_eq!(keep_apart(&[5.0, 5.0], &[10.0, 10.0]), [0.0, 10.0]);
        assert_eq!(keep_apart(&[0.0, 100.0], &[10.0, 10.0]), [0.0, 100.0]);
        assert_eq!(keep_apart(&[], &[]), [0.0; 0]);
    }
}
