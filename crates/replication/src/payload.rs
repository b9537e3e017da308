//! Compression of the payloads of batches and chunks.

use bytes::Bytes;

/// zstd's fastest ordinary level: links between regions are slow, but a home's CPU belongs to writes.
const LEVEL: i32 = 1;
/// Length below which payloads are not compressed: a frame's header would cost more than compression saves.
const COMPRESS_MIN: usize = 64;
/// Longest payload that is accepted, before compression.
pub(crate) const RAW_LEN_MAX: usize = 16 << 20;

/// Error of a payload that cannot be decompressed to the length that its sender named.
#[derive(Debug, thiserror::Error)]
#[error("a payload cannot be decompressed to its length")]
pub(crate) struct PayloadError;

/// Compressor of payloads, which keeps its tables from one to the next.
pub(crate) struct PayloadCompressor(zstd::bulk::Compressor<'static>);

/// Decompressor of payloads.
pub(crate) struct PayloadDecompressor(zstd::bulk::Decompressor<'static>);

impl PayloadCompressor {
    /// Returns a compressor with tables of its own.
    pub(crate) fn new() -> Self {
        Self(zstd::bulk::Compressor::new(LEVEL).expect("zstd has this level, and memory for its tables"))
    }

    /// Returns a payload as it is sent, and its length before compression; zero if it is not compressed.
    pub(crate) fn compress(&mut self, raw: Vec<u8>) -> (Bytes, u32) {
        if raw.len() < COMPRESS_MIN {
            return (raw.into(), 0);
        }
        match self.0.compress(&raw) {
            Ok(compressed) if compressed.len() < raw.len() => {
                let len = u32::try_from(raw.len()).expect("payloads are bounded far below 4 GiB");
                (compressed.into(), len)
            }
            Ok(_) | Err(_) => (raw.into(), 0),
        }
    }
}

impl PayloadDecompressor {
    /// Returns a decompressor with tables of its own.
    pub(crate) fn new() -> Self {
        Self(zstd::bulk::Decompressor::new().expect("zstd has memory for its tables"))
    }

    /// Returns a payload as it was before [`PayloadCompressor::compress`].
    pub(crate) fn decompress(&mut self, payload: Bytes, raw_len: u32) -> Result<Bytes, PayloadError> {
        let raw_len = usize::try_from(raw_len).map_err(|_| PayloadError)?;
        if raw_len == 0 {
            return Ok(payload);
        }
        if raw_len > RAW_LEN_MAX {
            return Err(PayloadError);
        }
        let raw = self.0.decompress(&payload, raw_len).map_err(|_| PayloadError)?;
        if raw.len() == raw_len {
            Ok(raw.into())
        } else {
            Err(PayloadError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_decompress_to_what_was_compressed() {
        let (mut compressor, mut decompressor) = (PayloadCompressor::new(), PayloadDecompressor::new());
        for raw in [vec![], vec![7; 63], vec![7; 100_000], (0..=255).collect()] {
            let (compressed, len) = compressor.compress(raw.clone());
            assert!(compressed.len() <= raw.len());
            assert_eq!(decompressor.decompress(compressed, len).unwrap(), raw);
        }
    }

    #[test]
    fn wrong_raw_length_is_refused() {
        let (compressed, len) = PayloadCompressor::new().compress(vec![7; 1000]);
        let mut decompressor = PayloadDecompressor::new();
        assert!(decompressor.decompress(compressed.clone(), len - 1).is_err());
        assert!(decompressor.decompress(compressed.clone(), len + 1).is_err());
        assert!(decompressor.decompress(compressed, u32::MAX).is_err());
    }
}
