//! What can be seen of a line: its points by places, thinned.
//!
//! ```text
//! 100,000 points --[columns]--> of each column of the picture the first, lowest, highest and last point
//!                --[straight]--> without those that lie on the line between their neighbours
//! ```
//!
//! So no peak is lost, and a straight line is two points.

/// (x, y) in units of the drawing.
pub(crate) type Place = (f64, f64);

/// How far from the line between its neighbours, in units of the drawing, a point may lie and be left out: an eighth of a
/// pixel, which no eye sees.
const TOLERANCE: f64 = 0.25;

/// Most points that a straight piece swallows: looking back over more would take quadratic time.
const STRAIGHT_MAX: usize = 512;

/// The first, lowest, highest and last of each column of `width` units; `places` with x rising.
pub(crate) fn columns(places: &[Place], width: f64) -> Vec<Place> {
    let column = |place: &Place| (place.0 / width).floor();
    let mut kept = Vec::new();
    for group in places.chunk_by(|a, b| column(a) == column(b)) {
        let by_y = |a: &&usize, b: &&usize| group[**a].1.total_cmp(&group[**b].1).then(a.cmp(b));
        let all: Vec<usize> = (0..group.len()).collect();
        let ends = [Some(&0), all.iter().min_by(by_y), all.iter().max_by(by_y), all.last()];
        let mut chosen: Vec<usize> = ends.into_iter().flatten().copied().collect();
        chosen.sort_unstable();
        chosen.dedup();
        kept.extend(chosen.into_iter().map(|i| group[i]));
    }
    kept
}

/// `places` without those that lie within [`TOLERANCE`] of the line between the kept ones around them.
pub(crate) fn straight(places: &[Place]) -> Vec<Place> {
    let (Some(first), Some(last)) = (places.first(), places.last()) else { return Vec::new() };
    let mut kept = vec![*first];
    let mut start = 0;
    for end in 1..places.len() {
        let swallowed = &places[start + 1..end];
        let is_straight = swallowed.len() < STRAIGHT_MAX
            && swallowed.iter().all(|place| distance(*place, places[start], places[end]) <= TOLERANCE);
        if !is_straight {
            kept.push(places[end - 1]);
            start = end - 1;
        }
    }
    if places.len() > 1 {
        kept.push(*last);
    }
    kept
}

/// From `place` to the piece of a line between `a` and `b`.
pub(crate) fn distance(place: Place, a: Place, b: Place) -> f64 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length_squared = dx * dx + dy * dy;
    let along = if length_squared == 0.0 {
        0.0
    } else {
        (((place.0 - a.0) * dx + (place.1 - a.1) * dy) / length_squared).clamp(0.0, 1.0)
    };
    let (x, y) = (place.0 - a.0 - along * dx, place.1 - a.1 - along * dy);
    (x * x + y * y).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_survive_and_order_is_kept() {
        let mut places: Vec<Place> = (0..100_000).map(|i| (f64::from(i) / 50.0, f64::from(i * 7919 % 100))).collect();
        places[54_321].1 = 1e6;
        places[54_399].1 = -1e6;
        let kept = columns(&places, 2.0);
        assert!(kept.len() <= 4 * 1000, "{} points", kept.len());
        assert!(kept.contains(&places[54_321]) && kept.contains(&places[54_399]));
        assert_eq!((kept.first(), kept.last()), (places.first(), places.last()));
        assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn a_straight_line_is_two_points_and_a_corner_stays() {
        let line = |n: i32| (0..n).map(|i| (f64::from(i), f64::from(i) * 0.5)).collect::<Vec<Place>>();
        assert_eq!(straight(&line(300)), [(0.0, 0.0), (299.0, 149.5)]);
        let corner = [(0.0, 0.0), (5.0, 5.0), (10.0, 10.0), (15.0, 5.0), (20.0, 0.0)];
        assert_eq!(straight(&corner), [(0.0, 0.0), (10.0, 10.0), (20.0, 0.0)]);
        assert_eq!(straight(&[(1.0, 2.0)]), [(1.0, 2.0)]);
        assert_eq!(straight(&[]), []);
    }

    #[test]
    fn what_is_left_out_was_near_what_is_drawn() {
        let places: Vec<Place> = (0..2000).map(|i| (f64::from(i) / 2.0, f64::from(i * i % 977) / 9.0)).collect();
        let kept = straight(&places);
        for place in &places {
            let nearest = kept.windows(2).map(|pair| distance(*place, pair[0], pair[1])).fold(f64::INFINITY, f64::min);
            assert!(nearest <= TOLERANCE, "{place:?} is {nearest} away");
        }
    }
}
