//! What several tests of the real binary share: a hub on loopback, and folders to run in.

pub(crate) mod hub;
