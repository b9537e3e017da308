//! Bandwidth of a node's copies, which are snapshots for voters and seeds for followers: a token bucket without depth that
//! all of them share, so that a copy does not take from the writes beside it what it need not.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Token bucket without depth: what is sent now is paid for before the next part of any copy is sent.
#[derive(Debug)]
pub struct CopyBandwidth {
    bytes_per_second: u64,
    free_at: Mutex<Instant>,
}

impl CopyBandwidth {
    /// Returns a bandwidth of so many bytes a second.
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Takes the bandwidth for some bytes; returns from when on the caller may send more.
    pub fn take(&self, len: usize) -> Instant {
        let nanos = len as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
        let mut free_at = self.free_at.lock();
        *free_at = (*free_at).max(Instant::now()) + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        *free_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn copies_share_one_bandwidth_without_savings() {
        let bandwidth = CopyBandwidth::new(1_000);
        let began = Instant::now();
        assert_eq!(bandwidth.take(500) - began, Duration::from_millis(500));
        assert_eq!(
            bandwidth.take(1_000) - began,
            Duration::from_millis(1_500),
            "of another copy"
        );
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(
            bandwidth.take(100) - began,
            Duration::from_millis(60_100),
            "nothing is saved up"
        );
    }
}
