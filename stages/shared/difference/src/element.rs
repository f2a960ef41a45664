//! One number of a tensor: its bytes to a value that can be shown and subtracted.

use std::fmt;

/// What safetensors calls the type of a tensor's elements. Those without arithmetic here are shown as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    Signed(usize),
    Unsigned(usize),
    Bool,
    Other,
}

/// A value of a tensor.
#[derive(Clone, Debug)]
pub(crate) enum Element {
    Double(f64),
    /// Also float16 and bfloat16, which it holds exactly.
    Single(f32),
    Integer(i128),
    Truth(bool),
    Bytes(Vec<u8>),
}

impl Dtype {
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "F64" => Dtype::F64,
            "F32" => Dtype::F32,
            "F16" => Dtype::F16,
            "BF16" => Dtype::Bf16,
            "I64" => Dtype::Signed(8),
            "I32" => Dtype::Signed(4),
            "I16" => Dtype::Signed(2),
            "I8" => Dtype::Signed(1),
            "U64" => Dtype::Unsigned(8),
            "U32" => Dtype::Unsigned(4),
            "U16" => Dtype::Unsigned(2),
            "U8" => Dtype::Unsigned(1),
            "BOOL" => Dtype::Bool,
            _ => Dtype::Other,
        }
    }

    /// Bytes of an element, if they are known.
    pub(crate) fn width(self) -> Option<usize> {
        match self {
            Dtype::F64 => Some(8),
            Dtype::F32 => Some(4),
            Dtype::F16 | Dtype::Bf16 => Some(2),
            Dtype::Signed(width) | Dtype::Unsigned(width) => Some(width),
            Dtype::Bool => Some(1),
            Dtype::Other => None,
        }
    }

    /// The value of `bytes`, little endian, as many as an element has.
    pub(crate) fn read(self, bytes: &[u8]) -> Element {
        let raw = || Element::Bytes(bytes.to_vec());
        match (self, bytes) {
            (Dtype::F64, _) => bytes.try_into().map_or_else(|_| raw(), |b| Element::Double(f64::from_le_bytes(b))),
            (Dtype::F32, _) => bytes.try_into().map_or_else(|_| raw(), |b| Element::Single(f32::from_le_bytes(b))),
            (Dtype::F16, &[a, b]) => Element::Single(half::f16::from_le_bytes([a, b]).to_f32()),
            (Dtype::Bf16, &[a, b]) => Element::Single(half::bf16::from_le_bytes([a, b]).to_f32()),
            (Dtype::Signed(_), [.., last]) => Element::Integer(integer(bytes, if *last < 0x80 { 0 } else { 0xff })),
            (Dtype::Unsigned(_), _) => Element::Integer(integer(bytes, 0)),
            (Dtype::Bool, [0]) => Element::Truth(false),
            (Dtype::Bool, [1]) => Element::Truth(true),
            _ => raw(),
        }
    }
}

/// At most eight bytes, with `filler` behind them.
fn integer(bytes: &[u8], filler: u8) -> i128 {
    let mut wide = [filler; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    i128::from_le_bytes(wide)
}

impl Element {
    /// How far apart two values are; `None` where that has no meaning, NaN where one of them is.
    pub(crate) fn gap(&self, other: &Element) -> Option<f64> {
        match (self, other) {
            (Element::Double(a), Element::Double(b)) => Some((a - b).abs()),
            (Element::Single(a), Element::Single(b)) => Some((f64::from(*a) - f64::from(*b)).abs()),
            (Element::Integer(a), Element::Integer(b)) => Some((a - b).unsigned_abs() as f64),
            _ => None,
        }
    }

    pub(crate) fn is_integer(&self) -> bool {
        matches!(self, Element::Integer(_))
    }
}

impl fmt::Display for Element {
    /// The shortest digits that read back as the same bits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // NaNs with other bits are other values.
            Element::Double(value) if value.is_nan() => write!(f, "NaN (0x{:016x})", value.to_bits()),
            Element::Single(value) if value.is_nan() => write!(f, "NaN (0x{:08x})", value.to_bits()),
            Element::Double(value) => write!(f, "{value:?}"),
            Element::Single(value) => write!(f, "{value:?}"),
            Element::Integer(value) => write!(f, "{value}"),
            Element::Truth(value) => write!(f, "{value}"),
            Element::Bytes(bytes) => {
                write!(f, "0x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(dtype: &str, bytes: &[u8]) -> String {
        Dtype::of(dtype).read(bytes).to_string()
    }

    #[test]
    fn every_dtype_is_read() {
        assert_eq!(shown("F64", &1.1_f64.to_le_bytes()), "1.1");
        assert_eq!(shown("F32", &1.0e-20_f32.to_le_bytes()), "1e-20");
        assert_eq!(shown("F16", &[0, 0x3c]), "1.0");
        assert_eq!(shown("BF16", &[0x80, 0xbf]), "-1.0");
        assert_eq!(shown("BF16", &[0xc1, 0x7f]), "NaN (0x7fc10000)");
        assert_eq!(shown("I64", &i64::MIN.to_le_bytes()), i64::MIN.to_string());
        assert_eq!(shown("I32", &[0xff; 4]), "-1");
        assert_eq!(shown("I16", &[1, 0x80]), "-32767");
        assert_eq!(shown("I8", &[0x80]), "-128");
        assert_eq!(shown("U64", &[0xff; 8]), u64::MAX.to_string());
        assert_eq!(shown("U8", &[0xff]), "255");
        assert_eq!((shown("BOOL", &[1]), shown("BOOL", &[2])), ("true".to_string(), "0x02".to_string()));
        assert_eq!(shown("F8_E4M3", &[0x7e]), "0x7e");
    }

    #[test]
    fn the_gap_of_integers_does_not_overflow() {
        let [low, high] = [i64::MIN, i64::MAX].map(|n| Dtype::Signed(8).read(&n.to_le_bytes()));
        assert_eq!(low.gap(&high), Some(2.0_f64.powi(64)));
    }
}
