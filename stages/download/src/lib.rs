//! The stage kind download.
