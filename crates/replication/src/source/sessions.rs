//! Which tenants a stream speaks for, and what of each it has sent.
//!
//! A session is *live* when everything of its tenant up to the stream's place has been sent: its changes then travel
//! with the batch of the entry that made them. A session that begins behind that *catches up* by its own sequence, in
//! turns, while the stream goes on for the others.
//!
//! # Invariants
//!
//! 1. What is sent of a tenant has no gap: each range begins behind the one before it.
//! 2. A tenant without a session is never put on the stream.
//! 3. A session is of one attempt of the follower's; a later one replaces it, an earlier one changes nothing.

use std::collections::{BTreeMap, VecDeque};

use stead_state::{rows::feed::Touched, shard::record::AttachNumber};
use stead_types::{Epoch, Revision, Sequence, TenantNumber};

use crate::wire::Position;

/// One attempt of a follower to attach a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The epoch that it follows.
    pub(crate) epoch: Epoch,
    /// Its number.
    pub(crate) number: AttachNumber,
}

impl Attempt {
    /// Returns the attempt that a position belongs to.
    pub(crate) fn of(position: &Position) -> Self {
        Self {
            epoch: position.epoch,
            number: position.attach,
        }
    }
}

/// What of a tenant is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// For which attempt.
    pub(crate) attempt: Attempt,
    /// Above this one.
    pub(crate) after: Revision,
    /// Up to this one.
    pub(crate) through: Sequence,
}

/// The sessions of one stream.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    tenants: BTreeMap<TenantNumber, Session>,
    /// Tenants that catch up, in turns. May name sessions that have ended.
    behind: VecDeque<TenantNumber>,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    attempt: Attempt,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Sent up to here, which is everything up to the stream's place.
    Live(Revision),
    /// Sent up to here, and there is more.
    Behind(Revision),
}

impl Sessions {
    /// Goes on with a tenant that the follower has up to the stream's place: `has` is its last change there.
    pub(crate) fn resume(&mut self, tenant: TenantNumber, attempt: Attempt, has: Revision) {
        let state = State::Live(has);
        self.tenants.insert(tenant, Session { attempt, state });
    }

    /// Begins a session of a tenant that the follower has up to `after`; it catches up to begin with. Tells whether it
    /// is a later attempt than the one there is.
    pub(crate) fn attach(&mut self, tenant: TenantNumber, attempt: Attempt, after: Revision) -> bool {
        let known = self.tenants.get(&tenant);
        if known.is_some_and(|known| known.attempt.number >= attempt.number) {
            return false;
        }
        self.behind.push_back(tenant);
        let state = State::Behind(after);
        self.tenants.insert(tenant, Session { attempt, state });
        true
    }

    /// Ends a session; returns which it was.
    pub(crate) fn end(&mut self, tenant: TenantNumber) -> Option<Attempt> {
        self.tenants.remove(&tenant).map(|session| session.attempt)
    }

    /// Returns whom the stream speaks for.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = (TenantNumber, Attempt)> {
        self.tenants.iter().map(|(tenant, session)| (*tenant, session.attempt))
    }

    /// Returns the attempt that a tenant's session is of.
    pub(crate) fn attempt(&self, tenant: TenantNumber) -> Option<Attempt> {
        self.tenants.get(&tenant).map(|session| session.attempt)
    }

    /// Tells whether a tenant's changes travel with the entries that made them.
    pub(crate) fn is_live(&self, tenant: TenantNumber, attempt: Attempt) -> bool {
        let session = self.tenants.get(&tenant);
        let session = session.filter(|session| session.attempt == attempt);
        session.is_some_and(|session| matches!(session.state, State::Live(_)))
    }

    /// Takes in that an entry at the stream's place touched a tenant; returns what is to be sent of it.
    pub(crate) fn touched(&mut self, touched: &Touched) -> Option<Span> {
        let session = self.tenants.get_mut(&touched.tenant)?;
        let State::Live(after) = session.state else {
            return None;
        };
        if touched.last <= after.sequence() {
            return None;
        }
        session.state = State::Live(touched.revision());
        Some(Span {
            attempt: session.attempt,
            after,
            through: touched.last,
        })
    }

    /// Returns whose turn it is to catch up, and from where.
    pub(crate) fn turn(&mut self) -> Option<(TenantNumber, Attempt, Revision)> {
        while let Some(tenant) = self.behind.pop_front() {
            if let Some(Session {
                attempt,
                state: State::Behind(sent),
            }) = self.tenants.get(&tenant)
            {
                return Some((tenant, *attempt, *sent));
            }
        }
        None
    }

    /// Takes in that a tenant whose turn it was has been sent up to `sent`, and whether there is more.
    pub(crate) fn sent(&mut self, tenant: TenantNumber, sent: Revision, more: bool) {
        let Some(session) = self.tenants.get_mut(&tenant) else {
            return;
        };
        if more {
            session.state = State::Behind(sent);
            self.behind.push_back(tenant);
        } else {
            session.state = State::Live(sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: TenantNumber = TenantNumber::new(7);
    const FIRST: Attempt = attempt(1);

    const fn attempt(number: u64) -> Attempt {
        Attempt {
            epoch: Epoch::FIRST,
            number: AttachNumber(number),
        }
    }

    fn seq(number: u64) -> Sequence {
        Sequence::new(number).unwrap()
    }

    fn touch(first: u64, last: u64) -> Touched {
        Touched {
            tenant: T,
            epoch: Epoch::FIRST,
            first: seq(first),
            last: seq(last),
        }
    }

    fn rev(number: u64) -> Revision {
        Revision::new(Epoch::FIRST, seq(number))
    }

    fn span(after: u64, through: u64) -> Span {
        Span {
            attempt: FIRST,
            after: rev(after),
            through: seq(through),
        }
    }

    #[test]
    fn resumed_tenant_goes_on_behind_its_own_position() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.touched(&touch(1, 1)), None);
        sessions.resume(T, FIRST, rev(9));
        assert_eq!(sessions.touched(&touch(8, 9)), None, "it has these");
        assert_eq!(sessions.touched(&touch(10, 12)), Some(span(9, 12)));
        assert_eq!(sessions.touched(&touch(13, 13)), Some(span(12, 13)));
        assert_eq!(sessions.end(T), Some(FIRST));
        assert_eq!(sessions.touched(&touch(14, 14)), None);
    }

    #[test]
    fn position_of_an_earlier_epoch_keeps_its_epoch() {
        let mut sessions = Sessions::default();
        let now = Attempt {
            epoch: Epoch::new(5).unwrap(),
            number: AttachNumber(3),
        };
        sessions.resume(T, now, rev(9));
        let touched = Touched {
            epoch: now.epoch,
            ..touch(10, 11)
        };
        assert_eq!(sessions.touched(&touched).unwrap().after, rev(9));
        let next = sessions.touched(&Touched {
            epoch: now.epoch,
            ..touch(12, 12)
        });
        assert_eq!(next.unwrap().after, Revision::new(now.epoch, seq(11)));
    }

    #[test]
    fn tenant_behind_catches_up_and_then_misses_nothing() {
        let mut sessions = Sessions::default();
        assert!(sessions.attach(T, FIRST, rev(0)));
        assert_eq!(sessions.touched(&touch(5, 5)), None);
        assert_eq!(sessions.turn(), Some((T, FIRST, rev(0))));
        assert_eq!(sessions.turn(), None, "a turn is taken once");
        sessions.sent(T, rev(3), true);
        assert_eq!(sessions.turn(), Some((T, FIRST, rev(3))));
        sessions.sent(T, rev(6), false);
        assert_eq!(sessions.turn(), None);
        assert_eq!(sessions.touched(&touch(6, 6)), None, "went with the catching up");
        assert_eq!(sessions.touched(&touch(7, 8)), Some(span(6, 8)));
    }

    #[test]
    fn session_that_ends_while_it_catches_up_has_no_turn() {
        let mut sessions = Sessions::default();
        sessions.attach(T, FIRST, rev(0));
        sessions.end(T);
        assert_eq!(sessions.turn(), None);
        sessions.sent(T, rev(3), true);
        assert_eq!(sessions.attempt(T), None);
    }

    /// Invariant 3.
    #[test]
    fn earlier_attempt_changes_nothing() {
        let mut sessions = Sessions::default();
        assert!(sessions.attach(T, attempt(2), rev(4)));
        assert!(!sessions.attach(T, attempt(2), rev(0)));
        assert!(!sessions.attach(T, FIRST, rev(0)));
        assert_eq!(sessions.turn(), Some((T, attempt(2), rev(4))));
        sessions.sent(T, rev(6), false);
        assert!(sessions.is_live(T, attempt(2)) && !sessions.is_live(T, FIRST));
        assert!(sessions.attach(T, attempt(3), rev(5)));
        assert!(!sessions.is_live(T, attempt(2)));
    }
}
