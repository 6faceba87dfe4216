//! The data types of RFC 4251 §5: a reader over borrowed bytes and a writer over a `Vec<u8>`.
//!
//! Reading never allocates and never trusts a length: every field is a slice of the
//! input or an error.

/// Why bytes are not the structure they claim to be. Always the peer's fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// A field runs past the end of the message.
    #[error("message ends inside a field")]
    Short,
    /// Bytes are left after the last field.
    #[error("bytes after the last field")]
    Trailing,
    /// A text field is not UTF-8, or not printable ASCII where RFC 4251 §6 wants that.
    #[error("text field in the wrong character set")]
    Text,
    /// An mpint is negative or not in its shortest form (RFC 4251 §5).
    #[error("mpint negative or not minimal")]
    Mpint,
    /// A field has a value or a length its type does not allow.
    #[error("field out of range")]
    Range,
}

/// Reads fields from the front of a byte slice (RFC 4251 §5).
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `input`.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// The bytes not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True once every byte is read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes `count` bytes as they are.
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes exactly `N` bytes as an array.
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// A boolean: any non-zero byte is true (RFC 4251 §5).
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.u8()? != 0)
    }

    /// A big-endian uint32.
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A big-endian uint64.
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A string: a uint32 length and that many bytes, borrowed.
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.u32()?).map_err(|_| Malformed::Short)?;
        self.bytes(len)
    }

    /// A string that must be UTF-8.
    ///
    /// # Errors
    /// [`Malformed::Short`], [`Malformed::Text`].
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.string()?).map_err(|_| Malformed::Text)
    }

    /// A string that must be printable ASCII without spaces, as algorithm names are (RFC 4251 §6).
    ///
    /// # Errors
    /// [`Malformed::Short`], [`Malformed::Text`].
    pub fn name(&mut self) -> Result<&'a str, Malformed> {
        let bytes = self.string()?;
        if bytes.iter().all(u8::is_ascii_graphic) {
            std::str::from_utf8(bytes).map_err(|_| Malformed::Text)
        } else {
            Err(Malformed::Text)
        }
    }

    /// A non-negative mpint: its magnitude without the leading zero byte; zero is the empty slice.
    ///
    /// # Errors
    /// [`Malformed::Short`], [`Malformed::Mpint`].
    pub fn mpint(&mut self) -> Result<&'a [u8], Malformed> {
        match self.string()? {
            [0] => Err(Malformed::Mpint),
            [0, magnitude @ ..] if magnitude.first().is_some_and(|first| *first >= 0x80) => {
                Ok(magnitude)
            }
            [0 | 0x80..=0xff, ..] => Err(Malformed::Mpint),
            magnitude => Ok(magnitude),
        }
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`Malformed::Trailing`].
    pub const fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }
}

/// Appends fields to a message under construction (RFC 4251 §5).
pub trait Put {
    /// Bytes as they are, without a length.
    fn put_bytes(&mut self, bytes: &[u8]);
    /// One byte.
    fn put_u8(&mut self, value: u8) {
        self.put_bytes(&[value]);
    }
    /// A boolean byte.
    fn put_bool(&mut self, value: bool) {
        self.put_u8(u8::from(value));
    }
    /// A big-endian uint32.
    fn put_u32(&mut self, value: u32) {
        self.put_bytes(&value.to_be_bytes());
    }
    /// A big-endian uint64.
    fn put_u64(&mut self, value: u64) {
        self.put_bytes(&value.to_be_bytes());
    }
    /// A uint32 length and the bytes. Messages we build are far below 4 GiB.
    fn put_string(&mut self, bytes: &[u8]) {
        self.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.put_bytes(bytes);
    }
    /// A non-negative mpint from a big-endian magnitude of any width, leading zeros allowed.
    fn put_mpint(&mut self, magnitude: &[u8]) {
        let skip = magnitude.iter().take_while(|byte| **byte == 0).count();
        let digits = magnitude.get(skip..).unwrap_or_default();
        let pad = usize::from(digits.first().is_some_and(|first| *first >= 0x80));
        let len = digits.len().saturating_add(pad);
        self.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
        self.put_bytes([0].get(..pad).unwrap_or_default());
        self.put_bytes(digits);
    }
}

impl Put for Vec<u8> {
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
