//! What a stream brings, checked against its sessions before it is proposed.
//!
//! # Invariants
//!
//! 1. What is queued can be read by every replica of the group, is of the session's tenant, home and epoch, and follows
//!    what the session has brought before.
//! 2. What cannot be taken ends the session of its tenant, and no other: its further parts are dropped until the home is
//!    asked for it again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use stead_state::shard::{
    command::{Command, Data, kind},
    incoming::{Unacceptable, check_changes},
};
use stead_types::{Epoch, GroupId, Revision, TenantNumber};

/// The sessions of one stream, as far as it has brought something of them.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    /// The last change of each tenant.
    last: BTreeMap<TenantNumber, Revision>,
    /// Tenants whose session has ended here, and not yet at the home.
    ended: BTreeSet<TenantNumber>,
}

impl Incoming {
    /// Notes that the home is asked for a tenant: a session begins.
    pub(crate) fn asked(&mut self, tenant: TenantNumber) {
        self.last.remove(&tenant);
        self.ended.remove(&tenant);
    }

    /// Notes that a tenant's session is over.
    pub(crate) fn end(&mut self, tenant: TenantNumber) {
        self.last.remove(&tenant);
        self.ended.insert(tenant);
    }

    /// Checks a part of a batch. Returns whether it is to be proposed: what comes for a session that has ended is not.
    pub(crate) fn part(
        &mut self,
        home: GroupId,
        tenant: TenantNumber,
        epoch: Option<Epoch>,
        part: &Bytes,
    ) -> Result<bool, Unacceptable> {
        if self.ended.contains(&tenant) {
            return Ok(false);
        }
        let data = read(part)?;
        if data.tenant != tenant || data.home != home || epoch.is_some_and(|epoch| epoch != data.epoch) {
            return Err(Unacceptable::OtherSession);
        }
        let last = check_changes(&data.changes, data.epoch, self.last.get(&tenant).copied())?;
        if let Some(last) = last {
            self.last.insert(tenant, last);
        }
        Ok(true)
    }
}

fn read(part: &Bytes) -> Result<Data, Unacceptable> {
    if part.first() == Some(&kind::DATA)
        && let Command::Data(data) = Command::decode(kind::DATA, part.slice(1..))?
    {
        return Ok(data);
    }
    Err(Unacceptable::OtherSession)
}

#[cfg(test)]
mod tests {
    use stead_state::rows::change::{Cause, Change};
    use stead_types::{Sequence, TenantTime};

    use super::*;

    const HOME: GroupId = GroupId::new(3);
    const T: TenantNumber = TenantNumber::new(7);

    fn data(first: u64, last: u64) -> Data {
        let change = |sequence| Change {
            revision: Revision::new(Epoch::FIRST, Sequence::new(sequence).unwrap()),
            effect: 0,
            more: false,
            cause: Cause::Write,
            time: TenantTime(1),
            previous: None,
            outcome: None,
            key: Bytes::from_static(b"k"),
            value: None,
        };
        Data {
            tenant: T,
            home: HOME,
            epoch: Epoch::FIRST,
            changes: (first..=last).map(change).collect(),
            digests: None,
            floor: Revision::ZERO,
        }
    }

    fn part(incoming: &mut Incoming, data: &Data) -> Result<bool, Unacceptable> {
        incoming.part(HOME, T, Some(Epoch::FIRST), &data.encode())
    }

    #[test]
    fn parts_of_a_session_follow_one_another() {
        let mut incoming = Incoming::default();
        assert_eq!(
            part(&mut incoming, &data(5, 7)),
            Ok(true),
            "where it begins the record knows"
        );
        assert_eq!(part(&mut incoming, &data(8, 8)), Ok(true));
        assert_eq!(
            part(&mut incoming, &data(8, 8)),
            Ok(true),
            "the log ignores what it has"
        );
        let refused = part(&mut incoming, &data(10, 11));
        assert!(
            matches!(refused, Err(Unacceptable::NotContiguous { .. })),
            "{refused:?}"
        );
        incoming.asked(T);
        assert_eq!(part(&mut incoming, &data(2, 3)), Ok(true), "a new session");
    }

    #[test]
    fn part_of_another_session_is_refused() {
        let refused = |data: Data| part(&mut Incoming::default(), &data);
        let other = Err(Unacceptable::OtherSession);
        let tenant = TenantNumber::new(8);
        assert_eq!(refused(Data { tenant, ..data(1, 1) }), other);
        let home = GroupId::new(4);
        assert_eq!(refused(Data { home, ..data(1, 1) }), other);
        let epoch = Epoch::new(2).unwrap();
        assert_eq!(refused(Data { epoch, ..data(1, 1) }), other);
    }

    #[test]
    fn what_follows_an_ended_session_is_dropped_until_it_is_asked_for() {
        let mut incoming = Incoming::default();
        incoming.end(T);
        assert_eq!(part(&mut incoming, &data(1, 1)), Ok(false));
        assert_eq!(incoming.part(HOME, T, None, &Bytes::from_static(b"?")), Ok(false));
        incoming.asked(T);
        assert_eq!(part(&mut incoming, &data(1, 1)), Ok(true));
    }

    #[test]
    fn bytes_that_are_no_data_are_refused() {
        let mut incoming = Incoming::default();
        let mut refused = |bytes: Bytes| incoming.part(HOME, T, None, &bytes).unwrap_err();
        assert_eq!(refused(Bytes::new()), Unacceptable::OtherSession);
        assert_eq!(
            refused(Bytes::from_static(b"\x01")),
            Unacceptable::OtherSession,
            "another command"
        );
        let whole = data(1, 2).encode();
        for end in 1..whole.len() {
            assert!(
                matches!(refused(whole.slice(..end)), Unacceptable::Unreadable(_)),
                "cut at {end}"
            );
        }
    }
}
