//! The stage kind `train` on a tiny Llama: what it writes, how it goes on, how it evaluates.

mod evaluation;
mod resume;
mod run;
mod spot;
mod work;
