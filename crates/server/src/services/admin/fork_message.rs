//! Messages and page positions of `ForkService`.

use bytes::Bytes;
use stead_api::{convert, proto::admin::v1 as admin};
use stead_state::{
    directory::DirectoryView,
    rows::change::Value,
    shard::{
        apply_result::Version,
        read::{AtForkPoint, ForkKey, ForkPlace, ForkSummary},
    },
};
use stead_types::{Error, GroupId, Sequence, TenantNumber};

use super::region_name;
use crate::{response::key_value, services::replays};

/// Place in the list of all forks, by which it is ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ForkPosition {
    pub(super) group: u32,
    pub(super) tenant: u64,
    pub(super) fork: u32,
}

/// Forks of one group, from a position on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct GroupPage {
    pub(super) forks: Vec<admin::Fork>,
    /// Position of the first fork that has no room.
    pub(super) next: Option<ForkPosition>,
}

impl ForkPosition {
    pub(super) fn of(fork: &admin::Fork) -> Self {
        Self {
            group: fork.group,
            tenant: fork.tenant_number,
            fork: fork.number,
        }
    }

    pub(super) fn to_token(self, request: &admin::ListForksRequest) -> String {
        let mut bytes = self.group.to_be_bytes().to_vec();
        bytes.extend(self.tenant.to_be_bytes());
        bytes.extend(self.fork.to_be_bytes());
        convert::page::token(&list_arguments(request), &bytes)
    }

    /// Returns the position that a page begins at, the lowest one on the first page.
    pub(super) fn from_token(request: &admin::ListForksRequest) -> Result<Self, Error> {
        let Some(bytes) = convert::page::position(&list_arguments(request), &request.page_token)? else {
            return Ok(Self::default());
        };
        let bytes: [u8; 16] = bytes.try_into().map_err(|_| invalid_token())?;
        let [g0, g1, g2, g3, t0, t1, t2, t3, t4, t5, t6, t7, f0, f1, f2, f3] = bytes;
        Ok(Self {
            group: u32::from_be_bytes([g0, g1, g2, g3]),
            tenant: u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            fork: u32::from_be_bytes([f0, f1, f2, f3]),
        })
    }
}

fn invalid_token() -> Error {
    Error::invalid("page_token", "page_token: not a token of this store")
}

/// Returns the fields of a request that are the same on each of its pages.
fn list_arguments(request: &admin::ListForksRequest) -> Vec<u8> {
    let group = request.group.map_or_else(String::new, |group| group.to_string());
    format!("{}\0{group}\0{}", request.tenant, request.region).into_bytes()
}

fn entry_arguments(request: &admin::ListForkEntriesRequest) -> Vec<u8> {
    format!("{}\0{}\0{}", request.tenant, request.group, request.fork).into_bytes()
}

/// Returns the token of a place in a fork.
pub(super) fn place_token(request: &admin::ListForkEntriesRequest, place: ForkPlace) -> String {
    let mut bytes = place.sequence.get().to_be_bytes().to_vec();
    bytes.extend(place.effect.to_be_bytes());
    convert::page::token(&entry_arguments(request), &bytes)
}

/// Returns the place that a page of a fork begins at; `None` on the first page.
pub(super) fn place(request: &admin::ListForkEntriesRequest) -> Result<Option<ForkPlace>, Error> {
    let Some(bytes) = convert::page::position(&entry_arguments(request), &request.page_token)? else {
        return Ok(None);
    };
    let (sequence, effect) = bytes.split_last_chunk::<2>().ok_or_else(invalid_token)?;
    let sequence = sequence.try_into().map_err(|_| invalid_token())?;
    Ok(Some(ForkPlace {
        sequence: Sequence::new(u64::from_be_bytes(sequence)).ok_or_else(invalid_token)?,
        effect: u16::from_be_bytes(*effect),
    }))
}

/// Joins the forks of some groups, in the order of the groups, to a page. `None` stands for a group that does not answer.
pub(super) fn join(answers: Vec<(u32, Option<GroupPage>)>, size: usize) -> (GroupPage, Vec<u32>) {
    let (mut page, mut silent) = (GroupPage::default(), Vec::new());
    for (group, answer) in answers {
        let Some(answer) = answer else {
            silent.push(group);
            continue;
        };
        if page.next.is_some() {
            continue;
        }
        let mut forks = answer.forks.into_iter();
        page.forks.extend(forks.by_ref().take(size - page.forks.len()));
        page.next = forks.next().as_ref().map(ForkPosition::of).or(answer.next);
    }
    (page, silent)
}

/// Converts a fork.
pub(super) fn fork(
    view: &DirectoryView,
    group: GroupId,
    tenant: TenantNumber,
    fork: &ForkSummary,
    is_filling: bool,
) -> admin::Fork {
    let known = view.tenant(tenant);
    admin::Fork {
        tenant: known.map(|tenant| tenant.name.to_string()).unwrap_or_default(),
        group: group.get(),
        region: region_name(view, group),
        number: fork.number,
        fork_point: fork.point.get(),
        first_revision: fork.first.map(convert::id::from_revision),
        last_revision: Some(convert::id::from_revision(fork.last)),
        changes: fork.entries,
        bytes: fork.len,
        whole_copy: fork.is_whole,
        filling: is_filling,
        tenant_number: tenant.get(),
        replayed: fork.replayed,
    }
}

/// Converts a key of a fork. Without a live copy there is nothing to compare it with.
pub(super) fn entry(key: ForkKey, has_live: bool) -> admin::ForkEntry {
    let effect = key.effect;
    let name: &Bytes = &effect.key;
    let of = |version: Version| key_value(name.clone(), version);
    let cut = |value: Value| Version {
        revision: key.revision,
        value,
    };
    let (at_fork_point, is_unknown) = match effect.before {
        AtForkPoint::Known(before) => (before.map(of), false),
        AtForkPoint::Unknown => (None, true),
    };
    admin::ForkEntry {
        revision: Some(convert::id::from_revision(key.revision)),
        time: Some(convert::key::from_tenant_time(key.time)),
        at_fork_point,
        at_fork_point_unknown: is_unknown,
        cut: effect.cut.map(cut).map(of),
        live: effect.live.filter(|_| has_live).map(of),
        class: match has_live {
            true => replays::class(key.class),
            false => admin::ForkClass::Unspecified,
        }
        .into(),
        key: name.clone(),
        found_revision: key.found.filter(|_| has_live).map(convert::id::from_revision),
    }
}

#[cfg(test)]
#[path = "fork_message_test.rs"]
mod fork_message_test;
