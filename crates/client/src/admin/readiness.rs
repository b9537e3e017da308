//! Operators' calls about the loss of a region: what a promotion would do now.

use std::time::{Duration, SystemTime};

use stead_api::proto::admin::v1::{self, region_service_client::RegionServiceClient as Service};
use stead_types::Error;

use super::{
    Admin, PlannedPromotion,
    promotion::{duration, planned, time},
};

/// Forecast of a promotion if a region were lost now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionReadiness {
    /// The region.
    pub region: String,
    /// When it was found out.
    pub checked: Option<SystemTime>,
    /// Tenants whose home is there, or that move there.
    pub tenants: u64,
    /// Those that would get another home without further options.
    pub tenants_ready: u64,
    /// Those of them of which acknowledged writes could be lost.
    pub tenants_at_risk: u64,
    /// Those that no region would serve until an option is given.
    pub tenants_blocked: u64,
    /// How long no region would serve them at most.
    pub wait_max: Option<Duration>,
    /// Longest window in which acknowledged writes could be lost.
    pub loss_max: Option<Duration>,
    /// Whether that is not known for some.
    pub is_loss_unknown: bool,
    /// Age of the oldest copy that would be chosen, if it is known for all.
    pub lag_max: Option<Duration>,
    /// Why nothing would be promoted without the options.
    pub blockers: Vec<String>,
    /// Options that a promotion would need for some or all.
    pub options_needed: Vec<String>,
    /// Tenants, those that are blocked first, then those at risk.
    pub items: Vec<PlannedPromotion>,
    /// Name of the last operation that has rehearsed its loss with success; empty: none.
    pub last_rehearsal: String,
    /// When that ended.
    pub rehearsed: Option<SystemTime>,
}

impl Admin {
    /// Returns what a promotion would do if a region were lost now; of every region that is home to tenants, where it is
    /// `None`.
    ///
    /// # Errors
    ///
    /// There is no such region, or no node answers.
    pub async fn readiness(&self, region: Option<&str>) -> Result<Vec<RegionReadiness>, Error> {
        let request = v1::GetReadinessRequest {
            region: region.unwrap_or_default().to_owned(),
        };
        let call = async |channel, request| Service::new(channel).get_readiness(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), true, call).await?;
        answer.regions.into_iter().map(read).collect()
    }
}

fn read(of: v1::RegionReadiness) -> Result<RegionReadiness, Error> {
    Ok(RegionReadiness {
        region: of.region,
        checked: time(of.check_time),
        tenants: of.tenants,
        tenants_ready: of.tenants_ready,
        tenants_at_risk: of.tenants_at_risk,
        tenants_blocked: of.tenants_blocked,
        wait_max: duration(of.wait_max),
        loss_max: duration(of.loss_max),
        is_loss_unknown: of.loss_unknown,
        lag_max: duration(of.lag_max),
        blockers: of.blockers,
        options_needed: of.options_needed,
        items: of.items.into_iter().map(planned).collect::<Result<_, _>>()?,
        last_rehearsal: of.last_rehearsal,
        rehearsed: time(of.last_rehearsal_time),
    })
}
