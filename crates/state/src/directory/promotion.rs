//! Promotions: operations that make other groups the homes of tenants whose region or group is lost. Kept by the
//! directory's voters only, with one [`super::PromotionItem`] for each tenant.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use stead_types::{DirectoryVersion, Durability, GroupId, NodeId, RegionName, TenantName};

use super::{
    PromotionState,
    command::{decode_version, encode_version},
    text,
};
use crate::codec::{Malformed, Reader, Writer};

/// Most tenants that one [`super::Command::AdvancePromotion`] examines or changes.
pub const ADVANCED_MAX: usize = 1_000;
/// Longest time for which planned moves are tried before the rest is promoted by force, in milliseconds.
pub const GRACEFUL_MS_MAX: u64 = 86_400_000;

/// Request to promote tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionRequest {
    /// Which tenants.
    pub selection: PromotionSelection,
    /// Region of the new homes. It may be that of the old ones, which undoes a mistaken promotion. Without it each tenant
    /// goes to the group with the longest history outside what is lost; where histories are equal, to the one with more
    /// voters that answer, then to the one with the lower number.
    pub to: Option<RegionName>,
    /// Whether acknowledged writes may be lost that a silent group may hold.
    pub allow_loss: bool,
    /// Whether tenants are promoted again whose promotion is in flight.
    pub replace: bool,
    /// [`Durability::Region`]: tenants with durability `REMOTE` may get it where no other region is left to follow.
    pub durability: Option<Durability>,
    /// Time for which planned moves are tried before the rest is promoted by force, in milliseconds; 0: by force at once.
    pub graceful_ms: u64,
    /// The operator's word that the old homes are down. Needed for tenants that go on without a lease, whose home
    /// acknowledges until it hears of the fence.
    pub is_down: bool,
    /// Nodes that the directory's leader has not heard of lately.
    pub unreachable: Vec<NodeId>,
}

/// Tenants of a promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromotionSelection {
    /// Tenants with their home in a region, and those that move there.
    Region(RegionName),
    /// Tenants of which a group is home, and those that move there. The directory's own group: all tenants, after a recovery
    /// of the directory.
    Group(GroupId),
    /// These tenants. Empty in an operation: its items are the list.
    Tenants(Vec<TenantName>),
}

/// Facts that the directory's leader knows and a promotion waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromotionAdvance {
    /// The lease wait is over for every fence up to this version: the next tenants fenced by then freeze.
    WaitOver {
        /// Directory version of the last fence that was waited for.
        fence: DirectoryVersion,
    },
    /// Planned moves of the next tenants begin; these nodes have not been heard of lately.
    Move(Vec<NodeId>),
    /// The time of planned moves is over: the next tenants that have not moved are promoted by force.
    GracefulOver,
    /// These groups, whose reports are due, do not answer: the next tenants are examined again.
    Silent(Vec<GroupId>),
    /// Logged times at which voters of groups have renewed their leases the last time. From feature level 4 on.
    Renewals(Vec<(GroupId, u64)>),
}

/// Promotion of an operation: what is asked for, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// Request as it was asked; the tenants that it names are its items.
    pub request: PromotionRequest,
    /// Logged time until which planned moves are tried; 0: none are.
    pub graceful_until: u64,
    /// Whether it was cancelled, which is possible before the first fence.
    pub is_cancelled: bool,
    /// Directory version of its last fence.
    pub fence: DirectoryVersion,
    /// Logged time of its last fence; 0: nothing is fenced yet.
    pub fenced: u64,
    /// Longest ttl of a lease that may have run at that fence.
    pub lease_ttl_ms: u64,
    /// Groups that do not answer, as its leader has said last.
    pub silent: BTreeSet<GroupId>,
    /// Lowest number of the tenants that are still to be examined with `silent`; `u64::MAX`: none.
    pub cursor: u64,
    /// Tenants that were left out because they are being erased.
    pub skipped: u64,
    /// Number of tenants in each state.
    pub counts: PromotionCounts,
    /// Logged time at which a voter of a group that may own tenants had renewed its lease the last time when they were
    /// fenced, as far as the directory's leader knew.
    pub renewals: BTreeMap<GroupId, u64>,
}

/// Number of a promotion's tenants in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromotionCounts {
    /// Tenants that are to be moved or promoted.
    pub waiting: u64,
    /// Tenants whose planned move is in flight.
    pub moving: u64,
    /// Tenants that are fenced.
    pub fenced: u64,
    /// Tenants whose members freeze.
    pub freezing: u64,
    /// Tenants that wait for an operator or for a silent group.
    pub blocked: u64,
    /// Tenants whose chosen group takes over what another has more.
    pub pulling: u64,
    /// Tenants whose new home is recorded.
    pub activating: u64,
    /// Tenants that were promoted.
    pub promoted: u64,
    /// Tenants that were moved instead.
    pub moved: u64,
    /// Tenants that another promotion has taken over.
    pub replaced: u64,
    /// Tenants that were not promoted.
    pub failed: u64,
}

impl PromotionCounts {
    /// Returns the number of tenants that are not at an end.
    pub fn in_flight(&self) -> u64 {
        self.waiting + self.moving + self.fenced + self.freezing + self.blocked + self.pulling + self.activating
    }

    /// Returns the number of all tenants.
    pub fn total(&self) -> u64 {
        self.in_flight() + self.promoted + self.moved + self.replaced + self.failed
    }

    pub(super) fn of(&mut self, state: &PromotionState) -> &mut u64 {
        match state {
            PromotionState::Waiting { .. } => &mut self.waiting,
            PromotionState::Moving => &mut self.moving,
            PromotionState::Fenced => &mut self.fenced,
            PromotionState::Freezing => &mut self.freezing,
            PromotionState::Blocked { .. } => &mut self.blocked,
            PromotionState::Pulling { .. } => &mut self.pulling,
            PromotionState::Activating => &mut self.activating,
            PromotionState::Promoted => &mut self.promoted,
            PromotionState::Moved { .. } => &mut self.moved,
            PromotionState::Replaced { .. } => &mut self.replaced,
            PromotionState::Failed { .. } => &mut self.failed,
        }
    }

    fn fields(&mut self) -> [&mut u64; 11] {
        [
            &mut self.waiting,
            &mut self.moving,
            &mut self.fenced,
            &mut self.freezing,
            &mut self.blocked,
            &mut self.pulling,
            &mut self.activating,
            &mut self.promoted,
            &mut self.moved,
            &mut self.replaced,
            &mut self.failed,
        ]
    }
}

/// Says what is promoted, for the audit.
impl fmt::Display for PromotionSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region(region) => write!(f, "tenants of region {region}"),
            Self::Group(GroupId::DIRECTORY) => f.write_str("all tenants, after a recovery of the directory"),
            Self::Group(group) => write!(f, "tenants of group {}", group.get()),
            Self::Tenants(names) => match &names[..] {
                [] => f.write_str("named tenants"),
                [name] => write!(f, "tenant {name}"),
                [name, ..] => write!(f, "{} tenants, {name} the first", names.len()),
            },
        }
    }
}

impl PromotionSelection {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Region(region) => text::write(w.u8(0), region.as_str()),
            Self::Group(group) => drop(w.u8(1).varint(u64::from(group.get()))),
            Self::Tenants(names) => text::write_all(w.u8(2), names.iter().map(TenantName::as_str)),
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            0 => Self::Region(text::parse(r)?),
            1 => Self::Group(text::group(r)?),
            2 => Self::Tenants(r.list(text::parse)?),
            3.. => return Err(r.malformed()),
        })
    }
}

impl PromotionRequest {
    pub(super) fn encode(&self, w: &mut Writer) {
        self.selection.encode(w);
        w.option(self.to.as_ref(), |w, to| text::write(w, to.as_str()));
        w.bool(self.allow_loss).bool(self.replace);
        w.option(self.durability, text::write_durability);
        w.varint(self.graceful_ms).bool(self.is_down);
        write_nodes(w, &self.unreachable);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            selection: PromotionSelection::decode(r)?,
            to: r.option(text::parse)?,
            allow_loss: r.bool()?,
            replace: r.bool()?,
            durability: r.option(text::durability)?,
            graceful_ms: r.varint()?,
            is_down: r.bool()?,
            unreachable: r.list(text::node)?,
        })
    }
}

impl PromotionAdvance {
    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::WaitOver { fence } => encode_version(w.u8(0), *fence),
            Self::Move(unreachable) => write_nodes(w.u8(1), unreachable),
            Self::GracefulOver => drop(w.u8(2)),
            Self::Silent(groups) => write_groups(w.u8(3), groups.iter()),
            Self::Renewals(renewals) => write_renewals(w.u8(4), renewals.iter().copied()),
        }
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            0 => Self::WaitOver {
                fence: decode_version(r)?,
            },
            1 => Self::Move(r.list(text::node)?),
            2 => Self::GracefulOver,
            3 => Self::Silent(r.list(text::group)?),
            4 => Self::Renewals(r.list(read_renewal)?),
            5.. => return Err(r.malformed()),
        })
    }
}

impl Promotion {
    pub(super) fn encode(&self, w: &mut Writer) {
        self.request.encode(w);
        w.varint(self.graceful_until).bool(self.is_cancelled);
        encode_version(w, self.fence);
        w.varint(self.fenced).varint(self.lease_ttl_ms);
        write_groups(w, self.silent.iter());
        w.varint(self.cursor).varint(self.skipped);
        let mut counts = self.counts;
        for count in counts.fields() {
            w.varint(*count);
        }
        if self.has_renewals() {
            write_renewals(w, self.renewals.iter().map(|(group, time)| (*group, *time)));
        }
    }

    /// Tells whether renewals are known: then they are behind the rest of the record.
    pub(super) fn has_renewals(&self) -> bool {
        !self.renewals.is_empty()
    }

    pub(super) fn decode(r: &mut Reader, has_renewals: bool) -> Result<Self, Malformed> {
        Ok(Self {
            request: PromotionRequest::decode(r)?,
            graceful_until: r.varint()?,
            is_cancelled: r.bool()?,
            fence: decode_version(r)?,
            fenced: r.varint()?,
            lease_ttl_ms: r.varint()?,
            silent: r.list(text::group)?.into_iter().collect(),
            cursor: r.varint()?,
            skipped: r.varint()?,
            counts: {
                let mut counts = PromotionCounts::default();
                for count in counts.fields() {
                    *count = r.varint()?;
                }
                counts
            },
            renewals: match has_renewals {
                true => r.list(read_renewal)?.into_iter().collect(),
                false => BTreeMap::new(),
            },
        })
    }
}

fn write_nodes(w: &mut Writer, nodes: &[NodeId]) {
    w.list(nodes.iter(), |w, node| {
        w.varint(node.get());
    });
}

fn write_renewals(w: &mut Writer, renewals: impl ExactSizeIterator<Item = (GroupId, u64)>) {
    w.list(renewals, |w, (group, time)| {
        w.varint(u64::from(group.get())).varint(time);
    });
}

fn read_renewal(r: &mut Reader) -> Result<(GroupId, u64), Malformed> {
    Ok((text::group(r)?, r.varint()?))
}

fn write_groups<'a>(w: &mut Writer, groups: impl ExactSizeIterator<Item = &'a GroupId>) {
    w.list(groups, |w, group| {
        w.varint(u64::from(group.get()));
    });
}
