//! The threads of stages: one that has ended a stage takes the next one, since a new thread costs as much as a tenth of a small stage.
//!
//! ```text
//! start(task) --> an idle thread, or a new one --> task --> idle again --> report
//! ```
//!
//! A thread is idle before it reports, so who starts the next task on that report finds it.

use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};

use super::panics::THREAD_PREFIX;

/// Does the work; what it gives is called once its thread is idle again.
pub(super) type Task<'scope> = Box<dyn FnOnce() -> Report<'scope> + Send + 'scope>;
pub(super) type Report<'scope> = Box<dyn FnOnce() + 'scope>;

/// Where idle threads wait, those that became so last at the end.
type Idle<'scope> = Arc<Mutex<Vec<Sender<Task<'scope>>>>>;

/// The threads of a scope. They end when this is dropped and they are idle.
pub(super) struct Workers<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    idle: Idle<'scope>,
}

impl<'scope, 'env> Workers<'scope, 'env> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>) -> Self {
        Workers { scope, idle: Arc::default() }
    }

    /// Runs `task` on a thread of its own.
    ///
    /// # Errors
    /// When no thread is idle and none can be started.
    pub(super) fn start(&self, task: Task<'scope>) -> io::Result<()> {
        let idle = lock(&self.idle).pop();
        let task = match idle {
            Some(worker) => match worker.send(task) {
                Ok(()) => return Ok(()),
                // Its thread has ended: of a panic outside of what stages do.
                Err(unsent) => unsent.0,
            },
            None => task,
        };
        let idle = Arc::downgrade(&self.idle);
        let body = move || {
            let mut next = Some(task);
            while let Some(task) = next {
                let report = task();
                // The only sender is the one that waits there: the thread ends with who could use it.
                let (sender, tasks) = channel();
                let Some(idle) = idle.upgrade() else { return report() };
                lock(&idle).push(sender);
                drop(idle);
                report();
                next = tasks.recv().ok();
            }
        };
        thread::Builder::new().name(THREAD_PREFIX.trim_end().to_string()).spawn_scoped(self.scope, body).map(drop)
    }
}

fn lock<T>(idle: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;

    use super::*;

    /// The ids of the threads that ran `n_rounds` of `n_tasks` at a time.
    fn threads(n_rounds: usize, n_tasks: usize) -> Vec<HashSet<thread::ThreadId>> {
        thread::scope(|scope| {
            let workers = Workers::new(scope);
            let round = |_| {
                let (sender, reports) = channel();
                let together = Arc::new(Barrier::new(n_tasks));
                for _ in 0..n_tasks {
                    let (sender, together) = (sender.clone(), together.clone());
                    let task = move || -> Report<'_> {
                        together.wait();
                        let id = thread::current().id();
                        Box::new(move || sender.send(id).expect("somebody waits"))
                    };
                    workers.start(Box::new(task)).expect("a thread");
                }
                drop(sender);
                reports.iter().collect()
            };
            (0..n_rounds).map(round).collect()
        })
    }

    #[test]
    fn a_thread_that_is_idle_takes_the_next_task() {
        for n_tasks in [1, 3] {
            let rounds = threads(20, n_tasks);
            assert!(rounds.iter().all(|ids| ids.len() == n_tasks), "tasks run beside each other");
            let all: HashSet<_> = rounds.into_iter().flatten().collect();
            assert_eq!(all.len(), n_tasks, "no thread was started that was not needed");
        }
    }
}
