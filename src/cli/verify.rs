//! `pipe verify [FILE]`: runs stages again in a store of their own and says which give the same bytes, or what differs first.

use std::fs;

use super::arguments::{NumericsChoice, VerifyArguments};
use super::failure::CliError;
use super::screen::Screen;
use super::session::{Loaded, Session};
use super::{memory_limit, time_limit};
use crate::diagnostic::Diagnostic;
use crate::events::{Event, EventBus, Sink};
use crate::execute::{Limits, RunEnd, Spot, execute};
use crate::exit_code;
use crate::history::History;
use crate::plan::Planner;
use crate::report::verification;
use crate::schedule::Outcome;
use crate::verify::{Ends, Verified, Verifier, VerifyResult, Workshop};

pub(super) fn verify(session: &mut Session<'_>, arguments: &VerifyArguments) -> Result<u8, CliError> {
    let n_threads = session.n_threads(arguments.threads.as_deref())?;
    let memory_bytes = arguments.memory.as_deref().map(memory_limit::read).transpose()?;
    let (slots, ledger) = session.machine(n_threads, memory_bytes);
    let time_limit = arguments.time_limit.as_ref().map(|text| time_limit::read(text, session.begin)).transpose()?;
    let request = session.request_or_last(arguments.file.as_deref(), &arguments.overlay)?;
    let mut loaded = session.load(&request, Some(NumericsChoice::Exact))?;
    choose_stages(&mut loaded, &arguments.stage)?;
    let current_dir = session.io.current_dir.clone();
    let plan = loaded.plan(&current_dir)?;
    if !Verifier::has_witness(&loaded.pipeline, &plan, &loaded.lock, &loaded.forced) {
        return Err(nothing_to_compare_with(&loaded));
    }
    let workshop = Workshop::new(&loaded.store, &loaded.pipeline, &plan, &loaded.lock)?;
    let planner = Planner { store: &workshop.store, ..loaded.planner(&current_dir) };
    let plan = planner.plan()?;

    let spot = find_spot(arguments, &loaded)?;
    let seed = spot.map(|spot| spot.seed);
    let mut ends = Ends::default();
    let is_live = session.io.is_err_terminal;
    let mut screen = Screen::new(&mut *session.io.err, session.err_style, is_live, session.io.err_columns);
    let mut bus = EventBus::new(session.begin, vec![&mut ends as &mut dyn Sink, &mut screen]);
    bus.emit(&Event::RunStarted {
        format_version: crate::events::FORMAT_VERSION,
        run_id: String::new(),
        pipeline: loaded.pipeline.name.clone(),
        request: request.record(&loaded.pipeline.path),
        n_threads,
        stages: loaded.pipeline.stages.iter().map(|stage| stage.name.clone()).collect(),
    });
    (session.io.catch_signals)(&session.io.cancel);
    // The store that stages run in knows no earlier run.
    let history = History::default();
    let cancel = &session.io.cancel;
    let limits = Limits { cancel, time_limit, memory_bytes, keeps_going: false, spot, ledger, history: &history };
    let end = execute(planner, &plan, slots, limits, &mut bus)?;
    let is_interrupted = session.io.cancel.is_cancelled();
    let duration_ms = bus.elapsed().as_millis() as u64;
    bus.emit(&Event::RunFinished { duration_ms, is_interrupted, peak_memory_bytes: None, cpu_ms: None });
    drop(bus);

    let verifier = Verifier { registry: session.registry, planner, store: &loaded.store };
    let verified = verifier.judge(&end, &ends)?;
    let name = &loaded.pipeline.name;
    if let Some(path) = &arguments.junit {
        let path = session.io.current_dir.join(path);
        fs::write(&path, verification::to_junit(name, &verified, seed)).map_err(|error| {
            Diagnostic::new("unwritable-report", format!("failed to write `{}`: {error}", path.display()))
        })?;
    }
    let text = if arguments.json {
        format!("{}\n", verification::to_json(name, &verified, seed))
    } else {
        verification::render(&verified, seed, session.out_style)
    };
    session.write(&text)?;
    Ok(exit_code_of(&verified, &end, is_interrupted))
}

/// The stages that were asked for, or all; with what they wait for, and nothing else. Nothing is copied to where `to:` says.
fn choose_stages(loaded: &mut Loaded, names: &[String]) -> Result<(), CliError> {
    let asked = loaded.find_stages(names)?;
    if !asked.is_empty() {
        loaded.pipeline.restrict_to(&asked);
    }
    loaded.forced =
        if asked.is_empty() { (0..loaded.pipeline.stages.len()).collect() } else { loaded.find_stages(names)? };
    loaded.pipeline.stages.iter_mut().for_each(|stage| stage.to = None);
    Ok(())
}

/// What `--spot` asks for. Without `--seed` the last run decides: the same until there is another one, so that what was found can be
/// looked at again.
fn find_spot<'a>(arguments: &VerifyArguments, loaded: &'a Loaded) -> Result<Option<Spot<'a>>, CliError> {
    let Some(n_parts) = arguments.spot else { return Ok(None) };
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => {
            let run_id = loaded.store.latest_run()?.unwrap_or_default();
            let [a, b, c, ..] = *blake3::hash(run_id.as_bytes()).as_bytes();
            u64::from_be_bytes([0, 0, 0, 0, 0, a, b, c])
        }
    };
    Ok(Some(Spot { n_parts: usize::try_from(n_parts).unwrap_or(usize::MAX), seed, store: &loaded.store }))
}

fn nothing_to_compare_with(loaded: &Loaded) -> CliError {
    let message = format!(
        "there is nothing to compare with: neither the store nor `{}` has outputs of these stages",
        loaded.lock.path().display()
    );
    let help = format!("make them first: pipe run {}", loaded.pipeline.path.display());
    CliError::Drift(Diagnostic::new("nothing-to-compare", message).help(help).into())
}

fn exit_code_of(verified: &[Verified], end: &RunEnd, is_interrupted: bool) -> u8 {
    let has = |is_one: fn(&VerifyResult) -> bool| verified.iter().any(|stage| is_one(&stage.result));
    if is_interrupted {
        exit_code::INTERRUPTED
    } else if end.has_bug {
        exit_code::BUG
    } else if end.count(Outcome::Failed) > 0 {
        exit_code::STAGE_FAILED
    } else if has(|result| {
        matches!(result, VerifyResult::Differs { .. } | VerifyResult::SpotDiffers { .. } | VerifyResult::OtherInputs)
    }) {
        exit_code::VERIFY_DIFFERS
    } else if has(|result| matches!(result, VerifyResult::Unknown)) {
        exit_code::LOCK_DRIFT
    } else {
        exit_code::OK
    }
}
