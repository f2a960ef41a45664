//! Cyclic redundancy checks that S3 sends along: reflected polynomials, one table lookup a byte.

/// A table for one polynomial of at most 64 bits, and the number of its hex digits.
pub(crate) struct Table {
    of_byte: [u64; 256],
    all_ones: u64,
    n_digits: usize,
}

/// ISO-HDLC, as in zlib.
pub(crate) static CRC32: Table = table(0xEDB8_8320, 32);
/// Castagnoli: RFC 3720, appendix B.4.
pub(crate) static CRC32C: Table = table(0x82F6_3B78, 32);
/// NVM Express command set specification, section 5.2.1.3.4.
pub(crate) static CRC64_NVME: Table = table(0x9A6C_9329_AC4B_C9B5, 64);

const fn table(polynomial: u64, n_bits: u32) -> Table {
    let mut of_byte = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut value, mut bit) = (byte as u64, 0);
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ polynomial } else { value >> 1 };
            bit += 1;
        }
        of_byte[byte] = value;
        byte += 1;
    }
    Table { of_byte, all_ones: u64::MAX >> (64 - n_bits), n_digits: n_bits as usize / 4 }
}

/// A check as bytes come.
pub(crate) struct Crc {
    table: &'static Table,
    value: u64,
}

impl Crc {
    pub(crate) fn new(table: &'static Table) -> Self {
        Crc { table, value: table.all_ones }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.value = (self.value >> 8) ^ self.table.of_byte[((self.value ^ u64::from(*byte)) & 0xFF) as usize];
        }
    }

    /// In hex, most significant digit first.
    pub(crate) fn finish(self) -> String {
        format!("{:0width$x}", self.value ^ self.table.all_ones, width = self.table.n_digits)
    }
}
