//! The stage kind analyze.
