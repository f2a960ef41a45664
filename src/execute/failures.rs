//! Why a stage failed that did what it was asked to.

use std::path::Path;

use crate::events::Failure;

/// `limit`: as the user wrote it.
pub(super) fn timed_out(limit: &str) -> Failure {
    Failure {
        slug: "timeout".into(),
        message: format!("it took longer than its timeout of {limit}"),
        help: Some("raise `timeout:` of the stage, or leave it out".into()),
        is_bug: false,
    }
}

/// `lock`: the path of the lock file.
pub(super) fn drifted(lock: &Path) -> Failure {
    Failure {
        slug: "lock-drift".into(),
        message: format!("it gave other bytes than `{}` says", lock.display()),
        help: Some("`pipe verify` says what differs; run without `--locked` to accept it".into()),
        is_bug: false,
    }
}
