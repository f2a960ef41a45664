//! `pipe bench`: how fast this machine is, and training on it.
//!
//! What is measured, and how, is the stage kind's own code; here are flags, a pool of threads, and the text.

use super::arguments::BenchArguments;
use super::failure::CliError;
use super::session::Session;

#[cfg(feature = "stages")]
pub(super) fn bench(session: &mut Session<'_>, arguments: &BenchArguments) -> Result<u8, CliError> {
    use super::arguments::bench::BenchCommand;
    match &arguments.command {
        BenchCommand::Peak(arguments) => measure::peak(session, arguments),
        BenchCommand::Gemm(arguments) => measure::gemm(session, arguments),
        BenchCommand::Train(arguments) => measure::train(session, arguments),
    }
}

#[cfg(not(feature = "stages"))]
pub(super) fn bench(_: &mut Session<'_>, _: &BenchArguments) -> Result<u8, CliError> {
    let message = "this build of pipe has no stage kind that trains: there is nothing to measure";
    Err(crate::diagnostic::Diagnostic::new("no-stages", message).help("build it with its default features").into())
}

#[cfg(feature = "stages")]
mod measure {
    use std::panic::resume_unwind;
    use std::sync::mpsc;

    use pipe_contract::StageError;
    use rayon::ThreadPool;
    use serde::Serialize;

    use super::super::arguments::bench::{BenchGemmArguments, BenchOptions, BenchPeakArguments, BenchTrainArguments};
    use super::super::memory_limit;
    use super::{CliError, Session};
    use crate::diagnostic::Diagnostic;
    use crate::exit_code;
    use crate::registry::bench::{
        GemmReport, Lora, Method, Peak, PreparedTrain, Shape, Source, TrainReport, TrainRequest,
    };

    /// Tokens of a pack where nothing says another number: the usual `max_length` of fine-tuning.
    const LENGTH: usize = 1024;

    pub(super) fn peak(session: &mut Session<'_>, arguments: &BenchPeakArguments) -> Result<u8, CliError> {
        let peak = pool(session, &arguments.options)?.install(Peak::measure);
        write(session, &arguments.options, &peak, Peak::text)
    }

    pub(super) fn gemm(session: &mut Session<'_>, arguments: &BenchGemmArguments) -> Result<u8, CliError> {
        let folder = session.io.current_dir.join(&arguments.model);
        let measure = || GemmReport::measure(&folder, arguments.length as usize);
        let report = pool(session, &arguments.options)?.install(measure).map_err(|error| CliError::before(&error))?;
        write(session, &arguments.options, &report, GemmReport::text)
    }

    pub(super) fn train(session: &mut Session<'_>, arguments: &BenchTrainArguments) -> Result<u8, CliError> {
        let pool = pool(session, &arguments.options)?;
        let request = request(session, arguments)?;
        (session.io.catch_signals)(&session.io.cancel);
        match run(session, &pool, request) {
            Ok(report) => write(session, &arguments.options, &report, TrainReport::text),
            Err(Failure::During(error)) if error.is_cancelled => Ok(exit_code::INTERRUPTED),
            Err(Failure::Before(error)) => Err(CliError::before(&error)),
            Err(Failure::During(error)) => Err(CliError::during(&error)),
        }
    }

    /// When it failed says whose mistake it is.
    enum Failure {
        Before(StageError),
        During(StageError),
    }

    /// Trains in the pool and says how it goes here: standard error belongs to this thread.
    fn run(session: &mut Session<'_>, pool: &ThreadPool, request: TrainRequest) -> Result<TrainReport, Failure> {
        let cancel = session.io.cancel.clone();
        let (sender, lines) = mpsc::channel::<String>();
        let work = move || {
            let mut tell = |line: &str| drop(sender.send(line.to_string()));
            let prepared = PreparedTrain::new(request, &mut tell).map_err(Failure::Before)?;
            prepared.run(&cancel, &mut tell).map_err(Failure::During)
        };
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| pool.install(work));
            for line in lines {
                // Nobody reads it any more: the result is what counts.
                let _ = writeln!(session.io.err, "{line}");
            }
            worker.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    fn request(session: &Session<'_>, arguments: &BenchTrainArguments) -> Result<TrainRequest, CliError> {
        let here = &session.io.current_dir;
        let method = if arguments.full {
            Method::Full
        } else {
            Method::Lora(Lora {
                adapter: arguments.adapter.as_ref().map(|folder| here.join(folder)),
                lora_rank: arguments.lora_r,
                lora_dropout: arguments.lora_dropout,
                target_modules: arguments.target_modules.clone(),
            })
        };
        let source = match &arguments.ids {
            Some(path) => Source::File { path: here.join(path), length: arguments.length },
            None => {
                let length = arguments.length.unwrap_or(LENGTH);
                let document_length = arguments.documents.unwrap_or(length);
                Source::Random(Shape { length, document_length, supervised: arguments.supervised.unwrap_or(1.0) })
            }
        };
        Ok(TrainRequest {
            model: here.join(&arguments.model),
            method,
            source,
            global_batch: arguments.batch,
            n_steps: usize::from(arguments.steps),
            seed: arguments.seed,
            engine: arguments.engine.clone(),
            memory_bytes: arguments.memory.as_deref().map(memory_limit::read).transpose()?,
        })
    }

    fn pool(session: &Session<'_>, options: &BenchOptions) -> Result<ThreadPool, CliError> {
        let n_threads = session.n_threads(options.threads.as_deref())?;
        rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().map_err(|error| {
            let message = format!("failed to start {n_threads} threads: {error}");
            Diagnostic::new("threads", message).help("fewer threads may be allowed here: try `--threads 1`").into()
        })
    }

    fn write<T: Serialize>(
        session: &mut Session<'_>,
        options: &BenchOptions,
        result: &T,
        text: fn(&T) -> String,
    ) -> Result<u8, CliError> {
        let text = if options.json {
            serde_json::to_string(result).expect("numbers and names become JSON") + "\n"
        } else {
            text(result)
        };
        session.write(&text)?;
        Ok(exit_code::OK)
    }
}
