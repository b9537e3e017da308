//! Bounds of a configuration of the ownership model: what may happen in it, and how often.

use stead_state::directory::LeaseLoss;

/// Events that may happen in a configuration, and how often. Delays are unbounded everywhere; so are crashes and breaks
/// where they are enabled.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Groups that are members of the replica set from the beginning.
    pub members: u8,
    /// Writes.
    pub writes: u8,
    /// Planned moves.
    pub moves: u8,
    /// Whether the source of a move leaves the replica set afterwards.
    pub source_leaves: bool,
    /// Aborts of moves.
    pub aborts: u8,
    /// Promotions.
    pub promotions: u8,
    /// Whether a promotion may replace one in flight.
    pub replaces: bool,
    /// Whether an operator may pass `--allow-loss`.
    pub allows_loss: bool,
    /// Durability of writes.
    pub durability: Durability,
    /// Whether linearizable reads are counted: what one has shown must stay.
    pub reads: bool,
    /// Whether leaders crash, with all that only they know.
    pub crashes: bool,
    /// Whether feed messages are lost.
    pub breaks: bool,
    /// Whether a new leader may start from an older view than its predecessor had.
    pub older_views: bool,
    /// Most entries of a group that are proposed and not yet applied; 0: an entry is applied as it is proposed.
    pub pending_entries: u8,
    /// Whether a target first becomes heir; without it a source may relinquish at any time, which allows more.
    pub heirs: bool,
    /// Whether old versions are kept: a group that follows a cut rewinds to the fork point, else its whole copy becomes
    /// the fork and it is filled anew.
    pub rewinds: bool,
    /// How often a follower leaves the replica set.
    pub leaves: u8,
    /// Whether a group that leaves may be taken back, and one that has left taken in again.
    pub returns: bool,
    /// Whether the tenant may be disabled, and then deleted.
    pub deletes: bool,
    /// Whether freshness pings are sent.
    pub pings: bool,
    /// Behaviour of an owner without a lease.
    pub policy: Policy,
    /// Whether each state is settled: a fault-free schedule must end well (STUCK).
    pub settles: bool,
}

/// Durability of the tenant's writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// All writes are acknowledged at REGION.
    Region,
    /// Each write is acknowledged at REGION or at REMOTE.
    Each,
    /// The tenant's default is REMOTE: reads wait for the remote watermark.
    Remote,
}

/// Lease loss policy of the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Stops.
    Stop,
    /// Continues.
    Continue,
    /// Continues, until an operator changes it.
    ContinueThenStop,
}

impl Bounds {
    /// Two writes, healthy leaders and feeds, and no operation.
    pub const NONE: Self = Self {
        members: 3,
        writes: 2,
        moves: 0,
        source_leaves: false,
        aborts: 0,
        promotions: 0,
        replaces: true,
        allows_loss: true,
        durability: Durability::Region,
        reads: false,
        crashes: false,
        breaks: false,
        older_views: false,
        pending_entries: 0,
        heirs: false,
        rewinds: true,
        leaves: 0,
        returns: false,
        deletes: false,
        pings: false,
        policy: Policy::Stop,
        settles: false,
    };
}

impl Bounds {
    /// Tells whether members may leave.
    pub fn changes_members(&self) -> bool {
        self.leaves > 0 || self.source_leaves || self.members < 3 || self.deletes
    }

    /// Returns what the home does without a lease, as the directory shows it at first.
    pub fn lease_loss_at_first(&self) -> LeaseLoss {
        match self.policy {
            Policy::Stop => LeaseLoss::Stop,
            Policy::Continue | Policy::ContinueThenStop => LeaseLoss::Continue,
        }
    }
}
