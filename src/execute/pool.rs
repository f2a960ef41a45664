//! The threads of a stage: exactly those it was granted, in a rayon pool of its own, started when something needs them.
//!
//! ```text
//! a stage that computes -------------> pool
//! a stage that only waits for others -> its own thread --a large output to digest--> pool
//! ```
//!
//! A pool costs as much to start and end as a small command takes.

use std::sync::OnceLock;

use pipe_contract::StageError;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A pool that may not be there yet.
pub(super) struct StagePool {
    n_threads: usize,
    thread_name: String,
    pool: OnceLock<ThreadPool>,
}

impl StagePool {
    pub(super) fn new(n_threads: usize, thread_name: String) -> Self {
        StagePool { n_threads, thread_name, pool: OnceLock::new() }
    }

    /// Runs `work` in the pool if it `is_parallel`, else on this thread.
    pub(super) fn run<T: Send>(&self, is_parallel: bool, work: impl FnOnce() -> T + Send) -> Result<T, StageError> {
        if !is_parallel {
            return Ok(work());
        }
        if self.pool.get().is_none() {
            let name = self.thread_name.clone();
            let pool = ThreadPoolBuilder::new().num_threads(self.n_threads).thread_name(move |_| name.clone()).build();
            let pool =
                pool.map_err(|e| StageError::user("threads", "failed to start the threads of its pool").because(e))?;
            let _ = self.pool.set(pool);
        }
        Ok(self.pool.get().expect("it was just set").install(work))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_parallel_runs_in_the_pool() {
        let pool = StagePool::new(3, "stage it".into());
        let place = || (rayon::current_thread_index().is_some(), rayon::current_num_threads());
        assert!(!pool.run(false, place).expect("nothing to start").0);
        assert!(pool.pool.get().is_none(), "no thread was started");
        assert_eq!(pool.run(true, place).expect("it starts"), (true, 3));
    }
}
