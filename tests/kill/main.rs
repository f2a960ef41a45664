//! `pipe run` is killed at random points, alone or with its whole process group; every run after that ends byte for byte as
//! an undisturbed one, nothing has to be done by hand, and no process of a stage survives.
//!
//! ```text
//! a clean run --> its store, `to:` folders, lock file            how long it takes, how many events it has
//!                            =                                              |
//! again, after every kill: the same bytes  <--  a run is killed at a point that the seed chooses from these
//! ```
//!
//! - `harness`: one point, and what must be so after it.
//! - `fake`: many small stages whose commands write slowly, in parts, and in processes of their own.
//! - `quickstart`: pipelines/quickstart.yaml with shortened trainings.
//!
//! `PIPE_SEED` and `PIPE_POINTS` choose the points of the long loops (`just kill`).

mod fake;
mod harness;
#[cfg(feature = "stages")]
mod quickstart;
