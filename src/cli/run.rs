//! `pipe run FILE`: plans, runs what must run, and says what came of it.
//!
//! A run with nothing to do takes the same way, and starts no stage's thread, no bar and no signal handler on it.

use std::collections::BTreeMap;

use pipe_contract::Source;

use super::arguments::{NumericsChoice, RunArguments};
use super::failure::CliError;
use super::screen::Screen;
use super::session::{Loaded, Request, Session};
use super::{memory_limit, room, time_limit, watch};
use crate::error::chain;
use crate::events::{self, Event, EventBus, Recorder, Sink};
use crate::execute::{Limits, RunEnd, TimeLimit, Usage, execute, read_history};
use crate::exit_code;
use crate::history::History;
use crate::lockfile::LockFile;
use crate::plan::Plan;
use crate::report::json::JsonLines;
use crate::report::shell::{self, quote};
use crate::report::summary::{Summary, SummaryContext};
use crate::schedule::Outcome;
use crate::spec::Pipeline;

pub(super) fn run(session: &mut Session<'_>, arguments: &RunArguments) -> Result<u8, CliError> {
    let means = Means::read(session, arguments)?;
    if arguments.watch {
        return watch::watch(session, arguments, &means);
    }
    let (request, loaded) = load(session, arguments)?;
    run_loaded(session, arguments, &means, &request, loaded)
}

/// What a run may take, from the command line.
pub(super) struct Means {
    n_threads: usize,
    memory_bytes: Option<u64>,
    time_limit: Option<TimeLimit>,
}

impl Means {
    fn read(session: &Session<'_>, arguments: &RunArguments) -> Result<Means, CliError> {
        Ok(Means {
            n_threads: session.n_threads(arguments.threads.as_deref())?,
            memory_bytes: arguments.memory.as_deref().map(memory_limit::read).transpose()?,
            time_limit: arguments.time_limit.as_ref().map(|text| time_limit::read(text, session.begin)).transpose()?,
        })
    }
}

/// Reads the pipeline and chooses its stages.
pub(super) fn load(session: &Session<'_>, arguments: &RunArguments) -> Result<(Request, Loaded), CliError> {
    let request = Request::new(&arguments.file, &arguments.overlay);
    let mut loaded = session.load(&request, arguments.numerics)?;
    loaded.select(&arguments.until, &arguments.from)?;
    loaded.forced = loaded.find_stages(&arguments.force)?;
    Ok((request, loaded))
}

/// Runs what was loaded.
pub(super) fn run_loaded(
    session: &mut Session<'_>,
    arguments: &RunArguments,
    means: &Means,
    request: &Request,
    mut loaded: Loaded,
) -> Result<u8, CliError> {
    let begin = session.begin;
    let Means { n_threads, memory_bytes, ref time_limit } = *means;
    let (slots, ledger) = session.machine(n_threads, memory_bytes);
    let time_limit = time_limit.clone();
    let current_dir = session.io.current_dir.clone();
    if arguments.locked {
        loaded.lock_down(arguments.numerics, request, &current_dir)?;
    }
    let plan = loaded.plan(&current_dir)?;
    let history = match plan.is_all_reuse() {
        true => History::default(),
        false => read_history(&loaded.planner(&current_dir), &plan)?,
    };
    if !plan.is_all_reuse() && !arguments.no_space_check {
        room::check(session, &loaded.planner(&current_dir), &plan, &history)?;
    }
    let run_id = events::new_run_id();
    let run_dir = loaded.store.run_dir(&run_id);
    let mut recorder = Recorder::new(run_dir);
    let mut summary = Summary::default();
    let has_lines = !arguments.json && !plan.is_all_reuse();
    let (err_style, columns) = (session.err_style, session.io.err_columns);
    let mut screen = match has_lines {
        true => Screen::new(&mut *session.io.err, err_style, session.io.is_err_terminal, columns),
        false => Screen::Dark,
    };
    let mut json = arguments.json.then(|| JsonLines::new(&mut *session.io.out));
    let mut sinks: Vec<&mut dyn Sink> = vec![&mut recorder, &mut summary, &mut screen];
    sinks.extend(json.as_mut().map(|sink| sink as &mut dyn Sink));
    let mut bus = EventBus::new(begin, sinks);

    announce(&mut bus, &loaded, &plan, request, &run_id, n_threads);
    if !plan.is_all_reuse() {
        (session.io.catch_signals)(&session.io.cancel);
    }
    let limits = Limits {
        cancel: &session.io.cancel,
        time_limit,
        memory_bytes,
        keeps_going: arguments.keep_going,
        spot: None,
        ledger,
        history: &history,
    };
    let end = execute(loaded.planner(&current_dir), &plan, slots, limits, &mut bus)?;
    if !plan.is_all_reuse() {
        // What cannot be looked at now is looked at by the next opening.
        let _ = loaded.store.recover();
    }
    let is_interrupted = session.io.cancel.is_cancelled();
    if !arguments.locked
        && let Some(line) = update_lock(&mut loaded.lock, &loaded.pipeline, &end)
    {
        bus.emit(&Event::Warning { stage: None, line });
    }
    let usage = Usage::now();
    bus.emit(&Event::RunFinished {
        duration_ms: bus.elapsed().as_millis() as u64,
        is_interrupted,
        peak_memory_bytes: usage.map(|usage| usage.peak_memory_bytes),
        cpu_ms: usage.map(|usage| usage.cpu_ms),
    });
    drop(bus);

    let context = SummaryContext {
        store: session.store_as_given.clone(),
        run_dir: session.store_as_given.join("runs").join(&run_id),
        resume_command: resume_command(session, arguments, request),
        report_command: format!("pipe report{}", session.store_option()),
        columns,
    };
    let mut text =
        if arguments.json { summary.render_failures(&context, err_style) } else { summary.render(&context, err_style) };
    if let Some(error) = recorder.into_error() {
        text.push_str(&format!("{}: this run is not recorded: {}\n", err_style.yellow("warning"), chain(&error)));
    }
    // The run is over and its artifacts are safe: a closed stderr changes nothing about that.
    let _ = session.io.err.write_all(text.as_bytes());
    let code = exit_code_of(&end, is_interrupted);
    if !arguments.watch {
        // The process ends: to give the memory of 10,000 stages back piece by piece would take a tenth of a run with nothing to do. The
        // store is not among it, as others see that it is let go.
        std::mem::forget((loaded.pipeline, loaded.lock, loaded.ahead, plan, end, summary));
    }
    Ok(code)
}

fn exit_code_of(end: &RunEnd, is_interrupted: bool) -> u8 {
    if is_interrupted {
        exit_code::INTERRUPTED
    } else if end.has_bug {
        exit_code::BUG
    } else if end.count(Outcome::Failed) > end.n_drifted || end.has_unplaced {
        exit_code::STAGE_FAILED
    } else if end.n_drifted > 0 {
        exit_code::LOCK_DRIFT
    } else {
        exit_code::OK
    }
}

fn announce(bus: &mut EventBus<'_>, loaded: &Loaded, plan: &Plan, request: &Request, run_id: &str, n_threads: usize) {
    let pipeline = &loaded.pipeline;
    bus.emit(&Event::RunStarted {
        format_version: events::FORMAT_VERSION,
        run_id: run_id.to_string(),
        pipeline: pipeline.name.clone(),
        request: request.record(&pipeline.path),
        n_threads,
        stages: pipeline.stages.iter().map(|stage| stage.name.clone()).collect(),
    });
    for (position, (stage, planned)) in pipeline.stages.iter().zip(&plan.stages).enumerate() {
        bus.emit(&Event::StagePlanned {
            stage: stage.name.clone(),
            kind: stage.kind.name().to_string(),
            verdict: planned.verdict.name().to_string(),
            reason: planned.verdict.explain(pipeline),
            spec: Some(events::StageRecord::new(pipeline, position)),
        });
    }
    if loaded.lock.is_foreign() {
        let line =
            format!("`{}` is of another version of pipe: it is neither used nor changed", loaded.lock.path().display());
        bus.emit(&Event::Warning { stage: None, line });
    }
}

/// Records resolutions always, outputs when every stage of the file has some. Returns what to warn about.
fn update_lock(lock: &mut LockFile, pipeline: &Pipeline, end: &RunEnd) -> Option<String> {
    for (request, id) in &end.resolutions {
        lock.resolve(request, id);
    }
    for (stage, manifest) in pipeline.stages.iter().zip(&end.manifests) {
        // From an earlier run, where the lock file was not kept.
        if let Some(id) = manifest.as_ref().and_then(|manifest| manifest.resolved.as_ref())
            && let Ok(Source::Remote { request }) = stage.stage.source(&pipeline.base_dir)
        {
            lock.resolve(&request, id);
        }
    }
    let manifests = end.manifests.iter().map(Option::as_ref).collect::<Option<Vec<_>>>();
    if let Some(manifests) = manifests.filter(|_| !pipeline.is_part) {
        let digests = |manifest: &pipe_cache::Manifest| {
            manifest.outputs.iter().map(|(port, artifact)| (port.clone(), artifact.digest.clone())).collect()
        };
        let outputs: BTreeMap<_, _> =
            manifests.iter().map(|manifest| (manifest.fingerprint.clone(), digests(manifest))).collect();
        lock.set_outputs(outputs);
    }
    let error = lock.save().err()?;
    Some(format!("the lock file is not up to date: {}", chain(&error)))
}

/// What to type to go on after a failure.
fn resume_command(session: &Session<'_>, arguments: &RunArguments, request: &Request) -> String {
    let mut words =
        vec![format!("{}{}", shell::run_command(&request.record(&request.file_as_given)), session.store_option())];
    let mut option = |name: &str, value: String| words.extend([name.to_string(), value]);
    if let Some(threads) = &arguments.threads {
        option("--threads", quote(threads));
    }
    match arguments.numerics {
        Some(NumericsChoice::Exact) => option("--numerics", "exact".into()),
        Some(NumericsChoice::Any) => option("--numerics", "any".into()),
        None => {}
    }
    if let Some(time_limit) = &arguments.time_limit {
        option("--time-limit", quote(time_limit));
    }
    for stage in &arguments.force {
        option("--force", quote(stage));
    }
    for stage in &arguments.until {
        option("--until", quote(stage));
    }
    for stage in &arguments.from {
        option("--from", quote(stage));
    }
    if arguments.keep_going {
        words.push("--keep-going".into());
    }
    if arguments.locked {
        words.push("--locked".into());
    }
    words.join(" ")
}
