//! Names of stages on the command line: which stages they mean, and what to say where they mean none, or too many.
//!
//! ```text
//! adapter              the stage, or all instances of it: --until, --from, --force, verify --stage
//! adapter@lr=0.0001    one instance
//! ```

use std::collections::BTreeSet;

use pipe_settings::nearest;

use super::failure::CliError;
use super::session::{Loaded, help_for};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::report::shell::quote_path;
use crate::spec::StageSpec;

/// Instances of a stage that are named where one is asked for.
const N_INSTANCES_NAMED: usize = 12;

impl Loaded {
    /// Leaves out what `--until` and `--from` do not ask for. A stage stays that one of `until` needs, if any is given, and that needs one
    /// of `from`, if any is given; and whatever those wait for.
    ///
    /// # Errors
    /// All names that no stage has; no stage of `until` needs one of `from`.
    pub(super) fn select(&mut self, until: &[String], from: &[String]) -> Result<(), CliError> {
        let wanted = match (until.is_empty(), from.is_empty()) {
            (true, true) => return Ok(()),
            (false, true) => self.find_stages(until)?,
            (true, false) => self.pipeline.with_what_waits_for(&self.find_stages(from)?),
            (false, false) => {
                let after = self.pipeline.with_what_waits_for(&self.find_stages(from)?);
                let before = self.pipeline.with_what_is_waited_for(&self.find_stages(until)?);
                after.intersection(&before).copied().collect()
            }
        };
        if wanted.is_empty() {
            let message = "no stage of `--until` needs one of `--from`";
            let help = format!("`pipe graph {}` shows what needs what", quote_path(&self.pipeline.path));
            return Err(Diagnostic::new("empty-part", message).help(help).into());
        }
        self.pipeline.restrict_to(&wanted);
        Ok(())
    }

    /// Positions of the stages with these names; the name of a stage with a matrix is that of all its instances.
    ///
    /// # Errors
    /// All names that no stage has.
    pub(super) fn find_stages(&self, names: &[String]) -> Result<BTreeSet<usize>, CliError> {
        let found: Vec<Vec<usize>> = names.iter().map(|name| self.called(name)).collect();
        let without_stage = names.iter().zip(&found).filter(|(_, stages)| stages.is_empty());
        let unknown: Vec<Diagnostic> = without_stage.map(|(name, _)| self.unknown_stage(name)).collect();
        if unknown.is_empty() {
            Ok(found.into_iter().flatten().collect())
        } else {
            Err(Diagnostics::new(unknown, Vec::new()).into())
        }
    }

    /// Position of the stage called `name`.
    ///
    /// # Errors
    /// No stage is called so, or several instances of one are.
    pub(super) fn find_stage(&self, name: &str) -> Result<usize, CliError> {
        match self.called(name).as_slice() {
            [] => Err(self.unknown_stage(name).into()),
            [one] => Ok(*one),
            several => {
                let instances = several.iter().map(|&stage| self.pipeline.stages[stage].name.as_str());
                Err(several_instances(name, instances).into())
            }
        }
    }

    /// The stage of this name, or all its instances.
    fn called(&self, name: &str) -> Vec<usize> {
        let stages = self.pipeline.stages.iter().enumerate();
        stages.filter(|(_, stage)| stage.name == name || stage.declared_name() == name).map(|(idx, _)| idx).collect()
    }

    /// Whether a stage, or all instances of one, are called so.
    pub(super) fn has_stage(&self, name: &str) -> bool {
        self.pipeline.stages.iter().any(|stage| stage.name == name || stage.declared_name() == name)
    }

    fn unknown_stage(&self, name: &str) -> Diagnostic {
        let stages = &self.pipeline.stages;
        // Of instances, what is nearest among all, but no list of all.
        let names: Vec<&str> = stages.iter().flat_map(|stage| [stage.name.as_str(), stage.declared_name()]).collect();
        let mut declared: Vec<&str> = stages.iter().map(StageSpec::declared_name).collect();
        declared.dedup();
        let help = nearest(name, &names)
            .map_or_else(|| help_for(name, &declared, "stages"), |near| format!("did you mean `{near}`?"));
        let message = format!("`{}` has no stage `{name}`", self.pipeline.path.display());
        Diagnostic::new("unknown-stage", message).help(help)
    }
}

/// That a command wants one stage, and a name stands for several.
pub(super) fn several_instances<'n>(name: &str, instances: impl Iterator<Item = &'n str>) -> Diagnostic {
    let instances: Vec<String> = instances.map(|instance| format!("`{instance}`")).collect();
    let shown = instances.iter().take(N_INSTANCES_NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = match instances.len().saturating_sub(N_INSTANCES_NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let message = format!("`{name}` stands for {} stages, one for each combination of its matrix", instances.len());
    Diagnostic::new("several-instances", message).help(format!("name one: {shown}{more}"))
}
