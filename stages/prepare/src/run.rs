//! Running `prepare`: open, first pass, count and check, second pass.

use pipe_contract::{ArtifactKind, Context, OutputPort, Problem, Stage, StageError};
use pipe_records::thousands;

use crate::assertions;
use crate::error::PrepareError;
use crate::first_pass::{self, Found};
use crate::inputs::Inputs;
use crate::second_pass::{self, Counts};
use crate::settings::{Deduplicate, Settings};

/// The rows to train on.
pub const TRAIN: OutputPort = OutputPort { name: "train", kind: ArtifactKind::Rows };
/// The rows to test with.
pub const TEST: OutputPort = OutputPort { name: "test", kind: ArtifactKind::Rows };

/// The stage with its settings.
pub struct Prepare {
    /// As read.
    pub settings: Settings,
}

impl Stage for Prepare {
    fn outputs(&self) -> Vec<OutputPort> {
        if self.settings.has_test() { vec![TRAIN, TEST] } else { vec![TRAIN] }
    }

    fn check_inputs(&self, connected: &[&str]) -> Vec<Problem> {
        self.settings.check_inputs(connected)
    }

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError> {
        Ok(prepare(&self.settings, ctx)?)
    }
}

fn prepare(settings: &Settings, ctx: &Context<'_>) -> Result<(), PrepareError> {
    let inputs = Inputs::open(ctx, settings)?;
    report_bad_rows(&inputs, ctx);
    assertions::check_columns(&settings.assertions.columns, inputs.schema())?;
    let found = first_pass::run(&inputs, settings, ctx)?;
    let counts = Counts::new(&inputs, &found, settings);
    report(&inputs, &found, &counts, settings, ctx);
    let n_in = inputs.n_rows + inputs.bad_rows.n_rows;
    assertions::check_counts(&settings.assertions, n_in, n_in - found.kept.len(), counts.n_out)?;
    if counts.n_out == 0 {
        return Err(PrepareError::NoRows { n_rows: n_in, how: how_dropped(&inputs, &found, settings) });
    }
    if counts.n_test >= counts.n_out {
        return Err(PrepareError::TestTooLarge { n_test: counts.n_test, n_rows: counts.n_out });
    }
    second_pass::run(&inputs, &found, &counts, settings, ctx)
}

fn report_bad_rows(inputs: &Inputs, ctx: &Context<'_>) {
    let bad = &inputs.bad_rows;
    if bad.n_rows == 0 {
        return;
    }
    bad.first.iter().for_each(|line| ctx.log(format!("dropped: {line}")));
    let n_more = bad.n_rows - bad.first.len() as u64;
    if n_more > 0 {
        ctx.log(format!("and {} more rows that cannot be read (`bad_rows_listed`)", thousands(n_more)));
    }
    let n_rows = thousands(bad.n_rows);
    ctx.warn(format!("{n_rows} of {} rows cannot be read and were dropped", thousands(inputs.n_rows + bad.n_rows)));
}

fn report(inputs: &Inputs, found: &Found, counts: &Counts, settings: &Settings, ctx: &Context<'_>) {
    ctx.fact("rows in", thousands(inputs.n_rows + inputs.bad_rows.n_rows));
    if settings.drops_bad_rows {
        ctx.fact("bad rows", thousands(inputs.bad_rows.n_rows));
    }
    for (condition, n_rows) in settings.conditions.iter().zip(&found.n_filtered) {
        ctx.fact(format!("filtered by {}", condition.name()), thousands(*n_rows));
    }
    if settings.deduplicate != Deduplicate::None {
        ctx.fact("duplicates", thousands(found.n_duplicates));
    }
    if counts.kept.len() > 1 {
        for (input, n_rows) in inputs.inputs.iter().zip(&counts.kept) {
            ctx.fact(format!("rows of {}", input.port), thousands(*n_rows));
        }
    }
    if !settings.weights.is_empty() {
        ctx.fact("rows of the mix", thousands(counts.n_mixed));
    }
    ctx.fact("train", thousands(counts.n_out - counts.n_test.min(counts.n_out)));
    if settings.has_test() {
        ctx.fact("test", thousands(counts.n_test));
    }
}

fn how_dropped(inputs: &Inputs, found: &Found, settings: &Settings) -> String {
    let n_filtered: u64 = found.n_filtered.iter().sum();
    let mut parts = vec![
        format!("{} cannot be read", thousands(inputs.bad_rows.n_rows)),
        format!("{} were filtered", thousands(n_filtered)),
        format!("{} are duplicates", thousands(found.n_duplicates)),
    ];
    if settings.skip > 0 {
        parts.push(format!("{} are skipped", thousands(settings.skip)));
    }
    parts.join(", ")
}
