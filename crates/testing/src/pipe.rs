//! One direction of one connection over a link.
//!
//! # Invariants
//!
//! * **W1** Bytes arrive in their order, whatever the delay becomes meanwhile.
//! * **W2** At most [`QUEUE_LEN_MAX`] bytes are in flight; beyond, the sender is not read from (backpressure).

use std::{collections::VecDeque, io};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    time::{Instant, sleep_until},
};

use crate::{Direction, Flow};

/// Most bytes of one connection in flight: 200 ms at 80 MB/s.
const QUEUE_LEN_MAX: usize = 16 << 20;
const CHUNK_LEN_MAX: usize = 64 << 10;

/// Bytes with their arrival time; no bytes: the sender has ended.
struct DelayedBytes {
    arrival: Instant,
    bytes: Bytes,
}

struct Queue {
    chunks: VecDeque<DelayedBytes>,
    bytes: usize,
    /// W1: nothing arrives before what was sent earlier.
    earliest: Instant,
    ended: bool,
}

impl Queue {
    fn push(&mut self, bytes: Bytes, arrival: Instant) {
        self.earliest = self.earliest.max(arrival);
        self.ended = bytes.is_empty();
        self.bytes += bytes.len();
        self.chunks.push_back(DelayedBytes {
            arrival: self.earliest,
            bytes,
        });
    }

    fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.pop_front()?;
        self.bytes -= chunk.bytes.len();
        Some(chunk.bytes)
    }
}

/// Copies bytes until the sender ends or the link refuses connections; nothing arrives before `earliest`.
pub(crate) async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: &Direction,
    earliest: Instant,
) -> io::Result<()> {
    let mut shapes = direction.watch();
    let mut buffer = BytesMut::new();
    let mut queue = Queue {
        chunks: VecDeque::new(),
        bytes: 0,
        earliest,
        ended: false,
    };
    loop {
        let flow = shapes.borrow_and_update().flow;
        if flow == Flow::Refused {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let next = queue.chunks.front().map(|chunk| chunk.arrival);
        buffer.reserve(CHUNK_LEN_MAX);
        tokio::select! {
            changed = shapes.changed() => changed.map_err(io::Error::other)?,
            read = from.read_buf(&mut buffer), if !queue.ended && queue.bytes < QUEUE_LEN_MAX => {
                let read = read?;
                queue.push(buffer.split().freeze(), direction.arrival(read));
            }
            () = sleep_until(next.unwrap_or(earliest)), if next.is_some() && flow == Flow::Open => {
                let bytes = queue.pop().expect("its arrival was waited for");
                if bytes.is_empty() {
                    return to.shutdown().await;
                }
                to.write_all(&bytes).await?;
                direction.count(bytes.len());
            }
        }
    }
}
