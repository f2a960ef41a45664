//! Prompts to samples: read, leave out, tokenize, generate for each side, write.

use std::collections::BTreeSet;
use std::ops::Range;

use pipe_contract::{ArtifactKind, Context, Cpu, OutputPort, Stage, StageError, Unit};
use pipe_llm::generate::{GenerationSettings, Prompt, generate};
use pipe_llm::{Adapter, CandleEngine, device, load};
use pipe_records::{Compared, Example, thousands, unseen};
use pipe_tokenizer::ModelTokenizer;

use crate::error::GenerateError;
use crate::samples::{self, SampleLine};
use crate::settings::Settings;

/// `uses: generate` with its settings.
pub struct Generate {
    /// As resolved.
    pub settings: Settings,
}

impl Stage for Generate {
    fn outputs(&self) -> Vec<OutputPort> {
        vec![OutputPort { name: "samples", kind: ArtifactKind::Samples }]
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
        let questions = self.questions(ctx, &tokenizer, config.max_positions)?;
        let device = device::open(self.settings.device, &ctx.gpus)?;
        let (engine, adapter) = load::engine_and_adapter(model, ctx.inputs.get("adapter"), &device)?;
        let n_sides = 1 + usize::from(adapter.is_some());
        let turn_ends = questions.iter().filter_map(|question| question.turn_end_id);
        let mut speaker = Speaker {
            settings: &self.settings,
            ctx,
            engine: &engine,
            tokenizer: &tokenizer,
            questions: &questions,
            end_ids: tokenizer
                .end_ids()
                .iter()
                .copied()
                .chain(turn_ends)
                .collect::<BTreeSet<u32>>()
                .into_iter()
                .collect(),
            n_done: 0,
            n_all: questions.len() * self.settings.n_samples * self.settings.max_new_tokens * n_sides,
            n_unended: 0,
        };
        let base = speaker.side(None)?;
        let adapted = adapter.as_ref().map(|adapter| speaker.side(Some(adapter))).transpose()?;
        let n_unended = speaker.n_unended;
        let mut adapted = adapted.map(Vec::into_iter);
        let lines: Vec<SampleLine> = questions
            .into_iter()
            .zip(base)
            .map(|(question, base)| SampleLine {
                row: question.row,
                prompt: question.prompt,
                expected: question.expected,
                base,
                adapter: adapted.as_mut().and_then(Iterator::next),
            })
            .collect();
        samples::write(&ctx.output_dir("samples")?, &lines)?;
        let n_samples = lines.len() * self.settings.n_samples * n_sides;
        ctx.fact("prompts", thousands(lines.len() as u64));
        ctx.fact("samples", thousands(n_samples as u64));
        if n_unended > 0 {
            let (n, n_all) = (thousands(n_unended as u64), thousands(n_samples as u64));
            ctx.log(format!("{n} of {n_all} samples end at `max_new_tokens` and not by themselves"));
        }
        Ok(())
    }
}

/// A prompt, ready to be given to the model.
struct Question {
    row: u64,
    ids: Vec<u32>,
    prompt: String,
    expected: String,
    /// With which the template ends the answer, where it does.
    turn_end_id: Option<u32>,
}

impl Generate {
    /// The prompts to show: those that training did not have, whatever their completion was there.
    fn questions(
        &self,
        ctx: &Context<'_>,
        tokenizer: &ModelTokenizer,
        max_positions: usize,
    ) -> Result<Vec<Question>, StageError> {
        let (prompts, training) = (ctx.input("prompts")?, ctx.inputs.get("training"));
        let found = unseen(prompts, training, Compared::Prompt, Some(self.settings.max_examples))?;
        if found.n_left_out > 0 {
            let (n, n_rows) = (thousands(found.n_left_out), thousands(found.n_rows));
            ctx.log(format!("the prompts of {n} of {n_rows} examples are in training"));
        }
        match (found.examples.is_empty(), found.n_rows) {
            (true, 0) => return Err(GenerateError::NoPrompts.into()),
            (true, n_rows) => return Err(GenerateError::AllInTraining { n_rows }.into()),
            (false, _) => {}
        }
        let question = |(row, example): &(u64, Example)| question(*row, example, tokenizer, max_positions);
        Ok(found.examples.iter().map(question).collect::<Result<_, _>>()?)
    }
}

fn question(
    row: u64,
    example: &Example,
    tokenizer: &ModelTokenizer,
    max_positions: usize,
) -> Result<Question, GenerateError> {
    let Range { start, end } = example.said();
    if example.part(0..start).trim().is_empty() {
        return Err(GenerateError::NoPrompt { row });
    }
    let prompt = tokenizer.prompt(example).map_err(|source| GenerateError::Row { row, source })?;
    let turn_end_id = tokenizer.turn_end_id(example).map_err(|source| GenerateError::Row { row, source })?;
    let n_tokens = prompt.ids.len();
    if n_tokens == 0 {
        return Err(GenerateError::NoPrompt { row });
    }
    if n_tokens >= max_positions {
        return Err(GenerateError::TooLong { row, n_tokens, max_positions });
    }
    Ok(Question {
        row,
        prompt: example.part(0..prompt.end).to_string(),
        expected: example.part(prompt.end..end).to_string(),
        ids: prompt.ids,
        turn_end_id,
    })
}

/// Lets one side after the other speak.
struct Speaker<'s, 'c> {
    settings: &'s Settings,
    ctx: &'s Context<'c>,
    engine: &'s CandleEngine,
    tokenizer: &'s ModelTokenizer,
    questions: &'s [Question],
    /// At which a sample ends: those of the model, and those with which the template ends a turn.
    end_ids: Vec<u32>,
    /// In tokens, a sample counted with all it may take.
    n_done: usize,
    n_all: usize,
    /// Samples that were cut.
    n_unended: usize,
}

impl Speaker<'_, '_> {
    /// The samples of every question, in order.
    fn side(&mut self, adapter: Option<&Adapter>) -> Result<Vec<Vec<String>>, StageError> {
        let n_samples = self.settings.n_samples;
        let places: Vec<(usize, usize)> =
            (0..self.questions.len()).flat_map(|q| (0..n_samples).map(move |sample| (q, sample))).collect();
        let mut texts = vec![Vec::with_capacity(n_samples); self.questions.len()];
        for batch in places.chunks(self.settings.batch_size) {
            let said = self.batch(adapter, batch)?;
            for ((question_idx, _), text) in batch.iter().zip(said) {
                texts[*question_idx].push(text);
            }
            self.n_done += batch.len() * self.settings.max_new_tokens;
            self.ctx.progress(self.n_done as u64, self.n_all as u64, Unit::Tokens);
        }
        Ok(texts)
    }

    /// `batch`: question and number of the sample. Both sides draw with the same random numbers.
    fn batch(&mut self, adapter: Option<&Adapter>, batch: &[(usize, usize)]) -> Result<Vec<String>, StageError> {
        let (ctx, settings) = (self.ctx, self.settings);
        let generation = GenerationSettings {
            max_new_tokens: settings.max_new_tokens,
            eos_ids: self.end_ids.clone(),
            repetition_penalty: settings.repetition_penalty,
            sampling: settings.sampling,
            seed: settings.seed,
        };
        let prompt = |(question_idx, sample_idx): &(usize, usize)| {
            let question = &self.questions[*question_idx];
            // Of the row and the sample alone, so that neither the batch nor the other prompts matter.
            Prompt { ids: question.ids.clone(), stream: question.row * N_SAMPLES_MAX + *sample_idx as u64 }
        };
        let prompts: Vec<Prompt> = batch.iter().map(prompt).collect();
        let mut failure = None;
        let is_done = |prompt_idx: usize, new_ids: &[u32]| {
            self.has_stopped(&prompts[prompt_idx].ids, new_ids).unwrap_or_else(|error| {
                failure = Some(error);
                true
            })
        };
        let check = |n_new: usize| {
            ctx.check_cancelled()?;
            ctx.progress((self.n_done + n_new) as u64, self.n_all as u64, Unit::Tokens);
            Ok(())
        };
        let new_ids = generate::<StageError>(self.engine, adapter, &prompts, &generation, is_done, check)?;
        if let Some(error) = failure {
            return Err(error);
        }
        self.n_unended += new_ids.iter().filter(|ids| ids.len() >= settings.max_new_tokens).count();
        let text = |(prompt, ids): (&Prompt, &Vec<u32>)| Ok(self.tokenizer.continuation(&prompt.ids, ids)?);
        prompts.iter().zip(&new_ids).map(text).collect()
    }

    fn has_stopped(&self, prompt_ids: &[u32], new_ids: &[u32]) -> Result<bool, StageError> {
        if self.settings.stop_strings.is_empty() {
            return Ok(false);
        }
        let text = self.tokenizer.continuation(prompt_ids, new_ids)?;
        Ok(self.settings.stop_strings.iter().any(|stop| text.contains(stop)))
    }
}

/// Most samples of a prompt, as the settings have it: streams of two rows never meet.
const N_SAMPLES_MAX: u64 = 1024;
