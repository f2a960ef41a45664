//! One allocation for every value of a pass, cut up and handed back as the list is walked.
//!
//! ```text
//! |x0....|q...|k.|v.|o...|        free        |     first fit from the left; a block that is given back joins its neighbours
//! ```
//!
//! A dry walk over the same list, which computes nothing, tells the size before anything is allocated: that is the memory forecast.
//! Blocks are ranges, so reading some while writing another needs no `unsafe`: the slice is split at run time, with a check.

use std::collections::BTreeMap;

use memmap2::MmapMut;

use crate::error::LlmError;

/// A multiple of it is where blocks begin: a cache line, in elements.
const ALIGNMENT: usize = 16;

/// A range of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    start: usize,
    len: usize,
}

/// The memory of a pass.
#[derive(Debug, Default)]
pub(super) struct Arena {
    memory: Option<MmapMut>,
    /// Free ranges below `end`: start to length.
    free: BTreeMap<usize, usize>,
    /// How many values share a block that has more than one.
    shares: BTreeMap<usize, u32>,
    /// End of what has been handed out so far.
    end: usize,
    /// The largest `end`.
    highest: usize,
}

impl Arena {
    /// Forgets all blocks.
    pub(super) fn clear(&mut self) {
        self.free.clear();
        self.shares.clear();
        self.end = 0;
        self.highest = 0;
    }

    /// Elements needed by the walk since [`Arena::clear`].
    pub(super) fn highest(&self) -> usize {
        self.highest
    }

    /// Makes room for `len` elements, in huge pages where the system has them.
    ///
    /// # Errors
    /// When the system has no such memory.
    pub(super) fn reserve(&mut self, len: usize) -> Result<(), LlmError> {
        let size_bytes = len * size_of::<f32>();
        if self.memory.as_ref().is_some_and(|memory| memory.len() >= size_bytes) {
            return Ok(());
        }
        // The old memory goes first: both together may not fit.
        self.memory = None;
        let memory = MmapMut::map_anon(size_bytes.max(1)).map_err(|_| LlmError::Memory { size_bytes })?;
        // Fewer misses of the address cache. Where the system refuses, small pages do.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        self.memory = Some(memory);
        Ok(())
    }

    /// A block of `len` elements whose content is whatever was there.
    pub(super) fn take(&mut self, len: usize) -> Block {
        let len = len.next_multiple_of(ALIGNMENT);
        let fitting = self.free.iter().find(|(_, free_len)| **free_len >= len);
        let start = match fitting.map(|(start, free_len)| (*start, *free_len)) {
            Some((start, free_len)) => {
                self.free.remove(&start);
                if free_len > len {
                    self.free.insert(start + len, free_len - len);
                }
                start
            }
            None => {
                // A free range at the end is the beginning of the block.
                let last = self.free.last_key_value().map(|(start, len)| (*start, *len));
                let start = match last.filter(|(start, len)| start + len == self.end) {
                    Some((start, _)) => {
                        self.free.remove(&start);
                        start
                    }
                    None => self.end,
                };
                self.end = start + len;
                start
            }
        };
        self.highest = self.highest.max(self.end);
        Block { start, len }
    }

    /// Hands a block back; a shared one when the last of those who share it does.
    pub(super) fn give(&mut self, block: Block) {
        if block.len == 0 {
            return;
        }
        if let Some(n_sharers) = self.shares.get_mut(&block.start) {
            *n_sharers -= 1;
            if *n_sharers == 1 {
                self.shares.remove(&block.start);
            }
            return;
        }
        let Block { mut start, mut len } = block;
        if let Some((&before, &before_len)) = self.free.range(..start).next_back()
            && before + before_len == start
        {
            self.free.remove(&before);
            (start, len) = (before, before_len + len);
        }
        if let Some(after_len) = self.free.remove(&(block.start + block.len)) {
            len += after_len;
        }
        self.free.insert(start, len);
    }

    /// Says that one more value is in this block.
    pub(super) fn share(&mut self, block: Block) {
        *self.shares.entry(block.start).or_insert(1) += 1;
    }

    /// Whether more than one value is in this block.
    pub(super) fn is_shared(&self, block: Block) -> bool {
        self.shares.contains_key(&block.start)
    }

    /// The elements of different blocks, `len` of each.
    pub(super) fn slices<const N: usize>(&mut self, blocks: [(Block, usize); N]) -> [&mut [f32]; N] {
        let memory: &mut [u8] = self.memory.as_mut().expect("memory was reserved before the walk");
        let memory: &mut [f32] = bytemuck::cast_slice_mut(&mut memory[..self.highest * size_of::<f32>()]);
        let ranges = blocks.map(|(block, len)| {
            assert!(len <= block.len, "a block holds what it was taken for");
            block.start..block.start + len
        });
        memory.get_disjoint_mut(ranges).expect("different blocks do not overlap, and all lie in the memory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_are_given_back_are_joined_and_used_again() {
        let mut arena = Arena::default();
        let [a, b, c] = [100, 200, 300].map(|len| arena.take(len));
        arena.give(a);
        arena.give(c);
        arena.give(b);
        assert_eq!(arena.take(600), Block { start: 0, len: 608 });
        assert_eq!(arena.highest(), 112 + 208 + 304);
    }

    #[test]
    fn a_free_end_is_the_beginning_of_a_larger_block() {
        let mut arena = Arena::default();
        let [_, b] = [16, 32].map(|len| arena.take(len));
        arena.give(b);
        assert_eq!(arena.take(64), Block { start: 16, len: 64 });
        assert_eq!(arena.highest(), 80);
    }

    #[test]
    fn a_shared_block_is_free_when_both_have_given_it_back() {
        let mut arena = Arena::default();
        let a = arena.take(16);
        arena.share(a);
        assert!(arena.is_shared(a));
        arena.give(a);
        assert!(!arena.is_shared(a));
        assert_eq!(arena.take(16).start, 16);
        arena.give(a);
        assert_eq!(arena.take(16).start, 0);
    }

    #[test]
    fn slices_of_different_blocks_can_be_written_together() {
        let mut arena = Arena::default();
        let [a, b] = [3, 5].map(|len| arena.take(len));
        arena.reserve(arena.highest()).expect("a few bytes");
        let [x, y] = arena.slices([(b, 5), (a, 3)]);
        x.fill(1.0);
        y.fill(2.0);
        assert_eq!(arena.slices([(a, 3)])[0], [2.0; 3]);
        assert_eq!(arena.slices([(b, 5)])[0], [1.0; 5]);
    }
}
