//! A large file over several connections: ranges fetched side by side, written and hashed in order.
//!
//! ```text
//! workers   |range 0|range 1|range 2|...   each takes the next range that lies in the window
//! channel      blocks (position, bytes)
//! writer    ....written....|  waits for position = end of what is written; later blocks are kept
//!                          ^---- window: 8 ranges ----^
//! ```
//!
//! The window bounds memory (64 MiB), and with it what a killed process has received in vain. Order keeps the file without
//! holes, and lets one pass hash it. A range that breaks off goes on where it ended.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use super::transfer::{CONNECTIONS_MAX, Partial, RANGE_BYTES, Range, Stream, Transfer, total_of};
use super::{Answer, Failure};
use crate::error::DownloadError;

const WINDOW_BYTES: u64 = CONNECTIONS_MAX as u64 * RANGE_BYTES;

/// What workers and writer share.
struct Board {
    state: Mutex<State>,
    /// Something in `state` has changed.
    changed: Condvar,
    size_bytes: u64,
}

struct State {
    /// Where the next range begins that nobody has taken.
    next: u64,
    n_written: u64,
    /// The answer to the first range, asked for already.
    first: Option<Answer>,
    end: Option<End>,
}

/// Why the workers stop before all is there.
enum End {
    Failed(DownloadError),
    /// The server answered with something else than the range.
    NoRanges,
}

struct Block {
    begin: u64,
    bytes: Vec<u8>,
}

/// Receives all that `partial` lacks, at least two ranges; `first` is the answer to the first of them. `false` where the
/// server stops answering with ranges: what has been written stays.
pub(super) fn fill(
    transfer: &Transfer,
    partial: &mut Partial,
    first: Answer,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<bool, DownloadError> {
    let size_bytes = partial.size_bytes.expect("the first answer said it");
    let state = State { next: partial.n_bytes, n_written: partial.n_bytes, first: Some(first), end: None };
    let board = Board { state: Mutex::new(state), changed: Condvar::new(), size_bytes };
    let n_ranges = (size_bytes - partial.n_bytes).div_ceil(RANGE_BYTES);
    let n_workers = CONNECTIONS_MAX.min(usize::try_from(n_ranges).unwrap_or(CONNECTIONS_MAX));
    let (sender, receiver) = channel();
    let written = thread::scope(|scope| {
        for _ in 0..n_workers {
            let (board, sender) = (&board, sender.clone());
            scope.spawn(move || board.work(transfer, &sender));
        }
        drop(sender);
        let written = write(transfer, partial, &board, receiver, on_bytes);
        if written.is_err() {
            // It is the writer's own error that counts.
            board.end(End::NoRanges);
        }
        written
    });
    written?;
    let state = board.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.end {
        Some(End::Failed(error)) => Err(error),
        Some(End::NoRanges) => Ok(false),
        None => Ok(true),
    }
}

/// Writes blocks in order until no worker is left.
fn write(
    transfer: &Transfer,
    partial: &mut Partial,
    board: &Board,
    receiver: Receiver<Block>,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<(), DownloadError> {
    let mut waiting = BTreeMap::new();
    for Block { begin, bytes } in receiver {
        waiting.insert(begin, bytes);
        while let Some(bytes) = waiting.remove(&partial.n_bytes) {
            transfer.append(partial, &bytes, on_bytes)?;
        }
        board.advance(partial.n_bytes);
    }
    Ok(())
}

impl Board {
    /// Fetches ranges until none is left.
    fn work(&self, transfer: &Transfer, sender: &Sender<Block>) {
        while let Some((mut begin, end, mut first)) = self.take() {
            let mut attempt = || self.receive(transfer, &mut begin, end, first.take(), sender);
            match transfer.net.retrying(&mut attempt) {
                Ok(true) => {}
                Ok(false) => self.end(End::NoRanges),
                Err(error) => self.end(End::Failed(error)),
            }
        }
    }

    /// The next range, once it lies in the window; `None` when there is none.
    fn take(&self) -> Option<(u64, u64, Option<Answer>)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.end.is_some() || state.next == self.size_bytes {
                return None;
            }
            if state.next < state.n_written + WINDOW_BYTES {
                let begin = state.next;
                state.next = (begin + RANGE_BYTES).min(self.size_bytes);
                return Some((begin, state.next, state.first.take()));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// One attempt to receive from `begin`, which moves on, to before `end`. `false` where the answer is no range.
    fn receive(
        &self,
        transfer: &Transfer,
        begin: &mut u64,
        end: u64,
        answer: Option<Answer>,
        sender: &Sender<Block>,
    ) -> Result<bool, Failure> {
        let answer = match answer {
            Some(answer) => answer,
            None => transfer.remote.get(Range { begin: *begin, end: Some(end) })?,
        };
        transfer.refuse_page(&answer)?;
        if total_of(&answer, *begin) != Some(self.size_bytes) {
            return Ok(false);
        }
        let before = *begin;
        let mut stream = Stream::new(transfer.net, answer);
        let problem = loop {
            if self.is_over() {
                return Ok(true); // Another one says why.
            }
            let block = match stream.next() {
                Ok(block) => block,
                Err(problem) => break problem?,
            };
            if block.is_empty() {
                if *begin == end {
                    return Ok(true);
                }
                break "the connection ended".to_string();
            }
            if *begin + block.len() as u64 > end {
                return Ok(false);
            }
            // The writer is gone only after an error of its own.
            let _ = sender.send(Block { begin: *begin, bytes: block.to_vec() });
            *begin += block.len() as u64;
            if *begin == end && stream.is_open_ended() {
                return Ok(true);
            }
        };
        let error = transfer.problem(&format!("{problem} at byte {begin} of {}", self.size_bytes));
        Err(Failure::Passing { error, wait: None, made_progress: *begin > before && !stream.is_slow() })
    }

    fn is_over(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).end.is_some()
    }

    fn advance(&self, n_written: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).n_written = n_written;
        self.changed.notify_all();
    }

    /// Makes all workers stop; the first reason counts.
    fn end(&self, end: End) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.end.get_or_insert(end);
        drop(state);
        self.changed.notify_all();
    }
}
