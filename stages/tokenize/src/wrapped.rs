//! Documents end to end, cut where a pack is full: `packing_strategy: wrapped`.
//!
//! ```text
//! documents   a a a a a | b b b | c c c c c c          max_length 4
//! packs       a a a a   a b b b   c c c c   c c        every pack full but the last, b sees the end of a
//! positions   0 1 2 3   0 1 2 3   0 1 2 3   0 1
//! doc_ids     0 0 0 0   1 1 1 1   2 2 2 2   3 3        the number of the pack: to the model it is one document
//! ```
//!
//! This is what TRL calls `wrapped`: no place is empty, but documents see each other. TRL begins anew after every 1,000 rows
//! and keeps each short rest; here there is one stream and one rest.
//!
//! The first token of a pack cannot be predicted from the pack before it. A pack of which nothing is learned would stop an
//! optimizer step, so it is left out and counted. Memory is one pack.

use pipe_records::packed::n_learned;
use pipe_records::{Pack, PackedCounts, PackedInfo, PackedWriter, Packing};

use crate::TokenizeError;
use pipe_tokenizer::Document;

/// Writes packs as documents come.
pub(crate) struct Wrapper {
    packs: PackedWriter,
    max_length: usize,
    open: OpenPack,
    counts: WrappedCounts,
}

/// What the packs do not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WrappedCounts {
    /// As `packed.json` has them; a cut document is a truncated one, of which no token is lost.
    pub(crate) packed: PackedCounts,
    /// Packs that were written.
    pub(crate) n_packs: u64,
    /// Packs with tokens of more than one document.
    pub(crate) n_shared_packs: u64,
    /// Packs left out because nothing of them is learned.
    pub(crate) n_dropped_packs: u64,
}

#[derive(Default)]
struct OpenPack {
    ids: Vec<u32>,
    labels: Vec<i32>,
    /// Documents with tokens in it.
    n_documents: u64,
    /// Those that ended in it, and of which no pack before it was written.
    n_new: u64,
}

impl Wrapper {
    /// `packs`: where they go; `max_length`: tokens of each, but for the last.
    pub(crate) fn new(packs: PackedWriter, max_length: usize) -> Self {
        Wrapper { packs, max_length, open: OpenPack::default(), counts: WrappedCounts::default() }
    }

    /// Adds a document behind the one before.
    pub(crate) fn push(&mut self, document: &Document) -> Result<(), pipe_contract::StageError> {
        let (mut start, mut is_counted) = (0, false);
        while start < document.len() {
            let end = document.len().min(start + self.max_length - self.open.ids.len());
            self.open.ids.extend(&document.ids[start..end]);
            self.open.labels.extend(&document.labels[start..end]);
            self.open.n_documents += 1;
            let is_cut_first = start == 0 && end < document.len();
            self.counts.packed.n_truncated_documents += u64::from(is_cut_first);
            let ends_here = end == document.len();
            self.open.n_new += u64::from(ends_here && !is_counted);
            if self.open.ids.len() == self.max_length && self.close()? && !ends_here && !is_counted {
                self.counts.packed.n_documents += 1;
                is_counted = true;
            }
            start = end;
        }
        Ok(())
    }

    /// Writes the rest. `None` where there is no pack at all.
    pub(crate) fn finish(mut self) -> Result<Option<(PackedInfo, WrappedCounts)>, pipe_contract::StageError> {
        if !self.open.ids.is_empty() {
            self.close()?;
        }
        if self.counts.n_packs == 0 {
            return Ok(None);
        }
        self.counts.packed.packing_strategy = Packing::Wrapped;
        Ok(Some((self.packs.finish(self.counts.packed)?, self.counts)))
    }

    /// Writes the open pack, or leaves it out; says which.
    fn close(&mut self) -> Result<bool, pipe_contract::StageError> {
        let OpenPack { ids, labels, n_documents, n_new } = std::mem::take(&mut self.open);
        let number = u32::try_from(self.counts.n_packs).map_err(|_| TokenizeError::TooManyRows)?;
        let n_tokens = u32::try_from(ids.len()).expect("`max_length` is at most 1,048,576");
        let pack = Pack {
            input_ids: ids,
            labels,
            position_ids: (0..n_tokens).collect(),
            doc_ids: (0..n_tokens).map(|_| number).collect(),
        };
        if n_learned(&pack) == 0 {
            self.counts.n_dropped_packs += 1;
            self.counts.packed.n_truncated_tokens += u64::from(n_tokens);
            self.counts.packed.n_dropped_documents += n_new;
            return Ok(false);
        }
        self.packs.write(&pack)?;
        self.counts.n_packs += 1;
        self.counts.n_shared_packs += u64::from(n_documents > 1);
        self.counts.packed.n_documents += n_new;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use pipe_contract::{Artifact, ArtifactKind};
    use pipe_records::PackedReader;
    use pipe_records::packed::NOT_SUPERVISED;
    use proptest::prelude::*;

    use super::*;

    type Wrapped = Option<(Vec<Pack>, PackedInfo, WrappedCounts)>;

    /// Documents as (first id, length); `is_supervised` by id.
    fn wrap(documents: &[(u32, usize)], max_length: usize, is_supervised: impl Fn(u32) -> bool) -> Wrapped {
        let folder = tempfile::tempdir().unwrap();
        let mut wrapper =
            Wrapper::new(PackedWriter::create(folder.path(), max_length as u64, 100_000).unwrap(), max_length);
        for (first, length) in documents {
            let ids: Vec<u32> = (*first..).take(*length).collect();
            let label = |id: &u32| if is_supervised(*id) { *id as i32 } else { NOT_SUPERVISED };
            wrapper.push(&Document { labels: ids.iter().map(label).collect(), ids }).unwrap();
        }
        let (info, counts) = wrapper.finish().unwrap()?;
        let artifact = Artifact::from_folder(ArtifactKind::Packed, folder.path()).unwrap();
        let packs = PackedReader::open(&artifact).unwrap().packs().collect::<Result<_, _>>().unwrap();
        Some((packs, info, counts))
    }

    #[test]
    fn the_example_of_the_documentation() {
        let (packs, info, counts) = wrap(&[(10, 5), (20, 3), (30, 6)], 4, |_| true).unwrap();
        let ids: Vec<&[u32]> = packs.iter().map(|pack| pack.input_ids.as_slice()).collect();
        assert_eq!(ids, [&[10, 11, 12, 13][..], &[14, 20, 21, 22], &[30, 31, 32, 33], &[34, 35]]);
        assert!(packs.iter().all(|pack| pack.labels.iter().map(|label| *label as u32).eq(pack.input_ids.clone())));
        assert_eq!(
            (packs[1].position_ids.as_slice(), packs[3].position_ids.as_slice()),
            (&[0, 1, 2, 3][..], &[0, 1][..])
        );
        assert_eq!((packs[1].doc_ids.as_slice(), packs[3].doc_ids.as_slice()), (&[1, 1, 1, 1][..], &[3, 3][..]));
        assert_eq!((info.n_documents, info.n_truncated_documents, info.n_truncated_tokens), (3, 2, 0));
        assert_eq!((info.n_supervised_tokens, info.fill), (10, 14.0 / 16.0));
        assert_eq!((counts.n_shared_packs, counts.n_dropped_packs), (1, 0));
    }

    #[test]
    fn a_pack_of_which_nothing_is_learned_is_left_out_and_its_documents_counted() {
        // 10 to 17 are a prompt of two packs, 18 and 19 its completion; then a rest of a single token.
        let (packs, info, counts) = wrap(&[(10, 10), (20, 2), (30, 1)], 4, |id| id >= 18).unwrap();
        assert_eq!(packs.iter().map(|pack| pack.input_ids.clone()).collect::<Vec<_>>(), [[18, 19, 20, 21]]);
        assert_eq!(packs[0].doc_ids, [0; 4]);
        assert_eq!((info.n_documents, info.n_dropped_documents), (2, 1));
        assert_eq!((info.n_tokens, info.n_truncated_tokens, counts.n_dropped_packs), (4, 9, 3));
        assert!(wrap(&[(10, 9)], 4, |_| false).is_none());
        assert!(wrap(&[], 4, |_| true).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn no_token_is_lost_and_none_moves(
            max_length in 1usize..20,
            lengths in prop::collection::vec(0usize..50, 0..40),
            every in 1u32..5,
        ) {
            let starts = lengths.iter().scan(0, |next, length| { let start = *next; *next += *length as u32; Some(start) });
            let documents: Vec<(u32, usize)> = starts.zip(lengths.iter().copied()).collect();
            let n_tokens: usize = lengths.iter().sum();
            let Some((packs, info, counts)) = wrap(&documents, max_length, |id| id % every == 0) else {
                // Nothing that has a token before it is supervised.
                prop_assert!((0..n_tokens).all(|t| t % max_length == 0 || !(t as u32).is_multiple_of(every)));
                return Ok(());
            };
            prop_assert_eq!(info.n_tokens + info.n_truncated_tokens, n_tokens as u64);
            let n_documents = lengths.iter().filter(|length| **length > 0).count() as u64;
            prop_assert_eq!(info.n_documents + info.n_dropped_documents, n_documents);
            prop_assert_eq!((counts.n_packs, counts.packed.n_documents), (info.n_packs, info.n_documents));
            for pack in &packs {
                // Ids count the tokens of the data set, so a pack's first id says where it was cut.
                prop_assert_eq!(pack.input_ids[0] as usize % max_length, 0);
                prop_assert!(pack.input_ids.windows(2).all(|pair| pair[1] == pair[0] + 1));
                let is_last = (pack.input_ids[0] as usize + max_length) >= n_tokens;
                prop_assert!(is_last || pack.input_ids.len() == max_length);
            }
            let is_cut = |(first, length): &&(u32, usize)| {
                *length > 0 && *first as usize / max_length != (*first as usize + length - 1) / max_length
            };
            prop_assert_eq!(info.n_truncated_documents, documents.iter().filter(is_cut).count() as u64);
        }
    }
}
