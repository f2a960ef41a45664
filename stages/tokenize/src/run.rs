//! The stage: reads examples, writes packs.
//!
//! ```text
//! text:          examples --encode in parallel, a batch at a time--> documents --(bfd: spill, then pack)--> packs
//! pretokenized:  examples ---------------------------------------------------------------------------------> packs
//! ```
//!
//! A batch is encoded on all threads and collected in order, so the bytes do not depend on their number.

use pipe_contract::{
    Artifact, ArtifactKind, Context, Figure, InputPort, OutputPort, Reader, Stage, StageError, StageKind, Unit,
};
use pipe_records::examples::{is_completion_only, is_pretokenized, read_pretokenized};
use pipe_records::{Example, Pack, PackedCounts, PackedInfo, PackedWriter, examples, thousands};
use pipe_tokenizer::{Document, ModelTokenizer, Rules, Supervised};
use rayon::prelude::*;

use crate::TokenizeError;
use crate::figures::figures;
use crate::packing::best_fit_decreasing;
use crate::pretokenized::{Limits, Pretokenized};
use crate::settings::{Packing, Settings, Truncation};
use crate::show::show_packs;
use crate::spill::{SpillReader, SpillWriter};
use crate::wrapped::{WrappedCounts, Wrapper};

/// The kind, for the runner's registry.
pub static KIND: TokenizeKind = TokenizeKind;

/// `uses: tokenize`.
pub struct TokenizeKind;

impl StageKind for TokenizeKind {
    fn name(&self) -> &'static str {
        "tokenize"
    }

    fn summary(&self) -> &'static str {
        "examples and a model's tokenizer -> packs of token ids with labels"
    }

    fn version(&self) -> u32 {
        1 // The first.
    }

    fn inputs(&self) -> &'static [InputPort] {
        &[
            InputPort { name: "examples", kind: ArtifactKind::Examples, is_required: true },
            InputPort { name: "model", kind: ArtifactKind::Model, is_required: true },
        ]
    }

    fn outputs(&self) -> &'static [OutputPort] {
        &[OutputPort { name: "packed", kind: ArtifactKind::Packed }]
    }

    fn read(&self, reader: &mut Reader) -> Box<dyn Stage> {
        Box::new(Tokenize { settings: Settings::read(reader) })
    }

    fn show(&self, _port: &str, artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
        show_packs(artifact, n_rows)
    }

    fn figures(&self, _port: &str, artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
        figures(artifact)
    }
}

struct Tokenize {
    settings: Settings,
}

impl Stage for Tokenize {
    fn outputs(&self) -> Vec<OutputPort> {
        KIND.outputs().to_vec()
    }

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError> {
        let tokenizer = ModelTokenizer::load(ctx.input("model")?)?;
        self.check_model(&tokenizer)?;
        let folder = ctx.output_dir("packed")?;
        let packs = PackedWriter::create(&folder, self.settings.max_length as u64, tokenizer.vocab_size() as u64)?;
        let (info, tally) = if is_pretokenized(ctx.input("examples")?)? {
            self.run_pretokenized(ctx, &tokenizer, packs)?
        } else {
            self.run_text(ctx, &tokenizer, packs)?
        };
        report(ctx, &info, &tally);
        Ok(())
    }
}

/// What is counted along the way.
#[derive(Default)]
struct Tally {
    n_rows: u64,
    counts: PackedCounts,
    n_dropped_as_too_long: u64,
    n_boundary: u64,
    /// With `packing_strategy: wrapped`.
    wrapped: Option<WrappedCounts>,
}

impl Tokenize {
    fn check_model(&self, tokenizer: &ModelTokenizer) -> Result<(), TokenizeError> {
        let max_length = self.settings.max_length;
        if let Some(max_positions) = tokenizer.max_positions().filter(|n| *n < max_length) {
            return Err(TokenizeError::LongerThanPositions { max_length, max_positions });
        }
        let vocab_size = tokenizer.vocab_size();
        if vocab_size > i32::MAX as usize {
            return Err(TokenizeError::VocabularyTooLarge { vocab_size });
        }
        Ok(())
    }

    fn run_text(
        &self,
        ctx: &Context<'_>,
        tokenizer: &ModelTokenizer,
        packs: PackedWriter,
    ) -> Result<(PackedInfo, Tally), StageError> {
        let rules = self.rules(ctx.input("examples")?, tokenizer)?;
        let mut tally = Tally::default();
        let info = match self.settings.packing {
            Packing::Off => {
                let mut packs = packs;
                self.for_each_document(ctx, tokenizer, rules, &mut tally, |row, document| {
                    Ok(packs.write(&pack_of([(row, document)]))?)
                })?;
                packs.finish(tally.counts)?
            }
            Packing::BestFitDecreasing => {
                let mut spill = SpillWriter::create(ctx.scratch()?)?;
                self.for_each_document(ctx, tokenizer, rules, &mut tally, |row, document| {
                    Ok(spill.push(row, &document)?)
                })?;
                self.write_packs(ctx, spill.finish()?, packs, tally.counts)?
            }
            Packing::Wrapped => self.run_wrapped(ctx, tokenizer, rules, packs, &mut tally)?,
        };
        Ok((info, tally))
    }

    fn run_wrapped(
        &self,
        ctx: &Context<'_>,
        tokenizer: &ModelTokenizer,
        rules: Rules,
        packs: PackedWriter,
        tally: &mut Tally,
    ) -> Result<PackedInfo, StageError> {
        let mut wrapper = Wrapper::new(packs, self.settings.max_length);
        self.for_each_document(ctx, tokenizer, rules, tally, |_, document| wrapper.push(&document))?;
        let Some((info, wrapped)) = wrapper.finish()? else {
            return Err(nothing_to_learn(tally));
        };
        tally.wrapped = Some(wrapped);
        Ok(info)
    }

    fn rules(&self, examples: &Artifact, tokenizer: &ModelTokenizer) -> Result<Rules, StageError> {
        let eos_id = tokenizer.eos_id();
        if self.settings.append_eos && eos_id.is_none() {
            return Err(TokenizeError::NoEos.into());
        }
        let is_completion_only = match self.settings.completion_only_loss {
            Some(value) => value,
            None => is_completion_only(examples)?,
        };
        let supervised = if is_completion_only { Supervised::Completion } else { Supervised::Everything };
        Ok(Rules { eos_id, append_eos: self.settings.append_eos, supervised })
    }

    /// Calls `take` with the row and document of every example that is kept, in order.
    fn for_each_document(
        &self,
        ctx: &Context<'_>,
        tokenizer: &ModelTokenizer,
        rules: Rules,
        tally: &mut Tally,
        mut take: impl FnMut(u32, Document) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let reader = examples::read_examples(ctx.input("examples")?)?;
        let n_rows = reader.num_rows();
        for batch in reader {
            ctx.check_cancelled()?;
            for made in encode_in_parallel(&batch?, tokenizer, rules, tally.n_rows) {
                let (document, has_boundary_token) = made?;
                let row = u32::try_from(tally.n_rows).map_err(|_| TokenizeError::TooManyRows)?;
                tally.n_rows += 1;
                tally.n_boundary += u64::from(has_boundary_token);
                if let Some(document) = self.fit(document, row, tally)? {
                    tally.counts.n_documents += 1;
                    take(row, document)?;
                }
            }
            ctx.progress(tally.n_rows, n_rows, Unit::Rows);
        }
        if tally.counts.n_documents == 0 {
            return Err(nothing_to_learn(tally));
        }
        Ok(())
    }

    /// The document as it goes into a pack, or nothing where it is left out.
    fn fit(&self, mut document: Document, row: u32, tally: &mut Tally) -> Result<Option<Document>, TokenizeError> {
        if self.settings.packing == Packing::Wrapped {
            // It goes on in the next pack, and what is not learned of it is still read.
            return Ok(Some(document));
        }
        let max_length = self.settings.max_length;
        let mut n_cut = 0;
        if document.len() > max_length {
            match self.settings.truncation {
                Truncation::Truncate => n_cut = document.truncate(max_length),
                Truncation::Drop => {
                    tally.counts.n_dropped_documents += 1;
                    tally.n_dropped_as_too_long += 1;
                    return Ok(None);
                }
                Truncation::Error => {
                    let n_tokens = document.len();
                    return Err(TokenizeError::TooLong { row: row.into(), n_tokens, max_length });
                }
            }
        }
        if !document.is_learnable() {
            tally.counts.n_dropped_documents += 1;
            return Ok(None);
        }
        tally.counts.n_truncated_documents += u64::from(n_cut > 0);
        tally.counts.n_truncated_tokens += n_cut as u64;
        Ok(Some(document))
    }

    fn write_packs(
        &self,
        ctx: &Context<'_>,
        mut documents: SpillReader,
        mut packs: PackedWriter,
        counts: PackedCounts,
    ) -> Result<PackedInfo, StageError> {
        for members in best_fit_decreasing(&documents.lengths(), self.settings.max_length) {
            ctx.check_cancelled()?;
            let read: Result<Vec<(u32, Document)>, TokenizeError> =
                members.into_iter().map(|index| documents.read(index)).collect();
            packs.write(&pack_of(read?))?;
        }
        Ok(packs.finish(counts)?)
    }

    fn run_pretokenized(
        &self,
        ctx: &Context<'_>,
        tokenizer: &ModelTokenizer,
        mut packs: PackedWriter,
    ) -> Result<(PackedInfo, Tally), StageError> {
        if self.settings.packing != Packing::Off {
            return Err(TokenizeError::NotForPretokenized { setting: "packing" }.into());
        }
        if let Some(setting) = self.settings.only_for_text {
            return Err(TokenizeError::NotForPretokenized { setting }.into());
        }
        let mut rows = Pretokenized::new(Limits {
            max_length: self.settings.max_length,
            max_positions: tokenizer.max_positions().unwrap_or(usize::MAX),
            vocab_size: tokenizer.vocab_size(),
        });
        let mut tally = Tally::default();
        let reader = read_pretokenized(ctx.input("examples")?)?;
        let n_rows = reader.num_rows();
        for batch in reader {
            ctx.check_cancelled()?;
            for row in batch? {
                tally.n_rows += 1;
                match rows.pack(row)? {
                    Some(pack) => packs.write(&pack)?,
                    None => tally.counts.n_dropped_documents += 1,
                }
            }
            ctx.progress(tally.n_rows, n_rows, Unit::Rows);
        }
        if rows.n_documents == 0 {
            let help =
                "label tokens that have one of their document before them: the same `doc_ids`, rising `position_ids`";
            return Err(TokenizeError::NothingToLearn { n_rows: tally.n_rows, help }.into());
        }
        tally.counts.n_documents = rows.n_documents;
        Ok((packs.finish(tally.counts)?, tally))
    }
}

fn nothing_to_learn(tally: &Tally) -> StageError {
    let help = "raise `max_length`, or set `completion_only_loss: false`";
    TokenizeError::NothingToLearn { n_rows: tally.n_rows, help }.into()
}

/// The documents of a batch, in order.
fn encode_in_parallel(
    batch: &[Example],
    tokenizer: &ModelTokenizer,
    rules: Rules,
    first_row: u64,
) -> Vec<Result<(Document, bool), TokenizeError>> {
    let numbered = batch.par_iter().enumerate();
    numbered
        .map(|(i, example)| {
            let encoded = tokenizer.encode(&example.text);
            let encoded = encoded.map_err(|source| TokenizeError::Row { row: first_row + i as u64, source })?;
            Ok(Document::new(encoded, &example.completion, rules))
        })
        .collect()
}

/// Documents one after the other, positions from 0 in each.
fn pack_of(documents: impl IntoIterator<Item = (u32, Document)>) -> Pack {
    let mut pack = Pack::default();
    for (row, document) in documents {
        let n_tokens = u32::try_from(document.len()).expect("a document was cut at max_length");
        pack.position_ids.extend(0..n_tokens);
        pack.doc_ids.extend((0..n_tokens).map(|_| row));
        pack.input_ids.extend(document.ids);
        pack.labels.extend(document.labels);
    }
    pack
}

fn report(ctx: &Context<'_>, info: &PackedInfo, tally: &Tally) {
    ctx.fact("packs", thousands(info.n_packs));
    ctx.fact("documents", thousands(info.n_documents));
    ctx.fact("tokens", thousands(info.n_tokens));
    ctx.fact("supervised tokens", thousands(info.n_supervised_tokens));
    ctx.fact("fill", format!("{:.1} %", info.fill * 100.0));
    match &tally.wrapped {
        Some(wrapped) => report_wrapped(ctx, info, wrapped),
        None if info.n_truncated_documents > 0 => {
            ctx.fact("truncated documents", thousands(info.n_truncated_documents));
            ctx.fact("truncated tokens", thousands(info.n_truncated_tokens));
        }
        None => {}
    }
    if info.n_dropped_documents > 0 {
        ctx.fact("dropped documents", thousands(info.n_dropped_documents));
    }
    if tally.n_dropped_as_too_long > 0 {
        let n = thousands(tally.n_dropped_as_too_long);
        ctx.log(format!("documents longer than `max_length` ({}) and left out: {n}", info.max_length));
    }
    let n_unlearnable = info.n_dropped_documents - tally.n_dropped_as_too_long;
    if n_unlearnable > 0 && tally.wrapped.is_none() {
        let n = thousands(n_unlearnable);
        ctx.warn(format!("documents left out because nothing in them is supervised: {n}"));
    }
    if tally.n_boundary > 0 {
        let n = thousands(tally.n_boundary);
        ctx.log(format!("documents with a token across the start of the completion, which counts as completion: {n}"));
    }
}

fn report_wrapped(ctx: &Context<'_>, info: &PackedInfo, wrapped: &WrappedCounts) {
    ctx.fact("cut documents", thousands(info.n_truncated_documents));
    ctx.warn(format!(
        "documents see each other (`packing_strategy: wrapped`): {} of {} packs hold tokens of several documents, and {} of {} \
         documents are cut where a pack ends",
        thousands(wrapped.n_shared_packs),
        thousands(info.n_packs),
        thousands(info.n_truncated_documents),
        thousands(info.n_documents),
    ));
    if wrapped.n_dropped_packs > 0 {
        ctx.warn(format!(
            "packs left out because nothing in them is supervised: {}, with {} tokens",
            thousands(wrapped.n_dropped_packs),
            thousands(info.n_truncated_tokens)
        ));
    }
}
