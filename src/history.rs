//! How long stages took in earlier runs, and what they gave last: weights for the scheduler, and what a plan can predict.
//!
//! ```text
//! runs/, newest first --stage_finished: ran, duration--> up to 5 durations per stage --median--> 21.4 s
//!                                      \-fingerprint---> that of the newest
//! ```
//!
//! A stage is the same where its pipeline file, its name and its stage kind are; its settings may have changed, so a duration is a guess and
//! nothing that decides what runs. What ran counts, what was reused, failed or was interrupted does not.
//!
//! It deliberately keeps no index of its own: it reads lines of events, from the newest run on, and stops when it has enough or has
//! read [`BYTES_MAX`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use pipe_cache::{CacheError, Store};

use crate::events::{Event, from_json_line};
use crate::schedule::Outcome;

/// Durations of one stage that are enough for a median: one odd run, such as the first on a cold disk, does not matter.
const ENOUGH: usize = 5;

/// What is read of events at most: some 20 ms, or a week of training with a line per second.
pub const BYTES_MAX: u64 = 32 << 20;

/// Durations by stage, newest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    durations_ms: BTreeMap<String, Vec<u64>>,
    /// Of the newest run in which it ran.
    fingerprints: BTreeMap<String, String>,
}

impl History {
    /// Of the stages `wanted`, by name and kind, in the runs of the pipeline file `file` (absolute).
    ///
    /// # Errors
    /// When the folder of the runs cannot be read. What is wrong with a single run leaves that run out.
    pub fn read(
        store: &Store,
        file: &Path,
        wanted: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, CacheError> {
        let mut open: BTreeMap<String, String> = wanted.into_iter().collect();
        let mut history = History::default();
        let mut bytes_left = BYTES_MAX;
        if open.is_empty() {
            return Ok(history);
        }
        for run_id in store.list_runs()?.iter().rev() {
            history.add_run(&store.run_dir(run_id), file, &open, &mut bytes_left);
            open.retain(|stage, _| history.durations_ms.get(stage).is_none_or(|durations| durations.len() < ENOUGH));
            if open.is_empty() || bytes_left == 0 {
                break;
            }
        }
        Ok(history)
    }

    fn add_run(&mut self, run_dir: &Path, file: &Path, wanted: &BTreeMap<String, String>, bytes_left: &mut u64) {
        let Ok(events) = File::open(run_dir.join("events.jsonl")) else { return };
        let mut events = BufReader::new(events);
        let mut line = String::new();
        let mut kinds: BTreeMap<String, String> = BTreeMap::new();
        let mut is_first = true;
        loop {
            line.clear();
            // Until the end, a line that is no text, or a disk that refuses.
            let Ok(n_bytes @ 1..) = events.read_line(&mut line) else { return };
            *bytes_left = bytes_left.saturating_sub(n_bytes as u64);
            if *bytes_left == 0 {
                return;
            }
            // Most lines say how far something is: not worth reading as JSON.
            let is_of_interest =
                is_first || line.contains(r#""event":"stage_finished""#) || line.contains(r#""event":"stage_planned""#);
            match is_of_interest.then(|| from_json_line(&line)).flatten() {
                Some((_, Event::RunStarted { request, .. })) if is_first && request.file == file => {}
                _ if is_first => return,
                Some((_, Event::StagePlanned { stage, kind, .. })) => drop(kinds.insert(stage, kind)),
                Some((_, Event::StageFinished { stage, outcome: Outcome::Ran, duration_ms, fingerprint, .. }))
                    if wanted.get(&stage).is_some_and(|kind| kinds.get(&stage) == Some(kind)) =>
                {
                    if let Some(fingerprint) = fingerprint {
                        self.fingerprints.entry(stage.clone()).or_insert(fingerprint);
                    }
                    self.durations_ms.entry(stage).or_default().push(duration_ms);
                }
                _ => {}
            }
            is_first = false;
        }
    }

    /// The median of what a stage took; `None` where it never ran.
    pub fn duration(&self, stage: &str) -> Option<Duration> {
        let mut durations_ms = self.durations_ms.get(stage)?.clone();
        durations_ms.sort_unstable();
        Some(Duration::from_millis(durations_ms[(durations_ms.len() - 1) / 2]))
    }

    /// What the outputs of its newest execution are stored under; `None` where it never ran.
    pub fn fingerprint(&self, stage: &str) -> Option<&str> {
        self.fingerprints.get(stage).map(String::as_str)
    }
}

/// Weights of stages in milliseconds. One whose duration is not known weighs as much as those that are known do on average; where none is,
/// each weighs the same.
pub fn weights(durations: &[Option<Duration>]) -> Vec<u64> {
    let known: Vec<u64> = durations.iter().flatten().map(|duration| duration.as_millis() as u64).collect();
    let mean = known.iter().sum::<u64>().checked_div(known.len() as u64).unwrap_or(1).max(1);
    durations.iter().map(|duration| duration.map_or(mean, |duration| duration.as_millis() as u64)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::events::{RunRequest, to_json_line};

    const FILE: &str = "/project/p.yaml";

    /// A store with these runs, oldest first: file, kind of `text`, outcome, duration.
    fn store(runs: &[(&str, &str, Outcome, u64)]) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&folder.path().join("store")).expect("made");
        for (position, &(file, kind, outcome, duration_ms)) in runs.iter().enumerate() {
            let run_id = format!("20260101-0000{position:02}-0000");
            let request = RunRequest { file: file.into(), ..RunRequest::default() };
            let stages = vec!["text".to_string()];
            let (pipeline, stage, kind) = ("p".into(), "text".to_string(), kind.to_string());
            let events = [
                Event::RunStarted {
                    format_version: 1,
                    run_id: run_id.clone(),
                    pipeline,
                    request,
                    n_threads: 1,
                    stages,
                },
                Event::StagePlanned {
                    stage: stage.clone(),
                    kind,
                    verdict: "run".into(),
                    reason: String::new(),
                    spec: None,
                },
                Event::StageFinished {
                    stage,
                    outcome,
                    duration_ms,
                    failure: None,
                    checkpoint: None,
                    fingerprint: None,
                },
            ];
            let lines: Vec<String> = events.iter().map(|event| to_json_line(Duration::ZERO, event)).collect();
            let dir = store.run_dir(&run_id);
            fs::create_dir_all(&dir).expect("a folder can be made");
            fs::write(dir.join("events.jsonl"), lines.join("\n")).expect("a file can be written");
        }
        (folder, store)
    }

    fn duration_of_text(runs: &[(&str, &str, Outcome, u64)]) -> Option<u64> {
        let (_folder, store) = store(runs);
        let wanted = [("text".to_string(), "format".to_string()), ("other".to_string(), "format".to_string())];
        let history = History::read(&store, Path::new(FILE), wanted).expect("readable");
        assert_eq!(history.duration("other"), None);
        history.duration("text").map(|duration| duration.as_millis() as u64)
    }

    #[test]
    fn it_is_the_median_of_the_newest_runs_in_which_the_stage_ran() {
        let ran = |duration_ms| (FILE, "format", Outcome::Ran, duration_ms);
        assert_eq!(duration_of_text(&[]), None);
        assert_eq!(duration_of_text(&[ran(70)]), Some(70));
        assert_eq!(duration_of_text(&[ran(900), ran(70), ran(80)]), Some(80));
        // The first two are too old.
        let many = [ran(1), ran(1), ran(50), ran(60), ran(70), ran(80), ran(90)];
        assert_eq!(duration_of_text(&many), Some(70));
    }

    #[test]
    fn other_files_kinds_and_outcomes_do_not_count() {
        let runs = [
            (FILE, "format", Outcome::Ran, 70),
            ("/project/q.yaml", "format", Outcome::Ran, 1),
            (FILE, "analyze", Outcome::Ran, 2),
            (FILE, "format", Outcome::Reused, 3),
            (FILE, "format", Outcome::Failed, 4),
            (FILE, "format", Outcome::Cancelled, 5),
        ];
        assert_eq!(duration_of_text(&runs), Some(70));
    }

    #[test]
    fn an_unknown_duration_weighs_as_the_known_ones_on_average() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(weights(&[None, None]), [1, 1]);
        assert_eq!(weights(&[seconds(1), None, seconds(5)]), [1_000, 3_000, 5_000]);
        assert_eq!(weights(&[seconds(0), None]), [0, 1]);
    }
}
