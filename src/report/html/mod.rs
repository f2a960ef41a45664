//! The HTML report: one file with all that is known of a run, to open, send, print and keep.
//!
//! ```text
//! events.jsonl --fold--> ReportData --page--> one HTML file, nothing loaded from anywhere
//! store: manifests --gather--^  ^--StageKind::figures: charts, tables, samples of each output
//! ```
//!
//! What a stage has to show, its kind says as data (`pipe_contract::figures`); how that looks is decided here: `chart` draws
//! SVG, `dag` and `layers` the pipeline, `timeline` when things ran, and `report.css` has every colour, light and dark.
//!
//! It deliberately has no script and no font, and it never fails for want of an artifact: what is gone from the store
//! becomes a sentence. It does not read the pipeline file, which may be another by now; events hold what was run.

mod chart;
mod dag;
mod data;
mod figure;
mod gather;
mod layers;
mod markup;
mod page;
mod rates;
mod scale;
mod stage;
mod timeline;

pub use data::{MadeData, ProgressPoint, ReportData, RunEndData, StageData, UsagePoint};
pub use gather::gather;
pub use page::render;
