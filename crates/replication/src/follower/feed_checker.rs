//! Checks of the data that a stream brings, against its sessions, before it is proposed.
//!
//! # Invariants
//!
//! 1. Queued data can be read by every replica of the group, is of the epoch of the attach attempt that it names, and
//!    follows the data that the attempt has brought before.
//! 2. Invalid data ends the session of its tenant, and no other: further parts of the same attempt are dropped, behind
//!    the detach that ends it.

use std::collections::BTreeMap;

use bytes::Bytes;
use stead_api::proto::internal::v1::FeedPart;
use stead_state::shard::{
    command::FeedRecords,
    feed_validation::{InvalidFeedData, check_changes},
    record::{AttachNumber, TenantRecord},
};
use stead_types::{Epoch, GroupId, Revision, TenantNumber};

use super::queue::TenantRecords;

/// The last attempt to attach a tenant, as its record has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastAttempt {
    /// Its number.
    pub(crate) number: AttachNumber,
    /// Its epoch; `None` once it is over.
    pub(crate) epoch: Option<Epoch>,
}

impl LastAttempt {
    /// Returns the last attempt of a record; `None` if it does not follow this home.
    pub(crate) fn of(record: &TenantRecord, home: GroupId) -> Option<Self> {
        (record.home() == Some(home)).then(|| Self {
            number: record.attach,
            epoch: record.session_of(home, record.attach).map(|session| session.epoch),
        })
    }
}

/// Checks that an attempt which a home names is one that it was asked for, in the same epoch. Data of an attempt that
/// is over passes: the log ignores it, and the home is told.
pub(crate) fn check_attempt(
    last: Option<LastAttempt>,
    epoch: Epoch,
    number: AttachNumber,
) -> Result<(), InvalidFeedData> {
    let Some(last) = last else { return Ok(()) };
    let is_other_epoch = number == last.number && last.epoch.is_some_and(|asked| asked != epoch);
    if number > last.number || is_other_epoch {
        return Err(InvalidFeedData::OtherSession);
    }
    Ok(())
}

/// Checker of one stream's data: the sessions of which it has brought data.
#[derive(Debug, Default)]
pub(crate) struct FeedChecker {
    /// Last change of each tenant's latest attempt.
    last: BTreeMap<TenantNumber, (AttachNumber, Revision)>,
    /// Attempts up to this one have ended here, and perhaps not yet at the home.
    ended: BTreeMap<TenantNumber, AttachNumber>,
}

impl FeedChecker {
    /// Ends a tenant's attempt, and all before it.
    pub(crate) fn end(&mut self, tenant: TenantNumber, number: AttachNumber) {
        self.last.remove(&tenant);
        let ended = self.ended.entry(tenant).or_default();
        *ended = number.max(*ended);
    }

    /// Checks a part of a batch. Returns it if it is to be proposed: a part for a session that has ended here is not.
    pub(crate) fn part(
        &mut self,
        last: Option<LastAttempt>,
        part: &FeedPart,
        records: Bytes,
    ) -> Result<Option<TenantRecords>, InvalidFeedData> {
        let (tenant, attach) = (TenantNumber::new(part.tenant), AttachNumber(part.attach));
        if self.ended.get(&tenant).is_some_and(|ended| attach <= *ended) {
            return Ok(None);
        }
        let epoch = Epoch::new(part.epoch).ok_or(InvalidFeedData::OtherSession)?;
        check_attempt(last, epoch, attach)?;
        let read = FeedRecords::decode(records.clone())?;
        let before = self.last.get(&tenant).filter(|(of, _)| *of == attach);
        let before = before.map(|(_, revision)| *revision);
        if let Some(revision) = check_changes(&read.changes, epoch, before)? {
            self.last.insert(tenant, (attach, revision));
        }
        let part = TenantRecords {
            tenant,
            epoch,
            attach,
            records,
        };
        Ok(Some(part))
    }
}

#[cfg(test)]
mod tests {
    use stead_state::{
        rows::{
            chain::VersionChain,
            change::{Cause, Change},
        },
        shard::record::{AttachSession, Role},
    };
    use stead_types::{Incarnation, Sequence, TenantTime};

    use super::*;

    const HOME: GroupId = GroupId::new(3);
    const T: TenantNumber = TenantNumber::new(7);
    const OTHER: Result<bool, InvalidFeedData> = Err(InvalidFeedData::OtherSession);

    fn records(first: u64, last: u64) -> FeedRecords {
        let change = |sequence| Change {
            revision: Revision::new(Epoch::FIRST, Sequence::new(sequence).unwrap()),
            effect: 0,
            more: false,
            cause: Cause::Write,
            time: TenantTime(1),
            previous: None,
            chain: VersionChain::default(),
            outcome: None,
            operation: None,
            origin: None,
            key: Bytes::from_static(b"k"),
            value: None,
        };
        FeedRecords {
            changes: (first..=last).map(change).collect(),
            digests: None,
            retention_floor: Revision::ZERO,
        }
    }

    fn attempt(number: u64, epoch: Option<u32>) -> Option<LastAttempt> {
        let epoch = epoch.map(|epoch| Epoch::new(epoch).unwrap());
        let number = AttachNumber(number);
        Some(LastAttempt { number, epoch })
    }

    fn head(attach: u64, epoch: u32) -> FeedPart {
        let (tenant, len) = (T.get(), 0);
        FeedPart {
            tenant,
            len,
            epoch,
            attach,
        }
    }

    /// Checks a part of a present attempt in the first epoch; returns whether it is to be proposed.
    fn part(checker: &mut FeedChecker, attach: u64, records: &FeedRecords) -> Result<bool, InvalidFeedData> {
        let last = attempt(attach, Some(1));
        let part = checker.part(last, &head(attach, 1), records.encode())?;
        Ok(part.is_some())
    }

    #[test]
    fn parts_of_an_attempt_must_be_contiguous() {
        let mut checker = FeedChecker::default();
        assert_eq!(
            part(&mut checker, 4, &records(5, 7)),
            Ok(true),
            "where it begins the record knows"
        );
        assert_eq!(part(&mut checker, 4, &records(8, 8)), Ok(true));
        assert_eq!(
            part(&mut checker, 4, &records(8, 8)),
            Ok(true),
            "the log ignores what it has"
        );
        let refused = part(&mut checker, 4, &records(10, 11));
        assert!(
            matches!(refused, Err(InvalidFeedData::NotContiguous { .. })),
            "{refused:?}"
        );
        assert_eq!(part(&mut checker, 5, &records(2, 3)), Ok(true), "another attempt");
    }

    #[test]
    fn part_of_unknown_attach_attempt_is_refused() {
        let taken = |last, attach, epoch| {
            let part = FeedChecker::default().part(last, &head(attach, epoch), records(1, 1).encode())?;
            Ok(part.is_some())
        };
        let last = attempt(4, Some(2));
        assert_eq!(taken(last, 4, 2), Ok(true));
        assert_eq!(taken(last, 5, 2), OTHER, "no attempt has this number yet");
        assert_eq!(taken(last, 4, 1), OTHER, "it was begun in another epoch");
        assert_eq!(taken(last, 3, 1), Ok(true), "it is over, as the log knows");
        assert_eq!(taken(attempt(4, None), 4, 1), Ok(true), "it is over, as the log knows");
        assert_eq!(taken(None, 4, 1), Ok(true), "the record follows another home");
    }

    #[test]
    fn change_of_later_epoch_is_refused() {
        let mut later = records(1, 1);
        later.changes[0].revision = Revision::new(Epoch::new(2).unwrap(), Sequence::new(1).unwrap());
        assert_eq!(part(&mut FeedChecker::default(), 4, &later), OTHER);
    }

    #[test]
    fn parts_after_an_ended_attempt_are_dropped() {
        let mut checker = FeedChecker::default();
        checker.end(T, AttachNumber(4));
        assert_eq!(part(&mut checker, 4, &records(1, 1)), Ok(false));
        assert_eq!(part(&mut checker, 3, &records(1, 1)), Ok(false));
        let unreadable = Bytes::from_static(b"?");
        assert_eq!(checker.part(None, &head(4, 1), unreadable).unwrap().map(drop), None);
        assert_eq!(part(&mut checker, 5, &records(1, 1)), Ok(true));
        checker.end(T, AttachNumber(3));
        assert_eq!(
            part(&mut checker, 4, &records(1, 1)),
            Ok(false),
            "it has not begun again"
        );
    }

    #[test]
    fn equal_attempt_numbers_of_two_tenants_are_independent() {
        // Invariant 2.
        let mut checker = FeedChecker::default();
        let tenant = T.get() + 1;
        let other = |checker: &mut FeedChecker, records: &FeedRecords| {
            let head = FeedPart { tenant, ..head(4, 1) };
            let part = checker.part(attempt(4, Some(1)), &head, records.encode())?;
            Ok::<_, InvalidFeedData>(part.is_some())
        };
        assert_eq!(part(&mut checker, 4, &records(5, 7)), Ok(true));
        assert_eq!(
            other(&mut checker, &records(20, 21)),
            Ok(true),
            "where it begins differs"
        );
        checker.end(T, AttachNumber(4));
        assert_eq!(other(&mut checker, &records(22, 22)), Ok(true), "it has not ended");
    }

    #[test]
    fn malformed_records_are_refused() {
        let mut checker = FeedChecker::default();
        let mut refused = |bytes| checker.part(None, &head(4, 1), bytes).unwrap_err();
        let whole = records(1, 2).encode();
        for end in 0..whole.len() {
            assert!(
                matches!(refused(whole.slice(..end)), InvalidFeedData::Unreadable(_)),
                "cut at {end}"
            );
        }
        let longer = Bytes::from([&whole[..], b"?"].concat());
        assert!(matches!(refused(longer), InvalidFeedData::Unreadable(_)));
    }

    #[test]
    fn last_attempt_needs_a_record_that_follows_the_home() {
        let mut record = TenantRecord::unknown();
        record.attach = AttachNumber(4);
        assert_eq!(LastAttempt::of(&record, HOME), None);
        record.role = Role::Follower { home: HOME };
        assert_eq!(LastAttempt::of(&record, HOME), attempt(4, None));
        record.session = Some(AttachSession {
            home: HOME,
            incarnation: Incarnation::FIRST,
            epoch: Epoch::FIRST,
            number: AttachNumber(4),
            attached: false,
        });
        assert_eq!(LastAttempt::of(&record, HOME), attempt(4, Some(1)));
        assert_eq!(LastAttempt::of(&record, GroupId::new(4)), None);
    }
}
