//! Randomness as a function of (seed, name, index): nothing is advanced, so nothing depends on an order of calls.
//!
//! ```text
//! word(42, "shuffle", 0), word(42, "shuffle", 1), ...   ->  evenly spread numbers of 64 bits
//! ```
//!
//! It is the generator SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014) at a place
//! instead of in its order, from a start that BLAKE3 makes of seed and name. It deliberately is not numpy's: the same seed does
//! not give the order that Hugging Face `datasets` gives.

/// A sequence of numbers of one seed and name.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// `name` says what for: two names have nothing to do with each other.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
        let digest = hasher.finalize();
        Random(u64::from_le_bytes(digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes")))
    }

    /// Any number of 64 bits.
    pub fn word(self, index: u64) -> u64 {
        // The odd number of SplitMix64, 2^64 divided by the golden ratio.
        mixed(self.0.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// In [0, 1), with 53 bits.
    pub fn unit(self, index: u64) -> f64 {
        (self.word(index) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// SplitMix64's finalizer: each bit of the input changes each bit of the output with probability one half.
pub fn mixed(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_and_names_are_apart() {
        let random = Random::new(42, "shuffle");
        let mean = (0..10_000).map(|index| random.unit(index)).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        assert_ne!(random.word(0), Random::new(42, "split").word(0));
        assert_ne!(random.word(0), Random::new(43, "shuffle").word(0));
        // Every shuffle, split and mix depends on it: other numbers need another version of the kind.
        assert_eq!(mixed(1), 0x5692_161d_100b_05e5);
    }
}
