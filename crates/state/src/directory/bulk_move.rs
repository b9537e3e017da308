//! Bulk moves: operations that move many tenants in waves, such as the drain of a region. Kept by the directory's voters
//! only, with one record for each tenant.

use std::fmt;

use stead_types::{RegionName, TenantName};

use super::{RehearsalProgress, SourceAfterMove, text};
use crate::codec::{Malformed, Reader, Writer};

/// Most tenants that one request names.
pub const NAMED_MOVES_MAX: usize = 10_000;
/// Most tenants of a bulk move that move at once: as many parts as one directory entry has.
pub const AT_ONCE_MAX: u32 = 1_000;
/// Shortest and longest time that a wave may have, in milliseconds.
pub const WAVE_BUDGET_MS: std::ops::RangeInclusive<u64> = 1_000..=86_400_000;
/// Most failures that the operation itself shows; each tenant's own record has its reason.
pub const SHOWN_FAILURES_MAX: usize = 20;
/// Factor by which each wave may be larger than the one before.
const WAVE_GROWTH: u32 = 4;
/// A wave may have one failure for so many tenants; a smaller one may have none.
const TENANTS_PER_FAILURE: u32 = 20;

/// Request to move many tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkMoveRequest {
    /// Which tenants, and where they go.
    pub selection: Selection,
    /// The tenants of [`Selection::Named`].
    pub named: Vec<NamedMove>,
    /// Part of each source afterwards.
    pub source: SourceAfterMove,
    /// How many at a time.
    pub pace: Pace,
}

/// Tenants of a bulk move, and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Tenants with their home in a region leave it, and it takes no new ones until it is undrained. Without `to` each
    /// goes to a follower if it has one, else to the admitted group that is home to the fewest tenants.
    Drain {
        /// The region.
        region: RegionName,
        /// Region where they go.
        to: Option<RegionName>,
    },
    /// Tenants that drains have moved out of a region return, and it takes new ones again.
    Undrain {
        /// The region.
        region: RegionName,
        /// Whether the tenants return; else the region only takes new ones again.
        returns: bool,
    },
    /// Tenants with a label go to a region.
    Label {
        /// Name of the label.
        key: String,
        /// Value of the label.
        value: String,
        /// Region where they go.
        to: RegionName,
    },
    /// The tenants that the request names.
    Named,
    /// Tenants of a region go from groups that are home to more than their share to groups of the region with less.
    Spread {
        /// The region.
        region: RegionName,
    },
    /// Tenants that promotions have taken from a region return. From feature level 4 on.
    Failback {
        /// The region.
        region: RegionName,
    },
    /// Tenants of a region go away and come back. From feature level 4 on; its own command begins it.
    Rehearse {
        /// The region.
        region: RegionName,
    },
}

/// Tenant that a request names, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedMove {
    /// Name of the tenant.
    pub name: TenantName,
    /// Region where it goes.
    pub to: RegionName,
}

/// Pace of a bulk move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Tenants of the first wave.
    pub canaries: u32,
    /// Most tenants that move at once.
    pub at_once: u32,
    /// Time in which each wave must end, in milliseconds.
    pub wave_budget_ms: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            canaries: 3,
            at_once: 500,
            wave_budget_ms: 60_000,
        }
    }
}

impl Pace {
    /// Returns the pace within its bounds.
    #[must_use]
    pub fn bounded(self) -> Self {
        let at_once = self.at_once.clamp(1, AT_ONCE_MAX);
        Self {
            canaries: self.canaries.clamp(1, at_once),
            at_once,
            wave_budget_ms: self
                .wave_budget_ms
                .clamp(*WAVE_BUDGET_MS.start(), *WAVE_BUDGET_MS.end()),
        }
    }

    /// Returns the size of the wave after one of this size; zero: the first one, or the first after a pause.
    pub fn next_size(&self, before: u32) -> u32 {
        match before {
            0 => self.canaries,
            before => before.saturating_mul(WAVE_GROWTH).min(self.at_once),
        }
    }
}

/// Bulk move of an operation: what is asked for, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkMove {
    /// Which tenants, and where they go.
    pub selection: Selection,
    /// Part of each source afterwards.
    pub source: SourceAfterMove,
    /// How many at a time.
    pub pace: Pace,
    /// Whether it goes on.
    pub state: BulkMoveState,
    /// The drains whose tenants return, of an [`Selection::Undrain`]; the promotions, of a [`Selection::Failback`].
    pub drains: Box<[u64]>,
    /// Tenants that were selected when it began; others may be found later.
    pub selected: u64,
    /// Tenants that are moving.
    pub moving: u64,
    /// Tenants that were moved.
    pub moved: u64,
    /// Tenants that could not be moved.
    pub failed: u64,
    /// The first failures.
    pub failures: Vec<MoveFailure>,
    /// The last wave that has begun.
    pub wave: Wave,
    /// Where the search for the next tenants goes on.
    pub cursor: Cursor,
    /// How far it is, of a [`Selection::Rehearse`].
    pub rehearsal: Option<RehearsalProgress>,
}

/// State of a bulk move that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkMoveState {
    /// It goes on.
    Running,
    /// It begins no further moves until it is resumed.
    Paused {
        /// Why, for people.
        reason: String,
    },
    /// It begins no further moves, and ends with those in flight.
    Cancelling,
}

/// Wave of a bulk move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wave {
    /// Its number, from 1; zero before the first one.
    pub number: u64,
    /// Most tenants that it could have; zero where the next one is as small as the first.
    pub size_max: u32,
    /// Tenants that it has.
    pub size: u32,
    /// Those of them that could not be moved.
    pub failed: u32,
    /// Logged time of its beginning, or of the resumption.
    pub started: u64,
}

impl Wave {
    /// Tells whether more of its tenants have failed than may.
    pub fn fails(&self) -> bool {
        self.failed > self.size / TENANTS_PER_FAILURE
    }
}

/// Place in the search for tenants: it goes through them twice, so that one that is busy is tried again; of a rehearsal twice
/// for the way there, then twice for the way back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Searches that are complete.
    pub pass: u32,
    /// Index of the drain, or of the promotion, whose tenants return.
    pub drain: u32,
    /// Lowest number of the tenants that are still to be examined.
    pub tenant: u64,
}

/// Failure of one tenant's move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveFailure {
    /// Name of the tenant.
    pub name: TenantName,
    /// Why, for people.
    pub reason: String,
}

impl BulkMoveRequest {
    pub(super) fn encode(&self, w: &mut Writer) {
        self.selection.encode(w);
        w.list(self.named.iter(), |w, named| {
            text::write(w, named.name.as_str());
            text::write(w, named.to.as_str());
        });
        self.source.encode(w);
        self.pace.encode(w);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            selection: Selection::decode(r)?,
            named: r.list(|r| {
                Ok(NamedMove {
                    name: text::parse(r)?,
                    to: text::parse(r)?,
                })
            })?,
            source: SourceAfterMove::decode(r)?,
            pace: Pace::decode(r)?,
        })
    }
}

/// Says what is moved where, for the audit.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drain { region, to: None } => write!(f, "drain of region {region}"),
            Self::Drain { region, to: Some(to) } => write!(f, "drain of region {region} to {to}"),
            Self::Undrain { region, .. } => write!(f, "undrain of region {region}"),
            Self::Label { key, value, to } => write!(f, "label {key}={value} to {to}"),
            Self::Named => f.write_str("named tenants"),
            Self::Spread { region } => write!(f, "spread within region {region}"),
            Self::Failback { region } => write!(f, "failback of region {region}"),
            Self::Rehearse { region } => write!(f, "rehearsal of the loss of region {region}"),
        }
    }
}

impl Selection {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Drain { region, to } => {
                text::write(w.u8(0), region.as_str());
                w.option(to.as_ref(), |w, to| text::write(w, to.as_str()));
            }
            Self::Undrain { region, returns } => {
                text::write(w.u8(1), region.as_str());
                w.bool(*returns);
            }
            Self::Label { key, value, to } => {
                text::write(w.u8(2), key);
                text::write(w, value);
                text::write(w, to.as_str());
            }
            Self::Named => drop(w.u8(3)),
            Self::Spread { region } => text::write(w.u8(4), region.as_str()),
            Self::Failback { region } => text::write(w.u8(5), region.as_str()),
            Self::Rehearse { region } => text::write(w.u8(6), region.as_str()),
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            0 => Self::Drain {
                region: text::parse(r)?,
                to: r.option(text::parse)?,
            },
            1 => Self::Undrain {
                region: text::parse(r)?,
                returns: r.bool()?,
            },
            2 => Self::Label {
                key: text::read(r)?,
                value: text::read(r)?,
                to: text::parse(r)?,
            },
            3 => Self::Named,
            4 => Self::Spread {
                region: text::parse(r)?,
            },
            5 => Self::Failback {
                region: text::parse(r)?,
            },
            6 => Self::Rehearse {
                region: text::parse(r)?,
            },
            7.. => return Err(r.malformed()),
        })
    }
}

impl Pace {
    pub(super) fn encode(self, w: &mut Writer) {
        w.varint(u64::from(self.canaries)).varint(u64::from(self.at_once));
        w.varint(self.wave_budget_ms);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            canaries: r.varint_u32()?,
            at_once: r.varint_u32()?,
            wave_budget_ms: r.varint()?,
        })
    }
}

impl BulkMove {
    pub(super) fn encode(&self, w: &mut Writer) {
        self.selection.encode(w);
        self.source.encode(w);
        self.pace.encode(w);
        match &self.state {
            BulkMoveState::Running => drop(w.u8(0)),
            BulkMoveState::Paused { reason } => text::write(w.u8(1), reason),
            BulkMoveState::Cancelling => drop(w.u8(2)),
        }
        w.list(self.drains.iter(), |w, drain| {
            w.varint(*drain);
        });
        w.varint(self.selected).varint(self.moving);
        w.varint(self.moved).varint(self.failed);
        w.list(self.failures.iter(), |w, failure| {
            text::write(w, failure.name.as_str());
            text::write(w, &failure.reason);
        });
        let Wave {
            number,
            size_max,
            size,
            failed,
            started,
        } = self.wave;
        w.varint(number).varint(u64::from(size_max)).varint(u64::from(size));
        w.varint(u64::from(failed)).varint(started);
        w.varint(u64::from(self.cursor.pass))
            .varint(u64::from(self.cursor.drain))
            .varint(self.cursor.tenant);
        if let Some(rehearsal) = self.rehearsal {
            rehearsal.encode(w);
        }
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let selection = Selection::decode(r)?;
        let is_rehearsal = matches!(selection, Selection::Rehearse { .. });
        Ok(Self {
            selection,
            source: SourceAfterMove::decode(r)?,
            pace: Pace::decode(r)?,
            state: match r.u8()? {
                0 => BulkMoveState::Running,
                1 => BulkMoveState::Paused { reason: text::read(r)? },
                2 => BulkMoveState::Cancelling,
                3.. => return Err(r.malformed()),
            },
            drains: r.list(Reader::varint)?.into(),
            selected: r.varint()?,
            moving: r.varint()?,
            moved: r.varint()?,
            failed: r.varint()?,
            failures: r.list(|r| {
                Ok(MoveFailure {
                    name: text::parse(r)?,
                    reason: text::read(r)?,
                })
            })?,
            wave: Wave {
                number: r.varint()?,
                size_max: r.varint_u32()?,
                size: r.varint_u32()?,
                failed: r.varint_u32()?,
                started: r.varint()?,
            },
            cursor: Cursor {
                pass: r.varint_u32()?,
                drain: r.varint_u32()?,
                tenant: r.varint()?,
            },
            rehearsal: is_rehearsal.then(|| RehearsalProgress::decode(r)).transpose()?,
        })
    }
}
