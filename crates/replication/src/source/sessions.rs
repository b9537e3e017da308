//! Feed sessions of one stream, on the home's end: the tenants that the stream covers, and how far each is sent.
//!
//! A session is *live* when everything of its tenant up to the stream's scanned index has been sent, or is pending and
//! sent next: its changes are then sent with the batch of the entry that made them. A session that begins behind that
//! *catches up* by its own sequence, round robin, while the stream goes on for the others.
//!
//! # Invariants
//!
//! 1. The changes sent of a tenant have no gap: each range begins behind the one before it.
//! 2. A tenant without a session is never put on the stream.
//! 3. A session is of one attempt of the follower's; a later one replaces it, an earlier one changes nothing.

use std::collections::{BTreeMap, VecDeque};

use stead_state::rows::feed::TouchedTenant;
use stead_types::{Revision, Sequence, TenantNumber};

use crate::attach_attempt::AttachAttempt;

/// Range of a tenant's changes to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChangeRange {
    /// Attempt that it is sent for.
    pub(crate) attempt: AttachAttempt,
    /// Last revision before the range.
    pub(crate) after: Revision,
    /// Last sequence of the range.
    pub(crate) through: Sequence,
}

/// The feed sessions of one stream, on the home's end.
#[derive(Debug, Default)]
pub(crate) struct SourceSessions {
    tenants: BTreeMap<TenantNumber, SourceSession>,
    /// Tenants that catch up, round robin. May name sessions that have ended.
    behind: VecDeque<TenantNumber>,
}

#[derive(Clone, Copy, Debug)]
struct SourceSession {
    attempt: AttachAttempt,
    state: SessionState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SessionState {
    /// Sent up to this revision, or about to be: everything up to the stream's scanned index.
    Live(Revision),
    /// Sent up to this revision, and there is more.
    Behind(Revision),
}

impl SourceSessions {
    /// Begins a live session of a tenant that the follower has up to the stream's scanned index, once what is pending
    /// is sent: `has` is its last change then.
    pub(crate) fn resume(&mut self, tenant: TenantNumber, attempt: AttachAttempt, has: Revision) {
        let state = SessionState::Live(has);
        self.tenants.insert(tenant, SourceSession { attempt, state });
    }

    /// Begins a session that catches up, of a tenant that the follower has up to `after`. Returns whether it is a later
    /// attempt than the present one.
    pub(crate) fn attach(&mut self, tenant: TenantNumber, attempt: AttachAttempt, after: Revision) -> bool {
        let known = self.tenants.get(&tenant);
        if known.is_some_and(|known| known.attempt.number >= attempt.number) {
            return false;
        }
        self.behind.push_back(tenant);
        let state = SessionState::Behind(after);
        self.tenants.insert(tenant, SourceSession { attempt, state });
        true
    }

    /// Ends a session; returns its attempt.
    pub(crate) fn end(&mut self, tenant: TenantNumber) -> Option<AttachAttempt> {
        self.tenants.remove(&tenant).map(|session| session.attempt)
    }

    /// Returns the attempt of a tenant's session.
    pub(crate) fn attempt(&self, tenant: TenantNumber) -> Option<AttachAttempt> {
        self.tenants.get(&tenant).map(|session| session.attempt)
    }

    /// Tells whether the session of a tenant's attempt is live.
    pub(crate) fn is_live(&self, tenant: TenantNumber, attempt: AttachAttempt) -> bool {
        let session = self.tenants.get(&tenant);
        let session = session.filter(|session| session.attempt == attempt);
        session.is_some_and(|session| matches!(session.state, SessionState::Live(_)))
    }

    /// Returns the revision up to which a live session is sent, or will be with the changes that wait for a batch.
    pub(crate) fn sent(&self, tenant: TenantNumber) -> Option<Revision> {
        match self.tenants.get(&tenant)?.state {
            SessionState::Live(sent) => Some(sent),
            SessionState::Behind(_) => None,
        }
    }

    /// Records that a scanned entry changed a tenant; returns the range to send, `None` if the tenant is not live or
    /// has the change.
    pub(crate) fn record_change(&mut self, touched: &TouchedTenant) -> Option<ChangeRange> {
        let session = self.tenants.get_mut(&touched.tenant)?;
        let SessionState::Live(after) = session.state else {
            return None;
        };
        if touched.last <= after.sequence() {
            return None;
        }
        session.state = SessionState::Live(touched.revision());
        Some(ChangeRange {
            attempt: session.attempt,
            after,
            through: touched.last,
        })
    }

    /// Takes the next tenant that catches up, with its attempt and the revision that it is sent up to.
    pub(crate) fn next_behind(&mut self) -> Option<(TenantNumber, AttachAttempt, Revision)> {
        while let Some(tenant) = self.behind.pop_front() {
            if let Some(SourceSession {
                attempt,
                state: SessionState::Behind(sent),
            }) = self.tenants.get(&tenant)
            {
                return Some((tenant, *attempt, *sent));
            }
        }
        None
    }

    /// Tells whether tenants catch up. Some of them may have ended.
    pub(crate) fn is_any_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Records that a tenant that catches up has been sent up to `sent`, and whether there is more.
    pub(crate) fn record_sent(&mut self, tenant: TenantNumber, sent: Revision, more: bool) {
        let Some(session) = self.tenants.get_mut(&tenant) else {
            return;
        };
        if more {
            session.state = SessionState::Behind(sent);
            self.behind.push_back(tenant);
        } else {
            session.state = SessionState::Live(sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use stead_state::shard::record::AttachNumber;
    use stead_types::Epoch;

    use super::*;

    const T: TenantNumber = TenantNumber::new(7);
    const FIRST: AttachAttempt = attempt(1);

    const fn attempt(number: u64) -> AttachAttempt {
        AttachAttempt {
            epoch: Epoch::FIRST,
            number: AttachNumber(number),
        }
    }

    fn seq(number: u64) -> Sequence {
        Sequence::new(number).unwrap()
    }

    fn touch(first: u64, last: u64) -> TouchedTenant {
        TouchedTenant {
            tenant: T,
            epoch: Epoch::FIRST,
            first: seq(first),
            last: seq(last),
        }
    }

    fn rev(number: u64) -> Revision {
        Revision::new(Epoch::FIRST, seq(number))
    }

    fn range(after: u64, through: u64) -> ChangeRange {
        ChangeRange {
            attempt: FIRST,
            after: rev(after),
            through: seq(through),
        }
    }

    #[test]
    fn resumed_session_continues_after_its_own_position() {
        let mut sessions = SourceSessions::default();
        assert_eq!(sessions.record_change(&touch(1, 1)), None);
        sessions.resume(T, FIRST, rev(9));
        assert_eq!(sessions.record_change(&touch(8, 9)), None, "it has these");
        assert_eq!(sessions.record_change(&touch(10, 12)), Some(range(9, 12)));
        assert_eq!(sessions.record_change(&touch(13, 13)), Some(range(12, 13)));
        assert_eq!(sessions.end(T), Some(FIRST));
        assert_eq!(sessions.record_change(&touch(14, 14)), None);
    }

    #[test]
    fn range_after_earlier_epoch_keeps_that_epoch() {
        let mut sessions = SourceSessions::default();
        let now = AttachAttempt {
            epoch: Epoch::new(5).unwrap(),
            number: AttachNumber(3),
        };
        sessions.resume(T, now, rev(9));
        let touched = TouchedTenant {
            epoch: now.epoch,
            ..touch(10, 11)
        };
        assert_eq!(sessions.record_change(&touched).unwrap().after, rev(9));
        let next = sessions.record_change(&TouchedTenant {
            epoch: now.epoch,
            ..touch(12, 12)
        });
        assert_eq!(next.unwrap().after, Revision::new(now.epoch, seq(11)));
    }

    #[test]
    fn session_behind_catches_up_and_becomes_live() {
        let mut sessions = SourceSessions::default();
        assert!(sessions.attach(T, FIRST, rev(0)));
        assert_eq!(sessions.record_change(&touch(5, 5)), None);
        assert_eq!(sessions.next_behind(), Some((T, FIRST, rev(0))));
        assert_eq!(sessions.next_behind(), None, "a turn is taken once");
        sessions.record_sent(T, rev(3), true);
        assert_eq!(sessions.next_behind(), Some((T, FIRST, rev(3))));
        sessions.record_sent(T, rev(6), false);
        assert_eq!(sessions.next_behind(), None);
        assert_eq!(sessions.record_change(&touch(6, 6)), None, "went with the catching up");
        assert_eq!(sessions.record_change(&touch(7, 8)), Some(range(6, 8)));
    }

    #[test]
    fn session_that_ended_has_no_turn() {
        let mut sessions = SourceSessions::default();
        sessions.attach(T, FIRST, rev(0));
        sessions.end(T);
        assert_eq!(sessions.next_behind(), None);
        sessions.record_sent(T, rev(3), true);
        assert_eq!(sessions.attempt(T), None);
    }

    /// Invariant 3.
    #[test]
    fn earlier_attach_attempt_is_ignored() {
        let mut sessions = SourceSessions::default();
        assert!(sessions.attach(T, attempt(2), rev(4)));
        assert!(!sessions.attach(T, attempt(2), rev(0)));
        assert!(!sessions.attach(T, FIRST, rev(0)));
        assert_eq!(sessions.next_behind(), Some((T, attempt(2), rev(4))));
        sessions.record_sent(T, rev(6), false);
        assert!(sessions.is_live(T, attempt(2)) && !sessions.is_live(T, FIRST));
        assert!(sessions.attach(T, attempt(3), rev(5)));
        assert!(!sessions.is_live(T, attempt(2)));
    }
}
