//! Which documents share a pack: best-fit decreasing.
//!
//! ```text
//! lengths 5 3 9 2 4, capacity 10      longest first: 9 | 5 | 4 -> beside 5 | 3 -> alone | 2 -> beside 3
//! packs   [0 4] [1 3] [2]             then in the order of the data set, within a pack and among packs
//! ```
//!
//! The documents of a pack keep their order in the data set, and so do the packs by their first document: without
//! shuffling, training sees the data nearly as the file has it, and not sorted by length. Packs never grow beyond 11/9
//! of the best possible number plus 6/9 (Dósa 2007 for first-fit decreasing; best-fit decreasing has the same bound).

use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Packs as positions in `lengths`. Each length is 1 to `capacity` tokens. O(n log n).
pub(crate) fn best_fit_decreasing(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
    // Ties by position, so that the order is one only.
    longest_first.sort_unstable_by_key(|i| (Reverse(lengths[*i]), *i));

    let mut packs: Vec<Vec<usize>> = Vec::new();
    let mut by_room: BTreeSet<(usize, usize)> = BTreeSet::new(); // (tokens still free, pack), none with 0 free
    for document in longest_first {
        let length = lengths[document];
        assert!((1..=capacity).contains(&length), "a document of {length} tokens does not fit a pack of {capacity}");
        let (room, pack) = match by_room.range((length, 0)..).next().copied() {
            Some(best) => {
                by_room.remove(&best);
                best
            }
            None => {
                packs.push(Vec::new());
                (capacity, packs.len() - 1)
            }
        };
        packs[pack].push(document);
        if room > length {
            by_room.insert((room - length, pack));
        }
    }
    packs.iter_mut().for_each(|pack| pack.sort_unstable());
    packs.sort_unstable_by_key(|pack| pack[0]);
    packs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_documentation() {
        assert_eq!(best_fit_decreasing(&[5, 3, 9, 2, 4], 10), [vec![0, 4], vec![1, 3], vec![2]]);
    }

    #[test]
    fn the_fullest_pack_with_room_is_taken() {
        // After 7 and 6 the 3 fits both; best fit takes the pack with 3 free, so that the 4 fits too.
        assert_eq!(best_fit_decreasing(&[7, 6, 4, 3], 10), [vec![0, 3], vec![1, 2]]);
    }

    #[test]
    fn no_documents_no_packs() {
        assert!(best_fit_decreasing(&[], 10).is_empty());
    }

    /// The quadratic definition.
    fn first_fit_decreasing(lengths: &[usize], capacity: usize) -> usize {
        let mut sorted = lengths.to_vec();
        sorted.sort_unstable_by_key(|length| Reverse(*length));
        let mut free: Vec<usize> = Vec::new();
        for length in sorted {
            match free.iter_mut().find(|room| **room >= length) {
                Some(room) => *room -= length,
                None => free.push(capacity - length),
            }
        }
        free.len()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn packs_hold_every_document_once_and_never_too_much(
            capacity in 1usize..200,
            raw in prop::collection::vec(1usize..1000, 0..200),
        ) {
            let lengths: Vec<usize> = raw.iter().map(|x| x % capacity + 1).collect();
            let packs = best_fit_decreasing(&lengths, capacity);
            let mut seen: Vec<usize> = packs.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for pack in &packs {
                prop_assert!(pack.iter().map(|i| lengths[*i]).sum::<usize>() <= capacity);
                prop_assert!(pack.is_sorted());
            }
            prop_assert!(packs.is_sorted_by_key(|pack| pack[0]));
            // 11/9 of the lower bound by volume is not reached by every list; that of first fit is near.
            let first_fit = first_fit_decreasing(&lengths, capacity);
            prop_assert!(packs.len() * 9 <= first_fit * 11 + 6, "{} packs, first fit {first_fit}", packs.len());
            // No two packs could be one.
            let mut sums: Vec<usize> = packs.iter().map(|p| p.iter().map(|i| lengths[*i]).sum()).collect();
            sums.sort_unstable();
            if sums.len() > 1 {
                prop_assert!(sums[0] + sums[1] > capacity);
            }
        }
    }
}
