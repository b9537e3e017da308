//! Decoder of the bytes that [`super::Writer`] writes.

use bytes::{Buf, Bytes};

use super::UnreadableEntry;
use crate::rows::Unreadable;

/// Error of malformed bytes: a newer format, a bug or broken hardware. The node must stop, because another replica
/// may be able to read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is malformed")]
pub struct Malformed {
    /// Name of the structure that was being read.
    pub what: &'static str,
}

impl From<UnreadableEntry> for Unreadable {
    fn from(unreadable: UnreadableEntry) -> Self {
        Self(Box::new(unreadable))
    }
}

impl From<Malformed> for Unreadable {
    fn from(malformed: Malformed) -> Self {
        Self(Box::new(malformed))
    }
}

/// Decoder of numbers and byte strings, from the front. Byte strings share the buffer.
#[derive(Debug)]
pub struct Reader {
    rest: Bytes,
    what: &'static str,
}

impl Reader {
    /// Returns a reader of these bytes; `what` names them in errors.
    pub fn new(bytes: Bytes, what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// Returns the error of malformed bytes.
    pub fn malformed(&self) -> Malformed {
        Malformed { what: self.what }
    }

    fn need(&self, len: usize) -> Result<(), Malformed> {
        if self.rest.len() < len {
            return Err(self.malformed());
        }
        Ok(())
    }

    /// Reads one byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    /// Reads four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.need(4)?;
        Ok(self.rest.get_u32())
    }

    /// Reads eight bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.need(8)?;
        Ok(self.rest.get_u64())
    }

    /// Reads sixteen bytes, big-endian.
    pub fn u128(&mut self) -> Result<u128, Malformed> {
        self.need(16)?;
        Ok(self.rest.get_u128())
    }

    /// Reads a number of one to ten bytes.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.malformed());
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed())
    }

    /// Reads a number that must fit into 32 bits.
    pub fn varint_u32(&mut self) -> Result<u32, Malformed> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| self.malformed())
    }

    /// Reads a boolean.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            2.. => Err(self.malformed()),
        }
    }

    /// Reads a byte string after its length.
    pub fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let len = self.varint()?;
        let len = usize::try_from(len).map_err(|_| self.malformed())?;
        self.raw(len)
    }

    /// Reads this many bytes.
    pub fn raw(&mut self, len: usize) -> Result<Bytes, Malformed> {
        self.need(len)?;
        Ok(self.rest.split_to(len))
    }

    /// Reads an optional value.
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Malformed>) -> Result<Option<T>, Malformed> {
        self.bool()?.then(|| read(self)).transpose()
    }

    /// Reads a count and that many items, each of at least one byte.
    pub fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
        let count = self.varint()?;
        let count = usize::try_from(count).map_err(|_| self.malformed())?;
        // A count beyond the remaining bytes is malformed; trusting it would allocate memory for nothing.
        self.need(count)?;
        (0..count).map(|_| read(self)).collect()
    }

    /// Returns the bytes that have not been read.
    pub fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    /// Tells whether all bytes have been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends reading: bytes left over are an error.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }
}
