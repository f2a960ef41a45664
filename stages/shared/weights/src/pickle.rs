//! A pickle of a state dict to plain values; nothing in it is executed.
//!
//! ```text
//! data.pkl   80 02 | c"collections\nOrderedDict\n" ) R | ( X"weight" c"torch._utils\n_rebuild_tensor_v2\n" ( ... t R u | .
//! values     Dict [("weight", Call(RebuildTensor, [Storage, 0, (3, 2), (2, 1), False, Dict []]))]
//! ```
//!
//! A pickle is a program for a stack machine (CPython's Lib/pickletools.py documents it), and what it can import it can call: loading one
//! from a stranger runs the stranger's code. This machine has only the opcodes with which `torch.save` writes a state dict (those of
//! torch/_weights_only_unpickler.py that tensors use, protocol 2), knows only the imports of [`Import`], and calls none of them: a call
//! is a value like any other, which [`crate::torch`] reads. All else is refused by its name.
//!
//! Values lie in one list and refer to each other by their place in it. So a value is never copied, nothing is nested in memory, and a
//! pickle of n bytes makes at most n values: no bomb of memo entries, no depth that could overflow the stack.

use std::collections::HashMap;

use ::safetensors::Dtype;

use crate::error::{Fault, shown};

/// What a state dict may import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Import {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`.
    RebuildParameter,
    /// `torch.FloatStorage` and its like.
    Storage(Dtype),
}

impl Import {
    fn find(module: &str, name: &str) -> Option<Self> {
        let storage = |dtype| Some(Import::Storage(dtype));
        match (module, name) {
            ("collections", "OrderedDict") => Some(Import::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Import::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Import::RebuildParameter),
            ("torch", "FloatStorage") => storage(Dtype::F32),
            ("torch", "HalfStorage") => storage(Dtype::F16),
            ("torch", "BFloat16Storage") => storage(Dtype::BF16),
            ("torch", "DoubleStorage") => storage(Dtype::F64),
            ("torch", "LongStorage") => storage(Dtype::I64),
            ("torch", "IntStorage") => storage(Dtype::I32),
            ("torch", "ShortStorage") => storage(Dtype::I16),
            ("torch", "CharStorage") => storage(Dtype::I8),
            ("torch", "ByteStorage") => storage(Dtype::U8),
            ("torch", "BoolStorage") => storage(Dtype::BOOL),
            _ => None,
        }
    }
}

/// A place in the list of values.
pub type ValueId = u32;

/// A value of the pickle.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'p> {
    /// `None`.
    None,
    /// `True`, `False`.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A string.
    Text(&'p str),
    /// A tuple.
    Tuple(Vec<ValueId>),
    /// A dict or an OrderedDict, in the order of its items; a key may be there twice.
    Dict(Vec<(ValueId, ValueId)>),
    /// An import.
    Global(Import),
    /// A call that nobody makes: the function, and the tuple of its arguments.
    Call(Import, ValueId),
    /// What `torch.save` keeps outside the pickle: the tuple that says which storage it is.
    Persistent(ValueId),
}

/// The values of a pickle.
#[derive(Debug)]
pub struct Pickle<'p> {
    values: Vec<Value<'p>>,
    root: ValueId,
}

impl<'p> Pickle<'p> {
    /// Reads a pickle of at most `u32::MAX` bytes.
    ///
    /// # Errors
    /// An opcode or import that a state dict does not need, by its name; a pickle that is cut off or broken.
    pub(crate) fn read(bytes: &'p [u8]) -> Result<Self, Fault> {
        let mut machine =
            Machine { bytes, at: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        let root = machine.run()?;
        Ok(Pickle { values: machine.values, root })
    }

    /// The value that was pickled.
    pub fn root(&self) -> ValueId {
        self.root
    }

    /// A value.
    pub fn value(&self, id: ValueId) -> &Value<'p> {
        &self.values[id as usize]
    }

    /// Names of opcodes and imports in messages need a type's name too.
    pub(crate) fn kind(&self, id: ValueId) -> &'static str {
        match self.value(id) {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) => "a number",
            Value::Text(_) => "a string",
            Value::Tuple(_) => "a tuple",
            Value::Dict(_) => "a dict",
            Value::Global(_) => "an import",
            Value::Call(..) => "a tensor",
            Value::Persistent(_) => "a storage",
        }
    }
}

struct Machine<'p> {
    bytes: &'p [u8],
    at: usize,
    values: Vec<Value<'p>>,
    stack: Vec<ValueId>,
    /// Heights of the stack: what is above the last belongs to the value that is being put together.
    marks: Vec<usize>,
    memo: HashMap<u32, ValueId>,
}

impl<'p> Machine<'p> {
    fn run(&mut self) -> Result<ValueId, Fault> {
        if self.byte()? != 0x80 {
            return Err(Fault::broken("its pickle does not begin with the opcode PROTO"));
        }
        match self.byte()? {
            2 => {}
            protocol => {
                let why =
                    format!("its pickle has protocol {protocol}, but `torch.save` writes a state dict in protocol 2");
                return Err(unsafe_pickle(why));
            }
        }
        loop {
            let opcode = self.byte()?;
            if opcode == b'.' {
                break;
            }
            self.step(opcode)?;
        }
        let root = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() || self.at != self.bytes.len() {
            return Err(self.broken("ends with values left over"));
        }
        Ok(root)
    }

    /// Names in comments are those of pickletools.
    fn step(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            b'(' => self.marks.push(self.stack.len()),   // MARK
            b'N' => self.push(Value::None),              // NONE
            0x88 => self.push(Value::Bool(true)),        // NEWTRUE
            0x89 => self.push(Value::Bool(false)),       // NEWFALSE
            b'}' => self.push(Value::Dict(Vec::new())),  // EMPTY_DICT
            b')' => self.push(Value::Tuple(Vec::new())), // EMPTY_TUPLE
            b'K' => self.integer(1)?,                    // BININT1
            b'M' => self.integer(2)?,                    // BININT2
            b'J' => {
                let number = self.take(4)?; // BININT, the only one with a sign
                self.push(Value::Int(i64::from(i32::from_le_bytes([number[0], number[1], number[2], number[3]]))));
            }
            0x8a => self.long()?, // LONG1
            b'X' => {
                let size = self.u32()?; // BINUNICODE
                let text = self.text(size as usize)?;
                self.push(Value::Text(text));
            }
            0x85 => self.tuple(1)?, // TUPLE1
            0x86 => self.tuple(2)?, // TUPLE2
            0x87 => self.tuple(3)?, // TUPLE3
            b't' => {
                let items = self.pop_to_mark()?; // TUPLE
                self.push(Value::Tuple(items));
            }
            b'q' => {
                let slot = self.byte()?; // BINPUT
                self.remember(u32::from(slot))?;
            }
            b'r' => {
                let slot = self.u32()?; // LONG_BINPUT
                self.remember(slot)?;
            }
            b'h' => {
                let slot = self.byte()?; // BINGET
                self.recall(u32::from(slot))?;
            }
            b'j' => {
                let slot = self.u32()?; // LONG_BINGET
                self.recall(slot)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?); // SETITEM
                self.add_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?; // SETITEMS
                self.add_items(&items)?;
            }
            b'c' => self.import()?, // GLOBAL
            b'Q' => {
                let id = self.pop()?; // BINPERSID
                self.push(Value::Persistent(id));
            }
            b'R' => self.call()?,      // REDUCE
            b'b' => self.set_state()?, // BUILD
            other => {
                let why = format!("its pickle has the opcode {}, which a state dict does not need", opcode_name(other));
                return Err(unsafe_pickle(why));
            }
        }
        Ok(())
    }

    fn push(&mut self, value: Value<'p>) {
        let id = ValueId::try_from(self.values.len()).expect("a value takes at least a byte of the pickle");
        self.values.push(value);
        self.stack.push(id);
    }

    fn pop(&mut self) -> Result<ValueId, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => Ok(self.stack.pop().expect("higher than the floor")),
            false => Err(self.broken("takes a value from an empty stack")),
        }
    }

    fn top(&mut self) -> Result<ValueId, Fault> {
        let id = self.pop()?;
        self.stack.push(id);
        Ok(id)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<ValueId>, Fault> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => Err(self.broken("looks for a mark where none is")),
        }
    }

    fn tuple(&mut self, n_items: usize) -> Result<(), Fault> {
        let mut items = Vec::with_capacity(n_items);
        for _ in 0..n_items {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Result<(), Fault> {
        let id = self.top()?;
        self.memo.insert(slot, id);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), Fault> {
        let Some(id) = self.memo.get(&slot).copied() else { return Err(self.broken("recalls what was never put")) };
        self.stack.push(id);
        Ok(())
    }

    fn add_items(&mut self, items: &[ValueId]) -> Result<(), Fault> {
        let dict = self.top()?;
        let Value::Dict(all) = &mut self.values[dict as usize] else {
            return Err(self.broken("sets an item of what is no dict"));
        };
        if !items.len().is_multiple_of(2) {
            return Err(self.broken("has a key without a value"));
        }
        all.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    fn import(&mut self) -> Result<(), Fault> {
        let (module, name) = (self.line()?, self.line()?);
        let Some(import) = Import::find(module, name) else {
            return Err(unsafe_pickle(format!(
                "its pickle imports `{}.{}`; a state dict needs only `torch._utils._rebuild_tensor_v2`, the storages of `torch` \
                 and `collections.OrderedDict`",
                shown(module),
                shown(name)
            )));
        };
        self.push(Value::Global(import));
        Ok(())
    }

    fn call(&mut self) -> Result<(), Fault> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Tuple(items) = &self.values[arguments as usize] else {
            return Err(self.broken("calls with what is no tuple"));
        };
        let value = match self.values[function as usize] {
            // `OrderedDict()`; its items follow.
            Value::Global(Import::OrderedDict) if items.is_empty() => Value::Dict(Vec::new()),
            Value::Global(function @ (Import::RebuildTensor | Import::RebuildParameter)) => {
                Value::Call(function, arguments)
            }
            _ => return Err(self.broken("calls what is not to be called")),
        };
        self.push(value);
        Ok(())
    }

    /// `state_dict()` gives its OrderedDict the attribute `_metadata`: versions of modules, which say nothing of the weights.
    fn set_state(&mut self) -> Result<(), Fault> {
        let state = self.pop()?;
        let target = self.top()?;
        let (Value::Dict(_), Value::Dict(attributes)) = (&self.values[target as usize], &self.values[state as usize])
        else {
            return Err(unsafe_pickle("its pickle sets the state of an object (BUILD) that is no OrderedDict"));
        };
        let name = |key: &ValueId| match self.values[*key as usize] {
            Value::Text(name) => name,
            _ => "?",
        };
        match attributes.iter().map(|(key, _)| name(key)).find(|name| *name != "_metadata") {
            None => Ok(()),
            Some(name) => Err(unsafe_pickle(format!(
                "its pickle sets the attribute `{}` of a dict (BUILD), which a state dict does not need",
                shown(name)
            ))),
        }
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn take(&mut self, n_bytes: usize) -> Result<&'p [u8], Fault> {
        match self.bytes[self.at..].get(..n_bytes) {
            Some(bytes) => {
                self.at += n_bytes;
                Ok(bytes)
            }
            None => Err(self.broken("is cut off")),
        }
    }

    fn text(&mut self, n_bytes: usize) -> Result<&'p str, Fault> {
        let bytes = self.take(n_bytes)?;
        std::str::from_utf8(bytes).map_err(|_| self.broken("has a string that is not UTF-8"))
    }

    fn line(&mut self) -> Result<&'p str, Fault> {
        let rest = &self.bytes[self.at..];
        let Some(n_bytes) = rest.iter().position(|byte| *byte == b'\n') else { return Err(self.broken("is cut off")) };
        let line = self.text(n_bytes)?;
        self.at += 1;
        Ok(line)
    }

    /// Unsigned, of `n_bytes`.
    fn integer(&mut self, n_bytes: usize) -> Result<(), Fault> {
        let bytes = self.take(n_bytes)?;
        self.push(Value::Int(bytes.iter().rev().fold(0, |number, byte| number << 8 | i64::from(*byte))));
        Ok(())
    }

    /// Two's complement of as many bytes as it says.
    fn long(&mut self) -> Result<(), Fault> {
        let n_bytes = usize::from(self.byte()?);
        let bytes = self.take(n_bytes)?;
        if n_bytes > 8 {
            return Err(self.broken("has a number of more than 64 bits"));
        }
        let fill = if bytes.last().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
        let mut number = [fill; 8];
        number[..n_bytes].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(number)));
        Ok(())
    }

    fn broken(&self, why: &str) -> Fault {
        Fault::broken(format!("its pickle {why} (at byte {})", self.at))
    }
}

/// What is refused because it could run code, or because nobody knows what it means.
fn unsafe_pickle(why: impl Into<String>) -> Fault {
    Fault::unsupported(
        why,
        "nothing was executed; if you trust the file, write it anew: `torch.save(model.state_dict(), file)`, or better \
         `model.save_pretrained(folder)`, which gives safetensors",
    )
}

/// Those that other pickles have; the names of pickletools.
fn opcode_name(opcode: u8) -> String {
    let name = match opcode {
        b'i' => "INST",
        b'o' => "OBJ",
        b'P' => "PERSID",
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'l' => "LIST",
        b']' => "EMPTY_LIST",
        b'a' => "APPEND",
        b'e' => "APPENDS",
        b'd' => "DICT",
        b'G' => "BINFLOAT",
        b'F' => "FLOAT",
        b'I' => "INT",
        b'L' => "LONG",
        b'S' => "STRING",
        b'T' => "BINSTRING",
        b'U' => "SHORT_BINSTRING",
        b'V' => "UNICODE",
        b'B' => "BINBYTES",
        b'C' => "SHORT_BINBYTES",
        b'p' => "PUT",
        b'g' => "GET",
        0x80 => "PROTO",
        0x81 => "NEWOBJ",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8b => "LONG4",
        0x8c => "SHORT_BINUNICODE",
        0x8d => "BINUNICODE8",
        0x8e => "BINBYTES8",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x93 => "STACK_GLOBAL",
        0x94 => "MEMOIZE",
        0x95 => "FRAME",
        0x96 => "BYTEARRAY8",
        _ => return format!("0x{opcode:02x}"),
    };
    name.to_string()
}
