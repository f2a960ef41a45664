//! How far a stage is, how fast, and how long it will still take.

use std::time::Duration;

use pipe_contract::Unit;

use super::numbers;

/// The progress of one stage.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The first report of this phase: the rate is counted from there.
    first: (Duration, u64),
    last: (Duration, u64),
    total: u64,
    unit: Unit,
}

impl Progress {
    /// Takes a report. A new total, another unit or a smaller number begins a new phase.
    pub fn update(previous: Option<Progress>, at: Duration, done: u64, total: u64, unit: Unit) -> Progress {
        match previous {
            Some(p) if p.unit == unit && p.total == total && p.last.1 <= done => Progress { last: (at, done), ..p },
            _ => Progress { first: (at, done), last: (at, done), total, unit },
        }
    }

    /// Units finished.
    pub fn done(&self) -> u64 {
        self.last.1
    }

    /// When this phase began.
    pub fn began_at(&self) -> Duration {
        self.first.0
    }

    /// Units in all, 0 if unknown.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// `1,200 of 2,000 rows, 60 %, 400 rows/s, 2.0 s left`.
    pub fn describe(&self) -> String {
        let parts: Vec<String> = std::iter::once(self.amount()).chain(self.speed()).collect();
        parts.join(", ")
    }

    /// The same with what matters most first, for a line that is cut, and the newest fact in it:
    /// `60 %, 400 rows/s, 2.0 s left, loss 2.31, 1,200 of 2,000 rows`.
    pub fn describe_live(&self, fact: Option<&str>) -> String {
        let fact = fact.map(str::to_string);
        let parts: Vec<String> = self.speed().into_iter().chain(fact).chain([self.amount()]).collect();
        parts.join(", ")
    }

    fn amount(&self) -> String {
        let (done, total) = (self.done(), self.total);
        match (self.unit, total) {
            (unit, 0) => amount(done, unit),
            (Unit::Bytes, _) => format!("{} of {}", numbers::bytes(done), numbers::bytes(total)),
            (unit, _) => format!("{} of {} {}", numbers::count(done), numbers::count(total), word(unit)),
        }
    }

    /// Percent, rate and time left, as far as they are known.
    fn speed(&self) -> Vec<String> {
        let (done, total) = (self.done(), self.total);
        let mut parts = Vec::new();
        if let Some(percent) = (done.min(total) * 100).checked_div(total) {
            parts.push(format!("{percent} %"));
        }
        if let Some(rate) = self.rate() {
            parts.push(super::progress::rate(rate, self.unit));
            if total > done {
                parts
                    .push(format!("{} left", numbers::duration(Duration::from_secs_f64((total - done) as f64 / rate))));
            }
        }
        parts
    }

    /// Units per second; `None` before anything can be said.
    fn rate(&self) -> Option<f64> {
        let seconds = self.last.0.checked_sub(self.first.0)?.as_secs_f64();
        let done = self.last.1 - self.first.1;
        (seconds >= 0.2 && done > 0).then(|| done as f64 / seconds)
    }
}

/// `1,200 rows`, `4.1 MB`.
pub(super) fn amount(number: u64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => numbers::bytes(number),
        unit => format!("{} {}", numbers::count(number), word(unit)),
    }
}

/// `400 rows/s`, `4.1 MB/s`.
pub(super) fn rate(rate: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => format!("{}/s", numbers::bytes(rate as u64)),
        unit if rate >= 10.0 => format!("{} {}/s", numbers::count(rate.round() as u64), word(unit)),
        unit => format!("{rate:.2} {}/s", word(unit)),
    }
}

/// The unit, of many.
pub(super) fn word(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "bytes",
        Unit::Rows => "rows",
        Unit::Tokens => "tokens",
        Unit::OptimizerSteps => "optimizer steps",
        Unit::Files => "files",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(reports: &[(u64, u64)], total: u64, unit: Unit) -> String {
        let update =
            |p, &(ms, done): &(u64, u64)| Some(Progress::update(p, Duration::from_millis(ms), done, total, unit));
        reports.iter().fold(None, update).expect("at least one report").describe()
    }

    #[test]
    fn it_says_how_far_how_fast_and_how_long() {
        assert_eq!(
            after(&[(0, 0), (3000, 1200)], 2000, Unit::Rows),
            "1,200 of 2,000 rows, 60 %, 400 rows/s, 2.0 s left"
        );
        assert_eq!(
            after(&[(0, 0), (2000, 1)], 4, Unit::OptimizerSteps),
            "1 of 4 optimizer steps, 25 %, 0.50 optimizer steps/s, 6.0 s left"
        );
        assert_eq!(after(&[(0, 0), (1000, 4_100_000)], 0, Unit::Bytes), "4.1 MB, 4.1 MB/s");
        assert_eq!(after(&[(0, 5)], 10, Unit::Files), "5 of 10 files, 50 %");
    }

    #[test]
    fn a_new_phase_starts_its_own_rate() {
        assert_eq!(after(&[(0, 0), (1000, 10), (2000, 0)], 10, Unit::Rows), "0 of 10 rows, 0 %");
    }
}
