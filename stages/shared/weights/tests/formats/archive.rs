//! Zip archives and pickles, byte by byte: what no library would write.

/// A member to be written.
pub(crate) struct Member<'m> {
    pub(crate) name: &'m str,
    pub(crate) data: &'m [u8],
    /// 0: stored, 8: deflated.
    pub(crate) method: u16,
}

/// How the archive is written.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Form {
    Plain,
    /// As for archives of more than 4 GiB: every number in its zip64 place.
    Zip64,
}

pub(crate) fn archive(members: &[Member<'_>], form: Form) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        let (offset, size) = (bytes.len() as u64, member.data.len() as u64);
        let wide = |number: u64| if form == Form::Zip64 { u32::MAX } else { number as u32 };
        let extra = if form == Form::Zip64 {
            [&[1, 0, 24, 0][..], &size.to_le_bytes(), &size.to_le_bytes(), &offset.to_le_bytes()].concat()
        } else {
            Vec::new()
        };
        let common = |bytes: &mut Vec<u8>| {
            bytes.extend([45, 0, 0, 8]); // version, flags
            bytes.extend(member.method.to_le_bytes());
            bytes.extend([0; 8]); // time, date, CRC
            bytes.extend(wide(size).to_le_bytes());
            bytes.extend(wide(size).to_le_bytes());
            bytes.extend((member.name.len() as u16).to_le_bytes());
        };
        bytes.extend(b"PK\x03\x04");
        common(&mut bytes);
        bytes.extend(0_u16.to_le_bytes());
        bytes.extend(member.name.as_bytes());
        bytes.extend(member.data);
        directory.extend(b"PK\x01\x02\x2d\x00");
        common(&mut directory);
        directory.extend((extra.len() as u16).to_le_bytes());
        directory.extend([0; 10]); // comment, disk, attributes
        directory.extend(wide(offset).to_le_bytes());
        directory.extend(member.name.as_bytes());
        directory.extend(extra);
    }
    let (offset, size, n_members) = (bytes.len() as u64, directory.len() as u64, members.len() as u64);
    bytes.extend(directory);
    if form == Form::Zip64 {
        let end64 = bytes.len() as u64;
        bytes.extend(b"PK\x06\x06");
        for number in [44, 45 | 45 << 16, n_members, n_members, size, offset] {
            bytes.extend(number.to_le_bytes());
            if number == (45 | 45 << 16) {
                bytes.truncate(bytes.len() - 4);
                bytes.extend([0; 8]); // disks
            }
        }
        bytes.extend(b"PK\x06\x07\x00\x00\x00\x00");
        bytes.extend(end64.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(b"PK\x05\x06\x00\x00\x00\x00\xff\xff\xff\xff");
        bytes.extend([0xff; 8]);
        bytes.extend([0; 2]);
        return bytes;
    }
    bytes.extend(b"PK\x05\x06\x00\x00\x00\x00");
    bytes.extend((n_members as u16).to_le_bytes());
    bytes.extend((n_members as u16).to_le_bytes());
    bytes.extend((size as u32).to_le_bytes());
    bytes.extend((offset as u32).to_le_bytes());
    bytes.extend([0; 2]);
    bytes
}

/// A file of `torch.save` with `pickle`, and one storage `0` of `storage`.
pub(crate) fn torch_file(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    let member = |name, data| Member { name, data, method: 0 };
    archive(&[member("m/data.pkl", pickle), member("m/byteorder", b"little"), member("m/data/0", storage)], Form::Plain)
}

/// Opcodes of a pickle, one after the other.
#[derive(Clone, Default)]
pub(crate) struct Opcodes(pub(crate) Vec<u8>);

impl Opcodes {
    pub(crate) fn begin() -> Self {
        Opcodes(vec![0x80, 2])
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    /// LONG1 of eight bytes.
    pub(crate) fn int(self, number: i64) -> Self {
        self.raw(&[0x8a, 8]).raw(&number.to_le_bytes())
    }

    pub(crate) fn ints(self, numbers: &[i64]) -> Self {
        numbers.iter().fold(self.raw(b"("), |opcodes, number| opcodes.int(*number)).raw(b"t")
    }

    /// A tensor over storage `0` of `n_elements` float32.
    pub(crate) fn tensor(self, n_elements: i64, offset: i64, sizes: &[i64], strides: &[i64]) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"((")
            .text("storage")
            .global("torch", "FloatStorage")
            .text("0")
            .text("cpu")
            .int(n_elements)
            .raw(b"tQ")
            .int(offset)
            .ints(sizes)
            .ints(strides)
            .raw(b"\x89")
            .global("collections", "OrderedDict")
            .raw(b")RtR")
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(b".").0
    }
}

/// `{"x": tensor}` with a storage of `n_elements` float32.
pub(crate) fn one_tensor(n_elements: i64, offset: i64, sizes: &[i64], strides: &[i64]) -> Vec<u8> {
    Opcodes::begin().raw(b"}").text("x").tensor(n_elements, offset, sizes, strides).raw(b"s").end()
}
