//! Measuring: how fast an optimizer step is, what it needs, and how fast the machine could be at best.
//!
//! ```text
//! flags --TrainRequest--> `with:` block --settings--> Train --trainer--> one optimizer step to warm up, then N that count
//!                         random packs, or those of a file ------------^
//! ```
//!
//! Settings, engine, loss, clipping and AdamW are those of the stage: only where packs come from differs, and that nothing is
//! written. Reading order: [`peak`] (what the machine can do), [`gemm`] (what it does with a model's matrices), [`packs`] (what
//! is trained on), [`train`], [`report`].
//!
//! It deliberately has no flags and no terminal: those are the command `pipe bench`'s.

pub mod gemm;
pub mod packs;
pub mod peak;
pub mod report;
pub mod train;

pub use gemm::GemmReport;
pub use packs::{Shape, Source};
pub use peak::Peak;
pub use pipe_kernels::InstructionSet;
pub use report::TrainReport;
pub use train::{Lora, Method, PreparedTrain, TrainRequest};
