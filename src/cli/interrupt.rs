//! Ctrl-C and SIGTERM: the first asks the stages to stop at their next check, the second ends the process at once.

use std::io::Write as _;
use std::sync::OnceLock;

use pipe_contract::CancelToken;

use crate::exit_code;

static TOKEN: OnceLock<CancelToken> = OnceLock::new();

/// From now on signals set `cancel`. Later calls of the process change nothing.
pub(super) fn catch_signals(cancel: &CancelToken) {
    if TOKEN.set(cancel.clone()).is_err() {
        return;
    }
    // Where no handler can be set, Ctrl-C ends the process at once, which loses nothing that is finished.
    let _ = ctrlc::set_handler(|| {
        let token = TOKEN.get().expect("set before the handler");
        if token.is_cancelled() {
            std::process::exit(i32::from(exit_code::INTERRUPTED));
        }
        // There is nobody to tell where stderr is gone.
        let _ = writeln!(std::io::stderr(), "interrupting; press Ctrl-C again to end at once");
        token.cancel();
    });
}
