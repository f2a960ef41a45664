//! What a panicking stage said: kept for its failure instead of being printed across the terminal.

use std::cell::Cell;
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
}

/// Panics on threads of stages are recorded from now on; on other threads they go where they went before.
pub(super) fn record_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            match thread.name().filter(|name| name.starts_with(THREAD_PREFIX)) {
                Some(name) if !IS_IN_HOOK.replace(true) => {
                    let message = info.payload_as_str().unwrap_or("a panic without a message");
                    let place = info.location().map(|location| format!(" at {location}")).unwrap_or_default();
                    MESSAGES
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .entry(name.to_string())
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
