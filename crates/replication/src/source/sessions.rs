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

use std::collections::{BTreeMap, VecDeque};

use stead_state::rows::feed::Touched;
use stead_types::{Epoch, Revision, Sequence, TenantNumber};

/// What of a tenant is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Of the session.
    pub(crate) epoch: Epoch,
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
    epoch: Epoch,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Goes on from another stream: what comes next is what the next entry begins with.
    Resumed,
    /// Sent up to here, which is everything up to the stream's place.
    Live(Revision),
    /// Sent up to here, and there is more.
    Behind(Revision),
}

impl Sessions {
    /// Goes on with a tenant that the follower has up to the stream's place.
    pub(crate) fn resume(&mut self, tenant: TenantNumber, epoch: Epoch) {
        let state = State::Resumed;
        self.tenants.insert(tenant, Session { epoch, state });
    }

    /// Begins a session of a tenant that the follower has up to `after`; it catches up to begin with.
    pub(crate) fn attach(&mut self, tenant: TenantNumber, epoch: Epoch, after: Revision) {
        self.behind.push_back(tenant);
        let state = State::Behind(after);
        self.tenants.insert(tenant, Session { epoch, state });
    }

    /// Ends a session; tells whether there was one.
    pub(crate) fn end(&mut self, tenant: TenantNumber) -> bool {
        self.tenants.remove(&tenant).is_some()
    }

    /// Returns whom the stream speaks for.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = TenantNumber> {
        self.tenants.keys().copied()
    }

    /// Returns the epoch of a tenant's session.
    pub(crate) fn epoch(&self, tenant: TenantNumber) -> Option<Epoch> {
        self.tenants.get(&tenant).map(|session| session.epoch)
    }

    /// Tells whether a tenant's changes travel with the entries that made them.
    pub(crate) fn is_live(&self, tenant: TenantNumber, epoch: Epoch) -> bool {
        let session = self.tenants.get(&tenant).filter(|session| session.epoch == epoch);
        session.is_some_and(|session| matches!(session.state, State::Live(_)))
    }

    /// Takes in that an entry at the stream's place touched a tenant; returns what is to be sent of it.
    pub(crate) fn touched(&mut self, touched: Touched) -> Option<Span> {
        let session = self.tenants.get_mut(&touched.tenant)?;
        let after = match session.state {
            State::Resumed => Revision::new(session.epoch, before(touched.first)),
            State::Live(sent) => sent,
            State::Behind(_) => return None,
        };
        if touched.last <= after.sequence() {
            return None;
        }
        session.state = State::Live(Revision::new(session.epoch, touched.last));
        Some(Span {
            epoch: session.epoch,
            after,
            through: touched.last,
        })
    }

    /// Returns whose turn it is to catch up, and from where.
    pub(crate) fn turn(&mut self) -> Option<(TenantNumber, Epoch, Revision)> {
        while let Some(tenant) = self.behind.pop_front() {
            if let Some(Session {
                epoch,
                state: State::Behind(sent),
            }) = self.tenants.get(&tenant)
            {
                return Some((tenant, *epoch, *sent));
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

fn before(sequence: Sequence) -> Sequence {
    Sequence::new(sequence.get().saturating_sub(1)).expect("it is lower than a sequence")
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: TenantNumber = TenantNumber::new(7);

    fn seq(number: u64) -> Sequence {
        Sequence::new(number).unwrap()
    }

    fn touch(first: u64, last: u64) -> Touched {
        Touched {
            tenant: T,
            first: seq(first),
            last: seq(last),
        }
    }

    fn rev(number: u64) -> Revision {
        Revision::new(Epoch::FIRST, seq(number))
    }

    fn span(after: u64, through: u64) -> Span {
        Span {
            epoch: Epoch::FIRST,
            after: rev(after),
            through: seq(through),
        }
    }

    #[test]
    fn a_resumed_tenant_goes_on_with_what_comes() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.touched(touch(1, 1)), None);
        sessions.resume(T, Epoch::FIRST);
        assert_eq!(sessions.touched(touch(10, 12)), Some(span(9, 12)));
        assert_eq!(sessions.touched(touch(13, 13)), Some(span(12, 13)));
        assert!(sessions.end(T));
        assert_eq!(sessions.touched(touch(14, 14)), None);
    }

    #[test]
    fn a_tenant_behind_catches_up_and_then_misses_nothing() {
        let mut sessions = Sessions::default();
        sessions.attach(T, Epoch::FIRST, rev(0));
        assert_eq!(sessions.touched(touch(5, 5)), None);
        assert_eq!(sessions.turn(), Some((T, Epoch::FIRST, rev(0))));
        assert_eq!(sessions.turn(), None, "a turn is taken once");
        sessions.sent(T, rev(3), true);
        assert_eq!(sessions.turn(), Some((T, Epoch::FIRST, rev(3))));
        sessions.sent(T, rev(6), false);
        assert_eq!(sessions.turn(), None);
        assert_eq!(sessions.touched(touch(6, 6)), None, "went with the catching up");
        assert_eq!(sessions.touched(touch(7, 8)), Some(span(6, 8)));
    }

    #[test]
    fn a_session_that_ends_while_it_catches_up_has_no_turn() {
        let mut sessions = Sessions::default();
        sessions.attach(T, Epoch::FIRST, rev(0));
        sessions.end(T);
        assert_eq!(sessions.turn(), None);
        sessions.sent(T, rev(3), true);
        assert_eq!(sessions.epoch(T), None);
    }
}
