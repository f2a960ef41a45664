//! The stage kind format.
