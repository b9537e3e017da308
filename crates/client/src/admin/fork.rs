//! Operators' calls for forks: what promotions have cut off.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use stead_api::proto::admin::v1::{self, fork_service_client::ForkServiceClient as Service};
use stead_types::{Error, Revision};

use super::{Admin, PAGE_SIZE};
use crate::response::{Item, item, malformed};

/// Least time for a discard, which waits for two logs.
const DISCARD_MIN: Duration = Duration::from_secs(15);

/// Forks that are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForkList {
    /// The forks, by group, tenant number and fork number.
    pub forks: Vec<ForkInfo>,
    /// Groups of which forks may be missing, because no leader of them answered.
    pub silent_groups: BTreeSet<u32>,
}

/// Fork of a tenant in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkInfo {
    /// Name of the tenant; empty if the node that was asked does not know it.
    pub tenant: String,
    /// Number of the tenant.
    pub tenant_number: u64,
    /// Group whose log has the fork.
    pub group: u32,
    /// Region of the group.
    pub region: String,
    /// Number of the fork.
    pub number: u32,
    /// Changes above this sequence were cut.
    pub fork_point: u64,
    /// First change that was cut; absent where the fork does not have it.
    pub first: Option<Revision>,
    /// Last change that was cut.
    pub last: Revision,
    /// Number of changes that were cut.
    pub changes: u64,
    /// Bytes of the changes, or of all keys of a whole copy.
    pub bytes: u64,
    /// Whether the whole copy was set aside: values at the fork point are not known then.
    pub is_whole_copy: bool,
    /// Whether changes are still being moved to it: it cannot be read or discarded yet.
    pub is_filling: bool,
    /// Number of its changes that were written again, as far as the group's copy has them.
    pub replayed: u64,
}

/// Name of a fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkName {
    /// Name of the tenant.
    pub tenant: String,
    /// Group whose log has the fork.
    pub group: u32,
    /// Number of the fork.
    pub number: u32,
}

/// Page of the keys of a fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkEntries {
    /// The keys in the order of the changes that were cut.
    pub entries: Vec<ForkEntry>,
    /// Token of the next page; empty on the last one.
    pub next_page_token: String,
    /// Revision of the group's copy that the live values are from; absent: the group has no data of the tenant yet.
    pub live_revision: Option<Revision>,
}

/// Key of a change that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkEntry {
    /// The change.
    pub revision: Revision,
    /// When it was written, by the tenant's clock.
    pub time: SystemTime,
    /// The key.
    pub key: Bytes,
    /// The key at the fork point.
    pub at_fork_point: AtForkPoint,
    /// Item that was cut; absent: a delete.
    pub cut: Option<Item>,
    /// The key now, in the group's copy; absent: it does not exist there.
    pub live: Option<Item>,
    /// Class of the whole change.
    pub class: ForkClass,
    /// Revision that the change has on the tenant's history, if it was replayed or absorbed.
    pub found: Option<Revision>,
}

/// Key at a fork point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtForkPoint {
    /// Item as it was; `None`: it did not exist.
    Known(Option<Item>),
    /// The fork does not tell.
    Unknown,
}

/// Class of a cut change by the effect of writing it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkClass {
    /// The group has no data to compare with yet, or the node is of a later version.
    Unknown,
    /// The client has sent it again.
    Absorbed,
    /// It removed an expired key, wrote what has expired since, or incremented a counter that counts anew since.
    Expired,
    /// None of its keys was changed since the fork point.
    Clean,
    /// One of its keys was changed since the fork point, or may have been.
    Conflict,
    /// Where its keys were changed since, it incremented or appended, which can be done again upon what is there.
    Commutative,
    /// As commutative, but the client may have sent it again.
    Uncertain,
    /// It was written again.
    Replayed,
}

impl Admin {
    /// Returns the forks of a tenant or, where it is empty, of all; only those in a group or in a region, if named.
    ///
    /// # Errors
    ///
    /// No such tenant, group or region, or no node answers.
    pub async fn forks(&self, tenant: &str, group: Option<u32>, region: &str) -> Result<ForkList, Error> {
        let mut request = v1::ListForksRequest {
            page_size: PAGE_SIZE,
            page_token: String::new(),
            tenant: tenant.to_owned(),
            group,
            region: region.to_owned(),
        };
        let call = async |channel, request| Service::new(channel).list_forks(request).await;
        let state = self.0.state();
        let mut list = ForkList::default();
        loop {
            let deadline = state.deadline(None);
            let page = state.unary(request.clone(), deadline, true, call).await?;
            list.silent_groups.extend(page.silent_groups);
            let forks = page.forks.into_iter().map(ForkInfo::read);
            list.forks.extend(forks.collect::<Result<Vec<_>, _>>()?);
            if page.next_page_token.is_empty() {
                return Ok(list);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Returns a page of a fork's keys; an empty token stands for the first page, and a size of 0 for the node's default.
    ///
    /// # Errors
    ///
    /// No such fork, changes are still being moved to it, or no leader of its group answers.
    pub async fn fork_entries(&self, fork: &ForkName, page_size: u32, page_token: &str) -> Result<ForkEntries, Error> {
        let request = v1::ListForkEntriesRequest {
            page_size: i32::try_from(page_size).unwrap_or(i32::MAX),
            page_token: page_token.to_owned(),
            tenant: fork.tenant.clone(),
            group: fork.group,
            fork: fork.number,
        };
        let call = async |channel, request| Service::new(channel).list_fork_entries(request).await;
        let state = self.0.state();
        let page = state.unary(request, state.deadline(None), true, call).await?;
        let entries = page.entries.into_iter().map(ForkEntry::read);
        Ok(ForkEntries {
            entries: entries.collect::<Result<_, _>>()?,
            next_page_token: page.next_page_token,
            live_revision: page.live_revision.map(revision).transpose()?,
        })
    }

    /// Discards a fork for ever, and returns it as it was.
    ///
    /// # Errors
    ///
    /// An error response, or a failure that says whether it may have been discarded.
    pub async fn discard_fork(&self, fork: &ForkName, reason: &str) -> Result<ForkInfo, Error> {
        let request = v1::DiscardForkRequest {
            tenant: fork.tenant.clone(),
            group: fork.group,
            fork: fork.number,
            reason: reason.to_owned(),
        };
        let call = async |channel, request| Service::new(channel).discard_fork(request).await;
        let state = self.0.state();
        let deadline = state.deadline(None).max(state.deadline(Some(DISCARD_MIN)));
        let answer = state.unary(request, deadline, false, call).await?;
        ForkInfo::read(answer.fork.ok_or_else(|| malformed("fork"))?)
    }
}

pub(super) fn revision(revision: stead_api::proto::v1::Revision) -> Result<Revision, Error> {
    stead_api::convert::id::revision("revision", revision)
}

impl ForkClass {
    pub(super) fn read(class: v1::ForkClass) -> Self {
        match class {
            v1::ForkClass::Unspecified => Self::Unknown,
            v1::ForkClass::Absorbed => Self::Absorbed,
            v1::ForkClass::Expired => Self::Expired,
            v1::ForkClass::Clean => Self::Clean,
            v1::ForkClass::Conflict => Self::Conflict,
            v1::ForkClass::Commutative => Self::Commutative,
            v1::ForkClass::Uncertain => Self::Uncertain,
            v1::ForkClass::Replayed => Self::Replayed,
        }
    }

    pub(super) fn message(self) -> v1::ForkClass {
        match self {
            Self::Unknown => v1::ForkClass::Unspecified,
            Self::Absorbed => v1::ForkClass::Absorbed,
            Self::Expired => v1::ForkClass::Expired,
            Self::Clean => v1::ForkClass::Clean,
            Self::Conflict => v1::ForkClass::Conflict,
            Self::Commutative => v1::ForkClass::Commutative,
            Self::Uncertain => v1::ForkClass::Uncertain,
            Self::Replayed => v1::ForkClass::Replayed,
        }
    }
}

impl ForkInfo {
    fn read(fork: v1::Fork) -> Result<Self, Error> {
        let last = fork.last_revision.ok_or_else(|| malformed("last_revision"))?;
        Ok(Self {
            tenant: fork.tenant,
            tenant_number: fork.tenant_number,
            group: fork.group,
            region: fork.region,
            number: fork.number,
            fork_point: fork.fork_point,
            first: fork.first_revision.map(revision).transpose()?,
            last: revision(last)?,
            changes: fork.changes,
            bytes: fork.bytes,
            is_whole_copy: fork.whole_copy,
            is_filling: fork.filling,
            replayed: fork.replayed,
        })
    }
}

impl ForkEntry {
    fn read(entry: v1::ForkEntry) -> Result<Self, Error> {
        let class = ForkClass::read(entry.class());
        let before = entry.at_fork_point.map(item).transpose()?;
        let time = entry.time.and_then(|time| SystemTime::try_from(time).ok());
        Ok(Self {
            revision: revision(entry.revision.ok_or_else(|| malformed("revision"))?)?,
            time: time.ok_or_else(|| malformed("time"))?,
            key: entry.key,
            at_fork_point: if entry.at_fork_point_unknown {
                AtForkPoint::Unknown
            } else {
                AtForkPoint::Known(before)
            },
            cut: entry.cut.map(item).transpose()?,
            live: entry.live.map(item).transpose()?,
            class,
            found: entry.found_revision.map(revision).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u32, sequence: u64) -> Option<stead_api::proto::v1::Revision> {
        Some(stead_api::proto::v1::Revision { epoch, sequence })
    }

    #[test]
    fn entry_of_fork_is_read_and_malformed_one_refused() {
        let cut = stead_api::proto::v1::KeyValue {
            key: "k".into(),
            value: "v".into(),
            create_revision: at(1, 6),
            mod_revision: at(1, 6),
            version: 1,
            expire_time: None,
        };
        let message = v1::ForkEntry {
            revision: at(1, 6),
            time: Some(stead_api::convert::read::timestamp_ms(1_500)),
            key: "k".into(),
            at_fork_point_unknown: true,
            cut: Some(cut),
            class: v1::ForkClass::Conflict.into(),
            ..v1::ForkEntry::default()
        };
        let entry = ForkEntry::read(message.clone()).unwrap();
        assert_eq!(
            (entry.at_fork_point, entry.class),
            (AtForkPoint::Unknown, ForkClass::Conflict)
        );
        assert_eq!(entry.time, SystemTime::UNIX_EPOCH + Duration::from_millis(1_500));
        assert_eq!(entry.cut.map(|cut| cut.value), Some("v".into()));
        assert_eq!(entry.live, None);
        let absent = v1::ForkEntry {
            at_fork_point_unknown: false,
            class: 99,
            ..message.clone()
        };
        let absent = ForkEntry::read(absent).unwrap();
        assert_eq!(
            (absent.at_fork_point, absent.class),
            (AtForkPoint::Known(None), ForkClass::Unknown)
        );
        assert!(
            ForkEntry::read(v1::ForkEntry {
                revision: None,
                ..message
            })
            .is_err()
        );
        assert!(ForkInfo::read(v1::Fork::default()).is_err(), "it has no last revision");
    }
}
