//! Rehearsals of the loss of a region: operations that move some of its tenants away and back under their load, in waves.
//! The forecast of a promotion from their beginning is kept beside the measured figures.

use stead_types::{GroupId, RegionName, Revision, TenantName};

use super::{ItemMove, LossWindow, Pace, text};
use crate::codec::{Malformed, Reader, Writer};

/// Request to rehearse the loss of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RehearsalRequest {
    /// The region.
    pub region: RegionName,
    /// Its tenants that go away and come back, each once.
    pub tenants: Vec<RehearsedTenant>,
    /// How many at a time.
    pub pace: Pace,
}

/// Tenant that a rehearsal names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RehearsedTenant {
    /// Its name.
    pub name: TenantName,
    /// Region where it goes.
    pub to: RegionName,
    /// Forecast of a promotion now.
    pub forecast: RehearsalForecast,
}

/// Forecast of a tenant's promotion when a rehearsal began, with every group of its region silent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RehearsalForecast {
    /// Wall clock, in milliseconds since 1970; 0: no forecast was made.
    pub time: u64,
    /// The new home; `None`: it would have been blocked.
    pub home: Option<GroupId>,
    /// Last change that would have been kept.
    pub kept: Revision,
    /// Age of the chosen copy, in milliseconds; `None`: unknown.
    pub lag_ms: Option<u64>,
    /// Where acknowledged writes could have been lost; `None`: nowhere.
    pub loss: Option<LossWindow>,
    /// Why it would have been blocked, for people; empty: it would not.
    pub blocker: String,
}

/// Record of a tenant of a rehearsal, beside that of its move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RehearsalItem {
    /// Forecast of a promotion from when it began.
    pub forecast: RehearsalForecast,
    /// The move away, once it is done.
    pub away: Option<ItemMove>,
    /// Times of the move away.
    pub there: LegTimes,
    /// Times of the move back.
    pub back: LegTimes,
    /// Why the move back has failed the last time, for people; empty: it has not.
    pub failure: String,
}

/// Logged times of one move of a rehearsal, in milliseconds since 1970; zero: not yet.
///
/// The home stops taking writes after `ready`, and the target takes them before `recorded`: writes paused for at most the
/// time between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegTimes {
    /// It was planned.
    pub planned: u64,
    /// The target had caught up, and the directory knew it.
    pub ready: u64,
    /// The new home was recorded.
    pub recorded: u64,
}

/// How far the rehearsal of a bulk move is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RehearsalProgress {
    /// Tenants that are away.
    pub away: u64,
    /// Whether it was cancelled: those that are away come back.
    pub is_cancelled: bool,
}

impl LegTimes {
    /// Returns for how long writes paused at most, in milliseconds; `None` until the move is recorded.
    pub fn pause_ms(&self) -> Option<u64> {
        (self.ready > 0 && self.recorded > 0).then(|| self.recorded.saturating_sub(self.ready))
    }
}

impl RehearsalItem {
    /// Tells whether the tenant is away.
    pub fn is_away(&self) -> bool {
        self.away.is_some() && self.back.recorded == 0
    }

    /// Returns the times of the move in flight, or of the next one.
    pub(super) fn leg(&mut self) -> &mut LegTimes {
        match self.away {
            None => &mut self.there,
            Some(_) => &mut self.back,
        }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        self.forecast.encode(w);
        w.option(self.away, |w, away| away.encode(w));
        for leg in [self.there, self.back] {
            w.varint(leg.planned).varint(leg.ready).varint(leg.recorded);
        }
        text::write(w, &self.failure);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let leg = |r: &mut Reader| {
            Ok(LegTimes {
                planned: r.varint()?,
                ready: r.varint()?,
                recorded: r.varint()?,
            })
        };
        Ok(Self {
            forecast: RehearsalForecast::decode(r)?,
            away: r.option(ItemMove::decode)?,
            there: leg(r)?,
            back: leg(r)?,
            failure: text::read(r)?,
        })
    }
}

impl RehearsalForecast {
    fn encode(&self, w: &mut Writer) {
        w.varint(self.time);
        w.option(self.home, |w, home| {
            w.varint(u64::from(home.get()));
        });
        w.varint(self.kept.to_u64());
        w.option(self.lag_ms, |w, lag| {
            w.varint(lag);
        });
        w.option(self.loss, |w, loss| loss.encode(w));
        text::write(w, &self.blocker);
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            time: r.varint()?,
            home: r.option(text::group)?,
            kept: Revision::from_u64(r.varint()?),
            lag_ms: r.option(Reader::varint)?,
            loss: r.option(LossWindow::decode)?,
            blocker: text::read(r)?,
        })
    }
}

impl RehearsalRequest {
    pub(super) fn encode(&self, w: &mut Writer) {
        text::write(w, self.region.as_str());
        w.list(self.tenants.iter(), |w, tenant| {
            text::write(w, tenant.name.as_str());
            text::write(w, tenant.to.as_str());
            tenant.forecast.encode(w);
        });
        self.pace.encode(w);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            region: text::parse(r)?,
            tenants: r.list(|r| {
                Ok(RehearsedTenant {
                    name: text::parse(r)?,
                    to: text::parse(r)?,
                    forecast: RehearsalForecast::decode(r)?,
                })
            })?,
            pace: Pace::decode(r)?,
        })
    }
}

impl RehearsalProgress {
    pub(super) fn encode(self, w: &mut Writer) {
        w.varint(self.away).bool(self.is_cancelled);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            away: r.varint()?,
            is_cancelled: r.bool()?,
        })
    }
}
