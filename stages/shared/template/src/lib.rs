//! Templates: messages, or the cells of a row, become a text; and what of it the template wrote, the data said, and the
//! assistant is to learn.
//!
//! ```text
//! [{role: user, content: "hi"}, {role: assistant, content: "yo"}]
//!      |  Chat::render
//!      v
//! <|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n
//! |----------|      |--------|     |----------|           |--------|         control: written by the template
//!                                                       |----------|         assistant: one turn with its end
//! ```
//!
//! Reading order: [`engine`] (one template), `python` (what Jinja2 takes from Python), [`date`], `marks`, [`special`] (which
//! special tokens the template wrote), [`model`] (the template of a model folder), [`chat`] (conversations), `turns` (where
//! the assistant speaks, in templates that do not say), [`row`] (templates of the user for rows).
//!
//! Training, generation and evaluation read what is made here, so that they cannot differ; an export copies the files.
//! It deliberately knows no token ids: which of them a text becomes is the tokenizer's to say.

pub mod chat;
pub mod date;
pub mod engine;
mod error;
mod marks;
pub mod model;
mod python;
pub mod row;
pub mod special;
mod turns;

pub use chat::{Chat, Conversation, Formatted};
pub use date::Date;
pub use engine::{Rendered, Template};
pub use error::TemplateError;
pub use minijinja::Value;
pub use minijinja::value::ValueKind;
pub use model::ModelTemplates;
pub use row::RowTemplate;
pub use special::SpecialTexts;
