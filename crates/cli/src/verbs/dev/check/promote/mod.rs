//! Steps: the home region of tenants is lost, or seems to be, and others take over.

mod by_policy;
mod cut_off;
mod failback;
mod graceful;
mod kill;
mod readiness;
mod rehearse;
mod remote;
mod two_regions;

use std::time::Duration;

use anyhow::Context;
use stead_client::{Admin, BulkMoveOptions, LossWindow, PromotedState, Tenant, TenantSelection};
use stead_testing::{
    load::{Acknowledgement, Load, LoadReport},
    moves::ended_within,
    promotions::{Promotion, WallClock, outside_window},
};
use stead_types::{Epoch, RegionName};

pub(super) use self::{
    by_policy::run as by_policy, cut_off::run as cut_off, failback::run as failback, graceful::run as graceful,
    kill::run as kill, readiness::run as readiness, rehearse::run as rehearse, remote::run as remote,
    two_regions::run as two_regions,
};
use super::verdict::Verdict;
use crate::verbs::dev::{
    lost_region::{self, LEASE_WAIT as WAIT},
    world::{World, until},
};

/// Region whose tenants are promoted.
const HOME: &str = "eu-west";
/// Region beside which a client writes meanwhile.
const OTHER: &str = "us-east";
/// Writes a second beside the home, and beside the other region.
const HOME_WRITES: u32 = 500;
const OTHER_WRITES: u32 = 50;
/// Time of writes before the home is lost.
const WARM_UP: Duration = Duration::from_secs(2);
/// Longest time of a promotion beyond the wait: two of the longest round trips, and a second.
const TAKE_OVER: Duration = Duration::from_millis(1_400);
/// An election of the directory, where its leader died with the region.
const ELECTION: Duration = Duration::from_secs(9);
/// Time after which a promotion is given up by the step.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// Wall clocks of this process and of the nodes are the same, logged time may be behind them.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(500);

/// Loads of one tenant, beside its home and beside another region.
struct Loads {
    home: Load,
    other: Load,
    clock: WallClock,
}

impl Loads {
    /// Starts to write to a tenant that is made, with its home in [`HOME`].
    async fn start(world: &mut World, name: &str) -> anyhow::Result<(Self, Tenant)> {
        let prefix = format!("promote/{}", world.run);
        Self::start_below(world, name, &prefix).await
    }

    /// Starts to write keys with a prefix.
    async fn start_below(world: &mut World, name: &str, prefix: &str) -> anyhow::Result<(Self, Tenant)> {
        let home = world.tenant(name, HOME, HOME).await?;
        let other = world.tenant(name, HOME, OTHER).await?;
        until("the tenant takes writes", async || {
            home.put("first", "v").await?;
            other.put("second", "v").await?;
            Ok(true)
        })
        .await?;
        let loads = Self {
            home: Load::start(home, format!("{prefix}/home"), HOME_WRITES),
            other: Load::start(other.clone(), format!("{prefix}/other"), OTHER_WRITES),
            clock: WallClock::now(),
        };
        Ok((loads, other))
    }

    /// Stops both, and reads their writes back.
    async fn finish(self) -> anyhow::Result<WritesReport> {
        Ok(WritesReport {
            home: self.home.finish().await?,
            other: self.other.finish().await?,
            clock: self.clock,
        })
    }
}

/// Fates of the writes of both loads.
struct WritesReport {
    home: LoadReport,
    other: LoadReport,
    clock: WallClock,
}

impl WritesReport {
    fn acknowledged(&self) -> Vec<Acknowledgement> {
        [&self.home.acknowledged[..], &self.other.acknowledged[..]].concat()
    }

    fn missing(&self) -> Vec<Acknowledgement> {
        [&self.home.missing[..], &self.other.missing[..]].concat()
    }

    /// Adds what must hold of the writes, whatever was lost.
    fn judge(&self, verdict: Verdict, promotion: &Promotion, tenant: &str) -> anyhow::Result<Verdict> {
        let decided = promotion.tenant(tenant).context("the report lacks the tenant")?;
        let epoch = Epoch::new(decided.epoch).context("the report has no epoch")?;
        let missing = self.missing();
        let (from, to) = match decided.loss {
            LossWindow::Between(from, to) => (from, to),
            LossWindow::None => (None, None),
        };
        let unannounced = match decided.loss {
            LossWindow::None => missing.len(),
            LossWindow::Between(..) => outside_window(self.clock, &missing, (from, to), CLOCK_TOLERANCE),
        };
        let of_new_home = missing.iter().filter(|write| write.revision.epoch() >= epoch).count();
        let window = decided
            .loss
            .length()
            .map_or_else(|| "unknown".to_owned(), |length| format!("{length:.1?}"));
        Ok(verdict
            .none("lost outside the window", unannounced)
            .none("lost of the new home", of_new_home)
            .none("twice", self.home.twice + self.other.twice)
            .note(format!(
                "{} of {} acknowledged writes cut, window {window}, kept {}",
                missing.len(),
                self.acknowledged().len(),
                decided.kept.map_or_else(String::new, |kept| kept.to_string())
            )))
    }
}

/// Waits until a promotion of a tenant waits for no longer lease than the environment's.
pub(super) async fn leases_are_short(world: &mut World, name: &str) -> anyhow::Result<()> {
    let admin = world.client(OTHER).await?.admin();
    lost_region::leases_are_short(world, &admin, HOME, name).await
}

/// Returns how many tenants were promoted, and why others were not, for people.
fn counts(promotion: &Promotion) -> String {
    let tenants = &promotion.report.tenants;
    let promoted = tenants.iter().filter(|tenant| tenant.state == PromotedState::Promoted);
    let other = tenants.iter().find(|tenant| tenant.state != PromotedState::Promoted);
    let other = other.map(|other| format!(", {} not: {}", other.tenant, other.reason));
    format!(
        "{} of {} tenants promoted{}",
        promoted.count(),
        tenants.len(),
        other.unwrap_or_default()
    )
}

/// Moves the tenants of a promotion back, so that later steps find their homes where they were.
pub(super) async fn move_back(admin: &Admin, promotion: &Promotion) -> anyhow::Result<()> {
    let tenants = promotion
        .report
        .tenants
        .iter()
        .filter(|tenant| tenant.to.is_some())
        .map(|tenant| (tenant.tenant.clone(), HOME.to_owned()));
    let tenants: Vec<_> = tenants.collect();
    until("the tenants are back", async || {
        let selection = TenantSelection::Named(tenants.clone());
        let begun = admin.move_tenants(selection, BulkMoveOptions::default()).await?;
        let ended = ended_within(admin, &begun.name, GIVEN_UP).await?;
        anyhow::ensure!(
            matches!(ended.outcome, Some(stead_client::OperationOutcome::TenantsMoved(_))),
            "{:?}",
            ended.outcome
        );
        Ok(true)
    })
    .await
}

/// Waits until a region's own copy of a tenant has what its home has, and returns whether the two are equal.
async fn follows(world: &mut World, tenant: &Tenant, region: &str) -> anyhow::Result<()> {
    let copy = world.client(region).await?.tenant(tenant.name().as_str())?;
    let prefix = format!("promote/{}/", world.run);
    let scan = |read| stead_client::ScanOptions {
        prefix: prefix.clone().into(),
        count_only: true,
        read,
        ..stead_client::ScanOptions::default()
    };
    let local = stead_client::ReadOptions::at(stead_client::Consistency::Local);
    until("the region that was lost follows", async || {
        let at_home = tenant.scan(&scan(stead_client::ReadOptions::default())).await?;
        let held = copy.scan(&scan(local.clone())).await?;
        Ok(held.header.region.as_ref().map(RegionName::as_str) == Some(region)
            && held.count == at_home.count
            && held.header.revision == at_home.header.revision)
    })
    .await
}
