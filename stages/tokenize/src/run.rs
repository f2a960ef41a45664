//! The stage: reads examples, writes packs.
//!
//! ```text
//! text:          examples --encode--> documents --(bfd, bfd_split, first_fit: spill, then pack)--> packs
//! pretokenized:  examples ----------------------------------------------------------------------> packs
//! ```
//!
//! A batch is encoded on all threads while this one hands on the batch before and reads the next. Batches are collected in order, so the
//! bytes do not depend on the number of threads.

use std::ops::Range;

use pipe_contract::{
    Artifact, ArtifactKind, Context, Figure, InputPort, OutputPort, Reader, Stage, StageError, StageKind, Unit,
};
use pipe_records::examples::{is_pretokenized, read_pretokenized};
use pipe_records::packing::{best_fit_decreasing, first_fit};
use pipe_records::{Example, Pack, PackedCounts, PackedInfo, PackedWriter, Packing, SpecialTokens, examples};
use pipe_tokenizer::{Document, ModelTokenizer, Rules, Supervised};
use rayon::prelude::*;

use crate::TokenizeError;
use crate::figures::figures;
use crate::overlap::overlapped;
use crate::pretokenized::{Limits, Pretokenized};
use crate::preview;
use crate::report::report;
use crate::settings::{Settings, Truncation};
use crate::show::show_packs;
use crate::spill::{SpillReader, SpillWriter};
use crate::split::split;
use crate::wrapped::{WrappedCounts, Wrapper};

/// Tokens of the packs that are put together at a time.
const TOKENS_AT_A_TIME: usize = 1 << 20;

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
        2 // 1: the first; 2: `packed.json` names the strategy and counts the tokens of documents left out; `preview.json`.
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
        preview::write(&folder, &tokenizer)?;
        report(ctx, &info, &tally);
        Ok(())
    }
}

/// What is counted along the way.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) n_rows: u64,
    pub(crate) counts: PackedCounts,
    pub(crate) n_dropped_as_too_long: u64,
    pub(crate) n_boundary: u64,
    /// Pieces of the documents that were split, those left out among them.
    pub(crate) n_pieces: u64,
    /// Rows with the words of a special token, as ordinary characters.
    pub(crate) n_special_words: u64,
    /// With `packing_strategy: wrapped`.
    pub(crate) wrapped: Option<WrappedCounts>,
}

impl Tally {
    /// Counts a document that is left out; `n_tokens` before anything was cut off.
    fn drop_document(&mut self, n_tokens: usize) {
        self.counts.n_dropped_documents += 1;
        self.counts.n_dropped_tokens += n_tokens as u64;
    }
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
        tally.counts.packing_strategy = self.settings.packing;
        let info = match self.settings.packing {
            Packing::None => {
                let mut packs = packs;
                self.for_each_document(ctx, tokenizer, rules, &mut tally, |row, document| {
                    Ok(packs.write(&pack_of(vec![(row, document)]))?)
                })?;
                packs.finish(tally.counts)?
            }
            Packing::Bfd | Packing::BfdSplit | Packing::FirstFit => {
                let mut spill = SpillWriter::create(ctx.scratch()?)?;
                self.for_each_document(ctx, tokenizer, rules, &mut tally, |row, document| {
                    Ok(spill.push(row, &document)?)
                })?;
                self.write_packs(ctx, &spill.finish()?, packs, tally.counts)?
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
        let form = examples::form(examples)?;
        if self.settings.assistant_only_loss && !form.has_turns {
            return Err(TokenizeError::NoTurns.into());
        }
        let is_completion_only = self.settings.completion_only_loss.unwrap_or(form.is_completion_only);
        let supervised = Supervised::of(is_completion_only, self.settings.assistant_only_loss);
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
        let mut reader = examples::read_examples(ctx.input("examples")?)?;
        let n_rows = reader.num_rows();
        let mut n_read = 0;
        let read = || {
            ctx.check_cancelled()?;
            let batch = reader.next().transpose()?;
            let first_row = n_read;
            n_read += batch.as_ref().map_or(0, |batch| batch.len() as u64);
            Ok(batch.map(|batch| (first_row, batch)))
        };
        let encode = |(first_row, batch): (u64, Vec<Example>)| encode_in_parallel(&batch, tokenizer, rules, first_row);
        overlapped(read, encode, |documents| {
            for made in documents {
                let Made { document, has_boundary_token, has_special_words } = made?;
                let row = u32::try_from(tally.n_rows).map_err(|_| TokenizeError::TooManyRows)?;
                tally.n_rows += 1;
                tally.n_boundary += u64::from(has_boundary_token);
                tally.n_special_words += u64::from(has_special_words);
                for document in self.fit(document, row, tally)? {
                    tally.counts.n_documents += 1;
                    take(row, document)?;
                }
            }
            ctx.progress(tally.n_rows, n_rows, Unit::Rows);
            Ok(())
        })?;
        if tally.counts.n_documents == 0 {
            return Err(nothing_to_learn(tally));
        }
        Ok(())
    }

    /// The document as it goes into packs: whole, cut, in pieces, or not at all.
    fn fit(&self, document: Document, row: u32, tally: &mut Tally) -> Result<Vec<Document>, TokenizeError> {
        match self.settings.packing {
            // It goes on in the next pack, and what is not learned of it is still read.
            Packing::Wrapped => Ok(vec![document]),
            Packing::BfdSplit => Ok(self.pieces(document, tally)),
            Packing::None | Packing::Bfd | Packing::FirstFit => {
                Ok(self.cut(document, row, tally)?.into_iter().collect())
            }
        }
    }

    fn pieces(&self, document: Document, tally: &mut Tally) -> Vec<Document> {
        let counts = &mut tally.counts;
        let mut pieces = split(document, self.settings.max_length);
        let n_pieces = pieces.len() as u64;
        pieces.retain(|piece| {
            let is_kept = piece.is_learnable();
            counts.n_dropped_documents += u64::from(!is_kept);
            counts.n_dropped_tokens += if is_kept { 0 } else { piece.len() as u64 };
            is_kept
        });
        if n_pieces > 1 {
            tally.n_pieces += n_pieces;
            counts.n_truncated_documents += u64::from(!pieces.is_empty());
        }
        pieces
    }

    fn cut(&self, mut document: Document, row: u32, tally: &mut Tally) -> Result<Option<Document>, TokenizeError> {
        let (max_length, n_tokens) = (self.settings.max_length, document.len());
        let mut n_cut = 0;
        if n_tokens > max_length {
            match self.settings.truncation {
                Truncation::Truncate => n_cut = document.truncate(max_length),
                Truncation::Drop => {
                    tally.drop_document(n_tokens);
                    tally.n_dropped_as_too_long += 1;
                    return Ok(None);
                }
                Truncation::Error => return Err(TokenizeError::TooLong { row: row.into(), n_tokens, max_length }),
            }
        }
        if !document.is_learnable() {
            tally.drop_document(n_tokens);
            return Ok(None);
        }
        tally.counts.n_truncated_documents += u64::from(n_cut > 0);
        tally.counts.n_truncated_tokens += n_cut as u64;
        Ok(Some(document))
    }

    fn write_packs(
        &self,
        ctx: &Context<'_>,
        documents: &SpillReader,
        mut writer: PackedWriter,
        counts: PackedCounts,
    ) -> Result<PackedInfo, StageError> {
        let Settings { max_length, packing, .. } = self.settings;
        let capacity = u32::try_from(max_length).expect("`max_length` is at most 1,048,576");
        let packs = match packing {
            Packing::FirstFit => first_fit(&documents.lengths(), capacity),
            _ => best_fit_decreasing(&documents.lengths(), capacity),
        };
        let n_at_a_time = (TOKENS_AT_A_TIME / max_length).clamp(1, 1024);
        let mut ranges = (0..packs.len()).step_by(n_at_a_time).map(|start| start..packs.len().min(start + n_at_a_time));
        let read = || {
            ctx.check_cancelled()?;
            Ok(ranges.next())
        };
        let put_together = |range: Range<usize>| {
            let range = range.into_par_iter();
            let read = |index: &u32| documents.read(*index as usize);
            let made = range.map(|pack| Ok(pack_of(packs.pack(pack).iter().map(read).collect::<Result<Vec<_>, _>>()?)));
            made.collect::<Vec<Result<Pack, TokenizeError>>>()
        };
        overlapped(read, put_together, |made| made.into_iter().try_for_each(|pack| Ok(writer.write(&pack?)?)))?;
        Ok(writer.finish(counts)?)
    }

    fn run_pretokenized(
        &self,
        ctx: &Context<'_>,
        tokenizer: &ModelTokenizer,
        mut packs: PackedWriter,
    ) -> Result<(PackedInfo, Tally), StageError> {
        if self.settings.packing != Packing::None {
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
                let n_tokens = row.input_ids.len();
                match rows.pack(row)? {
                    Some(pack) => packs.write(&pack)?,
                    None => tally.drop_document(n_tokens),
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

/// What became of an example.
struct Made {
    document: Document,
    has_boundary_token: bool,
    has_special_words: bool,
}

/// The documents of a batch, in order.
fn encode_in_parallel(
    batch: &[Example],
    tokenizer: &ModelTokenizer,
    rules: Rules,
    first_row: u64,
) -> Vec<Result<Made, TokenizeError>> {
    let numbered = batch.par_iter().enumerate();
    numbered
        .map(|(i, example)| {
            let encoded = tokenizer.encode_example(example);
            let encoded = encoded.map_err(|source| TokenizeError::Row { row: first_row + i as u64, source })?;
            let is_plain = example.marks.special_tokens == SpecialTokens::Tokenizer;
            let has_special_words = is_plain && tokenizer.has_special_words(&example.text);
            let (document, has_boundary_token) = Document::new(encoded, example, rules);
            Ok(Made { document, has_boundary_token, has_special_words })
        })
        .collect()
}

/// Documents one after the other, positions from 0 in each.
fn pack_of(documents: Vec<(u32, Document)>) -> Pack {
    let n_tokens = documents.iter().map(|(_, document)| document.len()).sum();
    let mut pack = Pack {
        input_ids: Vec::with_capacity(n_tokens),
        labels: Vec::with_capacity(n_tokens),
        position_ids: Vec::with_capacity(n_tokens),
        doc_ids: Vec::with_capacity(n_tokens),
    };
    for (row, document) in documents {
        let n_tokens = u32::try_from(document.len()).expect("a document was cut at max_length");
        pack.position_ids.extend(0..n_tokens);
        pack.doc_ids.extend(std::iter::repeat_n(row, document.len()));
        pack.input_ids.extend(document.ids);
        pack.labels.extend(document.labels);
    }
    pack
}
