//! The head of a GGUF, front to back: metadata and the list of tensors.
//!
//! ```text
//! "GGUF" version n_tensors n_metadata | key type value ... | name n_dims dims type offset ... | padding | data
//! ```
//!
//! Sizes are stored innermost first. Memory is bounded: lists are passed over, but for the tokenizer's where somebody asks for them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _};

use crate::error::{Fault, shown};

/// Sizes of a tensor: ggml's GGML_MAX_DIMS.
const N_DIMS_MAX: u32 = 4;
/// Of a key: the form's own limit.
const KEY_BYTES_MAX: u64 = 65_535;
/// Of a string that is kept: a chat template has some thousands.
const STRING_BYTES_MAX: u64 = 1 << 20;
/// Of all strings that are kept: a vocabulary of 262,144 tokens with its merges has some 10 MB.
const METADATA_BYTES_MAX: u64 = 64 << 20;
/// Of a list that is kept: four times the largest vocabulary's merges.
const N_LISTED_MAX: u64 = 1 << 21;
/// Of keys whose lists are kept where somebody asks for them.
const TOKENIZER: &str = "tokenizer.ggml.";
/// Of tensors and of keys: a model of 405 billion parameters has some 1,100 tensors, and no model has 100 keys.
const N_ITEMS_MAX: u64 = 1 << 16;
/// The type of lists.
const LIST: u32 = 9;
/// Of strings.
const STRING: u32 = 8;
/// Lists in lists: no key has any, and each is a call.
const LIST_DEPTH_MAX: usize = 4;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Metadata {
    /// A float32 is the shortest decimal that names it: 0.00001 and not 0.0000099999997.
    Number(f64),
    Text(String),
    Numbers(Vec<f64>),
    Texts(Vec<String>),
    /// A list that was passed over.
    List,
}

/// What becomes of the tokenizer's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lists {
    PassedOver,
    Kept,
}

/// A tensor as the head lists it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// Outermost first.
    pub(crate) shape: Vec<usize>,
    pub(crate) type_id: u32,
    /// From the beginning of the data.
    pub(crate) offset: u64,
}

/// What the head says.
pub(crate) struct Raw {
    pub(crate) metadata: BTreeMap<String, Metadata>,
    pub(crate) listed: Vec<Listed>,
    /// Of the head.
    pub(crate) size_bytes: u64,
    /// Of the file.
    pub(crate) file_bytes: u64,
}

impl Raw {
    pub(crate) fn read(file: &File, lists: Lists) -> Result<Self, Fault> {
        let mut reader = Reader { size: file.metadata()?.len(), at: 0, kept: 0, file: BufReader::new(file) };
        if reader.bytes::<4>()? != *b"GGUF" {
            return Err(Fault::broken("it does not begin with `GGUF`"));
        }
        match reader.u32()? {
            2 | 3 => {}
            version => {
                let why = format!("it has version {version} of GGUF; 2 and 3 are supported");
                return Err(Fault::unsupported(why, "convert the model again with a llama.cpp of today"));
            }
        }
        let (n_tensors, n_metadata) = (reader.u64()?, reader.u64()?);
        if n_tensors > N_ITEMS_MAX || n_metadata > N_ITEMS_MAX {
            return Err(Fault::broken(format!("it claims {n_tensors} tensors and {n_metadata} keys")));
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..n_metadata {
            let key = reader.text(KEY_BYTES_MAX)?;
            let type_id = reader.u32()?;
            let value = match lists == Lists::Kept && type_id == LIST && key.starts_with(TOKENIZER) {
                true => reader.kept_list()?,
                false => reader.value(type_id, 0)?,
            };
            if metadata.insert(key.clone(), value).is_some() {
                return Err(Fault::broken(format!("it has the key `{}` twice", shown(&key))));
            }
        }
        let mut listed = Vec::new();
        for _ in 0..n_tensors {
            listed.push(reader.tensor()?);
        }
        Ok(Raw { metadata, listed, size_bytes: reader.at, file_bytes: reader.size })
    }

    /// The number under a key.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key) {
            Some(Metadata::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// The text under a key.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(Metadata::Text(text)) => Some(text),
            _ => None,
        }
    }
}

/// Where in the head the next value begins.
struct Reader<'f> {
    file: BufReader<&'f File>,
    size: u64,
    at: u64,
    /// Bytes of strings so far.
    kept: u64,
}

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn skip(&mut self, n_bytes: u64) -> Result<(), Fault> {
        if n_bytes > self.size.saturating_sub(self.at) {
            return Err(Fault::broken("it is cut off"));
        }
        self.file.seek_relative(i64::try_from(n_bytes).expect("no file is that large"))?;
        self.at += n_bytes;
        Ok(())
    }

    fn text(&mut self, n_bytes_max: u64) -> Result<String, Fault> {
        let n_bytes = self.u64()?;
        self.kept = self.kept.saturating_add(n_bytes);
        if n_bytes > n_bytes_max || self.kept > METADATA_BYTES_MAX || n_bytes > self.size.saturating_sub(self.at) {
            return Err(Fault::broken(format!("it has a string of {n_bytes} bytes, or is cut off")));
        }
        let mut bytes = vec![0; usize::try_from(n_bytes).expect("bounded")];
        self.file.read_exact(&mut bytes)?;
        self.at += n_bytes;
        String::from_utf8(bytes).map_err(|_| Fault::broken("it has a string that is not UTF-8"))
    }

    fn value(&mut self, type_id: u32, depth: usize) -> Result<Metadata, Fault> {
        let number = match type_id {
            0 => f64::from(self.bytes::<1>()?[0]),
            1 => f64::from(i8::from_le_bytes(self.bytes()?)),
            2 => f64::from(u16::from_le_bytes(self.bytes()?)),
            3 => f64::from(i16::from_le_bytes(self.bytes()?)),
            4 => f64::from(self.u32()?),
            5 => f64::from(i32::from_le_bytes(self.bytes()?)),
            6 => shortest(f32::from_le_bytes(self.bytes()?)),
            7 => f64::from(self.bytes::<1>()?[0]),
            STRING => return Ok(Metadata::Text(self.text(STRING_BYTES_MAX)?)),
            LIST => return self.skip_list(depth),
            10 => self.u64()? as f64,
            11 => i64::from_le_bytes(self.bytes()?) as f64,
            12 => f64::from_le_bytes(self.bytes()?),
            other => return Err(Fault::broken(format!("it has metadata of the type {other}, which there is not"))),
        };
        Ok(Metadata::Number(number))
    }

    /// A list of strings or of numbers; any other is passed over.
    fn kept_list(&mut self) -> Result<Metadata, Fault> {
        let (type_id, n_items) = (self.u32()?, self.u64()?);
        if n_items > N_LISTED_MAX {
            return Err(Fault::broken(format!("it has a list of {n_items} items in its tokenizer")));
        }
        if type_id == STRING {
            let texts = (0..n_items).map(|_| self.text(STRING_BYTES_MAX));
            return texts.collect::<Result<_, _>>().map(Metadata::Texts);
        }
        let number = |value: Metadata| match value {
            Metadata::Number(number) => Ok(number),
            _ => Err(Fault::broken("it has a list of lists in its tokenizer")),
        };
        let numbers = (0..n_items).map(|_| self.value(type_id, LIST_DEPTH_MAX).and_then(number));
        numbers.collect::<Result<_, _>>().map(Metadata::Numbers)
    }

    fn skip_list(&mut self, depth: usize) -> Result<Metadata, Fault> {
        let (type_id, n_items) = (self.u32()?, self.u64()?);
        let item_bytes = match type_id {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            _ if depth == LIST_DEPTH_MAX => return Err(Fault::broken("it has lists in lists in lists")),
            _ => 0,
        };
        if item_bytes > 0 {
            self.skip(n_items.saturating_mul(item_bytes))?;
            return Ok(Metadata::List);
        }
        for _ in 0..n_items {
            match type_id {
                STRING => {
                    let n_bytes = self.u64()?;
                    self.skip(n_bytes)?;
                }
                _ => {
                    self.value(type_id, depth + 1)?;
                }
            }
        }
        Ok(Metadata::List)
    }

    fn tensor(&mut self) -> Result<Listed, Fault> {
        let name = self.text(KEY_BYTES_MAX)?;
        let n_dims = self.u32()?;
        if n_dims > N_DIMS_MAX {
            return Err(Fault::broken(format!("`{}` has {n_dims} sizes", shown(&name))));
        }
        let mut shape = Vec::new();
        for _ in 0..n_dims {
            let size = self.u64()?;
            shape.push(usize::try_from(size).map_err(|_| Fault::broken("it has a size beyond all memory"))?);
        }
        shape.reverse();
        Ok(Listed { name, shape, type_id: self.u32()?, offset: self.u64()? })
    }
}

/// The number that the shortest decimal for `value` names.
pub(crate) fn shortest(value: f32) -> f64 {
    value.to_string().parse().expect("a float32 is written as a number")
}
