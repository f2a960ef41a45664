//! A run as a trace for Perfetto and chrome://tracing: what ran beside what, and what the process used meanwhile.
//!
//! ```text
//! run     | reused: rows    warning                             failed: adapter
//! slot 1  |      [ text ][ adapter                             ]
//! slot 2  |      [ lengths     ]
//! memory  |      .-----''''''''''''''-----------------------------
//! ```
//!
//! The form is the Trace Event Format: an object with `traceEvents`, times in microseconds. A stage is on the first slot that is free, so slots are as
//! many as stages ran at a time. A stage whose end nobody recorded reaches to the last event.
//!
//! It deliberately shows nothing that the events do not say: a trace can be made of any run that is remembered.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::events::{Event, Sink};
use crate::schedule::Outcome;

/// All is in one process.
const PID: u64 = 1;
/// The track of what is about the run.
const RUN_TRACK: u64 = 0;

/// A fold over the events of a run.
#[derive(Debug, Default)]
pub struct Trace {
    name: String,
    run_id: String,
    /// By slot: the stage that is on it, and since when.
    slots: Vec<Option<Running>>,
    kinds: BTreeMap<String, String>,
    facts: BTreeMap<String, serde_json::Map<String, Value>>,
    /// With the time in microseconds that they are sorted by.
    events: Vec<(u64, Value)>,
    /// Time, and time on all processors, in milliseconds.
    last_usage: Option<(u64, u64)>,
    last: Duration,
}

#[derive(Clone, Debug)]
struct Running {
    stage: String,
    since: Duration,
    n_threads: usize,
    gpus: Vec<usize>,
}

impl Sink for Trace {
    fn on(&mut self, at: Duration, event: &Event) {
        self.last = self.last.max(at);
        match event {
            Event::RunStarted { run_id, pipeline, .. } => {
                self.name.clone_from(pipeline);
                self.run_id.clone_from(run_id);
            }
            Event::StagePlanned { stage, kind, .. } => drop(self.kinds.insert(stage.clone(), kind.clone())),
            Event::StageStarted { stage, n_threads, gpus, .. } => {
                self.begin(Running { stage: stage.clone(), since: at, n_threads: *n_threads, gpus: gpus.clone() });
            }
            Event::Progress { stage, done, unit, .. } => {
                self.count(at, format!("{stage}: progress"), json!({ format!("{unit:?}").to_lowercase(): done }));
            }
            Event::Warning { stage, line } => {
                self.mark(at, stage.as_deref(), "warning".into(), json!({ "warning": line }));
            }
            Event::Fact { stage, name, value } => {
                self.facts.entry(stage.clone()).or_default().insert(name.clone(), value.clone().into());
            }
            Event::Usage { memory_bytes, cpu_ms } => self.usage(at, *memory_bytes, *cpu_ms),
            Event::StageFinished { stage, outcome, failure, checkpoint, .. } => {
                if let Some(failure) = failure {
                    let name = format!("{}: {stage}", word(*outcome));
                    let args = json!({ "error": failure.slug, "message": failure.message });
                    self.mark(at, Some(stage), name, args);
                }
                if let Some(checkpoint) = checkpoint {
                    self.mark(at, Some(stage), format!("checkpoint: {stage}"), json!({ "folder": checkpoint }));
                }
                self.end(at, stage, *outcome);
            }
            // A try is a span of its own.
            Event::StageRetried { stage, n_failures, failure, .. } => {
                let args = json!({ "error": failure.slug, "message": failure.message });
                self.mark(at, Some(stage), format!("failed try {n_failures}: {stage}"), args);
                self.end(at, stage, Outcome::Failed);
            }
            Event::Diverged { stage, fingerprint } => {
                self.mark(at, None, format!("diverged: {stage}"), json!({ "fingerprint": fingerprint }));
            }
            Event::Placed { stage, to, n_written, .. } => {
                self.mark(at, None, format!("placed: {stage}"), json!({ "to": to, "n_written": n_written }));
            }
            Event::Log { .. } | Event::RunFinished { .. } => {}
        }
    }
}

impl Trace {
    fn begin(&mut self, running: Running) {
        match self.slots.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(running),
            None => self.slots.push(Some(running)),
        }
    }

    /// The slot of a stage that runs.
    fn slot_of(&self, stage: &str) -> Option<usize> {
        self.slots.iter().position(|slot| slot.as_ref().is_some_and(|running| running.stage == stage))
    }

    fn end(&mut self, at: Duration, stage: &str, outcome: Outcome) {
        match self.slot_of(stage) {
            Some(slot) => {
                let running = self.slots[slot].take().expect("a stage was found on it");
                let event = self.span(slot, &running, at, &word(outcome));
                self.events.push((micros(running.since), event));
            }
            None if outcome == Outcome::Reused => self.mark(at, None, format!("reused: {stage}"), json!({})),
            // It never ran, and said why.
            None => {}
        }
    }

    fn span(&self, slot: usize, running: &Running, end: Duration, outcome: &str) -> Value {
        let mut args = self.facts.get(&running.stage).cloned().unwrap_or_default();
        args.insert("outcome".into(), outcome.into());
        args.insert("threads".into(), running.n_threads.into());
        if !running.gpus.is_empty() {
            args.insert("gpus".into(), running.gpus.clone().into());
        }
        json!({
            "ph": "X",
            "name": running.stage,
            "cat": self.kinds.get(&running.stage).map_or("stage", String::as_str),
            "pid": PID,
            "tid": track(slot),
            "ts": micros(running.since),
            "dur": micros(end.saturating_sub(running.since)),
            "args": args,
        })
    }

    /// Something that happened at one moment, on the slot of its stage.
    fn mark(&mut self, at: Duration, stage: Option<&str>, name: String, args: Value) {
        let tid = stage.and_then(|stage| self.slot_of(stage)).map_or(RUN_TRACK, track);
        let event =
            json!({ "ph": "i", "s": "t", "name": name, "pid": PID, "tid": tid, "ts": micros(at), "args": args });
        self.events.push((micros(at), event));
    }

    fn count(&mut self, at: Duration, name: String, args: Value) {
        let event = json!({ "ph": "C", "name": name, "pid": PID, "tid": RUN_TRACK, "ts": micros(at), "args": args });
        self.events.push((micros(at), event));
    }

    fn usage(&mut self, at: Duration, memory_bytes: u64, cpu_ms: u64) {
        self.count(at, "memory".into(), json!({ "bytes": memory_bytes }));
        let now_ms = at.as_millis() as u64;
        if let Some((before_ms, cpu_before_ms)) = self.last_usage.replace((now_ms, cpu_ms))
            && now_ms > before_ms
        {
            let busy = cpu_ms.saturating_sub(cpu_before_ms) as f64 / (now_ms - before_ms) as f64;
            self.count(at, "processors".into(), json!({ "busy": busy }));
        }
    }

    /// The object that a file holds.
    pub fn to_json(&self) -> Value {
        let mut events = self.events.clone();
        for (slot, running) in self.slots.iter().enumerate() {
            if let Some(running) = running {
                events.push((micros(running.since), self.span(slot, running, self.last, "no end")));
            }
        }
        // Stable: what happened at one moment stays in the order in which it was told.
        events.sort_by_key(|(at, _)| *at);
        let events = events.into_iter().map(|(_, event)| event);
        json!({
            "displayTimeUnit": "ms",
            "otherData": { "run_id": self.run_id, "pipeline": self.name },
            "traceEvents": self.names().into_iter().chain(events).collect::<Vec<_>>(),
        })
    }

    /// What tracks are called, and their order.
    fn names(&self) -> Vec<Value> {
        let name = |what: &str, tid: u64, args: Value| json!({ "ph": "M", "name": what, "pid": PID, "tid": tid, "ts": 0, "args": args });
        let process = format!("pipe run {} ({})", self.name, self.run_id);
        let mut names = vec![name("process_name", RUN_TRACK, json!({ "name": process }))];
        let slots = (0..self.slots.len()).map(|slot| (track(slot), format!("slot {}", slot + 1)));
        for (tid, text) in std::iter::once((RUN_TRACK, "run".to_string())).chain(slots) {
            names.push(name("thread_name", tid, json!({ "name": text })));
            names.push(name("thread_sort_index", tid, json!({ "sort_index": tid })));
        }
        names
    }
}

/// `ran`, `failed`, as in events.
fn word(outcome: Outcome) -> String {
    serde_json::to_value(outcome).ok().and_then(|word| word.as_str().map(str::to_string)).unwrap_or_default()
}

fn track(slot: usize) -> u64 {
    slot as u64 + 1
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Failure;

    fn started(stage: &str) -> Event {
        Event::StageStarted { stage: stage.into(), n_threads: 1, n_gpus: 0, gpus: vec![] }
    }

    fn finished(stage: &str, outcome: Outcome) -> Event {
        let (stage, failure, checkpoint) = (stage.to_string(), None, None);
        Event::StageFinished { stage, outcome, duration_ms: 0, failure, checkpoint, fingerprint: None }
    }

    fn trace(events: &[(u64, Event)]) -> Vec<Value> {
        let mut trace = Trace::default();
        events.iter().for_each(|(ms, event)| trace.on(Duration::from_millis(*ms), event));
        trace.to_json()["traceEvents"].as_array().expect("a list").clone()
    }

    fn spans(events: &[Value]) -> Vec<(String, u64, u64, u64)> {
        let number = |event: &Value, key: &str| event[key].as_u64().expect("a whole number");
        let spans = events.iter().filter(|event| event["ph"] == "X");
        spans
            .map(|event| {
                let name = event["name"].as_str().expect("a name").to_string();
                (name, number(event, "tid"), number(event, "ts"), number(event, "dur"))
            })
            .collect()
    }

    #[test]
    fn a_stage_takes_the_first_free_slot() {
        let events = trace(&[
            (0, finished("rows", Outcome::Reused)),
            (1, started("a")),
            (2, started("b")),
            (5, finished("a", Outcome::Ran)),
            (6, started("c")),
            (9, finished("b", Outcome::Failed)),
            (12, Event::Warning { stage: Some("c".into()), line: "slow".into() }),
        ]);
        let expected =
            [("a".to_string(), 1, 1_000, 4_000), ("b".into(), 2, 2_000, 7_000), ("c".into(), 1, 6_000, 6_000)];
        assert_eq!(spans(&events), expected, "what has no end reaches to the last event");
        let warning = events.iter().find(|event| event["name"] == "warning").expect("it is there");
        assert_eq!((warning["tid"].as_u64(), warning["ts"].as_u64()), (Some(1), Some(12_000)));
        let reused = events.iter().find(|event| event["name"] == "reused: rows").expect("it is there");
        assert_eq!((&reused["ph"], &reused["tid"]), (&json!("i"), &json!(0)));
    }

    #[test]
    fn each_try_is_a_span() {
        let failure = Failure { slug: "gone".into(), message: "it is gone".into(), help: None, is_bug: false };
        let retried =
            Event::StageRetried { stage: "a".into(), n_failures: 1, n_tries_max: 2, delay_ms: 1_000, failure };
        let events = trace(&[(0, started("a")), (2, retried), (3, started("b")), (4, started("a"))]);
        let expected = [("a".to_string(), 1, 0, 2_000), ("b".into(), 1, 3_000, 1_000), ("a".into(), 2, 4_000, 0)];
        assert_eq!(spans(&events), expected);
        assert!(events.iter().any(|event| event["name"] == "failed try 1: a" && event["args"]["error"] == "gone"));
    }

    #[test]
    fn processors_are_what_was_used_since_the_last_time() {
        let usage = |cpu_ms| Event::Usage { memory_bytes: 7, cpu_ms };
        let events = trace(&[(1_000, usage(500)), (2_000, usage(2_000)), (2_000, usage(2_000))]);
        let busy: Vec<&Value> =
            events.iter().filter(|event| event["name"] == "processors").map(|event| &event["args"]["busy"]).collect();
        assert_eq!(busy, [&json!(1.5)]);
    }
}
