//! The stage kind train.
