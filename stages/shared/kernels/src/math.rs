//! Elementary functions with pinned bits.
//!
//! [`exp`], [`sigmoid`] and [`tanh`] are written so that a loop over them vectorizes: no branch, no table, no float-to-integer conversion.
//! [`ln`] is for once per row; [`cos`], [`sin`] and [`pow`], which are the `libm` crate's in f64 (plain software, the same on every host),
//! for once per model. The functions of std call the host's C library and are not used in kernels.

/// `1 / ln 2`.
const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// `ln 2` rounded to f32, and what the rounding left.
const LN_2_HIGH: f32 = std::f32::consts::LN_2;
const LN_2_LOW: f32 = -1.904_654_3e-9;
/// `1.5 * 2^23`: adding it rounds to an integer (ties to even), which then stands in the low bits.
const ROUNDER: f32 = 12_582_912.0;
/// `(e^r - 1 - r) / r^2` on `|r| <= ln 2 / 2`, interpolated at the 5 Chebyshev nodes: error below 2e-9.
const EXP_C2: f32 = 0.5;
const EXP_C3: f32 = 0.166_665_76;
const EXP_C4: f32 = 0.041_666_552;
const EXP_C5: f32 = 0.008_363_233;
const EXP_C6: f32 = 0.001_392_625;

/// `e^x`, less than 1.1 ulp off over the whole range; subnormal results, 0 below -103.98, +infinity above 88.73, NaN for NaN.
///
/// `x = n ln 2 + r` with an integer `n`, then `2^n e^r`. The power is applied in two factors, so that `n` may leave the
/// exponent range of f32 and a subnormal result is rounded once.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // e^-104 rounds to 0 and e^89 to infinity. Comparisons that are false for NaN leave it as it is.
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let (n, rest) = reduced_exp(x);
    let half = n >> 1;
    (rest + 1.0) * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// [`exp`] for `x <= 0`, as a softmax needs it, without the subnormal results: 0 below -87.69. Three quarters of the work, and never slow.
///
/// For `x` above 88.3 the result is meaningless.
#[inline(always)]
pub fn exp_of_nonpositive(x: f32) -> f32 {
    // At -88, n is -127, and the bits of that power of two are those of 0.
    let x = if x < -88.0 { -88.0 } else { x };
    let (n, rest) = reduced_exp(x);
    (rest + 1.0) * power_of_two(n)
}

/// `(n, e^r - 1)` for `x = n ln 2 + r`.
#[inline(always)]
fn reduced_exp(x: f32) -> (i32, f32) {
    let rounded = x.mul_add(LOG2_E, ROUNDER);
    let n = rounded - ROUNDER;
    // Exact: both terms are multiples of 2^-25 and the difference is below 1/2.
    let r = n.mul_add(-LN_2_HIGH, x);
    let r = n.mul_add(-LN_2_LOW, r);
    let tail = EXP_C6.mul_add(r, EXP_C5).mul_add(r, EXP_C4).mul_add(r, EXP_C3).mul_add(r, EXP_C2);
    ((rounded.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32), (r * r).mul_add(tail, r))
}

/// `2^n` for `-126 <= n <= 127` from its bits, 0 for -127. Anything else is meaningless (only a NaN gets there).
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent, less than 3 ulp off: `-e / (2 + e)` with `e = e^(-2 |x|) - 1`, and the sign of x. Exact where it is smallest, since `e`
/// is made without its 1.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let x2 = -2.0 * x.abs();
    let x2 = if x2 < -88.0 { -88.0 } else { x2 };
    let (n, rest) = reduced_exp(x2);
    let power = power_of_two(n);
    let e = power.mul_add(rest, power - 1.0);
    (-e / (2.0 + e)).copysign(x)
}

/// Natural logarithm, computed in f64 and rounded once: -infinity for 0, NaN below.
///
/// `x = 2^n m` with m around 1, and `ln m = 2 atanh(s) = 2 (s + s^3/3 + s^5/5 + ..)` with `s = (m - 1) / (m + 1)`, `|s| < 0.172`. The
/// first term left out is 2e-12 of the sum.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    if x <= 0.0 || !x.is_finite() {
        return if x == 0.0 {
            f32::NEG_INFINITY
        } else if x > 0.0 {
            x
        } else {
            f32::NAN
        };
    }
    // Every positive f32 is a normal f64: exponent in the upper 12 bits. Adding `1 - sqrt(1/2)` moves the cut from 1 to sqrt(2).
    let bits = f64::from(x).to_bits();
    let shifted = bits.wrapping_add(1.0_f64.to_bits()).wrapping_sub(std::f64::consts::FRAC_1_SQRT_2.to_bits());
    let n = (shifted >> 52) as i64 - 1023;
    let m = f64::from_bits(bits.wrapping_sub((n as u64) << 52));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series =
        1.0 + z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * (1.0 / 11.0 + z / 13.0)))));
    (n as f64 * std::f64::consts::LN_2 + 2.0 * s * series) as f32
}

/// Cosine of `x` radians, computed in f64 and rounded once.
#[inline]
pub fn cos(x: f32) -> f32 {
    libm::cos(f64::from(x)) as f32
}

/// Sine of `x` radians, computed in f64 and rounded once.
#[inline]
pub fn sin(x: f32) -> f32 {
    libm::sin(f64::from(x)) as f32
}

/// `x` to the power `y`, computed in f64 and rounded once.
#[inline]
pub fn pow(x: f32, y: f32) -> f32 {
    libm::pow(f64::from(x), f64::from(y)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance in units of the last place between `got` and the f64 value, for finite positive results.
    fn ulps(got: f32, exact: f64) -> f64 {
        let nearest = exact as f32;
        let ulp = if nearest < f32::MIN_POSITIVE {
            f64::from(f32::from_bits(1))
        } else {
            f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest)
        };
        (f64::from(got) - exact).abs() / ulp
    }

    /// Measured: 1.03, where `1 + r` has just lost a bit below 1.
    const EXP_ULPS_MAX: f64 = 1.1;

    #[test]
    fn exp_is_close_to_libm() {
        let mut worst = (0.0, 0.0);
        let mut check = |x: f32| {
            let error = ulps(exp(x), libm::exp(f64::from(x)));
            if error > worst.0 {
                worst = (error, x);
            }
        };
        // Every 1009th f32 between -103.9 and 88.7, both signs.
        for bits in (0..88.7_f32.to_bits()).step_by(1009) {
            check(f32::from_bits(bits));
        }
        for bits in (0..103.9_f32.to_bits()).step_by(1009) {
            check(-f32::from_bits(bits));
        }
        assert!(worst.0 <= EXP_ULPS_MAX, "{} ulp at {}", worst.0, worst.1);
        writeln_stderr(format_args!("exp: at most {:.3} ulp, at {:e}", worst.0, worst.1));
    }

    #[test]
    fn exp_at_the_ends_of_the_range() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::MIN), 0.0);
        assert_eq!(exp(-104.0), 0.0);
        assert_eq!(exp(-103.97), f32::from_bits(1), "the smallest subnormal");
        assert_eq!(exp(88.722_84), libm::exp(f64::from(88.722_84_f32)) as f32, "the last finite value");
        assert_eq!(exp(88.73), f32::INFINITY);
        assert_eq!(exp(f32::MAX), f32::INFINITY);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn exp_of_nonpositive_is_exp_until_it_is_zero() {
        for bits in (0..87.3_f32.to_bits()).step_by(1009) {
            let x = -f32::from_bits(bits);
            assert_eq!(exp_of_nonpositive(x), exp(x), "at {x:e}");
        }
        for x in [-87.7, -88.0, -104.0, -1e30, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(exp_of_nonpositive(x), 0.0, "at {x:e}");
        }
        assert!(exp_of_nonpositive(f32::NAN).is_nan());
    }

    #[test]
    fn ln_is_the_nearest_f32() {
        // The f64 value is rounded once; where it lies halfway between two f32 within 1e-9, either will do.
        for bits in (1..f32::MAX.to_bits()).step_by(10_007).chain(0.9_f32.to_bits()..0.9001_f32.to_bits()) {
            let x = f32::from_bits(bits);
            let exact = libm::log(f64::from(x));
            let error = (f64::from(ln(x)) - exact).abs();
            let nearest_error = (f64::from(exact as f32) - exact).abs();
            assert!(error <= nearest_error + 1e-9 * exact.abs(), "ln({x:e}) is {:e}", ln(x));
        }
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(ln(0.0), f32::NEG_INFINITY);
        assert_eq!(ln(f32::INFINITY), f32::INFINITY);
        assert!(ln(-1.0).is_nan() && ln(f32::NEG_INFINITY).is_nan() && ln(f32::NAN).is_nan());
    }

    #[test]
    fn sigmoid_saturates_and_is_symmetric_enough() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid(200.0), 1.0);
        assert_eq!(sigmoid(-200.0), 0.0);
        for x in [-20.0_f32, -3.0, -0.1, 0.7, 5.0, 30.0] {
            let exact = 1.0 / (1.0 + libm::exp(-f64::from(x)));
            assert!((f64::from(sigmoid(x)) - exact).abs() <= 2e-7 * exact, "sigmoid({x})");
        }
    }

    #[test]
    fn tanh_is_close_to_libm() {
        /// Measured: 2.47, at 3.74.
        const TANH_ULPS_MAX: f64 = 3.0;
        let mut worst = (0.0, 0.0);
        for bits in (0x0080_0000..20.0_f32.to_bits()).step_by(1009) {
            let x = f32::from_bits(bits);
            let error = ulps(tanh(x), libm::tanh(f64::from(x)));
            if error > worst.0 {
                worst = (error, x);
            }
            assert_eq!(tanh(-x).to_bits(), (-tanh(x)).to_bits(), "odd at {x:e}");
        }
        assert!(worst.0 <= TANH_ULPS_MAX, "{} ulp at {}", worst.0, worst.1);
        writeln_stderr(format_args!("tanh: at most {:.3} ulp, at {:e}", worst.0, worst.1));
        assert_eq!([tanh(0.0), tanh(f32::INFINITY), tanh(f32::MIN)], [0.0, 1.0, -1.0]);
        assert!(tanh(-0.0).is_sign_negative() && tanh(f32::NAN).is_nan());
    }

    fn writeln_stderr(line: std::fmt::Arguments<'_>) {
        use std::io::Write;
        writeln!(std::io::stderr(), "{line}").expect("stderr is open in tests");
    }
}
