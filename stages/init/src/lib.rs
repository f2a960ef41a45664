//! The stage kind init.
