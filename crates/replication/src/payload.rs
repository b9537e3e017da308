//! Payloads of batches and chunks, compressed where that helps.

use bytes::Bytes;

/// zstd's fastest ordinary level: the sea is slow, but a home's CPU belongs to writes.
const LEVEL: i32 = 1;
/// Shorter payloads stay as they are: a frame's header would eat what is won.
const COMPRESS_MIN: usize = 64;
/// Longest payload that is believed, before compression.
pub(crate) const RAW_LEN_MAX: usize = 16 << 20;

/// A payload that is not what its sender said.
#[derive(Debug, thiserror::Error)]
#[error("a payload cannot be read")]
pub(crate) struct Unreadable;

/// Compresses payloads, keeping its tables from one to the next.
pub(crate) struct Packer(zstd::bulk::Compressor<'static>);

/// Reads payloads.
pub(crate) struct Unpacker(zstd::bulk::Decompressor<'static>);

impl Packer {
    /// Returns a packer.
    pub(crate) fn new() -> Self {
        Self(zstd::bulk::Compressor::new(LEVEL).expect("zstd has this level, and memory for its tables"))
    }

    /// Returns a payload as it travels, and its length before compression; zero if it is not compressed.
    pub(crate) fn pack(&mut self, raw: Vec<u8>) -> (Bytes, u32) {
        if raw.len() < COMPRESS_MIN {
            return (raw.into(), 0);
        }
        match self.0.compress(&raw) {
            Ok(packed) if packed.len() < raw.len() => {
                let len = u32::try_from(raw.len()).expect("payloads are bounded far below 4 GiB");
                (packed.into(), len)
            }
            Ok(_) | Err(_) => (raw.into(), 0),
        }
    }
}

impl Unpacker {
    /// Returns an unpacker.
    pub(crate) fn new() -> Self {
        Self(zstd::bulk::Decompressor::new().expect("zstd has memory for its tables"))
    }

    /// Returns a payload as it was before [`Packer::pack`].
    pub(crate) fn unpack(&mut self, payload: Bytes, raw_len: u32) -> Result<Bytes, Unreadable> {
        let raw_len = usize::try_from(raw_len).map_err(|_| Unreadable)?;
        if raw_len == 0 {
            return Ok(payload);
        }
        if raw_len > RAW_LEN_MAX {
            return Err(Unreadable);
        }
        let raw = self.0.decompress(&payload, raw_len).map_err(|_| Unreadable)?;
        if raw.len() == raw_len {
            Ok(raw.into())
        } else {
            Err(Unreadable)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_back() {
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        for raw in [vec![], vec![7; 63], vec![7; 100_000], (0..=255).collect()] {
            let (packed, len) = packer.pack(raw.clone());
            assert!(packed.len() <= raw.len());
            assert_eq!(unpacker.unpack(packed, len).unwrap(), raw);
        }
    }

    #[test]
    fn a_wrong_length_is_refused() {
        let (packed, len) = Packer::new().pack(vec![7; 1000]);
        let mut unpacker = Unpacker::new();
        assert!(unpacker.unpack(packed.clone(), len - 1).is_err());
        assert!(unpacker.unpack(packed.clone(), len + 1).is_err());
        assert!(unpacker.unpack(packed, u32::MAX).is_err());
    }
}
