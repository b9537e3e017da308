//! Ledger of a promotion: for each of its tenants who took over what, why, and what may be lost. Kept by the directory's
//! voters only, as long as the operation.

use std::collections::BTreeMap;

use bytes::Bytes;
use stead_types::{Epoch, GroupId, Revision, TenantName};

use super::{promotion_report, text};
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::decode_epoch,
    shard::{ownership::FreezeReport, record::OperationId},
};

/// Record of one tenant of a promotion. Times are logged times, in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionItem {
    /// Name of the tenant when it was selected.
    pub name: TenantName,
    /// The home before.
    pub home: GroupId,
    /// Number of its move or promotion among the tenant's operations.
    pub operation: OperationId,
    /// Epoch of the promotion, once the tenant is fenced below it.
    pub epoch: Epoch,
    /// Whether the old home may go on without a lease: it acknowledges until it hears of the fence.
    pub continues: bool,
    /// How far it is.
    pub state: PromotionState,
    /// Reports of the frozen groups.
    pub reports: BTreeMap<GroupId, FrozenReport>,
    /// The choice, once it is recorded.
    pub decision: Option<PromotionDecision>,
    /// When each step was done.
    pub times: PromotionTimes,
    /// Wall clock by which no home of before acknowledges any more: the latest of the reports of groups that had frozen
    /// after the wait, in milliseconds since 1970; `None`: none has told.
    pub stopped_by: Option<u64>,
}

/// State of one tenant of a promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromotionState {
    /// It is to be moved, or promoted once the time of planned moves is over.
    Waiting {
        /// Why its planned move has ended without success, for people; empty: none was tried.
        reason: String,
    },
    /// Its planned move is in flight.
    Moving,
    /// It is fenced, and leases that do not know the fence may run.
    Fenced,
    /// Its members freeze.
    Freezing,
    /// No group can be chosen as things are; a report of a group that was silent goes on, or another promotion.
    Blocked {
        /// Why, and what to do, for people.
        reason: String,
    },
    /// The chosen group takes over what another has more.
    Pulling {
        /// The group with the longest history.
        from: GroupId,
        /// The chosen group.
        to: GroupId,
    },
    /// The new home is recorded, and has not reported yet that it owns the tenant.
    Activating,
    /// The tenant was promoted.
    Promoted,
    /// The tenant was moved instead.
    Moved {
        /// The home afterwards.
        to: GroupId,
    },
    /// Another promotion has taken it over.
    Replaced {
        /// Number of that operation.
        by: u64,
    },
    /// It was not promoted.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

impl PromotionState {
    /// Tells whether nothing more happens to the tenant by this promotion.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Promoted | Self::Moved { .. } | Self::Replaced { .. } | Self::Failed { .. } => true,
            Self::Waiting { .. }
            | Self::Moving
            | Self::Fenced
            | Self::Freezing
            | Self::Blocked { .. }
            | Self::Pulling { .. }
            | Self::Activating => false,
        }
    }
}

/// Freeze report of a group, as the directory has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenReport {
    /// The report.
    pub report: FreezeReport,
    /// Wall clock, in milliseconds since 1970, at which the copy was last proved fresh.
    pub fresh_as_of: Option<u64>,
    /// Logged time at which it arrived.
    pub time: u64,
}

/// Choice of the new home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionDecision {
    /// The new home.
    pub home: GroupId,
    /// Last change that is taken over.
    pub kept: Revision,
    /// Why this group, and who was not asked, for people.
    pub reason: String,
    /// Where acknowledged writes can be lost; `None`: nowhere.
    pub loss: Option<LossWindow>,
    /// Whether the tenant's durability became `REGION`, because no other region was left to follow.
    pub lowers_durability: bool,
}

/// Window in time in which every acknowledged write that a promotion has cut was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossWindow {
    /// Wall clock at which what is taken over was last proved complete; `None`: it never was, as far as the chosen group
    /// knows.
    pub from: Option<u64>,
    /// Wall clock by which the wait was over; `None`: until the old home hears of the fence, because it goes on without a
    /// lease.
    pub to: Option<u64>,
}

/// Logged times of the steps of one tenant; zero: not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromotionTimes {
    /// It was fenced.
    pub fenced: u64,
    /// The wait was over.
    pub waited: u64,
    /// The new home was chosen; of a planned move: its target had caught up. From feature level 4 on for the latter.
    pub chosen: u64,
    /// It came to its end.
    pub ended: u64,
}

impl PromotionItem {
    /// Writes the record, for its row and for the nodes that ask a voter.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(64);
        let w = &mut writer;
        text::write(w, self.name.as_str());
        w.varint(u64::from(self.home.get())).varint(self.operation.0);
        w.varint(u64::from(self.epoch.get())).bool(self.continues);
        self.state.encode(w);
        w.list(self.reports.iter(), |w, (group, frozen)| {
            w.varint(u64::from(group.get()));
            promotion_report::encode(&frozen.report, w);
            w.option(frozen.fresh_as_of, |w, time| {
                w.varint(time);
            });
            w.varint(frozen.time);
        });
        w.option(self.decision.as_ref(), |w, decision| decision.encode(w));
        let times = self.times;
        for time in [times.fenced, times.waited, times.chosen, times.ended] {
            w.varint(time);
        }
        if let Some(time) = self.stopped_by {
            w.varint(time);
        }
        writer.finish()
    }

    /// Reads what [`PromotionItem::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "tenant of a promotion");
        let r = &mut reader;
        let item = Self {
            name: text::parse(r)?,
            home: text::group(r)?,
            operation: OperationId(r.varint()?),
            epoch: decode_epoch(r)?,
            continues: r.bool()?,
            state: PromotionState::decode(r)?,
            reports: r.list(decode_report)?.into_iter().collect(),
            decision: r.option(PromotionDecision::decode)?,
            times: PromotionTimes {
                fenced: r.varint()?,
                waited: r.varint()?,
                chosen: r.varint()?,
                ended: r.varint()?,
            },
            stopped_by: match r.is_empty() {
                true => None,
                false => Some(r.varint()?),
            },
        };
        reader.end()?;
        Ok(item)
    }
}

fn decode_report(r: &mut Reader) -> Result<(GroupId, FrozenReport), Malformed> {
    let group = text::group(r)?;
    let frozen = FrozenReport {
        report: promotion_report::decode(r)?,
        fresh_as_of: r.option(Reader::varint)?,
        time: r.varint()?,
    };
    Ok((group, frozen))
}

impl PromotionState {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Waiting { reason } => text::write(w.u8(0), reason),
            Self::Moving => drop(w.u8(1)),
            Self::Fenced => drop(w.u8(2)),
            Self::Freezing => drop(w.u8(3)),
            Self::Blocked { reason } => text::write(w.u8(4), reason),
            Self::Pulling { from, to } => {
                w.u8(5).varint(u64::from(from.get())).varint(u64::from(to.get()));
            }
            Self::Activating => drop(w.u8(6)),
            Self::Promoted => drop(w.u8(7)),
            Self::Moved { to } => drop(w.u8(8).varint(u64::from(to.get()))),
            Self::Replaced { by } => drop(w.u8(9).varint(*by)),
            Self::Failed { reason } => text::write(w.u8(10), reason),
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            0 => Self::Waiting { reason: text::read(r)? },
            1 => Self::Moving,
            2 => Self::Fenced,
            3 => Self::Freezing,
            4 => Self::Blocked { reason: text::read(r)? },
            5 => Self::Pulling {
                from: text::group(r)?,
                to: text::group(r)?,
            },
            6 => Self::Activating,
            7 => Self::Promoted,
            8 => Self::Moved { to: text::group(r)? },
            9 => Self::Replaced { by: r.varint()? },
            10 => Self::Failed { reason: text::read(r)? },
            11.. => return Err(r.malformed()),
        })
    }
}

impl LossWindow {
    pub(super) fn encode(self, w: &mut Writer) {
        for bound in [self.from, self.to] {
            w.option(bound, |w, time| {
                w.varint(time);
            });
        }
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            from: r.option(Reader::varint)?,
            to: r.option(Reader::varint)?,
        })
    }
}

impl PromotionDecision {
    fn encode(&self, w: &mut Writer) {
        w.varint(u64::from(self.home.get())).varint(self.kept.to_u64());
        text::write(w, &self.reason);
        w.option(self.loss, |w, loss| loss.encode(w));
        w.bool(self.lowers_durability);
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            home: text::group(r)?,
            kept: Revision::from_u64(r.varint()?),
            reason: text::read(r)?,
            loss: r.option(LossWindow::decode)?,
            lowers_durability: r.bool()?,
        })
    }
}
