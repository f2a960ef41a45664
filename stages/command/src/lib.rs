//! The stage kind `command`: a program of the user's, with declared inputs, outputs, sources and environment.
//!
//! ```text
//! run: [python3, s.py, "${{ inputs.data }}", "${{ outputs.report }}"]
//!        |         |          |                     '-> scratch/../outputs/report/report   checked, then published
//!        |         |          '-> scratch/inputs/data/  links to the artifact's files, by name
//!        |         '-> `sources`: in the key by content
//!        '-> found on PATH, in a process group that ends with the stage and with pipe
//! ```
//!
//! Reading order: [`settings`], `sources` (what is hashed), `program` and `environment` (what is started), `inputs` and
//! `outputs` (where files are), `secrets` and `lines` (what is said), `group`, `keeper` and `child` (how it ends), `sandbox`, `run`.
//!
//! It deliberately has no shell and no templates: an argument vector, and paths of ports.

mod child;
mod environment;
mod error;
mod group;
mod inputs;
mod keeper;
mod lines;
mod outputs;
mod program;
mod run;
mod sandbox;
mod secrets;
pub mod settings;
mod show;
mod sources;

use std::ffi::OsString;

use pipe_contract::{Artifact, InputPort, OutputPort, Reader, Stage, StageError, StageKind};

pub use error::CommandError;

/// The kind as the runner's registry lists it.
pub static KIND: CommandKind = CommandKind::new(|name| std::env::var_os(name));

/// `uses: command`.
pub struct CommandKind {
    variable: Variable,
}

/// A variable of the environment of `pipe`, by name.
pub(crate) type Variable = fn(&str) -> Option<OsString>;

impl CommandKind {
    /// With what stands for the environment of `pipe`: `PATH` and secrets come from there.
    pub const fn new(variable: Variable) -> Self {
        CommandKind { variable }
    }
}

impl StageKind for CommandKind {
    fn name(&self) -> &'static str {
        "command"
    }

    fn summary(&self) -> &'static str {
        "a program of yours: any inputs -> the outputs you declare"
    }

    fn version(&self) -> u32 {
        1 // The first.
    }

    fn has_declared_ports(&self) -> bool {
        true
    }

    fn inputs(&self) -> &'static [InputPort] {
        &[]
    }

    fn outputs(&self) -> &'static [OutputPort] {
        &[]
    }

    fn read(&self, reader: &mut Reader) -> Box<dyn Stage> {
        Box::new(run::Command { settings: settings::read(reader), variable: self.variable })
    }

    fn show(&self, _port: &str, artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
        Ok(show::show(artifact, n_rows)?)
    }
}
