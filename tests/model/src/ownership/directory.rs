//! Directory of the ownership model: a linearizable register with the history of its versions, which views follow.
//!
//! Its decisions about a tenant are the functions of `stead_state::directory`; the checks of an operator or the tool
//! before it asks, such as which group a promotion may choose, are in `choice`.

use std::sync::Arc;

use stead_state::{
    directory::{
        Followers, MemberState, MoveState, PromotionPhase, RemoteFloor, ReplicaSetMember, Tenant, TenantMove,
        TenantState,
    },
    lineage::Lineage,
    shard::record::OperationId,
};
use stead_types::{DirectoryVersion, Durability, Epoch, Incarnation, Revision};

use super::{
    bounds::Bounds,
    state::{Place, TENANT},
    writes::Line,
};

/// One version of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// The tenant.
    pub tenant: Tenant,
    /// Last change that the last promotion kept.
    pub kept: Revision,
    /// Exact line of history that the tenant's lineage stands for.
    pub line: Line,
}

/// The directory's versions, from the oldest one that a view may still show.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Register {
    oldest: u8,
    versions: Vec<Arc<Version>>,
    /// Ticks until the wait of the promotion in flight is over.
    pub wait: u8,
}

/// Returns a directory version.
pub fn version(index: u8) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index: u64::from(index),
    }
}

impl Register {
    /// Returns the first version: the first group is the home.
    pub fn first(bounds: &Bounds) -> Self {
        let tenant = Tenant {
            number: TENANT,
            name: "t".parse().expect("a valid name"),
            home: Place(0).id(),
            epoch: Epoch::FIRST,
            fence_epoch: Epoch::FIRST,
            last_epoch: Epoch::FIRST,
            op: 0,
            state: TenantState::Active,
            durability: Durability::Region,
            on_lease_loss: bounds.lease_loss_at_first(),
            followers: Followers::AllAdmitted,
            residency: Box::default(),
            lineage: Lineage::starting(Epoch::FIRST),
            members: (0..bounds.members)
                .map(|place| ReplicaSetMember::staying(Place(place).id()))
                .collect(),
            remote_floor: RemoteFloor::default(),
            moving: None,
            promoting: None,
            labels: None,
            own: None,
            version: version(0),
            created: 0,
            updated: 0,
        };
        let first = Version {
            tenant,
            kept: Revision::ZERO,
            line: Line::starting(),
        };
        Self {
            oldest: 0,
            versions: vec![Arc::new(first)],
            wait: 0,
        }
    }

    /// Returns the newest version.
    pub fn newest(&self) -> &Version {
        self.versions.last().expect("there is always one")
    }

    /// Returns the number of the newest version.
    pub fn newest_version(&self) -> u8 {
        self.oldest + self.versions.len() as u8 - 1
    }

    /// Returns a version that is still kept.
    pub fn at(&self, version: u8) -> &Version {
        &self.versions[usize::from(version - self.oldest)]
    }

    /// Returns the versions that are kept, oldest first.
    pub fn versions(&self) -> &[Arc<Version>] {
        &self.versions
    }

    /// Returns the number of the oldest version that is kept.
    pub fn oldest(&self) -> u8 {
        self.oldest
    }

    /// Commits a version.
    pub fn commit(&mut self, mut next: Version) {
        next.tenant.version = version(self.newest_version() + 1);
        self.versions.push(Arc::new(next));
    }

    /// Returns the register with each version replaced.
    pub fn map(&self, replace: impl Fn(&Version) -> Version) -> Self {
        Self {
            oldest: self.oldest,
            versions: self.versions.iter().map(|version| Arc::new(replace(version))).collect(),
            wait: self.wait,
        }
    }

    /// Drops the versions that no view can show any more.
    pub fn keep_from(&mut self, oldest: u8) {
        let gone = usize::from(oldest.saturating_sub(self.oldest));
        self.versions.drain(..gone);
        self.oldest += gone as u8;
    }
}

impl Version {
    /// Returns the home.
    pub fn home(&self) -> Place {
        Place::of(self.tenant.home)
    }

    /// Returns the move in flight.
    pub fn moving(&self) -> Option<&TenantMove> {
        self.tenant.moving.as_deref()
    }

    /// Returns number and epoch of a promotion in flight that has no new home yet.
    pub fn promoting(&self) -> Option<(OperationId, Epoch)> {
        let promotion = self.tenant.promoting.as_deref();
        let choosing = promotion.filter(|promotion| !matches!(promotion.phase, PromotionPhase::Activating { .. }));
        choosing.map(|promotion| (promotion.operation, promotion.epoch))
    }

    /// Returns number and phase of the promotion in flight.
    pub fn promotion(&self) -> Option<(OperationId, PromotionPhase)> {
        let promotion = self.tenant.promoting.as_deref();
        promotion.map(|promotion| (promotion.operation, promotion.phase))
    }

    /// Tells whether leases below the fence of the promotion in flight may run.
    pub fn is_only_fenced(&self) -> bool {
        matches!(self.promotion(), Some((_, PromotionPhase::Fenced)))
    }

    /// Returns the operation in flight.
    pub fn operation(&self) -> Option<OperationId> {
        let moving = self.moving().map(|moving| moving.operation);
        moving.or(self.promotion().map(|(operation, _)| operation))
    }

    /// Returns the number of the last operation.
    pub fn last_operation(&self) -> OperationId {
        OperationId(self.tenant.op)
    }

    /// Tells whether a move is being given up.
    pub fn is_aborting(&self) -> bool {
        self.moving().is_some_and(|moving| moving.state == MoveState::Aborting)
    }

    /// Returns the state of a member.
    pub fn member(&self, place: Place) -> Option<MemberState> {
        self.tenant.member(place.id()).map(|member| member.state)
    }

    /// Tells whether a group is consulted by a promotion: a member that has not been told to erase the tenant.
    pub fn is_consulted(&self, place: Place) -> bool {
        self.member(place).is_some_and(|state| state != MemberState::Erasing)
    }
}
