//! Examples to scores: read, leave out, tokenize, score each side, write.

use pipe_contract::{ArtifactKind, Context, Cpu, OutputPort, Stage, StageError, Unit};
use pipe_llm::{Adapter, CandleEngine, ModelConfig, device, load};
use pipe_records::examples::form;
use pipe_records::{Compared, Unseen, thousands, unseen};
use pipe_tokenizer::{ModelTokenizer, Rules, Supervised};

use crate::answers::{Answer, Answering};
use crate::error::EvaluateError;
use crate::items::{Item, ItemRules, items};
use crate::loss::{loss_and_perplexity, loss_sums, n_supervised};
use crate::scores::{self, ExampleLine, ExampleScore, FORMAT_VERSION, Score, Scores};
use crate::settings::{MAX_LENGTH_DEFAULT, Metric, Settings};

/// `uses: evaluate` with its settings.
pub struct Evaluate {
    /// As resolved.
    pub settings: Settings,
}

impl Stage for Evaluate {
    fn outputs(&self) -> Vec<OutputPort> {
        vec![OutputPort { name: "scores", kind: ArtifactKind::Scores }]
    }

    fn compute_class(&self) -> Option<String> {
        Some(device::compute_class(self.settings.device))
    }

    fn cpu(&self) -> Cpu {
        Cpu::All
    }

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError> {
        let model = ctx.input("model")?;
        let (tokenizer, config) = (ModelTokenizer::load(model)?, load::model_config(model)?);
        let max_length = self.check_model(&tokenizer)?;
        let found = self.examples(ctx)?;
        let items = self.items(ctx, &found, &tokenizer, &config, max_length)?;
        let adapter = ctx.inputs.get("adapter");
        let (engine, adapter) =
            load::engine_and_adapter(model, adapter, &device::open(self.settings.device, &ctx.gpus)?)?;
        let mut scoring = Scoring::new(self, ctx, &engine, &tokenizer, &items, adapter.is_some());
        let base = scoring.side(None)?;
        let adapted = adapter.as_ref().map(|adapter| scoring.side(Some(adapter))).transpose()?;
        let n_too_long = scoring.n_too_long();
        let scores = Scores {
            format_version: FORMAT_VERSION,
            n_examples: items.len() as u64,
            n_left_out: found.n_left_out,
            n_truncated: items.iter().filter(|item| item.n_cut_tokens > 0).count() as u64,
            n_tokens: n_tokens(&items) as u64,
            base: base.score(&items),
            adapter: adapted.as_ref().map(|side| side.score(&items)),
        };
        scores::write(&ctx.output_dir("scores")?, &scores, &lines(&items, &base, adapted.as_ref()))?;
        self.report(ctx, &scores, &items, max_length, n_too_long);
        Ok(())
    }
}

impl Evaluate {
    /// Checks what does not need weights. Returns the most tokens of a document: the default gives way to the model.
    fn check_model(&self, tokenizer: &ModelTokenizer) -> Result<usize, EvaluateError> {
        let (max_length, vocab_size) = (self.settings.max_length, tokenizer.vocab_size());
        let max_positions = tokenizer.max_positions().unwrap_or(usize::MAX);
        if max_length > max_positions && max_length != MAX_LENGTH_DEFAULT {
            return Err(EvaluateError::LongerThanPositions { max_length, max_positions });
        }
        if vocab_size > i32::MAX as usize {
            return Err(EvaluateError::VocabularyTooLarge { vocab_size });
        }
        if self.settings.append_eos && tokenizer.eos_id().is_none() {
            return Err(EvaluateError::NoEos);
        }
        if self.settings.wants(Metric::ExactMatch) && tokenizer.end_ids().is_empty() {
            return Err(EvaluateError::NoEnd);
        }
        Ok(max_length.min(max_positions))
    }

    fn examples(&self, ctx: &Context<'_>) -> Result<Unseen, StageError> {
        let (examples, training) = (ctx.input("examples")?, ctx.inputs.get("training"));
        let found = unseen(examples, training, Compared::Text, self.settings.max_examples)?;
        if found.n_left_out > 0 {
            ctx.log(format!("{} of {} examples are in training", thousands(found.n_left_out), thousands(found.n_rows)));
        }
        match (found.examples.is_empty(), found.n_rows) {
            (false, _) => Ok(found),
            (true, 0) => Err(EvaluateError::NoExamples.into()),
            (true, n_rows) => Err(EvaluateError::AllInTraining { n_rows }.into()),
        }
    }

    fn items(
        &self,
        ctx: &Context<'_>,
        found: &Unseen,
        tokenizer: &ModelTokenizer,
        config: &ModelConfig,
        max_length: usize,
    ) -> Result<Vec<Item>, StageError> {
        let (form, settings) = (form(ctx.input("examples")?)?, &self.settings);
        if settings.assistant_only_loss && !form.has_turns {
            return Err(EvaluateError::NoTurns.into());
        }
        let is_completion_only = settings.completion_only_loss.unwrap_or(form.is_completion_only);
        let supervised = Supervised::of(is_completion_only, settings.assistant_only_loss);
        let rules = ItemRules {
            tokenizer,
            config,
            document: Rules { eos_id: tokenizer.eos_id(), append_eos: self.settings.append_eos, supervised },
            max_length,
            wants_questions: self.settings.wants(Metric::ExactMatch),
        };
        let items = items(&found.examples, &rules)?;
        if self.settings.wants(Metric::Loss) && n_tokens(&items) == 0 {
            return Err(EvaluateError::NothingToScore { n_examples: items.len() }.into());
        }
        Ok(items)
    }

    fn report(&self, ctx: &Context<'_>, scores: &Scores, items: &[Item], max_length: usize, n_too_long: usize) {
        for (name, value) in scores.facts() {
            ctx.fact(name, value);
        }
        ctx.fact("examples", thousands(scores.n_examples));
        if scores.n_left_out > 0 {
            ctx.fact("left out", thousands(scores.n_left_out));
        }
        ctx.fact("supervised tokens", thousands(scores.n_tokens));
        let warn = |n: usize, of_them: &str| {
            if n > 0 {
                ctx.warn(format!("{} of {} examples {of_them}", thousands(n as u64), thousands(scores.n_examples)));
            }
        };
        if self.settings.wants(Metric::Loss) {
            warn(scores.n_truncated as usize, &format!("are scored up to their first {max_length} tokens only"));
            warn(items.iter().filter(|item| item.sequence.is_none()).count(), "have no supervised token and no loss");
        }
        let is_longer = |item: &&Item| {
            item.question.as_ref().is_some_and(|question| question.n_expected_tokens > self.settings.max_new_tokens)
        };
        let n_longer = items.iter().filter(is_longer).count();
        warn(n_longer, "cannot match: their completion and its end need more than `max_new_tokens`");
        warn(n_too_long, "cannot match: their prompt fills the model's positions");
    }
}

fn n_tokens(items: &[Item]) -> usize {
    items.iter().map(n_supervised).sum()
}

/// One side: the base alone, or with the adapter. Per item, in order; empty where it was not asked for.
struct Side {
    loss_sums: Vec<Option<f64>>,
    answers: Vec<Answer>,
}

impl Side {
    fn score(&self, items: &[Item]) -> Score {
        let loss = (!self.loss_sums.is_empty()).then(|| loss_and_perplexity(&self.loss_sums, n_tokens(items)));
        let n_matches = self.answers.iter().filter(|answer| answer.is_match).count();
        Score {
            loss: loss.map(|(loss, _)| loss),
            perplexity: loss.map(|(_, perplexity)| perplexity),
            exact_match: (!self.answers.is_empty()).then(|| n_matches as f64 / items.len() as f64),
        }
    }

    fn of_item(&self, item_idx: usize, n_tokens: usize) -> ExampleScore {
        let answer = self.answers.get(item_idx);
        ExampleScore {
            loss: self.loss_sums.get(item_idx).copied().flatten().map(|sum| sum / n_tokens as f64),
            answer: answer.map(|answer| answer.text.clone()),
            is_match: answer.map(|answer| answer.is_match),
        }
    }
}

fn lines(items: &[Item], base: &Side, adapter: Option<&Side>) -> Vec<ExampleLine> {
    let line = |(item_idx, item): (usize, &Item)| {
        let n_tokens = n_supervised(item);
        ExampleLine {
            row: item.row,
            n_tokens: n_tokens as u64,
            prompt: item.question.as_ref().map(|question| question.prompt.clone()),
            expected: item.question.as_ref().map(|question| question.expected.clone()),
            base: base.of_item(item_idx, n_tokens),
            adapter: adapter.map(|side| side.of_item(item_idx, n_tokens)),
        }
    };
    items.iter().enumerate().map(line).collect()
}

/// Scores one side after the other, and tells how far it is: in tokens, an answer counted with all it may take.
struct Scoring<'s, 'c> {
    settings: &'s Settings,
    ctx: &'s Context<'c>,
    items: &'s [Item],
    answering: Answering<'s>,
    n_done: usize,
    n_all: usize,
}

impl<'s, 'c> Scoring<'s, 'c> {
    fn new(
        stage: &'s Evaluate,
        ctx: &'s Context<'c>,
        engine: &'s CandleEngine,
        tokenizer: &'s ModelTokenizer,
        items: &'s [Item],
        has_adapter: bool,
    ) -> Self {
        let settings = &stage.settings;
        let (max_new_tokens, batch_size) = (settings.max_new_tokens, settings.batch_size);
        // Of all questions, so that an answer does not depend on those that run with it.
        let turn_ends = items.iter().filter_map(|item| item.question.as_ref()?.turn_end_id);
        let end_ids = tokenizer.end_ids().iter().copied().chain(turn_ends).collect();
        let answering = Answering { engine, tokenizer, end_ids, max_new_tokens, batch_size };
        let mut scoring = Scoring { settings, ctx, items, answering, n_done: 0, n_all: 0 };
        scoring.n_all = (scoring.n_loss_tokens() + scoring.n_answer_tokens()) * (1 + usize::from(has_adapter));
        scoring
    }

    fn n_loss_tokens(&self) -> usize {
        match self.settings.wants(Metric::Loss) {
            true => self.items.iter().filter_map(|item| item.sequence.as_ref()).map(|sequence| sequence.len()).sum(),
            false => 0,
        }
    }

    fn n_answer_tokens(&self) -> usize {
        let questions = self.items.iter().filter_map(|item| item.question.as_ref());
        questions.filter(|question| self.answering.fits(question)).count() * self.settings.max_new_tokens
    }

    fn n_too_long(&self) -> usize {
        let questions = self.items.iter().filter_map(|item| item.question.as_ref());
        questions.filter(|question| !self.answering.fits(question)).count()
    }

    fn side(&mut self, adapter: Option<&Adapter>) -> Result<Side, StageError> {
        let (ctx, n_all) = (self.ctx, self.n_all as u64);
        let mut side = Side { loss_sums: Vec::new(), answers: Vec::new() };
        if self.settings.wants(Metric::Loss) {
            let mut n_done = self.n_done;
            side.loss_sums = loss_sums(self.answering.engine, adapter, self.items, |n_tokens| {
                ctx.check_cancelled()?;
                ctx.progress(n_done as u64, n_all, Unit::Tokens);
                n_done += n_tokens;
                Ok(())
            })?;
            self.n_done += self.n_loss_tokens();
        }
        if self.settings.wants(Metric::ExactMatch) {
            let (n_before, max_new_tokens) = (self.n_done, self.settings.max_new_tokens);
            side.answers = self.answering.answers(adapter, self.items, |n_answered, n_new| {
                ctx.check_cancelled()?;
                let n_here = n_answered * max_new_tokens + n_new;
                ctx.progress((n_before + n_here) as u64, n_all, Unit::Tokens);
                Ok(())
            })?;
            self.n_done += self.n_answer_tokens();
        }
        ctx.progress(self.n_done as u64, n_all, Unit::Tokens);
        Ok(side)
    }
}
