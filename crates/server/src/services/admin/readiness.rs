//! Readiness of a region for its loss: the dry run of its promotion, with every group of the region taken for silent.
//!
//! # Invariants
//!
//! 1. It is what the dry run would say once the region is gone, from what the other groups hold now: the forecast, the
//!    options that it lacks and their description are the same functions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use stead_api::{
    convert,
    proto::admin::v1::{PromotionPlan, RegionReadiness},
};
use stead_state::directory::{
    DirectoryView, PromotionFacts, PromotionForecast, PromotionItem, PromotionRejection, PromotionRequest,
    PromotionSelection, RehearsalForecast, Rejection,
};
use stead_types::{Error, GroupId, NodeId, RegionName, TenantName, TenantNumber};

use super::{
    promotion_homes::unreachable,
    promotion_message::{blocker, chosen},
    promotion_options::{Options, needed_options},
    promotion_plan::{describe, gather, lacking, nothing_known},
    time,
};
use crate::host::Host;

/// Forecast of what happens when a region is lost.
struct LossForecast {
    facts: PromotionFacts,
    forecast: PromotionForecast,
    /// Options that the forecast was made with, because nothing would begin without them.
    given: Options,
    /// Why nothing would begin without them.
    refusal: Option<Rejection>,
    options: BTreeMap<TenantNumber, Options>,
}

/// Returns the regions that are home to tenants, by name.
pub(super) fn regions_with_tenants(view: &DirectoryView) -> Vec<RegionName> {
    let is_home = |region: &RegionName| {
        let mut groups = view.groups_of(region);
        groups.any(|group| view.load(group.number).homes > 0)
    };
    let names = view.regions().map(|region| region.name.clone());
    names.filter(is_home).collect()
}

/// Returns what a promotion would do if a region were lost now.
pub(super) async fn of_region(host: &Arc<Host>, view: &DirectoryView, region: &RegionName) -> RegionReadiness {
    let mut readiness = RegionReadiness {
        region: region.to_string(),
        ..RegionReadiness::default()
    };
    if let Some(rehearsed) = view.region(region).and_then(|region| region.rehearsed) {
        readiness.last_rehearsal = convert::operation::name(rehearsed.operation);
        readiness.last_rehearsal_time = Some(time(rehearsed.time));
    }
    match forecast_loss(host, view, region).await {
        Ok(found) => found.describe(view, &mut readiness),
        Err(Rejection::Promotion(PromotionRejection::Nothing)) => readiness.check_time = Some(time((host.wall)())),
        Err(rejection) => {
            readiness.check_time = Some(time((host.wall)()));
            readiness.tenants = view.groups_of(region).map(|group| view.load(group.number).homes).sum();
            readiness.tenants_blocked = readiness.tenants;
            readiness.blockers.push(Error::from(rejection).message);
        }
    }
    readiness
}

/// Returns what a promotion would do with each tenant of a region if that were lost now.
pub(super) async fn forecasts(
    host: &Arc<Host>,
    view: &DirectoryView,
    region: &RegionName,
) -> BTreeMap<TenantName, RehearsalForecast> {
    let Ok(found) = forecast_loss(host, view, region).await else {
        return BTreeMap::new();
    };
    let of = |(number, item): &(TenantNumber, PromotionItem)| (item.name.clone(), found.of_tenant(*number, item));
    found.forecast.items.iter().map(of).collect()
}

/// Returns what a promotion would do if a region were lost now, and what was known; `None`: it would be refused.
pub(super) async fn loss(
    host: &Arc<Host>,
    view: &DirectoryView,
    region: &RegionName,
) -> Option<(PromotionFacts, PromotionForecast)> {
    let found = forecast_loss(host, view, region).await.ok()?;
    Some((found.facts, found.forecast))
}

/// Forecasts a promotion of a region whose groups are all silent. What is refused as a whole is forecast with the fewest
/// options with which it would begin.
async fn forecast_loss(host: &Arc<Host>, view: &DirectoryView, region: &RegionName) -> Result<LossForecast, Rejection> {
    let begins = nothing_known((host.wall)());
    let lost: BTreeSet<GroupId> = view.groups_of(region).map(|group| group.number).collect();
    let mut request = PromotionRequest {
        selection: PromotionSelection::Region(region.clone()),
        to: None,
        allow_loss: false,
        replace: false,
        durability: None,
        graceful_ms: 0,
        is_down: false,
        unreachable: Vec::new(),
    };
    let mut given = Options::default();
    let mut refusal = None;
    let selected = match PromotionForecast::of(view, &request, &begins) {
        Ok(selected) => selected,
        Err(rejection) => {
            given = lacking(view, &request, &begins).ok_or_else(|| rejection.clone())?;
            request = given.added_to(&request);
            refusal = Some(rejection);
            PromotionForecast::of(view, &request, &begins)?
        }
    };
    let (silent, facts) = futures::future::join(unreachable(host, view), gather(host, view, &selected, &lost)).await;
    let of_region = view
        .nodes()
        .filter(|node| node.region == *region)
        .map(|node| node.number);
    let unreachable: BTreeSet<NodeId> = of_region.chain(silent).collect();
    request.unreachable = unreachable.into_iter().collect();
    let forecast = PromotionForecast::of(view, &request, &facts)?;
    let options = needed_options(view, &request, &facts, &forecast);
    Ok(LossForecast {
        facts,
        forecast,
        given,
        refusal,
        options,
    })
}

impl LossForecast {
    /// Writes what the forecast says. A tenant counts as ready if it needs no option.
    fn describe(&self, view: &DirectoryView, readiness: &mut RegionReadiness) {
        let mut plan = PromotionPlan::default();
        describe(view, &self.facts, &self.forecast, &self.options, &mut plan);
        readiness.check_time = Some(time(self.facts.now));
        readiness.tenants = plan.tenants;
        readiness.tenants_blocked = plan.tenants_blocked;
        readiness.tenants_at_risk = plan.tenants_at_risk;
        readiness.options_needed = plan.options_needed;
        readiness.items = plan.items;
        if let Some(refusal) = &self.refusal {
            // As requested without options nothing begins, whatever would come of it with them.
            readiness.tenants_blocked = plan.tenants;
            readiness.tenants_at_risk = 0;
            readiness.blockers.push(Error::from(refusal.clone()).message);
            let mut needed = self.given.names();
            needed.retain(|name| !readiness.options_needed.contains(name));
            readiness.options_needed.extend(needed);
        }
        readiness.tenants_ready = readiness.tenants - readiness.tenants_blocked;
        let wait = Duration::from_millis(self.facts.wait_ms);
        readiness.wait_max = Some(convert::read::duration(wait));
        let windows: Vec<Option<u64>> = self.windows().collect();
        readiness.loss_unknown = windows.iter().any(Option::is_none);
        readiness.loss_max = longest(&windows);
        let lags: Vec<Option<u64>> = self.lags().collect();
        readiness.lag_max = longest(&lags);
    }

    /// Returns the tenants that would get another home.
    fn promoted(&self) -> impl Iterator<Item = (TenantNumber, &PromotionItem)> {
        let items = self.forecast.items.iter();
        items
            .filter(|(_, item)| chosen(item).is_some())
            .map(|(number, item)| (*number, item))
    }

    /// Returns the length of each window of loss, in milliseconds; `None`: unknown.
    fn windows(&self) -> impl Iterator<Item = Option<u64>> {
        let losses = self.promoted().filter_map(|(_, item)| item.decision.as_ref()?.loss);
        losses.map(|loss| Some(loss.to?.saturating_sub(loss.from?)))
    }

    /// Returns the age of each copy that would be chosen, in milliseconds; `None`: unknown.
    fn lags(&self) -> impl Iterator<Item = Option<u64>> {
        self.promoted().map(|(number, item)| self.lag(number, item))
    }

    fn lag(&self, number: TenantNumber, item: &PromotionItem) -> Option<u64> {
        let copy = self.facts.copies.get(&(chosen(item)?, number))?;
        Some(self.facts.now.saturating_sub(copy.fresh_as_of?))
    }

    fn of_tenant(&self, number: TenantNumber, item: &PromotionItem) -> RehearsalForecast {
        let decision = item.decision.as_ref().filter(|_| chosen(item).is_some());
        RehearsalForecast {
            time: self.facts.now,
            home: decision.map(|decision| decision.home),
            kept: decision.map(|decision| decision.kept).unwrap_or_default(),
            lag_ms: self.lag(number, item),
            loss: decision.and_then(|decision| decision.loss),
            blocker: blocker(item).unwrap_or_default(),
        }
    }
}

/// Returns the longest of some times; `None` if one is unknown or there is none.
fn longest(times: &[Option<u64>]) -> Option<prost_types::Duration> {
    let known: Option<Vec<u64>> = times.iter().copied().collect();
    let longest = known?.into_iter().max()?;
    Some(convert::read::duration(Duration::from_millis(longest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_time_is_unknown_if_one_is() {
        assert_eq!(longest(&[]), None);
        assert_eq!(longest(&[Some(3), None]), None);
        let longest = longest(&[Some(3), Some(1_500)]).unwrap();
        assert_eq!(Duration::try_from(longest).unwrap(), Duration::from_millis(1_500));
    }
}
