//! What a panicking stage said: kept for its failure instead of being printed across the terminal.
//!
//! A thread of the runner works for one stage after another and says for which; a thread of a stage's pool has its name.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic;
use std::sync::{Mutex, Once, PoisonError};

/// Threads of stages are called this, and then the stage's name.
pub(super) const THREAD_PREFIX: &str = "stage ";

/// Thread name to `message at file:line:column`.
static MESSAGES: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// The hook must not panic itself.
    static IS_IN_HOOK: Cell<bool> = const { Cell::new(false) };
    /// As a thread of its pool would be called.
    static WORKS_FOR: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// This thread works for the stage whose pool's threads are called `thread_name`, until `work` is done.
pub(super) fn works_for<T>(thread_name: &str, work: impl FnOnce() -> T) -> T {
    let before = WORKS_FOR.replace(Some(thread_name.to_string()));
    let done = work();
    WORKS_FOR.set(before);
    done
}

/// Panics on threads of stages are recorded from now on; on other threads they go where they went before.
pub(super) fn record_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let named = || std::thread::current().name().map(str::to_string);
            let name = WORKS_FOR.with_borrow(Clone::clone).or_else(named);
            match name.filter(|name| name.starts_with(THREAD_PREFIX)) {
                Some(name) if !IS_IN_HOOK.replace(true) => {
                    let message = info.payload_as_str().unwrap_or("a panic without a message");
                    let place = info.location().map(|location| format!(" at {location}")).unwrap_or_default();
                    MESSAGES
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .entry(name)
                        .or_insert_with(|| format!("{message}{place}"));
                    IS_IN_HOOK.set(false);
                }
                _ => before(info),
            }
        }));
    });
}

/// Takes what the first panic of the stage said.
pub(super) fn take_message(thread_name: &str) -> String {
    let mut messages = MESSAGES.lock().unwrap_or_else(PoisonError::into_inner);
    messages.remove(thread_name).unwrap_or_else(|| "a panic without a message".to_string())
}
