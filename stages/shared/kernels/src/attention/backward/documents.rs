//! Many documents: a task is a document and a key head.

use super::pair::{Pair, Scratch, Task};
use super::{Inputs, Keys, Outputs, QueryHead, add, write};
use crate::attention::pack::{Rows, n_channel_panels};
use crate::attention::room::Room;
use crate::attention::{BLOCK_LEN, Shape};
use crate::dispatch;
use crate::tile::N_ROWS;
use rayon::prelude::*;
use std::ops::Range;

/// Fills the outputs.
pub(super) fn run(inputs: &Inputs<'_>, outputs: Outputs<'_>) {
    let Inputs { shape, documents, .. } = *inputs;
    let (mut dq, mut dk, mut dv) = (outputs.dq.into_iter(), outputs.dk.into_iter(), outputs.dv.into_iter());
    let mut tasks = Vec::new();
    for document in documents {
        for kv_head in 0..shape.n_kv_heads {
            let dq = dq.by_ref().take(shape.n_group_heads()).collect();
            let (dk, dv) = (dk.next().expect("one per key head"), dv.next().expect("one per key head"));
            tasks.push(KeyHead { document, kv_head, dq, dk, dv });
        }
    }
    let n_chunks = n_chunks(shape, documents);
    let new_room = || (Room::new(n_chunks), Scratch::new());
    tasks.into_par_iter().for_each_init(new_room, |(room, scratch), task| task.run(inputs, room, scratch));
}

/// Chunks that a thread needs room for.
pub(super) fn n_chunks(shape: Shape, documents: &[Range<usize>]) -> usize {
    let longest = documents.iter().map(|document| document.len()).max().unwrap_or(0);
    Keys::n_chunks(longest, shape.head_dim) + QueryHead::n_chunks(longest, shape.head_dim)
}

/// A key head of a document, and the rows of its query heads and of itself.
struct KeyHead<'a> {
    document: &'a Range<usize>,
    kv_head: usize,
    dq: Vec<Rows<'a>>,
    dk: Rows<'a>,
    dv: Rows<'a>,
}

impl KeyHead<'_> {
    fn run(mut self, inputs: &Inputs<'_>, room: &mut Room, scratch: &mut Scratch) {
        let Inputs { shape, .. } = *inputs;
        let mut rest = room.rest();
        let mut keys = Keys::new(&mut rest, self.document.len(), shape.head_dim);
        let mut queries = QueryHead::new(&mut rest, self.document.len(), shape.head_dim);
        keys.fill(inputs, self.kv_head, self.document);
        for (i, dq) in self.dq.iter_mut().enumerate() {
            let head = self.kv_head * shape.n_group_heads() + i;
            queries.fill(inputs, head, self.document);
            add_pairs(inputs, head, self.document, &keys, &mut queries, scratch);
            write(queries.dq, dq);
            let write_keys = if i == 0 { write } else { add };
            write_keys(queries.dk, &mut self.dk);
            write_keys(queries.dv, &mut self.dv);
        }
    }
}

/// All pairs of a head in a document: the last keys first.
fn add_pairs(
    inputs: &Inputs<'_>,
    head: usize,
    document: &Range<usize>,
    keys: &Keys<'_>,
    QueryHead { q, d_o, dq, dk, dv }: &mut QueryHead<'_>,
    scratch: &mut Scratch,
) {
    let block_sums = BLOCK_LEN / N_ROWS * n_channel_panels(inputs.shape.head_dim);
    let key_sums = dk.chunks_mut(block_sums).zip(dv.chunks_mut(block_sums));
    let n_waves = inputs.scores.n_key_blocks_max();
    for (key_block, (dk, dv)) in key_sums.enumerate().rev() {
        for (wave, dq) in dq.chunks_mut(block_sums).skip(key_block).take(n_waves).enumerate() {
            let pair = Pair { inputs, keys, q, d_o, head, document, wave, key_block };
            dispatch::run((Task { pair, dq, dk: &mut *dk, dv: &mut *dv }, &mut *scratch));
        }
    }
}
