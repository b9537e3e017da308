//! How much of a home's feed there is, by age and bytes, without going through it again and again.
//!
//! # Invariants
//!
//! 1. There are at most as many pieces as the limits let live: one for each [`PIECE_AGE`] and for each [`PIECE_LEN`].
//! 2. A piece is remembered until the limits are past it, also when its entries are gone: tenants with a floor of their
//!    own are held to the same limits.

use std::{collections::VecDeque, time::Duration};

/// A piece is closed after so much time of the log, or so many bytes.
const PIECE_AGE: Duration = Duration::from_secs(1);
const PIECE_LEN: u64 = 1 << 20;

/// How much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Kept even if nobody needs it, unless it is more than `keep_len`: for pages, watches and returning followers.
    pub keep_age: Duration,
    /// Bytes kept even if nobody needs them, unless they are older than `keep_age`.
    pub keep_len: u64,
    /// Not kept longer, even for a follower that needs it: it will be seeded.
    pub age_max: Duration,
    /// Not more than these bytes, even for a follower that needs them.
    pub len_max: u64,
    /// How often the floor moves at most.
    pub interval: Duration,
}

/// What holds for tenants without a limit of their own: [`TenantLimit::HistoryAge`].
///
/// [`TenantLimit::HistoryAge`]: stead_types::TenantLimit::HistoryAge
const KEEP_AGE: Duration = Duration::from_secs(10 * 60);

impl Default for Limits {
    fn default() -> Self {
        Self {
            keep_age: KEEP_AGE,
            keep_len: 64 << 20,
            age_max: Duration::from_secs(24 * 3600),
            len_max: 1 << 30,
            interval: Duration::from_secs(10),
        }
    }
}

/// Entries of the feed, in pieces, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    pieces: VecDeque<Piece>,
    len: u64,
    last: u64,
}

#[derive(Debug)]
struct Piece {
    /// Index of its last entry.
    last: u64,
    /// Logged time of its first entry, in milliseconds.
    time: u64,
    len: u64,
}

impl History {
    /// Adds an entry: its index, logged time in milliseconds, and length.
    pub(crate) fn add(&mut self, index: u64, time: u64, len: u64) {
        self.last = index;
        self.len += len;
        let age_ms = PIECE_AGE.as_millis() as u64;
        match self.pieces.back_mut() {
            Some(piece) if piece.len < PIECE_LEN && time < piece.time + age_ms => {
                piece.last = index;
                piece.len += len;
            }
            Some(_) | None => self.pieces.push_back(Piece { last: index, time, len }),
        }
    }

    /// Returns the index of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Returns up to where the past may go, at logged time `now`, if every follower has `needed` (see the module of the
    /// floor): never the last entry.
    pub(crate) fn floor(&self, now: u64, needed: u64, limits: &Limits) -> u64 {
        let kept = self.beyond(now, limits.keep_age, limits.keep_len);
        let capped = self.beyond(now, limits.age_max, limits.len_max);
        kept.min(needed).max(capped).min(self.last.saturating_sub(1))
    }

    /// Returns the logged time from which on everything is kept by an age and a length: what is older is not.
    pub(crate) fn kept_from(&self, now: u64, age: Duration, len_max: u64) -> u64 {
        let by_age = oldest(now, age);
        let gone = self.gone(now, age, len_max);
        let by_len = self.pieces.get(gone).filter(|_| gone > 0).map_or(0, |piece| piece.time);
        by_age.max(by_len)
    }

    /// Returns the last entry that is older than `age`, or before the last `len_max` bytes.
    fn beyond(&self, now: u64, age: Duration, len_max: u64) -> u64 {
        let gone = self.gone(now, age, len_max);
        let last = gone.checked_sub(1).and_then(|last| self.pieces.get(last));
        last.map_or(0, |piece| piece.last)
    }

    /// Returns how many of the oldest pieces are older than `age`, or before the last `len_max` bytes. A piece goes as a
    /// whole, once its last entry may: the next piece begins after that.
    fn gone(&self, now: u64, age: Duration, len_max: u64) -> usize {
        let oldest = oldest(now, age);
        let mut len = self.len;
        let goes = |piece: &&Piece| {
            let is_kept = piece.time + PIECE_AGE.as_millis() as u64 > oldest && len <= len_max;
            len -= piece.len;
            !is_kept
        };
        self.pieces.iter().take_while(goes).count()
    }

    /// Forgets what is beyond the limits.
    pub(crate) fn forget(&mut self, now: u64, limits: &Limits) {
        let gone = self.gone(now, limits.age_max, limits.len_max);
        self.len -= self.pieces.drain(..gone).map(|piece| piece.len).sum::<u64>();
    }
}

fn oldest(now: u64, age: Duration) -> u64 {
    now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        keep_age: Duration::from_secs(10),
        keep_len: 10 << 20,
        age_max: Duration::from_secs(100),
        len_max: 100 << 20,
        interval: Duration::from_secs(10),
    };

    #[test]
    fn the_default_of_the_limit_is_what_is_kept() {
        let limit = stead_types::TenantLimit::HistoryAge.default_value();
        assert_eq!(limit.map(Duration::from_millis), Some(KEEP_AGE));
    }

    fn history(entries: u64, every_ms: u64, len: u64) -> History {
        let mut history = History::default();
        for index in 1..=entries {
            history.add(index, index * every_ms, len);
        }
        history
    }

    #[test]
    fn what_nobody_needs_is_kept_for_a_while() {
        let history = history(100, 1000, 10);
        let now = 100_000;
        assert_eq!(history.floor(now, u64::MAX, &LIMITS), 89);
        assert_eq!(history.floor(now, 40, &LIMITS), 40, "a follower needs it");
        assert_eq!(history.floor(now + 60_000, 10, &LIMITS), 59, "no longer for it");
    }

    #[test]
    fn bytes_are_bounded_and_the_last_entry_stays() {
        let mut history = history(200, 1000, 1 << 20);
        assert_eq!(history.floor(200_000, u64::MAX, &LIMITS), 190);
        assert_eq!(history.floor(200_000, 0, &LIMITS), 100);
        assert_eq!(history.floor(u64::MAX / 2, 0, &LIMITS), 199);
        history.forget(200_000, &LIMITS);
        assert_eq!(history.floor(200_000, 0, &LIMITS), 0);
        assert_eq!(
            history.floor(200_000, u64::MAX, &LIMITS),
            190,
            "what is within the limits is remembered"
        );
        assert_eq!(history.last(), 200);
    }

    #[test]
    fn who_needs_old_history_gets_what_the_limits_let_live() {
        let now = 200_000;
        let kept_from = |history: &History, now| history.kept_from(now, LIMITS.age_max, LIMITS.len_max);
        assert_eq!(kept_from(&history(200, 1000, 10), now), 100_000, "by age");
        assert_eq!(kept_from(&history(200, 1000, 2 << 20), now), 151_000, "by bytes");
        assert_eq!(kept_from(&history(20, 1000, 10), 20_000), 0);
    }
}
