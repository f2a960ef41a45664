//! Few documents: the pairs of blocks run in waves; wave `w` pairs every key block with the query block `w` further on:
//!
//! ```text
//!           key block
//!           0 1 2 3
//!         0 0 . . .      the number is the wave: in one wave,
//! query   1 1 0 . .      no row and no column appears twice,
//! block   2 2 1 0 .      and all heads and documents run side by side
//!         3 3 2 1 0
//! ```
//!
//! A window ends the waves early. The key heads are taken a few at a time, as many as give all threads work: there are panels and sums for those only.

use super::pair::{Pair, Scratch, Task};
use super::{Inputs, Keys, Outputs, QueryHead, add, write};
use crate::attention::pack::n_channel_panels;
use crate::attention::room::Room;
use crate::attention::{BLOCK_LEN, Shape};
use crate::dispatch;
use crate::tile::N_ROWS;
use rayon::prelude::*;
use std::ops::Range;

/// Pairs in the first wave that are enough for 16 threads. Never changes a result.
const N_TASKS_WANTED: usize = 64;

/// Fills the outputs.
pub(super) fn run(inputs: &Inputs<'_>, mut outputs: Outputs<'_>) {
    let Inputs { shape, documents, .. } = *inputs;
    let n_group_heads = shape.n_group_heads();
    let n_at_once = n_at_once(shape, documents);
    let mut room = Room::new(n_chunks(shape, documents));
    for first in (0..shape.n_kv_heads).step_by(n_at_once) {
        let kv_heads = first..shape.n_kv_heads.min(first + n_at_once);
        let mut rest = room.rest();
        let mut groups = Vec::new();
        for (document_idx, document) in documents.iter().enumerate() {
            for kv_head in kv_heads.clone() {
                let keys = Keys::new(&mut rest, document.len(), shape.head_dim);
                let queries = (0..n_group_heads).map(|_| QueryHead::new(&mut rest, document.len(), shape.head_dim));
                groups.push(Group { document_idx, kv_head, keys, queries: queries.collect() });
            }
        }
        fill(inputs, &mut groups);
        run_waves(inputs, &mut groups);
        write_sums(inputs, &groups, &mut outputs);
    }
}

/// Key heads that are taken at once.
fn n_at_once(shape: Shape, documents: &[Range<usize>]) -> usize {
    let n_blocks: usize = documents.iter().map(|document| document.len().div_ceil(BLOCK_LEN)).sum();
    N_TASKS_WANTED.div_ceil(shape.n_group_heads() * n_blocks.max(1)).min(shape.n_kv_heads)
}

/// Chunks that a call needs room for.
pub(super) fn n_chunks(shape: Shape, documents: &[Range<usize>]) -> usize {
    let of_key_head = |document: &Range<usize>| {
        Keys::n_chunks(document.len(), shape.head_dim)
            + shape.n_group_heads() * QueryHead::n_chunks(document.len(), shape.head_dim)
    };
    n_at_once(shape, documents) * documents.iter().map(of_key_head).sum::<usize>()
}

/// A key head of a document with its query heads.
struct Group<'a> {
    document_idx: usize,
    kv_head: usize,
    keys: Keys<'a>,
    queries: Vec<QueryHead<'a>>,
}

fn fill(inputs: &Inputs<'_>, groups: &mut [Group<'_>]) {
    groups.par_iter_mut().for_each(|Group { document_idx, kv_head, keys, queries }| {
        let document = &inputs.documents[*document_idx];
        let first_head = *kv_head * queries.len();
        rayon::join(
            || keys.fill(inputs, *kv_head, document),
            || queries.par_iter_mut().enumerate().for_each(|(i, head)| head.fill(inputs, first_head + i, document)),
        );
    });
}

fn run_waves(inputs: &Inputs<'_>, groups: &mut [Group<'_>]) {
    let Inputs { shape, documents, .. } = *inputs;
    let block_sums = BLOCK_LEN / N_ROWS * n_channel_panels(shape.head_dim);
    let n_blocks = documents.iter().map(|document| document.len().div_ceil(BLOCK_LEN)).max().unwrap_or(0);
    let n_waves = n_blocks.min(inputs.scores.n_key_blocks_max());
    for wave in 0..n_waves {
        let mut tasks = Vec::new();
        for Group { document_idx, kv_head, keys, queries } in groups.iter_mut() {
            let (first_head, first_task) = (*kv_head * queries.len(), tasks.len());
            for (i, QueryHead { q, d_o, dq, dk, dv }) in queries.iter_mut().enumerate() {
                let key_sums = dk.chunks_mut(block_sums).zip(dv.chunks_mut(block_sums));
                for (key_block, (dq, (dk, dv))) in dq.chunks_mut(block_sums).skip(wave).zip(key_sums).enumerate() {
                    let (head, document) = (first_head + i, &documents[*document_idx]);
                    let pair = Pair { inputs, keys, q, d_o, head, document, wave, key_block };
                    tasks.push(Task { pair, dq, dk, dv });
                }
            }
            // Heads that share a block of keys one after another.
            tasks[first_task..].sort_by_key(|task| task.pair.key_block);
        }
        tasks.into_par_iter().for_each_init(Scratch::new, |scratch, task| dispatch::run((task, scratch)));
    }
}

/// Joins the query heads of each key head.
fn write_sums(inputs: &Inputs<'_>, groups: &[Group<'_>], outputs: &mut Outputs<'_>) {
    let mut tasks = Vec::new();
    for Group { document_idx, kv_head, queries, .. } in groups {
        let own = document_idx * inputs.shape.n_kv_heads + kv_head;
        let first_head = document_idx * inputs.shape.n_heads + kv_head * queries.len();
        let dq = outputs.dq[first_head..][..queries.len()].iter_mut().map(std::mem::take).collect::<Vec<_>>();
        tasks.push((queries, dq, std::mem::take(&mut outputs.dk[own]), std::mem::take(&mut outputs.dv[own])));
    }
    tasks.into_par_iter().for_each(|(queries, dq, mut dk, mut dv)| {
        for (i, (head, mut dq)) in queries.iter().zip(dq).enumerate() {
            let write_keys = if i == 0 { write } else { add };
            write(head.dq, &mut dq);
            write_keys(head.dk, &mut dk);
            write_keys(head.dv, &mut dv);
        }
    });
}
