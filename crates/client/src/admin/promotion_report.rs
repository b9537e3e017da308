//! Reports of promotions: what they have decided, tenant by tenant.

use std::time::SystemTime;

use stead_api::proto::admin::v1::{self, promoted_tenant};
use stead_types::{Error, Revision};

use super::{
    CopyRole, LossWindow, OperationInfo, Place,
    place::place,
    promotion::{revision, role, time},
};

/// Decisions of a promotion, tenant by tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct PromotionReport {
    /// The operation.
    pub operation: OperationInfo,
    /// The tenants, by number.
    pub tenants: Vec<PromotedTenant>,
}

/// Decision of a promotion for a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotedTenant {
    /// Name of the tenant.
    pub tenant: String,
    /// Number of the tenant.
    pub number: u64,
    /// How far it is.
    pub state: PromotedState,
    /// Home before.
    pub from: Option<Place>,
    /// Home afterwards, once it is chosen.
    pub to: Option<Place>,
    /// Epoch of the new home; 0 where there is none.
    pub epoch: u32,
    /// Last change that was kept, once it is decided.
    pub kept: Option<Revision>,
    /// Window of time in which lost acknowledgements can lie.
    pub loss: LossWindow,
    /// Why it is blocked or failed, what has taken its place, or why its new home was chosen.
    pub reason: String,
    /// Whether its durability became REGION, because no other region was left to follow.
    pub durability_lowered: bool,
    /// Times of its steps.
    pub times: PromotedTimes,
    /// Reports of the members.
    pub reports: Vec<FreezeReport>,
}

/// Times of the steps of a tenant of a promotion, once they are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromotedTimes {
    /// Since then its home before may not serve it.
    pub fenced: Option<SystemTime>,
    /// Since then no lease of the home before counts.
    pub waited: Option<SystemTime>,
    /// The new home was chosen.
    pub chosen: Option<SystemTime>,
    /// The new home serves since then, or the promotion has ended otherwise.
    pub ended: Option<SystemTime>,
    /// A voter of the home before renewed its lease the last time, as far as the directory's leader knew: the home has failed
    /// after that.
    pub last_renewal: Option<SystemTime>,
    /// Of a planned move: the target had caught up; writes paused from then to `ended` at most.
    pub ready: Option<SystemTime>,
}

/// State of a tenant of a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromotedState {
    /// It is to be moved or promoted.
    Waiting,
    /// A planned move is tried first.
    Moving,
    /// It waits for the leases of its home to run out.
    Fenced,
    /// Its members freeze and report.
    Freezing,
    /// The chosen group takes over what another one has more.
    Pulling,
    /// The chosen group becomes the home.
    Activating,
    /// The new home serves.
    Promoted,
    /// A planned move has moved it.
    Moved,
    /// It cannot be promoted as requested.
    Blocked,
    /// Another promotion has taken its place.
    Replaced,
    /// It was not promoted.
    Failed,
    /// A state of a newer version.
    Other,
}

/// Report of a member from its freeze.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreezeReport {
    /// The group.
    pub place: Option<Place>,
    /// Part before.
    pub role: CopyRole,
    /// Epoch that it owned or followed.
    pub epoch: u32,
    /// Last change of its copy.
    pub revision: Option<Revision>,
    /// Whether its digest differed from the home's.
    pub suspect: bool,
    /// Time up to which its copy has every acknowledged write.
    pub fresh_as_of: Option<SystemTime>,
}

/// Reads what a promotion has decided for a tenant.
pub(super) fn promoted(tenant: v1::PromotedTenant) -> Result<PromotedTenant, Error> {
    Ok(PromotedTenant {
        state: state(tenant.state()),
        tenant: tenant.tenant,
        number: tenant.number,
        from: tenant.from.map(place),
        to: tenant.to.map(place),
        epoch: tenant.epoch,
        kept: revision(tenant.kept)?,
        loss: LossWindow::new(tenant.nothing_lost, time(tenant.loss_from), time(tenant.loss_to)),
        reason: tenant.reason,
        durability_lowered: tenant.durability_lowered,
        times: PromotedTimes {
            fenced: time(tenant.fence_time),
            waited: time(tenant.wait_over_time),
            chosen: time(tenant.choice_time),
            ended: time(tenant.end_time),
            last_renewal: time(tenant.last_renewal_time),
            ready: time(tenant.ready_time),
        },
        reports: tenant.reports.into_iter().map(report).collect::<Result<_, _>>()?,
    })
}

fn report(report: v1::FreezeReport) -> Result<FreezeReport, Error> {
    Ok(FreezeReport {
        role: role(report.role()),
        epoch: report.epoch,
        revision: revision(report.revision)?,
        suspect: report.suspect,
        fresh_as_of: time(report.fresh_as_of),
        place: report.place.map(place),
    })
}

fn state(state: promoted_tenant::State) -> PromotedState {
    use promoted_tenant::State;
    match state {
        State::Moving => PromotedState::Moving,
        State::Fenced => PromotedState::Fenced,
        State::Freezing => PromotedState::Freezing,
        State::Pulling => PromotedState::Pulling,
        State::Activating => PromotedState::Activating,
        State::Promoted => PromotedState::Promoted,
        State::Moved => PromotedState::Moved,
        State::Blocked => PromotedState::Blocked,
        State::Replaced => PromotedState::Replaced,
        State::Failed => PromotedState::Failed,
        State::Waiting => PromotedState::Waiting,
        State::Unspecified => PromotedState::Other,
    }
}
