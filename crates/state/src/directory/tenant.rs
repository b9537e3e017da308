//! A tenant as the directory knows it.

use std::collections::BTreeMap;

use stead_types::{
    DirectoryVersion, Durability, Epoch, GroupId, Incarnation, Jurisdiction, RegionName, TenantLimit, TenantLimits,
    TenantName, TenantNumber,
};

use super::{limits, text};
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::{Lineage, decode_epoch},
};

/// Beside the state: limits of its own stand behind the labels.
const HAS_LIMITS: u8 = 1 << 4;

/// Who owns a tenant, who follows it and what its policy is. Kept small: every node holds one for each tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Never used twice.
    pub number: TenantNumber,
    /// May be used again by another tenant once this one is [`State::Deleting`].
    pub name: TenantName,
    /// The group that may write it.
    pub home: GroupId,
    /// On whose account `home` may write; grows with each change of `home`.
    pub epoch: Epoch,
    /// Nobody serves it below this.
    pub fence_epoch: Epoch,
    /// Counts its operations: moves, promotions; never goes back.
    pub op: u64,
    /// Whether it is served.
    pub state: State,
    /// When its writes are acknowledged, at least.
    pub durability: Durability,
    /// Where it is to be followed.
    pub followers: Followers,
    /// Where it may be stored; empty: anywhere.
    pub residency: Box<[Jurisdiction]>,
    /// Which revisions are on its line of history.
    pub lineage: Lineage,
    /// Its replica set, home included, by group number.
    pub members: Box<[Member]>,
    /// What operators note.
    pub labels: Option<Box<BTreeMap<String, String>>>,
    /// What it may use at most, where the default is not to hold.
    pub limits: Option<Box<TenantLimits>>,
    /// The last change of this record.
    pub version: DirectoryVersion,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
    /// When it was last changed.
    pub updated: u64,
}

/// Whether a tenant is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is.
    Active,
    /// It is not, until it is enabled again or erased.
    Disabled,
    /// It is being erased: only number, name and the members that have not reported are of interest.
    Deleting,
}

/// In which regions a tenant is to be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followers {
    /// In each other region that its residency admits, regions that are yet to come included.
    AllAdmitted,
    /// In these.
    Named(Box<[RegionName]>),
}

/// A group of the replica set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The group.
    pub group: GroupId,
    /// It is to erase the tenant, and is kept here until it has reported that.
    pub leaving: bool,
}

impl Tenant {
    /// Returns the epoch below which nobody may serve: all of them, unless the tenant is active.
    pub fn fence(&self) -> Epoch {
        match self.state {
            State::Active => self.fence_epoch,
            State::Disabled | State::Deleting => Epoch::MAX,
        }
    }

    /// Tells whether a group is a member that stays.
    pub fn has(&self, group: GroupId) -> bool {
        self.members
            .iter()
            .any(|member| member.group == group && !member.leaving)
    }

    /// Returns the groups that follow it.
    pub fn follower_groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        let follow = self.members.iter().filter(|member| !member.leaving);
        follow.map(|member| member.group).filter(|group| *group != self.home)
    }

    /// Tells whether its policy lets it be stored there.
    pub fn admits(&self, jurisdiction: &Jurisdiction) -> bool {
        self.residency.is_empty() || self.residency.contains(jurisdiction)
    }

    /// Returns what holds of a limit: the tenant's own, else the default; `None`: as much as it likes.
    pub fn limit(&self, limit: TenantLimit) -> Option<u64> {
        match &self.limits {
            Some(limits) => limits.effective(limit),
            None => limit.default_value(),
        }
    }

    /// Returns the limits that were set for it.
    pub fn own_limits(&self) -> TenantLimits {
        self.limits.as_deref().copied().unwrap_or_default()
    }

    pub(super) fn set_limits(&mut self, limits: TenantLimits) {
        self.limits = Some(limits).filter(|limits| !limits.is_empty()).map(Box::new);
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.varint(self.number.get());
        text::write(w, self.name.as_str());
        w.varint(u64::from(self.home.get()));
        w.varint(u64::from(self.epoch.get()))
            .varint(u64::from(self.fence_epoch.get()));
        w.varint(self.op);
        let state = match self.state {
            State::Active => 0,
            State::Disabled => 1,
            State::Deleting => 2,
        };
        let limits = self.own_limits();
        w.u8(if limits.is_empty() { state } else { state | HAS_LIMITS });
        text::write_durability(w, self.durability);
        self.followers.encode(w);
        text::write_all(w, self.residency.iter().map(Jurisdiction::as_str));
        self.lineage.encode(w);
        w.list(self.members.iter(), |w, member| {
            w.varint(u64::from(member.group.get())).bool(member.leaving);
        });
        let none = BTreeMap::new();
        encode_labels(self.labels.as_deref().unwrap_or(&none), w);
        if !limits.is_empty() {
            limits::encode(&limits, w);
        }
        w.varint(u64::from(self.version.incarnation.0))
            .varint(self.version.index);
        w.varint(self.created).varint(self.updated);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let number = TenantNumber::new(r.varint()?);
        let (name, home) = (text::parse(r)?, text::group(r)?);
        let (epoch, fence_epoch) = (decode_epoch(r)?, decode_epoch(r)?);
        let op = r.varint()?;
        let flags = r.u8()?;
        Ok(Self {
            number,
            name,
            home,
            epoch,
            fence_epoch,
            op,
            state: match flags & !HAS_LIMITS {
                0 => State::Active,
                1 => State::Disabled,
                2 => State::Deleting,
                3.. => return Err(r.malformed()),
            },
            durability: text::durability(r)?,
            followers: Followers::decode(r)?,
            residency: r.list(text::parse)?.into(),
            lineage: Lineage::decode(r)?,
            members: r.list(Member::decode)?.into(),
            labels: Some(decode_labels(r)?)
                .filter(|labels| !labels.is_empty())
                .map(Box::new),
            limits: (flags & HAS_LIMITS != 0)
                .then(|| limits::decode(r))
                .transpose()?
                .map(Box::new),
            version: DirectoryVersion {
                incarnation: Incarnation(r.varint_u32()?),
                index: r.varint()?,
            },
            created: r.varint()?,
            updated: r.varint()?,
        })
    }
}

impl Member {
    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            group: text::group(r)?,
            leaving: r.bool()?,
        })
    }
}

impl Followers {
    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::AllAdmitted => drop(w.u8(0)),
            Self::Named(regions) => {
                w.u8(1);
                text::write_all(w, regions.iter().map(RegionName::as_str));
            }
        }
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        match r.u8()? {
            0 => Ok(Self::AllAdmitted),
            1 => Ok(Self::Named(r.list(text::parse)?.into())),
            2.. => Err(r.malformed()),
        }
    }
}

pub(super) fn encode_labels(labels: &BTreeMap<String, String>, w: &mut Writer) {
    w.list(labels.iter(), |w, (name, value)| {
        text::write(w, name);
        text::write(w, value);
    });
}

pub(super) fn decode_labels(r: &mut Reader) -> Result<BTreeMap<String, String>, Malformed> {
    Ok(r.list(|r| Ok((text::read(r)?, text::read(r)?)))?.into_iter().collect())
}
