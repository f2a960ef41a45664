//! Learning rates of optimizer steps, as `transformers.optimization` has them (`get_scheduler`).
//!
//! With t the number of optimizer steps already taken, W those of the warmup and T all of them: `t / W` in the warmup, so
//! the first optimizer step of a warmup runs at learning rate 0, then what the type says.

/// The shapes a learning rate can follow after its warmup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleType {
    /// `(T - t) / (T - W)`.
    Linear,
    /// `(1 + cos(pi (t - W) / (T - W))) / 2`.
    Cosine,
    /// 1, and no warmup.
    Constant,
    /// 1.
    ConstantWithWarmup,
}

impl ScheduleType {
    /// Every type with Hugging Face's name for it (`lr_scheduler_type`).
    pub const NAMES: [(&'static str, ScheduleType); 4] = [
        ("linear", ScheduleType::Linear),
        ("cosine", ScheduleType::Cosine),
        ("constant", ScheduleType::Constant),
        ("constant_with_warmup", ScheduleType::ConstantWithWarmup),
    ];
}

/// A learning rate for each optimizer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// What it follows.
    pub schedule_type: ScheduleType,
    /// The largest learning rate.
    pub peak: f64,
    /// W.
    pub n_warmup_steps: u64,
    /// T.
    pub n_steps: u64,
}

impl Schedule {
    /// The learning rate after `n_done` optimizer steps: `n_done` = 0 for the first.
    pub fn learning_rate(&self, n_done: u64) -> f64 {
        let (t, warmup, all) = (n_done as f64, self.n_warmup_steps as f64, self.n_steps as f64);
        if self.schedule_type == ScheduleType::Constant {
            return self.peak;
        }
        if n_done < self.n_warmup_steps {
            return self.peak * (t / warmup.max(1.0));
        }
        let factor = match self.schedule_type {
            ScheduleType::Linear => ((all - t) / (all - warmup).max(1.0)).max(0.0),
            ScheduleType::Cosine => {
                let progress = (t - warmup) / (all - warmup).max(1.0);
                (0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress))).max(0.0)
            }
            ScheduleType::Constant | ScheduleType::ConstantWithWarmup => 1.0,
        };
        self.peak * factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_starts_at_zero_and_ends_above_it() {
        let schedule = Schedule { schedule_type: ScheduleType::Linear, peak: 2e-4, n_warmup_steps: 2, n_steps: 20 };
        let rates: Vec<f64> = (0..20).map(|t| schedule.learning_rate(t)).collect();
        assert_eq!(&rates[..3], &[0.0, 1e-4, 2e-4]);
        assert!((rates[19] - 2e-4 / 18.0).abs() < 1e-18, "{}", rates[19]);
    }

    #[test]
    fn cosine_passes_through_half_and_constant_has_no_warmup() {
        let cosine = Schedule { schedule_type: ScheduleType::Cosine, peak: 1.0, n_warmup_steps: 0, n_steps: 10 };
        assert!((cosine.learning_rate(5) - 0.5).abs() < 1e-12);
        let constant = Schedule { schedule_type: ScheduleType::Constant, ..cosine };
        assert_eq!(Schedule { n_warmup_steps: 4, ..constant }.learning_rate(0), 1.0);
    }
}
