//! Memory that a call leaves for the next one.
//!
//! An attention needs some megabytes for panels and sums. The system's allocator hands pieces of that size back to the kernel at the end of a call
//! and gets them again page by page in the next: a fifth of the time for documents of 200 tokens. So a call that ends keeps its memory
//! here. There is one piece for each call that ever ran at the same time; it grows and never shrinks.

use crate::tile::{Chunk, N_COLUMNS, N_ROWS, Tile};
use std::sync::{Mutex, PoisonError};

static SPARE: Mutex<Vec<Vec<Chunk>>> = Mutex::new(Vec::new());

/// Room for chunks, with whatever was there before.
pub(super) struct Room(Vec<Chunk>);

impl Room {
    /// Room for `n_chunks` chunks.
    pub(super) fn new(n_chunks: usize) -> Self {
        let mut chunks = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        if chunks.len() < n_chunks {
            // Dropped before the next is asked for; nothing in it is worth a copy.
            drop(std::mem::take(&mut chunks));
            chunks = vec![[0.0; N_COLUMNS]; n_chunks];
        }
        Self(chunks)
    }

    pub(super) fn rest(&mut self) -> Rest<'_> {
        Rest(&mut self.0)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        SPARE.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.0));
    }
}

/// What is left of a [`Room`].
pub(super) struct Rest<'a>(&'a mut [Chunk]);

impl<'a> Rest<'a> {
    pub(super) fn chunks(&mut self, n: usize) -> &'a mut [Chunk] {
        self.0.split_off_mut(..n).expect("the room was made for all of them")
    }

    pub(super) fn tiles(&mut self, n: usize) -> &'a mut [Tile] {
        self.chunks(n * N_ROWS).as_chunks_mut().0
    }
}
