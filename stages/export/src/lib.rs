//! The stage kind export.
