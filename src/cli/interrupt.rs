//! Ctrl-C and SIGTERM: the first asks the stages to stop at their next check, the second ends the process at once.
//!
//! Signals are counted, whatever else has set the token: Slurm's SIGTERM after `--time-limit` must not end a checkpoint that
//! is being saved.

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use pipe_contract::CancelToken;

use crate::exit_code;

static TOKEN: OnceLock<CancelToken> = OnceLock::new();
/// Whether there was a signal.
static IS_SIGNALLED: AtomicBool = AtomicBool::new(false);

/// From now on signals set `cancel`. Later calls of the process change nothing.
pub(super) fn catch_signals(cancel: &CancelToken) {
    if TOKEN.set(cancel.clone()).is_err() {
        return;
    }
    // Where no handler can be set, Ctrl-C ends the process at once, which loses nothing that is finished.
    let _ = ctrlc::set_handler(|| {
        let token = TOKEN.get().expect("set before the handler");
        if IS_SIGNALLED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(exit_code::INTERRUPTED));
        }
        // There is nobody to tell where stderr is gone.
        let _ = writeln!(std::io::stderr(), "interrupting; press Ctrl-C again to end at once");
        token.cancel();
    });
}
