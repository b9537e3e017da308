//! State and actions of the lease model.

use std::sync::Arc;

use stead_state::{
    directory::{Followers, LeaseLoss, RemoteFloor, ReplicaSetMember, Tenant, TenantState},
    lineage::Lineage,
};
use stead_types::{DirectoryVersion, Durability, Epoch, GroupId, Incarnation, TenantNumber};

use super::Bounds;

/// State of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The directory's versions, oldest first.
    pub versions: Vec<Arc<Version>>,
    /// Ticks until the wait of the promotion in flight is over.
    pub wait: u8,
    /// Ticks for which the ttl that was replaced counts for waits.
    pub replaced_ttl: u8,
    /// Highest fence whose wait has passed.
    pub over: Epoch,
    /// The groups.
    pub groups: Vec<Group>,
    /// Planned moves so far.
    pub moves: u8,
    /// Promotions so far.
    pub promotions: u8,
    /// Whether the directory was recovered.
    pub recovered: bool,
}

/// One version of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// Its number.
    pub number: DirectoryVersion,
    /// The tenant.
    pub tenant: Tenant,
    /// Ttl of leases that are granted as of it.
    pub ttl: u8,
}

/// A group: the epoch that it owns, and its voters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// Epoch that it owns, if it owns one.
    pub owns: Option<Epoch>,
    /// The voter that leads.
    pub leader: u8,
    /// The voters.
    pub voters: Vec<Voter>,
}

/// A voter: its view and its leases.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Voter {
    /// Place of the version that its view has reached.
    pub view: u8,
    /// The lease that counts.
    pub lease: Option<Pair>,
    /// The newest lease that does not count yet.
    pub pending: Option<Pair>,
    /// Attempts in flight, the first one sent first.
    pub attempts: Vec<Attempt>,
    /// Ticks until all that the directory has granted it has run out, by the directory's leader.
    pub granted: u8,
}

/// A lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Ticks left.
    pub left: u8,
    /// Place of its version.
    pub version: u8,
    /// Fence that it carries.
    pub fence: Epoch,
    /// Whether the clock has lost a tick during it.
    pub slipped: bool,
}

/// Attempt to renew, until its answer arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// Ticks since it was sent.
    pub age: u8,
    /// The answer.
    pub answer: Option<Answer>,
    /// Whether the clock has lost a tick since it was sent.
    pub slipped: bool,
}

/// Answer to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// Place of the version that it is as of.
    pub version: u8,
    /// Ttl.
    pub ttl: u8,
    /// Fence that it carries.
    pub fence: Epoch,
}

/// A voter, by group and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VoterId {
    /// Place of the group.
    pub group: u8,
    /// Number in the group.
    pub voter: u8,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Time passes; the clock of one voter may lose this tick.
    Tick(Option<VoterId>),
    /// A voter's view reaches the next version.
    Advance(VoterId),
    /// A voter asks for a lease.
    Ask(VoterId),
    /// The directory fixes the version of an answer.
    Grant(VoterId, u8, u8),
    /// An answer arrives.
    Receive(VoterId, u8),
    /// Another voter leads its group.
    Elect(VoterId),
    /// An operator moves the tenant.
    Plan(u8),
    /// The source hands over, and the target accepts.
    HandOver,
    /// The directory records the move.
    Record,
    /// An operator promotes.
    Promote,
    /// The directory chooses a group.
    Choose(u8),
    /// The chosen group becomes the owner.
    Activate(u8),
    /// An operator lowers the ttl.
    LowerTtl,
    /// The directory gets another leader.
    ChangeLeader,
    /// The directory is recovered, without its last two versions.
    Recover,
}

impl State {
    /// Returns the first state: the first group is the home.
    pub fn first(bounds: &Bounds) -> Self {
        let id = |place: u8| GroupId::new(u32::from(place) + 1);
        let tenant = Tenant {
            number: TenantNumber::new(1),
            name: "t".parse().expect("a valid name"),
            home: id(0),
            epoch: Epoch::FIRST,
            fence_epoch: Epoch::FIRST,
            last_epoch: Epoch::FIRST,
            op: 0,
            state: TenantState::Active,
            durability: Durability::Region,
            on_lease_loss: LeaseLoss::Stop,
            followers: Followers::AllAdmitted,
            residency: Box::default(),
            lineage: Lineage::starting(Epoch::FIRST),
            members: (0..bounds.groups)
                .map(|place| ReplicaSetMember::staying(id(place)))
                .collect(),
            remote_floor: RemoteFloor::default(),
            moving: None,
            promoting: None,
            labels: None,
            own: None,
            version: DirectoryVersion::ZERO,
            created: 0,
            updated: 0,
        };
        let first = Version {
            number: DirectoryVersion {
                incarnation: Incarnation::FIRST,
                index: 0,
            },
            tenant,
            ttl: bounds.ttl,
        };
        let voter = Voter {
            view: 0,
            lease: None,
            pending: None,
            attempts: Vec::new(),
            granted: 0,
        };
        let group = |place| Group {
            owns: (place == 0).then_some(Epoch::FIRST),
            leader: 0,
            voters: vec![voter.clone(); usize::from(bounds.voters)],
        };
        Self {
            versions: vec![Arc::new(first)],
            wait: 0,
            replaced_ttl: 0,
            over: Epoch::NONE,
            groups: (0..bounds.groups).map(group).collect(),
            moves: 0,
            promotions: 0,
            recovered: false,
        }
    }

    /// Returns the newest version.
    pub fn newest(&self) -> &Version {
        self.versions.last().expect("there is always one")
    }

    /// Returns the place of the newest version.
    pub fn newest_place(&self) -> u8 {
        self.versions.len() as u8 - 1
    }

    /// Returns a version.
    pub fn at(&self, place: u8) -> &Version {
        &self.versions[usize::from(place)]
    }

    /// Commits a version.
    pub fn commit(&mut self, mut next: Version) {
        next.number.index += 1;
        self.versions.push(Arc::new(next));
    }

    /// Returns a voter.
    pub fn voter(&self, id: VoterId) -> &Voter {
        &self.groups[usize::from(id.group)].voters[usize::from(id.voter)]
    }

    /// Returns a voter for a change.
    pub fn voter_mut(&mut self, id: VoterId) -> &mut Voter {
        &mut self.groups[usize::from(id.group)].voters[usize::from(id.voter)]
    }

    /// Returns all voters.
    pub fn voters(&self) -> impl Iterator<Item = VoterId> + use<> {
        let voters = self
            .groups
            .iter()
            .map(|group| group.voters.len() as u8)
            .max()
            .unwrap_or(0);
        let groups = self.groups.len() as u8;
        (0..groups).flat_map(move |group| (0..voters).map(move |voter| VoterId { group, voter }))
    }
}
