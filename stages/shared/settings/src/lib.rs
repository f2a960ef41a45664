//! Settings: YAML in, typed values, a canonical key and all problems out.
//!
//! A stage kind declares its settings by reading them; see [`Reader`] for an example. The same declaration gives
//! the type, the default, the range, the nearest right name and what enters the semantic key.
//!
//! It deliberately knows nothing of stages, files or lines.

pub mod declared;
pub mod key;
mod name_map;
pub mod reader;

pub use declared::{Declared, Form};
pub use key::{KeySettings, KeyValue};
pub use name_map::NameMap;
pub use reader::{Problem, ProblemKind, ReadSetting, Reader, nearest, read_yaml};
