//! Rehearsals of the loss of a region: what was measured of each tenant, and what was forecast.

use std::time::{Duration, SystemTime};

use stead_api::proto::admin::v1;
use stead_types::Revision;

use super::{
    LossWindow, Place,
    place::place,
    promotion::{duration, revision, time},
};

/// Figures that a rehearsal has measured of a tenant, and the forecast of a promotion from when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RehearsedTenant {
    /// Whether the tenant is away.
    pub is_away: bool,
    /// For how long writes paused at most on the way there, once it is done.
    pub pause_there: Option<Duration>,
    /// The same on the way back.
    pub pause_back: Option<Duration>,
    /// Time that the way there took.
    pub took_there: Option<Duration>,
    /// The same of the way back.
    pub took_back: Option<Duration>,
    /// When the forecast was made.
    pub forecast_at: Option<SystemTime>,
    /// Home that a promotion would have chosen; `None`: it would have been blocked.
    pub to: Option<Place>,
    /// Last change that it would have kept.
    pub kept: Option<Revision>,
    /// Age of the copy that it would have chosen.
    pub lag: Option<Duration>,
    /// Window in which acknowledged writes could have been lost.
    pub loss: LossWindow,
    /// Why it would have been blocked; empty: it would not.
    pub blocker: String,
    /// Why the move back has failed the last time; empty: it has not.
    pub failure: String,
}

/// Reads a tenant of a rehearsal.
pub(super) fn rehearsed(of: v1::RehearsedTenant) -> RehearsedTenant {
    RehearsedTenant {
        is_away: of.away,
        pause_there: duration(of.pause_there),
        pause_back: duration(of.pause_back),
        took_there: duration(of.took_there),
        took_back: duration(of.took_back),
        forecast_at: time(of.forecast_time),
        to: of.forecast_to.map(place),
        // One that is none of this version's is as good as none: it is shown only.
        kept: revision(of.forecast_kept).ok().flatten(),
        lag: duration(of.forecast_lag),
        loss: LossWindow::new(
            of.forecast_nothing_lost,
            time(of.forecast_loss_from),
            time(of.forecast_loss_to),
        ),
        blocker: of.forecast_blocker,
        failure: of.failure,
    }
}
