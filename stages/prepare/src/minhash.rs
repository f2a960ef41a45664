//! A text to the set of its word sequences, and such a set to a few numbers that similar sets share.
//!
//! ```text
//! "The cat sat, down"  --words-->  the cat sat down  --ngram: 2-->  {the cat, cat sat, sat down}
//!     --num_perm: 128-->  the least hash under each of 128 hash functions  --bands of r-->  14 numbers
//! ```
//!
//! Two sets share the least hash of one function with the probability of their Jaccard similarity |A and B| / |A or B| (Broder, "On the
//! resemblance and containment of documents", 1997). With b bands of r functions, they share a band with probability
//! 1 - (1 - s^r)^b, a curve that is steep near the threshold (Leskovec, Rajaraman and Ullman, "Mining of massive datasets", 3.4).
//! The functions are those of Dietzfelbinger et al. 1997, the upper half of a x + b modulo 2^64 with odd a.
//!
//! Words are runs of letters and digits in lower case; a character of Chinese or Japanese is a word. It deliberately does no
//! stemming and knows no language.

use twox_hash::XxHash64;

use crate::random::{Random, mixed};

/// What similarity is measured with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MinHashSettings {
    /// Jaccard similarity from which two rows are duplicates.
    pub threshold: f64,
    /// Hash functions.
    pub num_perm: usize,
    /// Words of a sequence.
    pub ngram: usize,
}

/// The hash functions of one seed, in their bands.
pub struct MinHash {
    factors: Vec<(u64, u64)>,
    n_bands: usize,
    rows_per_band: usize,
    ngram: usize,
}

impl MinHash {
    /// With the bands that are best for the threshold.
    pub fn new(settings: MinHashSettings, seed: u64) -> Self {
        let (n_bands, rows_per_band) = bands(settings.threshold, settings.num_perm);
        let (a, b) = (Random::new(seed, "minhash factor"), Random::new(seed, "minhash offset"));
        let factors = (0..settings.num_perm as u64).map(|index| (a.word(index) | 1, b.word(index))).collect();
        MinHash { factors, n_bands, rows_per_band, ngram: settings.ngram }
    }

    /// How many bands there are.
    pub fn n_bands(&self) -> usize {
        self.n_bands
    }

    /// Hashes of the word sequences of `texts`, ascending, each once. A row with fewer words than a sequence has one; one
    /// without words has none.
    pub fn shingles<'t>(&self, texts: impl Iterator<Item = &'t str>) -> Vec<u64> {
        let words: Vec<u64> = texts.flat_map(words).collect();
        let length = self.ngram.min(words.len()).max(1);
        let mut shingles: Vec<u64> = words.windows(length).map(shingle).collect();
        shingles.sort_unstable();
        shingles.dedup();
        shingles
    }

    /// A number for each band.
    pub fn bands(&self, shingles: &[u64]) -> Vec<u64> {
        let mut least = vec![u32::MAX; self.factors.len()];
        for shingle in shingles {
            for (least, (a, b)) in least.iter_mut().zip(&self.factors) {
                let hash = (a.wrapping_mul(*shingle).wrapping_add(*b) >> 32) as u32;
                *least = (*least).min(hash);
            }
        }
        let band =
            |least: &[u32]| least.iter().fold(0, |hash: u64, value| mixed(hash.rotate_left(7) ^ u64::from(*value)));
        least.chunks_exact(self.rows_per_band).take(self.n_bands).map(band).collect()
    }
}

/// Jaccard similarity of two sets, both ascending; two empty ones are equal.
pub fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut left, mut right, mut n_both) = (0, 0, 0_usize);
    while left < a.len() && right < b.len() {
        let (x, y) = (a[left], b[right]);
        n_both += usize::from(x == y);
        left += usize::from(x <= y);
        right += usize::from(y <= x);
    }
    let n_either = a.len() + b.len() - n_both;
    if n_either == 0 { 1.0 } else { n_both as f64 / n_either as f64 }
}

fn words(text: &str) -> impl Iterator<Item = u64> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|run| !run.is_empty()).flat_map(words_of_run)
}

fn words_of_run(run: &str) -> Vec<u64> {
    let mut words = Vec::new();
    for part in run.split_inclusive(is_word_by_itself) {
        let alone = part.chars().next_back().filter(|last| is_word_by_itself(*last)).map_or(0, char::len_utf8);
        let (before, alone) = part.split_at(part.len() - alone);
        let word = |word: &str| XxHash64::oneshot(0, word.to_lowercase().as_bytes());
        words.extend([before, alone].into_iter().filter(|part| !part.is_empty()).map(word));
    }
    words
}

/// Kana and Han characters: these scripts have no spaces.
fn is_word_by_itself(character: char) -> bool {
    matches!(u32::from(character), 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff)
}

fn shingle(words: &[u64]) -> u64 {
    let mut bytes = Vec::with_capacity(words.len() * 8);
    words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    XxHash64::oneshot(0, &bytes)
}

/// Bands, and functions in each, for which the areas of wrongly found and of wrongly missed similarities are least together: the choice
/// of the library datasketch, with both weighed the same.
fn bands(threshold: f64, num_perm: usize) -> (usize, usize) {
    let mut best = (f64::INFINITY, 1, num_perm);
    for n_bands in 1..=num_perm {
        for rows in 1..=num_perm / n_bands {
            let found = |s: f64| 1.0 - power(1.0 - power(s, rows), n_bands);
            let wrong = area(0.0, threshold, found) + area(threshold, 1.0, |s| 1.0 - found(s));
            if wrong < best.0 {
                best = (wrong, n_bands, rows);
            }
        }
    }
    (best.1, best.2)
}

/// The midpoint rule with 1,024 parts: as fine as what the library takes, so that bands are the same.
fn area(from: f64, to: f64, curve: impl Fn(f64) -> f64) -> f64 {
    let width = (to - from) / 1024.0;
    (0..1024).map(|part| curve(from + (f64::from(part) + 0.5) * width) * width).sum()
}

/// By squaring: std's `powi` may differ from host to host.
fn power(mut base: f64, mut exponent: usize) -> f64 {
    let mut result = 1.0;
    while exponent > 0 {
        if exponent % 2 == 1 {
            result *= base;
        }
        base *= base;
        exponent /= 2;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minhash(ngram: usize) -> MinHash {
        MinHash::new(MinHashSettings { threshold: 0.7, num_perm: 128, ngram }, 42)
    }

    #[test]
    fn shingles_are_sequences_of_words() {
        let n = |ngram: usize, text: &str| minhash(ngram).shingles([text].into_iter()).len();
        assert_eq!([n(2, "The cat sat, down"), n(5, "The cat"), n(5, ""), n(1, "a A, a!")], [3, 1, 0, 1]);
        // 我爱北京 is four words, and Latin letters between them are words of their own.
        assert_eq!([n(1, "我爱北京"), n(1, "我爱Rust北京2")], [4, 6]);
    }

    #[test]
    fn least_hashes_agree_as_often_as_sets_are_similar() {
        let minhash = MinHash {
            n_bands: 1024,
            rows_per_band: 1,
            ..MinHash::new(MinHashSettings { threshold: 0.5, num_perm: 1024, ngram: 1 }, 7)
        };
        let (a, b): (Vec<u64>, Vec<u64>) = ((0..300).map(mixed).collect(), (100..400).map(mixed).collect());
        let agree = minhash.bands(&a).iter().zip(minhash.bands(&b)).filter(|(a, b)| **a == *b).count();
        // |A and B| = 200 of 400; the deviation of a share of 1,024 is 0.016.
        assert!((agree as f64 / 1024.0 - 0.5).abs() < 0.06, "{agree}");
    }

    #[test]
    fn similarity_is_of_sets() {
        assert_eq!([jaccard(&[1, 2, 3], &[2, 3, 4]), jaccard(&[], &[]), jaccard(&[1], &[])], [0.5, 1.0, 0.0]);
    }

    #[test]
    fn bands_are_those_of_datasketch() {
        // MinHashLSH(threshold=t, num_perm=128).b and .r.
        assert_eq!(bands(0.5, 128), (25, 5));
        assert_eq!(bands(0.7, 128), (14, 9));
        assert_eq!(bands(0.9, 128), (5, 25));
    }
}
