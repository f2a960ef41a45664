//! Texts become a byte-level BPE tokenizer: a `tokenizer.json` that any Hugging Face library loads.
//!
//! ```text
//! texts -> words (GPT-2's pattern, spaces kept) with counts -> the most frequent pair of neighbours becomes a token,
//!          again and again: "l o w" x 5, "l o t" x 3  ->  (l, o) -> "lo"  ->  (lo, w) -> "low"  -> ...
//! ids:  special tokens | 256 bytes | merged tokens in the order they were made
//! ```
//!
//! Sennrich et al. 2016 (arXiv 1508.07909), over bytes as in GPT-2. Ties go to the pair of smaller ids, so the result
//! depends on the texts as a set only. The trainer of the `tokenizers` crate is not used: a pair that is formed again
//! sits in its queue several times, and which of the equal entries comes first follows the order of a hash map.
//!
//! It deliberately has no normalizer (every text can be decoded to itself) and no limit on the length of a token.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use rayon::prelude::*;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::json;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use crate::TokenizerError;

/// A pair must occur this often to become a token (Hugging Face's default for byte-level BPE).
const MIN_PAIR_COUNT: u64 = 2;
/// Byte values, each a token.
const N_BYTES: usize = 256;

pub(crate) type Pair = (u32, u32);

/// Trains on `texts` at once; see [`BpeTrainer`].
///
/// # Errors
/// Those of [`BpeTrainer::new`] and [`BpeTrainer::feed`].
pub fn train_bpe<T: AsRef<str> + Sync>(
    texts: &[T],
    vocab_size: usize,
    special_tokens: &[&str],
) -> Result<Vec<u8>, TokenizerError> {
    let mut trainer = BpeTrainer::new(vocab_size, special_tokens)?;
    trainer.feed(texts)?;
    Ok(trainer.train().json)
}

/// Collects words, then makes tokens of them.
pub struct BpeTrainer {
    vocab_size: usize,
    special_tokens: Vec<String>,
    word_counts: HashMap<String, u64>,
}

impl BpeTrainer {
    /// A trainer for at most `vocab_size` tokens, special ones and bytes included. It stops earlier where no pair
    /// occurs twice. The special tokens get the ids from 0 on, in the order given.
    ///
    /// # Errors
    /// When the special tokens and the bytes do not fit, or a special token is empty or given twice.
    pub fn new(vocab_size: usize, special_tokens: &[&str]) -> Result<Self, TokenizerError> {
        let n_special = special_tokens.len();
        if vocab_size < n_special + N_BYTES {
            return Err(TokenizerError::VocabularyTooSmall { vocab_size, n_special });
        }
        for (i, token) in special_tokens.iter().enumerate() {
            if token.is_empty() || special_tokens[..i].contains(token) {
                return Err(TokenizerError::BadSpecialToken { token: token.to_string() });
            }
        }
        let special_tokens = special_tokens.iter().map(|token| token.to_string()).collect();
        Ok(BpeTrainer { vocab_size, special_tokens, word_counts: HashMap::new() })
    }

    /// Counts the words of `texts`, on the threads of the current rayon pool.
    ///
    /// # Errors
    /// When the splitting pattern fails on a text.
    pub fn feed<T: AsRef<str> + Sync>(&mut self, texts: &[T]) -> Result<(), TokenizerError> {
        let splitter = byte_level();
        let counted: Result<Vec<HashMap<String, u64>>, TokenizerError> = texts
            .par_chunks(256)
            .map(|chunk| {
                let mut counts = HashMap::new();
                chunk.iter().try_for_each(|text| count_words(&splitter, text.as_ref(), &mut counts))?;
                Ok(counts)
            })
            .collect();
        for counts in counted? {
            for (word, count) in counts {
                *self.word_counts.entry(word).or_default() += count;
            }
        }
        Ok(())
    }

    /// Makes the tokens. The same words give the same bytes.
    pub fn train(self) -> Trained {
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let mut vocabulary = Vocabulary::default();
        for token in &self.special_tokens {
            vocabulary.add(token.clone());
        }
        for character in alphabet {
            vocabulary.add(character.to_string());
        }
        // Sorted: the order of words decides nothing, but a fixed order is easier to trust than a proof.
        let sorted: BTreeMap<String, u64> = self.word_counts.into_iter().collect();
        let words = sorted.into_iter().map(|(word, count)| Word {
            ids: word.chars().map(|c| vocabulary.ids[c.encode_utf8(&mut [0; 4]) as &str]).collect(),
            count,
        });
        let words: Vec<Word> = words.collect();
        let merges = make_merges(words, &mut vocabulary, self.vocab_size, self.special_tokens.len());
        let added: Vec<(u32, &str)> = (0..).zip(self.special_tokens.iter().map(String::as_str)).collect();
        let json = tokenizer_json(&vocabulary, &merges, &added);
        Trained { json, vocab_size: vocabulary.tokens.len() }
    }
}

/// A new tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trained {
    /// The bytes of `tokenizer.json`.
    pub json: Vec<u8>,
    /// Tokens it has, special ones included: ids are below this.
    pub vocab_size: usize,
}

struct Word {
    ids: Vec<u32>,
    count: u64,
}

/// Tokens by id, and back.
#[derive(Default)]
pub(crate) struct Vocabulary {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// How many tokens there are: the id of the next.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The id of a token that is there.
    pub(crate) fn id(&self, token: &str) -> u32 {
        self.ids[token]
    }

    /// The id of `token`, new or not.
    pub(crate) fn add(&mut self, token: String) -> u32 {
        if let Some(id) = self.ids.get(&token) {
            return *id;
        }
        let id = self.tokens.len() as u32;
        self.tokens.push(token.clone());
        self.ids.insert(token, id);
        id
    }
}

impl Serialize for Vocabulary {
    /// In the order of ids.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.tokens.len()))?;
        for (id, token) in self.tokens.iter().enumerate() {
            map.serialize_entry(token, &id)?;
        }
        map.end()
    }
}

fn byte_level() -> ByteLevel {
    ByteLevel::new(false, false, true)
}

fn count_words(splitter: &ByteLevel, text: &str, counts: &mut HashMap<String, u64>) -> Result<(), TokenizerError> {
    let mut split = PreTokenizedString::from(text);
    splitter.pre_tokenize(&mut split).map_err(|e| TokenizerError::Tokenizer { message: e.to_string() })?;
    for (word, _, _) in split.get_splits(OffsetReferential::Normalized, OffsetType::None) {
        match counts.get_mut(word) {
            Some(count) => *count += 1,
            None => {
                counts.insert(word.to_string(), 1);
            }
        }
    }
    Ok(())
}

/// How often each pair of neighbours occurs, and in which words.
#[derive(Default)]
struct Pairs {
    counts: HashMap<Pair, u64>,
    words: HashMap<Pair, BTreeSet<usize>>,
    /// The most frequent first, then the smaller ids. An entry whose count is no longer true is passed over: a new
    /// one is pushed at every change.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl Pairs {
    fn count(words: &[Word]) -> Self {
        let mut pairs = Pairs::default();
        for (word_idx, word) in words.iter().enumerate() {
            for pair in word.ids.windows(2) {
                let pair = (pair[0], pair[1]);
                *pairs.counts.entry(pair).or_default() += word.count;
                pairs.words.entry(pair).or_default().insert(word_idx);
            }
        }
        pairs.queue = pairs.counts.iter().map(|(pair, count)| (*count, Reverse(*pair))).collect();
        pairs
    }

    /// Takes the pair to merge next.
    fn pop(&mut self) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            if count < MIN_PAIR_COUNT {
                return None;
            }
            if self.counts.get(&pair) == Some(&count) {
                return Some(pair);
            }
        }
        None
    }

    /// Replaces `pair` by `new_id` in every word that has it.
    fn merge(&mut self, words: &mut [Word], pair: Pair, new_id: u32) {
        let mut changed: BTreeSet<Pair> = BTreeSet::new();
        for word_idx in self.words.remove(&pair).unwrap_or_default() {
            let word = &mut words[word_idx];
            for old in word.ids.windows(2).map(|w| (w[0], w[1])) {
                let count = self.counts.get_mut(&old).expect("every pair of every word is counted");
                *count -= word.count;
                changed.insert(old);
            }
            word.ids = merged(&word.ids, pair, new_id);
            for new in word.ids.windows(2).map(|w| (w[0], w[1])) {
                *self.counts.entry(new).or_default() += word.count;
                self.words.entry(new).or_default().insert(word_idx);
                changed.insert(new);
            }
        }
        for pair in changed {
            match self.counts[&pair] {
                0 => {
                    self.counts.remove(&pair);
                    self.words.remove(&pair);
                }
                count => self.queue.push((count, Reverse(pair))),
            }
        }
    }
}

/// Pairs in the order they became tokens.
fn make_merges(mut words: Vec<Word>, vocabulary: &mut Vocabulary, vocab_size: usize, n_special: usize) -> Vec<Pair> {
    let mut pairs = Pairs::count(&words);
    let mut merges = Vec::new();
    while vocabulary.tokens.len() < vocab_size {
        let Some(pair) = pairs.pop() else { break };
        let token = format!("{}{}", vocabulary.tokens[pair.0 as usize], vocabulary.tokens[pair.1 as usize]);
        // A text must not be able to spell a special token: such a pair is never merged.
        if vocabulary.ids.get(&token).is_some_and(|id| (*id as usize) < n_special) {
            continue;
        }
        let new_id = vocabulary.add(token);
        pairs.merge(&mut words, pair, new_id);
        merges.push(pair);
    }
    merges
}

/// `ids` with each `pair`, from the left, replaced by `new_id`.
fn merged(ids: &[u32], pair: Pair, new_id: u32) -> Vec<u32> {
    let mut result = Vec::with_capacity(ids.len());
    let mut i = 0;
    while i < ids.len() {
        if i + 1 < ids.len() && (ids[i], ids[i + 1]) == pair {
            result.push(new_id);
            i += 2;
        } else {
            result.push(ids[i]);
            i += 1;
        }
    }
    result
}

/// Merges are written as `"a b"`, the form that every version reads: a byte-level token has no space in it.
pub(crate) fn tokenizer_json(vocabulary: &Vocabulary, merges: &[Pair], special_tokens: &[(u32, &str)]) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Model<'a> {
        #[serde(rename = "type")]
        kind: &'static str,
        dropout: Option<f32>,
        unk_token: Option<&'static str>,
        continuing_subword_prefix: Option<&'static str>,
        end_of_word_suffix: Option<&'static str>,
        fuse_unk: bool,
        byte_fallback: bool,
        ignore_merges: bool,
        vocab: &'a Vocabulary,
        merges: Vec<String>,
    }
    #[derive(serde::Serialize)]
    struct File<'a> {
        version: &'static str,
        truncation: Option<()>,
        padding: Option<()>,
        added_tokens: Vec<serde_json::Value>,
        normalizer: Option<()>,
        pre_tokenizer: serde_json::Value,
        post_processor: Option<()>,
        decoder: serde_json::Value,
        model: Model<'a>,
    }
    let token = |id: u32| vocabulary.tokens[id as usize].as_str();
    // Keys in alphabetical order, so that the bytes do not depend on which kind of map serde_json was built with.
    let byte_level = json!({"add_prefix_space": false, "trim_offsets": true, "type": "ByteLevel", "use_regex": true});
    let added = special_tokens.iter().map(|(id, content)| {
        json!({"content": content, "id": id, "lstrip": false, "normalized": false, "rstrip": false,
               "single_word": false, "special": true})
    });
    let file = File {
        version: "1.0",
        truncation: None,
        padding: None,
        added_tokens: added.collect(),
        normalizer: None,
        pre_tokenizer: byte_level.clone(),
        post_processor: None,
        decoder: byte_level,
        model: Model {
            kind: "BPE",
            dropout: None,
            unk_token: None,
            continuing_subword_prefix: None,
            end_of_word_suffix: None,
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: false,
            vocab: vocabulary,
            merges: merges.iter().map(|(a, b)| format!("{} {}", token(*a), token(*b))).collect(),
        },
    };
    let mut bytes = serde_json::to_vec_pretty(&file).expect("strings and numbers always serialize");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain definition: count all pairs anew before every merge.
    fn reference_merges(texts: &[&str], n_merges: usize) -> Vec<(String, String)> {
        let mut counts = HashMap::new();
        texts.iter().for_each(|text| count_words(&byte_level(), text, &mut counts).unwrap());
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let mut tokens: Vec<String> = alphabet.iter().map(char::to_string).collect();
        let id_of = |tokens: &[String], token: &str| tokens.iter().position(|t| t == token).unwrap() as u32;
        let mut words: Vec<(Vec<u32>, u64)> = counts
            .into_iter()
            .map(|(word, n)| (word.chars().map(|c| id_of(&tokens, &c.to_string())).collect(), n))
            .collect();
        let mut merges = Vec::new();
        while merges.len() < n_merges {
            let mut pairs: BTreeMap<Pair, u64> = BTreeMap::new();
            for (ids, n) in &words {
                ids.windows(2).for_each(|w| *pairs.entry((w[0], w[1])).or_default() += n);
            }
            let Some((pair, n)) = pairs.into_iter().max_by_key(|(pair, n)| (*n, Reverse(*pair))) else { break };
            if n < MIN_PAIR_COUNT {
                break;
            }
            let (a, b) = (tokens[pair.0 as usize].clone(), tokens[pair.1 as usize].clone());
            let joined = format!("{a}{b}");
            if !tokens.contains(&joined) {
                tokens.push(joined.clone());
            }
            let new_id = id_of(&tokens, &joined);
            words.iter_mut().for_each(|(ids, _)| *ids = merged(ids, pair, new_id));
            merges.push((a, b));
        }
        merges
    }

    const TEXTS: [&str; 6] = [
        "low lower lowest, slow and slower: the lowest of the low",
        "aaaa aaa aa a aaaaaaa abab ababab bababa",
        "new newer newest renewed; wide wider widest",
        "Grüße, 你好 你好 😀😀😀",
        "the theatre, then there; thethethe ththth",
        "  indented\n\n\nlines\n\n  indented",
    ];

    #[test]
    fn the_queue_gives_the_merges_of_the_plain_definition() {
        let bytes = train_bpe(&TEXTS, 256 + 90, &[]).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let merges: Vec<String> =
            json["model"]["merges"].as_array().unwrap().iter().map(|m| m.as_str().unwrap().to_string()).collect();
        let expected: Vec<String> =
            reference_merges(&TEXTS, merges.len()).into_iter().map(|(a, b)| format!("{a} {b}")).collect();
        assert!(merges.len() > 40, "{} merges", merges.len());
        assert_eq!(merges, expected);
    }

    #[test]
    fn a_vocabulary_without_room_for_the_bytes_is_refused() {
        assert!(matches!(train_bpe(&TEXTS, 256, &["<|end|>"]), Err(TokenizerError::VocabularyTooSmall { .. })));
        assert!(matches!(train_bpe(&TEXTS, 300, &["a", "a"]), Err(TokenizerError::BadSpecialToken { .. })));
    }

    #[test]
    fn no_merge_spells_a_special_token() {
        let bytes = train_bpe(&["end end end end"], 300, &["end"]).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let special_uses = json["model"]["merges"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|m| m.as_str().unwrap().replace(' ', "") == "end");
        assert_eq!(special_uses.count(), 0);
    }
}
