//! Rows of a snapshot as chunks of bytes: what a machine's snapshot travels as, independent of any engine.
//!
//! A chunk: checksum of the rest (crc32c, u32), format u8 (1), number u32, last (yes or no), rows to its end, each a key
//! and a value behind their lengths. Numbers count from zero, so that a lost, repeated or missing last chunk is found.

use bytes::Bytes;
use stead_state::codec::{Malformed, Reader, Writer};

use crate::machine::CHUNK_LEN_MAX;

const FORMAT: u8 = 1;
const CHECKSUM_LEN: usize = 4;

/// Bytes of rows at which a chunk is full. A row may exceed it, up to the rest of [`CHUNK_LEN_MAX`].
const FULL_LEN: usize = CHUNK_LEN_MAX / 4;

/// Builds chunks.
pub struct Encoder {
    number: u32,
    body: Writer,
    len: usize,
}

/// Reads chunks in their order.
#[derive(Default)]
pub struct Decoder {
    number: u32,
    ended: bool,
}

impl Default for Encoder {
    fn default() -> Self {
        let body = Writer::with_capacity(FULL_LEN);
        Self {
            number: 0,
            body,
            len: 0,
        }
    }
}

impl Encoder {
    /// Adds a row; returns a chunk when one is full.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Option<Bytes> {
        self.body.bytes(key).bytes(value);
        self.len += key.len() + value.len();
        (FULL_LEN <= self.len).then(|| self.cut(false))
    }

    /// Returns the last chunk.
    pub fn finish(mut self) -> Bytes {
        self.cut(true)
    }

    fn cut(&mut self, last: bool) -> Bytes {
        let body = std::mem::replace(&mut self.body, Writer::with_capacity(FULL_LEN)).finish();
        let mut rest = Writer::with_capacity(body.len() + 8);
        rest.u8(FORMAT).u32(self.number).bool(last).raw(&body);
        let rest = rest.finish();
        let mut chunk = Writer::with_capacity(CHECKSUM_LEN + rest.len());
        chunk.u32(crc32c::crc32c(&rest)).raw(&rest);
        self.number += 1;
        self.len = 0;
        chunk.finish()
    }
}

impl Decoder {
    /// Reads the rows of the next chunk.
    pub fn rows(&mut self, chunk: Bytes) -> Result<Vec<(Bytes, Bytes)>, Malformed> {
        let mut r = Reader::new(chunk, "snapshot chunk");
        let checksum = r.u32()?;
        let rest = r.rest();
        if crc32c::crc32c(&rest) != checksum {
            return Err(r.malformed());
        }
        let mut r = Reader::new(rest, "snapshot chunk");
        let (format, number, last) = (r.u8()?, r.u32()?, r.bool()?);
        if format != FORMAT || number != self.number || self.ended {
            return Err(r.malformed());
        }
        self.number += 1;
        self.ended = last;
        let mut rows = Vec::new();
        while !r.is_empty() {
            rows.push((r.bytes()?, r.bytes()?));
        }
        Ok(rows)
    }

    /// Tells whether the last chunk was read.
    pub fn ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks() -> (Vec<(Bytes, Bytes)>, Vec<Bytes>) {
        let row = |number: usize| -> (Bytes, Bytes) { (vec![number as u8; 40].into(), vec![7; number * 13].into()) };
        let rows: Vec<_> = (0..300).map(row).collect();
        let mut encoder = Encoder::default();
        let mut chunks: Vec<_> = rows.iter().filter_map(|(key, value)| encoder.put(key, value)).collect();
        chunks.push(encoder.finish());
        (rows, chunks)
    }

    #[test]
    fn rows_read_back() {
        let (rows, chunks) = chunks();
        assert!(2 < chunks.len());
        assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK_LEN_MAX));
        let mut decoder = Decoder::default();
        let read: Vec<_> = chunks
            .into_iter()
            .flat_map(|chunk| decoder.rows(chunk).unwrap())
            .collect();
        assert_eq!(read, rows);
        assert!(decoder.ended());
    }

    #[test]
    fn what_was_lost_repeated_or_flipped_is_found() {
        let (_, chunks) = chunks();
        let mut decoder = Decoder::default();
        decoder.rows(chunks[0].clone()).unwrap();
        assert!(!decoder.ended());
        assert!(decoder.rows(chunks[0].clone()).is_err());
        assert!(decoder.rows(chunks[2].clone()).is_err());
        for at in [0, 4, 9, 100] {
            let mut flipped = chunks[1].to_vec();
            flipped[at] ^= 1;
            assert!(decoder.rows(flipped.into()).is_err());
        }
        assert!(decoder.rows(Bytes::from("x")).is_err());
    }
}
