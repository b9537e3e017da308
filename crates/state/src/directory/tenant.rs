//! Directory record of a tenant: home, epoch, state, policy and members.

use std::collections::BTreeMap;

use stead_types::{
    DirectoryVersion, Durability, Epoch, GroupId, Incarnation, Jurisdiction, RegionName, Sequence, TenantLimit,
    TenantLimits, TenantName, TenantNumber,
};

use super::{
    LeaseLoss, MemberState, RegionLoss, RemoteFloor, ReplicaSetMember, TenantMove, TenantPromotion, limits, text,
};
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::{Lineage, decode_epoch},
};

/// Flags in the state byte.
mod flag {
    /// The promotion in flight is at the end.
    pub(super) const PROMOTING: u8 = 1 << 2;
    /// The remote floor is at the end.
    pub(super) const REMOTE_FLOOR: u8 = 1 << 3;
    /// The tenant's own limits follow the labels.
    pub(super) const LIMITS: u8 = 1 << 4;
    /// The move in flight is at the end.
    pub(super) const MOVING: u8 = 1 << 5;
    /// The highest epoch handed out is at the end, because it is not that of the home.
    pub(super) const LAST_EPOCH: u8 = 1 << 6;
    /// Mark that the home's behaviour without a lease is at the end, because it is not [`super::LeaseLoss::Stop`].
    pub(super) const LEASE_LOSS: u8 = 1 << 7;
    /// Mark that the policy for the loss of the home region is at the end; the state is in the lowest bits of the byte
    /// before it. Takes the place of a state, because every other bit is used.
    pub(super) const REGION_LOSS: u8 = 3;
    pub(super) const ALL: u8 = PROMOTING | REMOTE_FLOOR | LIMITS | MOVING | LAST_EPOCH | LEASE_LOSS;
}

/// Directory record of a tenant. Kept small: every node holds one for each tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenant {
    /// Number of the tenant; never used twice.
    pub number: TenantNumber,
    /// Name of the tenant; free for another tenant once this one is [`TenantState::Deleting`].
    pub name: TenantName,
    /// Home group, which may write the tenant.
    pub home: GroupId,
    /// Epoch in which `home` may write; grows with each change of `home`.
    pub epoch: Epoch,
    /// Fence: no group serves the tenant below this epoch.
    pub fence_epoch: Epoch,
    /// Highest epoch that was handed out, also to an operation that has not ended or was given up.
    pub last_epoch: Epoch,
    /// Number of its last operation (move or promotion); never goes back.
    pub op: u64,
    /// Whether it is served.
    pub state: TenantState,
    /// Minimum durability of its writes.
    pub durability: Durability,
    /// Behaviour of its home without a lease.
    pub on_lease_loss: LeaseLoss,
    /// Regions of its followers.
    pub followers: Followers,
    /// Jurisdictions where it may be stored; empty: anywhere.
    pub residency: Box<[Jurisdiction]>,
    /// Lineage of its revisions.
    pub lineage: Lineage,
    /// Its replica set, home included, by group number.
    pub members: Box<[ReplicaSetMember]>,
    /// Sequence up to which acknowledgements at `REMOTE` may rest on members that are gone.
    pub remote_floor: RemoteFloor,
    /// The move in flight.
    pub moving: Option<Box<TenantMove>>,
    /// The promotion in flight.
    pub promoting: Option<Box<TenantPromotion>>,
    /// Labels of operators.
    pub labels: Option<Box<BTreeMap<String, String>>>,
    /// Settings that few tenants have: set by [`Tenant::set_limits`] and [`Tenant::set_on_region_loss`].
    pub own: Option<Box<OwnSettings>>,
    /// Directory version of the last change of this record.
    pub version: DirectoryVersion,
    /// Time of its creation, in milliseconds since 1970.
    pub created: u64,
    /// Time of its last change.
    pub updated: u64,
}

/// Settings that few tenants have, in memory of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OwnSettings {
    /// Limits that differ from the defaults.
    pub limits: TenantLimits,
    /// Policy for the loss of the tenant's home region.
    pub on_region_loss: RegionLoss,
}

/// State of a tenant, which tells whether it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TenantState {
    /// Served.
    Active,
    /// Not served until it is enabled again or erased.
    Disabled,
    /// Being erased: only number, name and the members that have not reported matter.
    Deleting,
}

/// Regions in which a tenant has followers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Followers {
    /// Every other region that its residency admits, future regions included.
    AllAdmitted,
    /// These regions.
    Named(Box<[RegionName]>),
}

impl Tenant {
    /// Returns an active tenant of its first epoch, with the policy that applies where none is set: durable in its
    /// region, followed wherever it may be, stored anywhere, without limits of its own. It has no members yet.
    pub fn new(number: TenantNumber, name: TenantName, home: GroupId) -> Self {
        Self {
            number,
            name,
            home,
            epoch: Epoch::FIRST,
            fence_epoch: Epoch::NONE,
            last_epoch: Epoch::FIRST,
            op: 0,
            state: TenantState::Active,
            durability: Durability::Region,
            on_lease_loss: LeaseLoss::Stop,
            followers: Followers::AllAdmitted,
            residency: Box::new([]),
            lineage: Lineage::starting(Epoch::FIRST),
            members: Box::new([]),
            remote_floor: RemoteFloor::default(),
            moving: None,
            promoting: None,
            labels: None,
            own: None,
            version: DirectoryVersion::ZERO,
            created: 0,
            updated: 0,
        }
    }

    /// Returns the fence: the epoch below which no group may serve; it is above all epochs unless the tenant is
    /// active.
    pub fn fence(&self) -> Epoch {
        match self.state {
            TenantState::Active => self.fence_epoch,
            TenantState::Disabled | TenantState::Deleting => Epoch::MAX,
        }
    }

    /// Returns a member of the replica set, also one that does not stay.
    pub fn member(&self, group: GroupId) -> Option<ReplicaSetMember> {
        self.members.iter().find(|member| member.group == group).copied()
    }

    /// Tells whether a group is a member that stays.
    pub fn has(&self, group: GroupId) -> bool {
        self.member(group).is_some_and(|member| member.state.stays())
    }

    /// Tells whether a promotion consults a group: a member that has not been told to erase the tenant.
    pub fn consults(&self, group: GroupId) -> bool {
        let member = self.member(group);
        member.is_some_and(|member| member.state != MemberState::Erasing)
    }

    /// Returns the follower groups.
    pub fn follower_groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        let follow = self.members.iter().filter(|member| member.state.stays());
        follow.map(|member| member.group).filter(|group| *group != self.home)
    }

    /// Returns the groups that could own an epoch and must stay, whatever the policy says: the home, the target of the
    /// move in flight, and those of moves that the promotion in flight has replaced.
    pub fn needed_groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        let replaced = self.promoting.iter().flat_map(|promotion| &promotion.replaced);
        let targets = self.moving.as_deref().into_iter().chain(replaced);
        std::iter::once(self.home).chain(targets.map(|target| target.to))
    }

    pub(super) fn needs(&self, group: GroupId) -> bool {
        self.needed_groups().any(|needed| needed == group)
    }

    /// Tells whether its residency admits a jurisdiction.
    pub fn admits(&self, jurisdiction: &Jurisdiction) -> bool {
        self.residency.is_empty() || self.residency.contains(jurisdiction)
    }

    /// Returns the effective limit: the tenant's own, else the default; `None`: unlimited.
    pub fn limit(&self, limit: TenantLimit) -> Option<u64> {
        match &self.own {
            Some(own) => own.limits.effective(limit),
            None => limit.default_value(),
        }
    }

    /// Returns the limits that were set for this tenant.
    pub fn own_limits(&self) -> TenantLimits {
        self.own_settings().limits
    }

    pub(super) fn set_limits(&mut self, limits: TenantLimits) {
        self.set_own(OwnSettings {
            limits,
            ..self.own_settings()
        });
    }

    /// Returns what becomes of it when its home region is lost.
    pub fn on_region_loss(&self) -> RegionLoss {
        self.own_settings().on_region_loss
    }

    /// Sets what becomes of it when its home region is lost.
    pub fn set_on_region_loss(&mut self, on_region_loss: RegionLoss) {
        self.set_own(OwnSettings {
            on_region_loss,
            ..self.own_settings()
        });
    }

    fn own_settings(&self) -> OwnSettings {
        self.own.as_deref().copied().unwrap_or_default()
    }

    fn set_own(&mut self, own: OwnSettings) {
        self.own = Some(own).filter(|own| *own != OwnSettings::default()).map(Box::new);
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.varint(self.number.get());
        text::write(w, self.name.as_str());
        w.varint(u64::from(self.home.get()));
        w.varint(u64::from(self.epoch.get()))
            .varint(u64::from(self.fence_epoch.get()));
        w.varint(self.op);
        let state = match self.state {
            TenantState::Active => 0,
            TenantState::Disabled => 1,
            TenantState::Deleting => 2,
        };
        let has_region_loss = self.on_region_loss() != RegionLoss::Alert;
        let state_or_more = if has_region_loss { flag::REGION_LOSS } else { state };
        let limits = self.own_limits();
        let last_epoch = Some(self.last_epoch).filter(|last| *last != self.epoch);
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        w.u8(state_or_more
            | flag(!limits.is_empty(), flag::LIMITS)
            | flag(self.moving.is_some(), flag::MOVING)
            | flag(self.promoting.is_some(), flag::PROMOTING)
            | flag(last_epoch.is_some(), flag::LAST_EPOCH)
            | flag(self.on_lease_loss != LeaseLoss::Stop, flag::LEASE_LOSS)
            | flag(self.remote_floor != RemoteFloor::default(), flag::REMOTE_FLOOR));
        text::write_durability(w, self.durability);
        self.followers.encode(w);
        text::write_all(w, self.residency.iter().map(Jurisdiction::as_str));
        self.lineage.encode(w);
        w.list(self.members.iter(), |w, member| member.encode(w));
        let none = BTreeMap::new();
        encode_labels(self.labels.as_deref().unwrap_or(&none), w);
        if !limits.is_empty() {
            limits::encode(&limits, w);
        }
        w.varint(u64::from(self.version.incarnation.0))
            .varint(self.version.index);
        w.varint(self.created).varint(self.updated);
        if let Some(moving) = &self.moving {
            moving.encode(w);
        }
        if let Some(last) = last_epoch {
            w.varint(u64::from(last.get()));
        }
        if self.on_lease_loss != LeaseLoss::Stop {
            w.u8(self.on_lease_loss.byte());
        }
        if self.remote_floor != RemoteFloor::default() {
            w.varint(self.remote_floor.sequence().get());
        }
        if let Some(promotion) = &self.promoting {
            promotion.encode(w);
        }
        if has_region_loss {
            self.on_region_loss().encode(w.u8(state));
        }
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let number = TenantNumber::new(r.varint()?);
        let (name, home) = (text::parse(r)?, text::group(r)?);
        let (epoch, fence_epoch) = (decode_epoch(r)?, decode_epoch(r)?);
        let op = r.varint()?;
        let flags = r.u8()?;
        let mut tenant = Self {
            number,
            name,
            home,
            epoch,
            fence_epoch,
            last_epoch: epoch,
            op,
            state: match flags & !flag::ALL {
                flag::REGION_LOSS => TenantState::Active,
                state => TenantState::read(state, r)?,
            },
            durability: text::durability(r)?,
            on_lease_loss: LeaseLoss::Stop,
            followers: Followers::decode(r)?,
            residency: r.list(text::parse)?.into(),
            lineage: Lineage::decode(r)?,
            members: r.list(ReplicaSetMember::decode)?.into(),
            remote_floor: RemoteFloor::default(),
            moving: None,
            promoting: None,
            labels: Some(decode_labels(r)?)
                .filter(|labels| !labels.is_empty())
                .map(Box::new),
            own: (flags & flag::LIMITS != 0)
                .then(|| limits::decode(r))
                .transpose()?
                .map(|limits| {
                    Box::new(OwnSettings {
                        limits,
                        ..OwnSettings::default()
                    })
                }),
            version: DirectoryVersion {
                incarnation: Incarnation(r.varint_u32()?),
                index: r.varint()?,
            },
            created: r.varint()?,
            updated: r.varint()?,
        };
        if flags & flag::MOVING != 0 {
            tenant.moving = Some(Box::new(TenantMove::decode(r)?));
        }
        if flags & flag::LAST_EPOCH != 0 {
            tenant.last_epoch = decode_epoch(r)?;
        }
        if flags & flag::LEASE_LOSS != 0 {
            tenant.on_lease_loss = LeaseLoss::decode(r)?;
        }
        if flags & flag::REMOTE_FLOOR != 0 {
            let sequence = Sequence::new(r.varint()?).ok_or_else(|| r.malformed())?;
            tenant.remote_floor = RemoteFloor::at(sequence);
        }
        if flags & flag::PROMOTING != 0 {
            tenant.promoting = Some(Box::new(TenantPromotion::decode(r)?));
        }
        if flags & !flag::ALL == flag::REGION_LOSS {
            let state = r.u8()?;
            tenant.state = TenantState::read(state, r)?;
            tenant.set_on_region_loss(RegionLoss::decode(r)?);
        }
        Ok(tenant)
    }
}

impl TenantState {
    fn read(byte: u8, r: &Reader) -> Result<Self, Malformed> {
        match byte {
            0 => Ok(Self::Active),
            1 => Ok(Self::Disabled),
            2 => Ok(Self::Deleting),
            3.. => Err(r.malformed()),
        }
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
