//! The stage kind `train` on a tiny Llama: what it writes, how it goes on, how it evaluates, what it does with new tokens.

mod evaluation;
mod resume;
mod run;
mod spot;
mod tokens;
mod work;
