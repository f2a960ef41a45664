//! The stage kind tokenize.
