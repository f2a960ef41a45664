//! Random numbers as a function of a name and an index, without a state.
//!
//! The generator is Philox-4x32 with 10 rounds (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC'11):
//! it scrambles a 128-bit counter under a 64-bit key. Whoever knows the key and the counter knows the number, so threads, order and
//! restarts do not matter.
//!
//! ```
//! let weights = pipe_kernels::random::Stream::named(42, "layers.0.q_proj.lora_A");
//! assert_eq!(weights.normal(17), weights.normal(17));
//! ```
//!
//! Not for secrets.

const MULTIPLIER_0: u32 = 0xD251_1F53;
const MULTIPLIER_1: u32 = 0xCD9E_8D57;
const KEY_STEP_0: u32 = 0x9E37_79B9;
const KEY_STEP_1: u32 = 0xBB67_AE85;
const ROUNDS: u32 = 10;

/// Philox-4x32-10: 4 random words from a counter and a key.
#[inline(always)]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let p0 = u64::from(MULTIPLIER_0) * u64::from(c0);
        let p1 = u64::from(MULTIPLIER_1) * u64::from(c2);
        c0 = (p1 >> 32) as u32 ^ c1 ^ k0;
        c1 = p1 as u32;
        c2 = (p0 >> 32) as u32 ^ c3 ^ k1;
        c3 = p0 as u32;
        k0 = k0.wrapping_add(KEY_STEP_0);
        k1 = k1.wrapping_add(KEY_STEP_1);
    }
    [c0, c1, c2, c3]
}

/// The low and the high half of a 64-bit number, as two words of a counter or a key.
#[inline(always)]
pub(crate) fn halves(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

/// A key made of a key and 96 more bits: the first two words of Philox.
pub(crate) fn derive_key(key: [u32; 2], a: u64, b: u64) -> [u32; 2] {
    let ([a0, a1], [b0, b1]) = (halves(a), halves(b));
    let [k0, k1, _, _] = philox([a0, a1, b0, b1], key);
    [k0, k1]
}

/// A sequence of random numbers that belongs to a seed and a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
}

impl Stream {
    /// The stream of `seed` and `name`. Two names share a stream with a chance of 2^-64.
    ///
    /// The name is absorbed 8 bytes at a time, each block together with its number and the name's length.
    pub fn named(seed: u64, name: &str) -> Self {
        let mut key = derive_key(halves(seed), name.len() as u64, u64::MAX);
        for (i, block) in name.as_bytes().chunks(8).enumerate() {
            let mut bytes = [0; 8];
            bytes[..block.len()].copy_from_slice(block);
            key = derive_key(key, u64::from_le_bytes(bytes), i as u64);
        }
        Self { key }
    }

    /// The 128 random bits at `index`.
    #[inline]
    fn words(self, index: u64) -> [u32; 4] {
        let [low, high] = halves(index);
        philox([low, high, 0, 0], self.key)
    }

    /// 64 uniform random bits at `index`.
    #[inline]
    pub fn bits(self, index: u64) -> u64 {
        let [a, b, _, _] = self.words(index);
        u64::from(b) << 32 | u64::from(a)
    }

    /// A uniform number in `[0, 1)` at `index`: a multiple of 2^-24.
    #[inline]
    pub fn uniform(self, index: u64) -> f32 {
        (self.bits(index) >> 40) as f32 * (1.0 / 16_777_216.0)
    }

    /// A standard normal number at `index`, by Box and Muller in f64: `sqrt(-2 ln u) cos(2 pi v)`.
    #[inline]
    pub fn normal(self, index: u64) -> f32 {
        let [a, b, c, d] = self.words(index);
        // u in (0, 1] and v in [0, 1), 53 bits each.
        let fraction = |low: u32, high: u32| (u64::from(high) << 32 | u64::from(low)) >> 11;
        let u = (fraction(a, b) + 1) as f64 * (1.0 / 9_007_199_254_740_992.0);
        let v = fraction(c, d) as f64 * (1.0 / 9_007_199_254_740_992.0);
        ((-2.0 * libm::log(u)).sqrt() * libm::cos(std::f64::consts::TAU * v)) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' library Random123, file `kat_vectors`, lines `philox4x32 10`.
    #[test]
    fn philox_gives_the_known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox(counter, key), expected, "counter {counter:x?}, key {key:x?}");
        }
    }

    #[test]
    fn a_stream_is_its_seed_and_name() {
        let base = Stream::named(1, "weights");
        assert_eq!(base, Stream::named(1, "weights"));
        for other in [
            Stream::named(2, "weights"),
            Stream::named(1, "weight"),
            Stream::named(1, "weights\0"),
            Stream::named(1, ""),
        ] {
            assert_ne!(base.bits(0), other.bits(0));
        }
        assert_ne!(base.bits(0), base.bits(1));
        assert_ne!(base.bits(0), base.bits(1 << 32));
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let stream = Stream::named(3, "moments");
        let n = 100_000;
        // Five standard errors of the mean, of the variance and of the fourth moment.
        let close = |got: f64, expected: f64, deviation: f64| {
            let tolerance = 5.0 * deviation / f64::from(n).sqrt();
            assert!((got - expected).abs() < tolerance, "{got} instead of {expected} +- {tolerance}");
        };
        let mean = |f: &dyn Fn(u64) -> f64| (0..n as u64).map(f).sum::<f64>() / f64::from(n);
        close(mean(&|i| f64::from(stream.uniform(i))), 0.5, (1.0_f64 / 12.0).sqrt());
        close(mean(&|i| f64::from(stream.normal(i))), 0.0, 1.0);
        close(mean(&|i| f64::from(stream.normal(i)).powi(2)), 1.0, 2.0_f64.sqrt());
        close(mean(&|i| f64::from(stream.normal(i)).powi(4)), 3.0, 96.0_f64.sqrt());
        for i in 0..n as u64 {
            assert!((0.0..1.0).contains(&stream.uniform(i)));
        }
    }
}
