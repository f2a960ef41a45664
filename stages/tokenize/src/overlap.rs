//! Reading, working and writing at the same time, in order.
//!
//! ```text
//! this thread   read 0            write -, read 1   write 0, read 2   write 1, read 3   ...
//! the pool                        work 0            work 1            work 2
//! ```
//!
//! Three items are in memory. What is written does not depend on the number of threads: this thread alone reads and writes.

use pipe_contract::StageError;

/// Gives every item of `read` to `work`, which runs on the current rayon pool, and what it makes to `write`, in the order of the items.
///
/// # Errors
/// The first of `read` or `write`; what came before it in order has been written.
pub(crate) fn overlapped<I: Send, O: Send>(
    mut read: impl FnMut() -> Result<Option<I>, StageError>,
    work: impl Fn(I) -> O + Sync,
    mut write: impl FnMut(O) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let mut next = read()?;
    let mut made: Option<O> = None;
    while next.is_some() || made.is_some() {
        let (current, finished) = (next.take(), made.take());
        let has_more = current.is_some();
        let mut done = Ok(());
        rayon::in_place_scope(|scope| {
            let (work, made) = (&work, &mut made);
            if let Some(item) = current {
                scope.spawn(move |_| *made = Some(work(item)));
            }
            done = finished.map_or(Ok(()), &mut write);
            if done.is_ok() && has_more {
                done = read().map(|item| next = item);
            }
        });
        done?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(n_items: usize, n_threads: usize, fails_at: Option<usize>) -> (Vec<usize>, Result<(), StageError>) {
        let mut items = 0..n_items;
        let mut written = Vec::new();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let result = pool.install(|| {
            overlapped(
                || Ok(items.next()),
                |item| item * 10,
                |made| {
                    if fails_at.is_some_and(|n| n * 10 == made) {
                        return Err(StageError::user("full", "the disk is full"));
                    }
                    written.push(made);
                    Ok(())
                },
            )
        });
        (written, result)
    }

    #[test]
    fn everything_is_written_in_order() {
        for n_threads in [1, 2, 4] {
            for n_items in [0, 1, 2, 3, 50] {
                let (written, result) = run(n_items, n_threads, None);
                assert_eq!(written, (0..n_items).map(|item| item * 10).collect::<Vec<_>>());
                assert!(result.is_ok());
            }
        }
    }

    #[test]
    fn the_first_error_ends_it() {
        let (written, result) = run(50, 2, Some(3));
        assert_eq!((written, result.unwrap_err().slug), (vec![0, 10, 20], "full"));
        let mut n_read = 0;
        let read = || {
            n_read += 1;
            if n_read == 3 { Err(StageError::user("bad", "a bad row")) } else { Ok(Some(n_read)) }
        };
        let mut written = Vec::new();
        let write = |made| {
            written.push(made);
            Ok(())
        };
        let result = overlapped(read, |item| item, write);
        // The read is ahead: the second item was with the pool.
        assert_eq!((written, result.unwrap_err().slug), (vec![1], "bad"));
    }
}
