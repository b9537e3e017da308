//! Settings of the whole cluster: the lease ttl, and the feature level that all nodes support.

use stead_types::{NodeId, TenantNumber};

use super::{
    ApplyContext, Directory, DirectoryChange, DirectoryOutcome, DirectoryResult, LEASE_TTL_MS_MAX, LEASE_TTL_MS_MIN,
    PromotionRejection, Rejection,
};
use crate::codec::{Malformed, Reader, Writer};

/// Feature level of a cluster whose level was never raised, and of a node that has not reported one.
pub const FEATURE_LEVEL_MIN: u32 = 1;
/// Highest feature level that this version supports.
pub const FEATURE_LEVEL_MAX: u32 = 6;
/// Feature level from which on tenants are moved, members leave in two phases, and settings are changed.
const MOVES: u32 = 2;
/// Feature level from which on tenants are promoted.
const PROMOTIONS: u32 = 3;
/// Feature level from which on tenants have durability `REMOTE`, forks are replayed, and tenants have a policy for the loss
/// of their home region.
const REGION_LOSS: u32 = 4;
/// Feature level from which on identities have roles, and nodes ask each other what only another one can answer over the
/// peer listener.
const ROLES: u32 = 5;
/// Feature level from which on the report of a frozen group has its time.
const REPORT_TIMES: u32 = 5;
/// Feature level from which on nodes and regions are added, replaced and removed.
const TOPOLOGY: u32 = 5;
/// Feature level from which on regions of witnesses and further groups of a region are added.
const GROWTH: u32 = 6;
/// Time after a raise for which a node may serve without a lease: a minute, and a quarter more because logged time passes
/// at 0.9 to 1.1 of a clock's rate. A cluster whose tenants were all created within it was never of an earlier version.
const WITHOUT_LEASE_MS: u64 = 75_000;

/// Most nodes that a refusal names.
const NAMES_MAX: usize = 20;

/// Settings of the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterSettings {
    /// Feature level: what every node supports, so that all of it may be in logs, views and messages. Never lowered.
    pub feature_level: u32,
    /// Time for which a lease is granted, in milliseconds: how long a region may be cut off from the directory before
    /// its tenants stop, and how long a promotion may have to wait.
    pub lease_ttl_ms: u64,
    /// Longest lease ttl for which leases may have run when `lease_ttl_ms` was set.
    pub lease_ttl_before_ms: u64,
    /// Logged time at which `lease_ttl_ms` was set; zero for the default.
    pub lease_ttl_set: u64,
    /// Logged time at which the level was raised to one that has promotions, in a cluster that may have had nodes of
    /// earlier versions; zero: it was not, or the cluster was new.
    pub promotions_since: u64,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            feature_level: FEATURE_LEVEL_MIN,
            lease_ttl_ms: 60_000,
            lease_ttl_before_ms: 60_000,
            lease_ttl_set: 0,
            promotions_since: 0,
        }
    }
}

impl ClusterSettings {
    /// Returns the longest ttl of a lease that may run at this logged time of the directory. A waiter uses it: leases
    /// granted before a ttl was lowered run on.
    pub fn longest_lease_ttl_ms(&self, time: u64) -> u64 {
        // Logged time passes at 0.9 to 1.1 of the rate of a clock; a quarter more covers that and the drift.
        let before_ends = self.lease_ttl_set + self.lease_ttl_before_ms + self.lease_ttl_before_ms / 4;
        if time < before_ends {
            return self.lease_ttl_ms.max(self.lease_ttl_before_ms);
        }
        self.lease_ttl_ms
    }

    /// Tells whether tenants may be moved, and members leave in two phases.
    pub fn has_moves(&self) -> bool {
        self.feature_level >= MOVES
    }

    /// Checks that tenants may be moved. Commands of moves are proposed only then: older voters cannot read them.
    pub fn check_moves(&self) -> Result<(), Rejection> {
        if self.has_moves() {
            return Ok(());
        }
        Err(Rejection::FeatureLevel {
            needed: MOVES,
            level: self.feature_level,
        })
    }

    /// Tells whether tenants may be promoted.
    pub fn has_promotions(&self) -> bool {
        self.feature_level >= PROMOTIONS
    }

    /// Checks that tenants may be promoted at this logged time. Commands of promotions are proposed only then: older
    /// voters cannot read them, and older groups do not freeze. For a minute after the level was raised a node that has
    /// not heard of it may still serve without a lease, so that no wait for leases says anything.
    pub fn check_promotions(&self, time: u64) -> Result<(), Rejection> {
        self.check_forks()?;
        let since = self.promotions_since;
        let left_ms = (since + WITHOUT_LEASE_MS).saturating_sub(time);
        if since > 0 && left_ms > 0 {
            return Err(PromotionRejection::LevelRaised { left_ms }.into());
        }
        Ok(())
    }

    /// Checks that discards of forks may be recorded: forks come from promotions, and older voters cannot read the command.
    pub fn check_forks(&self) -> Result<(), Rejection> {
        if self.has_promotions() {
            return Ok(());
        }
        Err(Rejection::FeatureLevel {
            needed: PROMOTIONS,
            level: self.feature_level,
        })
    }

    /// Tells whether tenants may have durability `REMOTE` and a policy for the loss of their home region, and whether forks
    /// may be replayed.
    pub fn has_region_loss(&self) -> bool {
        self.feature_level >= REGION_LOSS
    }

    /// Checks that what belongs to feature level 4 may be proposed: older voters cannot read it.
    pub fn check_region_loss(&self) -> Result<(), Rejection> {
        if self.has_region_loss() {
            return Ok(());
        }
        Err(Rejection::FeatureLevel {
            needed: REGION_LOSS,
            level: self.feature_level,
        })
    }

    /// Checks that nodes and regions may be added, replaced and removed: nodes of earlier versions cannot read that.
    pub fn check_topology(&self) -> Result<(), Rejection> {
        if self.feature_level >= TOPOLOGY {
            return Ok(());
        }
        Err(Rejection::FeatureLevel {
            needed: TOPOLOGY,
            level: self.feature_level,
        })
    }

    /// Tells whether reports of frozen groups may have their time: older voters cannot read it.
    pub fn has_report_times(&self) -> bool {
        self.feature_level >= REPORT_TIMES
    }

    /// Checks that regions of witnesses and further groups may be added: older voters cannot read the commands.
    pub fn check_growth(&self) -> Result<(), Rejection> {
        if self.feature_level >= GROWTH {
            return Ok(());
        }
        Err(Rejection::FeatureLevel {
            needed: GROWTH,
            level: self.feature_level,
        })
    }

    /// Tells whether identities may have roles, and nodes answer requests of operators that other nodes pass on over the
    /// peer listener.
    pub fn has_roles(&self) -> bool {
        self.feature_level >= ROLES
    }

    /// Checks that role bindings may be proposed: older voters and views cannot read them.
    pub fn check_roles(&self) -> Result<(), Rejection> {
        if self.has_roles() {
            return Ok(());
        }
        Err(Rejection::FeatureLevel {
            needed: ROLES,
            level: self.feature_level,
        })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.varint(u64::from(self.feature_level)).varint(self.lease_ttl_ms);
        w.varint(self.lease_ttl_before_ms).varint(self.lease_ttl_set);
        // Earlier versions end here.
        if self.promotions_since > 0 {
            w.varint(self.promotions_since);
        }
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            feature_level: r.varint_u32()?,
            lease_ttl_ms: r.varint()?,
            lease_ttl_before_ms: r.varint()?,
            lease_ttl_set: r.varint()?,
            promotions_since: if r.is_empty() { 0 } else { r.varint()? },
        })
    }
}

impl Directory {
    /// Sets the lease ttl. Needs feature level 2: nodes of earlier versions cannot read settings in their views.
    pub(super) fn set_lease_ttl(&mut self, context: &mut ApplyContext, lease_ttl_ms: u64) -> DirectoryResult {
        let settings = self.view.settings();
        settings.check_moves()?;
        if !(LEASE_TTL_MS_MIN..=LEASE_TTL_MS_MAX).contains(&lease_ttl_ms) {
            return Err(Rejection::LeaseTtl(lease_ttl_ms));
        }
        if settings.lease_ttl_ms != lease_ttl_ms {
            let settings = ClusterSettings {
                lease_ttl_ms,
                lease_ttl_before_ms: settings.longest_lease_ttl_ms(context.time),
                lease_ttl_set: context.time,
                ..settings
            };
            context.push(&mut self.view, DirectoryChange::Settings(settings));
        }
        Ok(DirectoryOutcome::Done)
    }

    /// Raises the feature level, if every node of the cluster is among `supporting`: the nodes that the proposer knows
    /// to support it. A node that joins until then is not.
    pub(super) fn raise_feature_level(
        &mut self,
        context: &mut ApplyContext,
        requested: u32,
        supporting: &[NodeId],
    ) -> DirectoryResult {
        let settings = self.view.settings();
        let level = settings.feature_level;
        if !(level..=FEATURE_LEVEL_MAX).contains(&requested) {
            let max = FEATURE_LEVEL_MAX;
            return Err(Rejection::FeatureLevelRange { requested, level, max });
        }
        let is_behind = |node: &NodeId| !supporting.contains(node);
        let behind = || self.view.nodes().filter(|node| is_behind(&node.number));
        let count = behind().count();
        if count > 0 {
            let names: Vec<_> = behind().take(NAMES_MAX).map(|node| node.name.as_str()).collect();
            let more = if count > NAMES_MAX { ", ..." } else { "" };
            return Err(Rejection::NodesBehind {
                requested,
                count: count as u64,
                node: names.join(", ") + more,
            });
        }
        if requested > level {
            let is_young = |created: u64| context.time < created.saturating_add(WITHOUT_LEASE_MS);
            let is_new = {
                let mut tenants = self.view.tenants_from(TenantNumber::new(0));
                tenants.all(|tenant| is_young(tenant.created))
            };
            let has_promotions = settings.has_promotions();
            let mut settings = ClusterSettings {
                feature_level: requested,
                ..settings
            };
            if !has_promotions && settings.has_promotions() && !is_new {
                settings.promotions_since = context.time;
            }
            context.push(&mut self.view, DirectoryChange::Settings(settings));
        }
        Ok(DirectoryOutcome::Done)
    }
}
