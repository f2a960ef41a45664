//! What was measured: as JSON for programs, as text for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pipe_llm::trainer::StepReport;
use pipe_llm::work::Work;
use pipe_records::thousands;
use serde::Serialize;

use super::peak::Peak;

/// Of the JSON.
pub const FORMAT_VERSION: u32 = 1;

/// One optimizer step that counts.
pub(super) struct Measured {
    pub(super) seconds: f64,
    pub(super) parts_seconds: BTreeMap<&'static str, f64>,
    pub(super) n_tokens: usize,
    pub(super) n_supervised: usize,
    pub(super) work: Work,
}

/// The result of `pipe bench train`. Every rate and time is the median over the optimizer steps that count.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainReport {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Tokens read, per second.
    pub tokens_per_second: f64,
    /// Tokens predicted, per second.
    pub supervised_tokens_per_second: f64,
    /// Wall time.
    pub seconds_per_optimizer_step: f64,
    /// The process's largest resident set (VmHWM), pages of mapped weights counted; `null` where the system does not tell.
    pub peak_rss_mib: Option<f64>,
    /// The machine's f32 peak on as many threads.
    pub peak_gflops: f64,
    /// Operations that the mathematics asks for ([`pipe_llm::work`]) by the time they took, as a share of the peak.
    pub share_of_peak: f64,
    /// Seconds of an optimizer step by part, forward and backward together.
    pub parts_seconds: BTreeMap<&'static str, f64>,
    /// Mean loss of the first optimizer step, in nats: before anything is learned.
    pub loss: f64,
    /// L2 norm of its gradients, before clipping.
    pub grad_norm: f64,
    /// Threads that trained.
    pub threads: usize,
    /// `native` or `candle`.
    pub engine: &'static str,
    /// Its compute class.
    pub compute_class: String,
    /// Not in the JSON: what the text says besides.
    #[serde(skip)]
    details: Details,
}

#[derive(Clone, Debug, PartialEq)]
struct Details {
    n_steps: usize,
    seconds_min: f64,
    seconds_max: f64,
    n_tokens: usize,
    /// Per token.
    work: Work,
}

impl TrainReport {
    pub(super) fn new(
        first: &StepReport,
        measured: &[Measured],
        peak_rss_mib: Option<f64>,
        peak: Peak,
        compute_class: String,
    ) -> Self {
        let of = |value: fn(&Measured) -> f64| median(measured.iter().map(value).collect());
        let names = measured.iter().flat_map(|step| step.parts_seconds.keys().copied());
        let part = |name: &'static str| {
            (name, median(measured.iter().map(|s| s.parts_seconds.get(name).copied().unwrap_or(0.0)).collect()))
        };
        let seconds = || measured.iter().map(|step| step.seconds);
        let n_tokens: usize = measured.iter().map(|step| step.n_tokens).sum();
        let per_token =
            |flops: fn(&Work) -> f64| measured.iter().map(|s| flops(&s.work)).sum::<f64>() / n_tokens as f64;
        TrainReport {
            format_version: FORMAT_VERSION,
            tokens_per_second: of(|step| step.n_tokens as f64 / step.seconds),
            supervised_tokens_per_second: of(|step| step.n_supervised as f64 / step.seconds),
            seconds_per_optimizer_step: of(|step| step.seconds),
            peak_rss_mib,
            peak_gflops: peak.peak_gflops,
            share_of_peak: of(|step| step.work.total() / step.seconds) / (peak.peak_gflops * 1e9),
            parts_seconds: names.map(part).collect(),
            loss: first.loss,
            grad_norm: first.grad_norm,
            threads: peak.threads,
            engine: if compute_class.starts_with("candle-") { "candle" } else { "native" },
            compute_class,
            details: Details {
                n_steps: measured.len(),
                seconds_min: seconds().fold(f64::INFINITY, f64::min),
                seconds_max: seconds().fold(0.0, f64::max),
                n_tokens: n_tokens / measured.len(),
                work: Work {
                    matrices: per_token(|work| work.matrices),
                    head: per_token(|work| work.head),
                    attention: per_token(|work| work.attention),
                    adapter: per_token(|work| work.adapter),
                },
            },
        }
    }

    /// A few lines for people.
    pub fn text(&self) -> String {
        let Details { n_steps, seconds_min, seconds_max, n_tokens, work } = &self.details;
        let mut text = String::new();
        let mut line = |name: &str, value: String| writeln!(text, "{name:22} {value}").expect("to a String");
        line("engine", format!("{}, {}, {} threads", self.engine, self.compute_class, self.threads));
        line("tokens/s", format!("{:.1}, supervised {:.1}", self.tokens_per_second, self.supervised_tokens_per_second));
        line(
            "optimizer step",
            format!(
                "{:.3} s, median of {n_steps} ({seconds_min:.3} to {seconds_max:.3} s), {} tokens each",
                self.seconds_per_optimizer_step,
                thousands(*n_tokens as u64)
            ),
        );
        let mut parts: Vec<(&str, f64)> = self.parts_seconds.iter().map(|(name, seconds)| (*name, *seconds)).collect();
        parts.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (name, seconds) in parts {
            line(
                &format!("  {name}"),
                format!("{seconds:.3} s, {:.1} %", 100.0 * seconds / self.seconds_per_optimizer_step),
            );
        }
        line("first optimizer step", format!("loss {:.5}, gradient norm {:.5}", self.loss, self.grad_norm));
        if let Some(mib) = self.peak_rss_mib {
            line("peak memory", format!("{mib:.0} MiB, mapped weights counted"));
        }
        line("peak of the machine", format!("{:.1} GFLOP/s in f32", self.peak_gflops));
        line(
            "share of the peak",
            format!("{:.1} %: {:.1} MFLOP per token in all", 100.0 * self.share_of_peak, work.total() / 1e6),
        );
        for (name, flops, formula) in [
            ("matrices", work.matrices, "4 x elements, 6 where trained, 2 below what is trained"),
            ("head", work.head, "the same, of supervised tokens only"),
            ("attention", work.attention, "visible pairs, 2 products forward and 5 backward"),
            ("adapter", work.adapter, "6 x r x (in + out) of each adapted module"),
        ] {
            line(&format!("  {name}"), format!("{:.1} MFLOP per token: {formula}", flops / 1e6));
        }
        text
    }
}

/// The middle value, or the mean of the two.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(seconds: f64, n_tokens: usize) -> Measured {
        let work = Work { matrices: 3e9, head: 1e9, attention: 2e9, adapter: 0.5e9 };
        let parts_seconds = BTreeMap::from([("linear", 0.75 * seconds), ("other", 0.25 * seconds)]);
        Measured { seconds, parts_seconds, n_tokens, n_supervised: n_tokens / 2, work }
    }

    #[test]
    fn medians_over_the_optimizer_steps() {
        let first = StepReport { loss: 2.5, grad_norm: 0.5, learning_rate: 0.0, n_tokens: 8, n_supervised: 4 };
        let peak = Peak {
            format_version: FORMAT_VERSION,
            threads: 2,
            one_thread_gflops: 5.0,
            registers_gflops: 10.0,
            product_gflops: 13.0,
            peak_gflops: 13.0,
        };
        let steps = [measured(4.0, 100), measured(1.0, 100), measured(2.0, 100)];
        let report = TrainReport::new(&first, &steps, Some(64.0), peak, "candle-0.11.1/cpu-avx2".into());
        assert_eq!((report.tokens_per_second, report.supervised_tokens_per_second), (50.0, 25.0));
        assert_eq!((report.seconds_per_optimizer_step, report.parts_seconds["linear"]), (2.0, 1.5));
        // 6.5 GFLOP in 2 s are 3.25 GFLOP/s of 13.
        assert_eq!((report.share_of_peak, report.loss, report.engine), (0.25, 2.5, "candle"));
        let text = report.text();
        assert!(
            text.contains("65.0 MFLOP per token in all") && text.contains("2.000 s, median of 3 (1.000 to 4.000 s)"),
            "{text}"
        );
        assert_eq!([vec![3.0, 1.0], vec![5.0]].map(median), [2.0, 5.0]);
    }
}
