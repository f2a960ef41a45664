//! The content-addressed store of `pipe`.
