//! Which documents share a pack, from their lengths alone: best-fit decreasing, and first fit.
//!
//! ```text
//! lengths 5 3 9 2 4, capacity 10
//!
//! best-fit decreasing   longest first: 9 | 5 | 4 -> beside 5 | 3 -> alone | 2 -> beside 3       [0 4] [1 3] [2]
//! first fit             in order:      5 | 3 -> beside 5 | 9 | 2 -> beside 5 3 | 4 -> alone     [0 1 3] [2] [4]
//! ```
//!
//! The documents of a pack keep their order in the data set, and so do the packs by their first document: without shuffling,
//! training sees the data nearly as the file has it, and not sorted by length.
//!
//! | | packs at most, where the best is `n` | source |
//! |---|---|---|
//! | best-fit decreasing | 11/9 n + 6/9 | Dósa 2007 for first-fit decreasing; best-fit decreasing has the same bound |
//! | first fit | 1.7 n | Dósa and Sgall 2013 |
//!
//! Both take O(n log n). They deliberately know nothing of tokens: what is cut or left out was decided before.

use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Packs of documents; each document is in exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packs {
    /// Positions of documents, pack after pack, rising in each.
    documents: Vec<u32>,
    /// Where each pack ends in `documents`.
    ends: Vec<usize>,
}

impl Packs {
    /// Number of packs.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there was no document.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The documents of the pack at `index`, from 0 to below [`Packs::len`]: positions in the lengths, rising.
    ///
    /// # Panics
    /// Where there is no such pack.
    pub fn pack(&self, index: usize) -> &[u32] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.documents[start..self.ends[index]]
    }

    /// Every pack, in the order of their first documents.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        (0..self.len()).map(|index| self.pack(index))
    }

    /// Groups documents by `pack_of`, the pack of each, from 0 to below `n_packs` in any order.
    fn group(mut pack_of: Vec<u32>, n_packs: usize) -> Packs {
        // Packs get the order of their first documents.
        let mut new_number = vec![u32::MAX; n_packs];
        let mut sizes: Vec<usize> = Vec::with_capacity(n_packs);
        for pack in &mut pack_of {
            let number = &mut new_number[*pack as usize];
            if *number == u32::MAX {
                *number = sizes.len() as u32;
                sizes.push(0);
            }
            *pack = *number;
            sizes[*number as usize] += 1;
        }
        let mut next: Vec<usize> =
            sizes.iter().scan(0, |end, size| Some(std::mem::replace(end, *end + size))).collect();
        let mut documents = vec![0; pack_of.len()];
        for (document, pack) in (0..).zip(pack_of) {
            let place = &mut next[pack as usize];
            documents[*place] = document;
            *place += 1;
        }
        Packs { documents, ends: next }
    }
}

/// The longest document first, each into the fullest pack that has room for it, else into a new one. `lengths`: 1 to
/// `capacity` tokens each.
///
/// # Panics
/// On a length outside of that range, and on 2^32 documents or more.
pub fn best_fit_decreasing(lengths: &[u32], capacity: u32) -> Packs {
    check(lengths, capacity);
    let mut longest_first: Vec<u32> = (0..lengths.len() as u32).collect();
    // Ties by position, so that the order is one only.
    longest_first.sort_unstable_by_key(|i| (Reverse(lengths[*i as usize]), *i));

    let mut pack_of = vec![0; lengths.len()];
    let mut n_packs = 0;
    let mut by_room: BTreeSet<(u32, u32)> = BTreeSet::new(); // (tokens still free, pack), none with 0 free
    for document in longest_first {
        let length = lengths[document as usize];
        let (room, pack) = match by_room.range((length, 0)..).next().copied() {
            Some(best) => {
                by_room.remove(&best);
                best
            }
            None => {
                n_packs += 1;
                (capacity, n_packs - 1)
            }
        };
        pack_of[document as usize] = pack;
        if room > length {
            by_room.insert((room - length, pack));
        }
    }
    Packs::group(pack_of, n_packs as usize)
}

/// The documents in their order, each into the first pack that has room for it, else into a new one. `lengths`: 1 to
/// `capacity` tokens each.
///
/// # Panics
/// On a length outside of that range, and on 2^32 documents or more.
pub fn first_fit(lengths: &[u32], capacity: u32) -> Packs {
    check(lengths, capacity);
    let mut rooms = Rooms::new(capacity);
    let mut n_packs = 0;
    let pack_of = lengths.iter().map(|length| {
        let pack = rooms.take_first(*length);
        n_packs = n_packs.max(pack + 1);
        pack as u32
    });
    let pack_of = pack_of.collect();
    Packs::group(pack_of, n_packs)
}

fn check(lengths: &[u32], capacity: u32) {
    assert!(
        u32::try_from(lengths.len()).is_ok(),
        "{} documents are more than a number of 32 bits counts",
        lengths.len()
    );
    if let Some(length) = lengths.iter().find(|length| !(1..=capacity).contains(*length)) {
        panic!("a document of {length} tokens does not fit a pack of {capacity}");
    }
}

/// The room of packs in a tree whose nodes hold the largest below them. Packs that are not begun are there too, with all
/// their room, so the first pack with room is always found.
///
/// ```text
///            10                  node 1
///        5        10             nodes 2, 3
///      1   5   10   10           leaves: packs 0 to 3, of which 2 and 3 are not begun
/// ```
struct Rooms {
    capacity: u32,
    /// Children of node `i` are `2 i` and `2 i + 1`; the last `n_leaves` are leaves. Entry 0 has no meaning.
    largest: Vec<u32>,
    /// A power of two.
    n_leaves: usize,
}

impl Rooms {
    fn new(capacity: u32) -> Self {
        Rooms { capacity, largest: vec![capacity; 2], n_leaves: 1 }
    }

    /// Takes `length` of the first pack that has so much room, and says which it was.
    fn take_first(&mut self, length: u32) -> usize {
        while self.largest[1] < length {
            self.double();
        }
        let mut node = 1;
        while node < self.n_leaves {
            node *= 2;
            node += usize::from(self.largest[node] < length);
        }
        let pack = node - self.n_leaves;
        self.largest[node] -= length;
        while node > 1 {
            node /= 2;
            self.largest[node] = self.largest[2 * node].max(self.largest[2 * node + 1]);
        }
        pack
    }

    fn double(&mut self) {
        let packs = self.largest[self.n_leaves..].to_vec();
        self.n_leaves *= 2;
        self.largest = vec![self.capacity; 2 * self.n_leaves];
        self.largest[self.n_leaves..][..packs.len()].copy_from_slice(&packs);
        for node in (1..self.n_leaves).rev() {
            self.largest[node] = self.largest[2 * node].max(self.largest[2 * node + 1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vecs(packs: &Packs) -> Vec<Vec<u32>> {
        packs.iter().map(<[u32]>::to_vec).collect()
    }

    #[test]
    fn the_examples_of_the_documentation() {
        let lengths = [5, 3, 9, 2, 4];
        assert_eq!(vecs(&best_fit_decreasing(&lengths, 10)), [vec![0, 4], vec![1, 3], vec![2]]);
        assert_eq!(vecs(&first_fit(&lengths, 10)), [vec![0, 1, 3], vec![2], vec![4]]);
    }

    #[test]
    fn best_fit_takes_the_fullest_pack_with_room_and_first_fit_the_first() {
        // After 7 and 6 the 3 fits both; best fit takes the pack with 3 free, so that the 4 fits too.
        assert_eq!(vecs(&best_fit_decreasing(&[7, 6, 4, 3], 10)), [vec![0, 3], vec![1, 2]]);
        assert_eq!(vecs(&first_fit(&[6, 7, 3, 4], 10)), [vec![0, 2], vec![1], vec![3]]);
    }

    #[test]
    fn no_documents_no_packs() {
        assert!(best_fit_decreasing(&[], 10).is_empty() && first_fit(&[], 10).is_empty());
        assert_eq!(first_fit(&[], 10).len(), 0);
    }

    #[test]
    #[should_panic(expected = "a document of 11 tokens does not fit a pack of 10")]
    fn a_document_longer_than_a_pack_is_a_mistake_of_the_caller() {
        first_fit(&[3, 11], 10);
    }

    /// The quadratic definition: the pack of each document.
    fn first_fit_by_definition(lengths: impl IntoIterator<Item = u32>, capacity: u32) -> Vec<u32> {
        let mut free: Vec<u32> = Vec::new();
        let place = |length| {
            let pack = free.iter().position(|room| *room >= length).unwrap_or_else(|| {
                free.push(capacity);
                free.len() - 1
            });
            free[pack] -= length;
            pack as u32
        };
        lengths.into_iter().map(place).collect()
    }

    fn check_packs(packs: &Packs, lengths: &[u32], capacity: u32) -> Result<(), TestCaseError> {
        let mut seen: Vec<u32> = packs.iter().flatten().copied().collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..lengths.len() as u32).collect::<Vec<_>>());
        for pack in packs.iter() {
            prop_assert!(pack.iter().map(|i| lengths[*i as usize]).sum::<u32>() <= capacity);
            prop_assert!(pack.is_sorted());
        }
        prop_assert!(packs.iter().map(|pack| pack[0]).is_sorted());
        // No two packs could be one.
        let mut sums: Vec<u32> = packs.iter().map(|pack| pack.iter().map(|i| lengths[*i as usize]).sum()).collect();
        sums.sort_unstable();
        if sums.len() > 1 {
            prop_assert!(sums[0] + sums[1] > capacity);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn packs_hold_every_document_once_and_never_too_much(
            capacity in 1u32..200,
            raw in prop::collection::vec(1u32..1000, 0..200),
        ) {
            let lengths: Vec<u32> = raw.iter().map(|x| x % capacity + 1).collect();
            let best = best_fit_decreasing(&lengths, capacity);
            check_packs(&best, &lengths, capacity)?;
            // 11/9 of the lower bound by volume is not reached by every list; that of first fit is near.
            let mut longest_first = lengths.clone();
            longest_first.sort_unstable_by_key(|length| Reverse(*length));
            let decreasing = first_fit_by_definition(longest_first, capacity).into_iter().max().map_or(0, |n| n as usize + 1);
            prop_assert!(best.len() * 9 <= decreasing * 11 + 6, "{} packs, first fit {decreasing}", best.len());
            prop_assert_eq!(&best, &best_fit_decreasing(&lengths, capacity));
        }

        #[test]
        fn first_fit_is_its_quadratic_definition(
            capacity in 1u32..200,
            raw in prop::collection::vec(1u32..1000, 0..400),
        ) {
            let lengths: Vec<u32> = raw.iter().map(|x| x % capacity + 1).collect();
            let packs = first_fit(&lengths, capacity);
            check_packs(&packs, &lengths, capacity)?;
            let mut pack_of = vec![0; lengths.len()];
            for (number, pack) in (0..).zip(packs.iter()) {
                pack.iter().for_each(|document| pack_of[*document as usize] = number);
            }
            prop_assert_eq!(pack_of, first_fit_by_definition(lengths, capacity));
        }
    }
}
