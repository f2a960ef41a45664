//! Horizontal sums over 16 lanes: the order of additions that every kernel of this crate shares.
//!
//! Element `i` belongs to lane `i % 16`; a lane adds its elements in order; [`tree_sum`] joins the lanes by halves:
//!
//! ```text
//! 0+8 1+9 2+10 .. 7+15      8 sums
//! (0+8)+(4+12) ..           4 sums
//! ..                        2, then 1
//! ```
//!
//! 16 lanes are one AVX-512, two AVX2 or four NEON registers, so each of them adds in this order at full speed.

/// Number of virtual lanes.
pub const LANES: usize = 16;

/// Joins the lanes in a fixed tree.
#[inline(always)]
pub fn tree_sum(lanes: [f32; LANES]) -> f32 {
    let mut sums = lanes;
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
    }
    sums[0]
}

/// The rest of a slice behind its last full chunk, filled up with `filler`.
#[inline(always)]
pub(crate) fn padded(tail: &[f32], filler: f32) -> [f32; LANES] {
    let mut chunk = [filler; LANES];
    chunk[..tail.len()].copy_from_slice(tail);
    chunk
}

/// Hands `add` 16 elements at a time, the last of them filled up with `filler`.
///
/// Two places that call it, not one over a chain of iterators: the loop over full chunks then has nothing else to look at, and keeps what
/// `add` collects in registers. `add` must be `#[inline(always)]`: two callers are enough for the compiler to make it a function of its own,
/// which would be one of the baseline.
#[inline(always)]
pub(crate) fn for_each_chunk(x: &[f32], filler: f32, mut add: impl FnMut(&[f32; LANES])) {
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        add(chunk);
    }
    if !tail.is_empty() {
        add(&padded(tail, filler));
    }
}

/// As [`for_each_chunk`] with three slices of one length, filled up with zeros.
#[inline(always)]
pub(crate) fn for_each_chunk_of_three(x: [&[f32]; 3], mut add: impl FnMut([&[f32; LANES]; 3])) {
    let [(a, a_tail), (b, b_tail), (c, c_tail)] = x.map(|x| x.as_chunks::<LANES>());
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        add([a, b, c]);
    }
    if !a_tail.is_empty() {
        add([&padded(a_tail, 0.0), &padded(b_tail, 0.0), &padded(c_tail, 0.0)]);
    }
}

/// Sum of `x`.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    let mut acc = [0.0; LANES];
    for_each_chunk(
        x,
        0.0,
        #[inline(always)]
        |chunk| {
            for lane in 0..LANES {
                acc[lane] += chunk[lane];
            }
        },
    );
    tree_sum(acc)
}

/// Sum of `a[i] * b[i]`, by fused multiply-adds. The slices have one length.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "dot: lengths differ");
    let (a_chunks, a_tail) = a.as_chunks::<LANES>();
    let (b_chunks, b_tail) = b.as_chunks::<LANES>();
    let mut acc = [0.0; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        acc = added(a, b, acc);
    }
    if !a_tail.is_empty() {
        acc = added(&padded(a_tail, 0.0), &padded(b_tail, 0.0), acc);
    }
    tree_sum(acc)
}

/// `acc + a b`, lane by lane.
#[inline(always)]
fn added(a: &[f32; LANES], b: &[f32; LANES], mut acc: [f32; LANES]) -> [f32; LANES] {
    for lane in 0..LANES {
        acc[lane] = a[lane].mul_add(b[lane], acc[lane]);
    }
    acc
}

/// Largest element, -infinity for an empty slice. A NaN is passed over: the sum of exponentials that follows will show it.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut best = [f32::NEG_INFINITY; LANES];
    for_each_chunk(
        x,
        f32::NEG_INFINITY,
        #[inline(always)]
        |chunk| {
            for lane in 0..LANES {
                best[lane] = larger(chunk[lane], best[lane]);
            }
        },
    );
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            best[i] = larger(best[i], best[i + width]);
        }
    }
    best[0]
}

/// `a` where it is larger than `b`, else `b`: one instruction, unlike [`f32::max`] with its rules for NaN.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The plain versions of [`sum`] and [`dot`].
pub mod reference {
    use super::{LANES, tree_sum};

    /// As [`super::sum`], to the bit.
    pub fn sum(x: &[f32]) -> f32 {
        let mut acc = [0.0; LANES];
        for (i, x) in x.iter().enumerate() {
            acc[i % LANES] += x;
        }
        tree_sum(acc)
    }

    /// As [`super::dot`], to the bit.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut acc = [0.0; LANES];
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            acc[i % LANES] = a.mul_add(*b, acc[i % LANES]);
        }
        tree_sum(acc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn sums_equal_the_reference_to_the_bit() {
        for len in [0, 1, 15, 16, 17, 31, 64, 97, 1009] {
            let (a, b) = (noise("a", len), noise("b", len));
            assert_eq!(sum(&a).to_bits(), reference::sum(&a).to_bits(), "sum of {len}");
            assert_eq!(dot(&a, &b).to_bits(), reference::dot(&a, &b).to_bits(), "dot of {len}");
            let expected = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(&a), expected, "max of {len}");
        }
    }

    #[test]
    fn the_tree_joins_halves() {
        // 1 + 2^-24 rounds to 1 and 2^-24 + 2^-24 does not vanish: the order shows in the result.
        let mut lanes = [0.0; LANES];
        lanes[0] = 1.0;
        lanes[1] = 2.0_f32.powi(-24);
        lanes[9] = 2.0_f32.powi(-24);
        assert_eq!(tree_sum(lanes), 1.0 + 2.0_f32.powi(-23));
        lanes[9] = 0.0;
        lanes[8] = 2.0_f32.powi(-24);
        assert_eq!(tree_sum(lanes), 1.0);
    }
}
