//! Encoding of a snapshot's rows as chunks of bytes, independent of any engine.
//!
//! The rows are one stream of bytes, each a key and a value behind their lengths, cut wherever a chunk is full: no row
//! is too long for a snapshot. A chunk: checksum of the rest (crc32c, u32), format u8 (2), number u32, last (yes or
//! no), the stream's next bytes to its end. Numbers count from zero, so that a lost, repeated or missing last chunk is
//! found.
//!
//! # Invariants
//!
//! 1. Each chunk but the last has [`CHUNK_LEN_MAX`] bytes, the last one at most so many, whatever the rows are.
//! 2. The rows that are read are the rows that were written, or reading ends with an error.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use stead_state::codec::{Malformed, Reader, Writer};

use crate::{
    group_rows::failed,
    machine::{CHUNK_LEN_MAX, Chunks, MachineError},
};

const FORMAT: u8 = 2;
const CHECKSUM_LEN: usize = 4;
/// Header before the stream's bytes: checksum, format, number, last.
const HEAD_LEN: usize = CHECKSUM_LEN + 1 + 4 + 1;
/// The stream's bytes in a full chunk.
const BODY_LEN_MAX: usize = CHUNK_LEN_MAX - HEAD_LEN;

const READING: &str = "reading the chunks of a snapshot";

/// Row of a snapshot, or the error that ends it.
pub type Row = Result<(Bytes, Bytes), MachineError>;

/// Encodes rows as chunks. After an error there are no more, so that a snapshot without its end is never taken for
/// whole.
pub fn encode<R: Iterator<Item = Row>>(rows: R) -> ChunkEncoder<R> {
    ChunkEncoder {
        rows: Some(rows),
        number: 0,
        stream: BytesMut::new(),
    }
}

/// Iterator over the chunks of rows; see [`encode`].
pub struct ChunkEncoder<R> {
    /// `None` after the last row or an error.
    rows: Option<R>,
    number: u32,
    /// Encoded rows that are in no chunk yet.
    stream: BytesMut,
}

impl<R: Iterator<Item = Row>> Iterator for ChunkEncoder<R> {
    type Item = Result<Bytes, MachineError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.stream.len() >= BODY_LEN_MAX {
                return Some(Ok(self.cut(BODY_LEN_MAX, false)));
            }
            match self.rows.as_mut()?.next() {
                Some(Ok((key, value))) => {
                    let mut row = Writer::with_capacity(20 + key.len() + value.len());
                    row.bytes(&key).bytes(&value);
                    self.stream.extend_from_slice(&row.finish());
                }
                Some(Err(failed)) => {
                    self.rows = None;
                    return Some(Err(failed));
                }
                None => {
                    self.rows = None;
                    return Some(Ok(self.cut(self.stream.len(), true)));
                }
            }
        }
    }
}

impl<R> ChunkEncoder<R> {
    fn cut(&mut self, len: usize, last: bool) -> Bytes {
        let body = self.stream.split_to(len);
        let mut rest = Writer::with_capacity(HEAD_LEN - CHECKSUM_LEN + len);
        rest.u8(FORMAT).u32(self.number).bool(last).raw(&body);
        let rest = rest.finish();
        let mut chunk = Writer::with_capacity(HEAD_LEN + len);
        chunk.u32(crc32c::crc32c(&rest)).raw(&rest);
        self.number += 1;
        chunk.finish()
    }
}

/// Decodes the rows of chunks in their order. Fails unless they are exactly the chunks that [`encode`] made.
pub fn decode(chunks: Chunks) -> ChunkDecoder {
    ChunkDecoder {
        chunks: Some(chunks),
        number: 0,
        rows: VecDeque::new(),
        partial_row: BytesMut::new(),
    }
}

/// Iterator over the rows of chunks; see [`decode`].
pub struct ChunkDecoder {
    /// `None` after the last chunk or an error.
    chunks: Option<Chunks>,
    number: u32,
    rows: VecDeque<(Bytes, Bytes)>,
    /// The first bytes of a row that continues in the next chunk.
    partial_row: BytesMut,
}

impl Iterator for ChunkDecoder {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                return Some(Ok(row));
            }
            let read = match self.chunks.as_mut()?.next() {
                Some(Ok(chunk)) => self.read(chunk).map_err(failed(READING)),
                Some(Err(failed)) => Err(failed),
                None => Err(failed(READING)(Malformed {
                    what: "snapshot without an end",
                })),
            };
            match read {
                Ok(false) => {}
                Ok(true) => self.chunks = None,
                Err(failed) => {
                    self.chunks = None;
                    self.rows.clear();
                    return Some(Err(failed));
                }
            }
        }
    }
}

impl ChunkDecoder {
    /// Decodes a chunk, and tells whether it was the last one.
    fn read(&mut self, chunk: Bytes) -> Result<bool, Malformed> {
        let mut r = Reader::new(chunk, "snapshot chunk");
        let checksum = r.u32()?;
        let rest = r.rest();
        if crc32c::crc32c(&rest) != checksum {
            return Err(r.malformed());
        }
        let mut r = Reader::new(rest, "snapshot chunk");
        let (format, number, last) = (r.u8()?, r.u32()?, r.bool()?);
        if format != FORMAT || number != self.number {
            return Err(r.malformed());
        }
        self.number += 1;
        let mut stream = r.rest();
        if !self.partial_row.is_empty() {
            self.partial_row.extend_from_slice(&stream);
            stream = std::mem::take(&mut self.partial_row).freeze();
        }
        while let Some(row) = take_row(&mut stream) {
            self.rows.push_back(row);
        }
        if last && !stream.is_empty() {
            return Err(r.malformed());
        }
        self.partial_row = match stream.try_into_mut() {
            Ok(partial_row) => partial_row,
            Err(shared) => BytesMut::from(&shared[..]),
        };
        Ok(last)
    }
}

/// Takes a row off the front, if it is complete.
fn take_row(stream: &mut Bytes) -> Option<(Bytes, Bytes)> {
    let mut r = Reader::new(stream.clone(), "snapshot row");
    let row = (r.bytes().ok()?, r.bytes().ok()?);
    *stream = r.rest();
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rows = Vec<(Bytes, Bytes)>;

    fn chunks(rows: &Rows) -> Vec<Bytes> {
        encode(rows.iter().cloned().map(Ok)).map(Result::unwrap).collect()
    }

    fn read(chunks: Vec<Bytes>) -> Result<Rows, MachineError> {
        decode(Box::new(chunks.into_iter().map(Ok))).collect()
    }

    fn some_rows() -> Rows {
        let row = |number: usize| (vec![number as u8; 40].into(), vec![7; number * 13].into());
        (0..600).map(row).collect()
    }

    /// Returns a row that takes exactly this many bytes of the stream, its lengths included.
    fn row_of(len: usize) -> (Bytes, Bytes) {
        let key = Bytes::from_static(b"key");
        let around = |value: usize| Writer::default().bytes(&key).varint(value as u64).finish().len();
        let value = (0..len).rev().find(|value| around(*value) + value <= len).unwrap();
        let key = [&key[..], &vec![b'y'; len - value - around(value)]].concat();
        (key.into(), vec![7; value].into())
    }

    #[test]
    fn rows_of_every_length_round_trip() {
        let lens = [BODY_LEN_MAX, CHUNK_LEN_MAX, 1 << 20, 5 << 20, 3 * BODY_LEN_MAX];
        let mut all = vec![Vec::new(), some_rows(), vec![(Bytes::new(), Bytes::new())]];
        for len in lens {
            for len in [len - 1, len, len + 1] {
                all.push(vec![row_of(len)]);
                all.push([some_rows(), vec![row_of(len)], some_rows()].concat());
                // Two that are cut where one of them ends.
                all.push(vec![row_of(BODY_LEN_MAX - 10), row_of(10), row_of(len)]);
            }
        }
        for rows in all {
            let chunks = chunks(&rows);
            let (last, full) = chunks.split_last().unwrap();
            assert!(full.iter().all(|chunk| chunk.len() == CHUNK_LEN_MAX), "invariant 1");
            assert!(last.len() <= CHUNK_LEN_MAX, "invariant 1");
            assert!(read(chunks).unwrap() == rows, "invariant 2");
        }
    }

    #[test]
    fn lost_repeated_or_flipped_chunks_are_rejected() {
        let chunks = chunks(&some_rows());
        assert!(3 < chunks.len());
        let taken = |places: &[usize]| read(places.iter().map(|place| chunks[*place].clone()).collect());
        let all: Vec<usize> = (0..chunks.len()).collect();
        assert!(taken(&all).is_ok());
        for broken in [&[][..], &[0], &all[..all.len() - 1], &all[1..], &[0, 0, 1], &[0, 2]] {
            assert!(taken(broken).is_err(), "{broken:?}");
        }
        for at in [0, 4, 9, 100] {
            let mut flipped = chunks.clone();
            let mut chunk = flipped[1].to_vec();
            chunk[at] ^= 1;
            flipped[1] = chunk.into();
            assert!(read(flipped).is_err());
        }
        assert!(read(vec![Bytes::from("x")]).is_err());
    }

    #[test]
    fn chunks_of_failed_rows_have_no_end() {
        let failure = || Err(failed("testing")(Malformed { what: "row" }));
        let rows = some_rows().into_iter().map(Ok).chain(std::iter::once_with(failure));
        let chunks: Vec<_> = encode(rows).collect();
        let (last, before) = chunks.split_last().unwrap();
        assert!(last.is_err());
        assert!(read(before.iter().map(|chunk| chunk.as_ref().unwrap().clone()).collect()).is_err());
    }
}
