//! The directory: the home group, epoch and policy of each tenant, and the regions, nodes and groups.
//!
//! The directory only decides. It is the machine of one Raft group; every node applies its [`DirectoryChange`]s to a
//! [`DirectoryView`] of its own. Copying, serving and erasing belong to the groups, whose reconcilers act on their
//! views and report.
//!
//! ```text
//! Command -> Directory::apply -> DirectoryResult
//!                             -> DirectoryChanges, tagged with a DirectoryVersion -> DirectoryView on every node
//!                             -> rows
//! ```
//!
//! # Invariants
//!
//! 1. Numbers of tenants, nodes and groups are never used twice; nor are epochs of a tenant.
//! 2. A tenant's home is a member that stays, unless the tenant is being erased.
//! 3. A member that stays is in a jurisdiction that the tenant's residency admits.
//! 4. A group is removed from a tenant's members only by its own report that it has erased the tenant.
//! 5. A rejected command changes nothing.
//! 6. A member that leaves is consulted until the home has reported that it no longer counts it, from feature level 2
//!    on.
//! 7. A tenant that is promoted has one item that is not over, in the operation that its record names.

mod audit;
mod bootstrap;
mod bulk_move;
mod bulk_move_item;
mod bulk_moves;
mod bulk_plan;
mod bulk_waves;
mod call_record;
mod change;
mod command;
mod failback;
mod fences;
mod fork_discard;
mod fork_replay;
mod leader_move;
mod lease_loss;
mod limits;
mod member;
mod meta;
mod moves;
mod nodes;
mod operation;
mod operations;
pub mod ownership;
mod placement;
mod promotion;
mod promotion_choice;
mod promotion_forecast;
mod promotion_graceful;
mod promotion_item;
mod promotion_items;
mod promotion_needs;
mod promotion_plan;
mod promotion_rejection;
mod promotion_report;
mod promotion_steps;
mod promotions;
mod receipt;
mod recovery;
mod region_loss;
mod region_loss_decision;
mod region_loss_rejection;
mod rehearsal;
mod rehearsals;
mod remote_floor;
mod report;
mod residency_evidence;
mod result;
mod result_codec;
mod role_bindings;
mod settings;
mod tenant;
mod tenant_move;
mod tenant_promotion;
mod tenants;
mod text;
mod topology;
mod topology_begin;
mod topology_change;
mod topology_changes;
mod topology_rejection;
mod view;
mod voters;

#[cfg(test)]
mod bulk_moves_test;
#[cfg(test)]
mod directory_test;
#[cfg(test)]
mod failback_test;
#[cfg(test)]
mod moves_test;
#[cfg(test)]
mod ownership_test;
#[cfg(test)]
mod promotion_choice_test;
#[cfg(test)]
mod promotion_forecast_test;
#[cfg(test)]
mod promotions_test;
#[cfg(test)]
mod recovery_test;
#[cfg(test)]
mod region_loss_test;
#[cfg(test)]
mod rehearsals_test;
#[cfg(test)]
mod residency_evidence_test;
#[cfg(test)]
mod topology_changes_test;

use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, TenantNumber};

pub use audit::{Audit, AuditChange, AuditRecord};
pub use bootstrap::{InitialCluster, InitialNode};
pub use bulk_move::{
    AT_ONCE_MAX, BulkMove, BulkMoveRequest, BulkMoveState, Cursor, MoveFailure, NAMED_MOVES_MAX, NamedMove, Pace,
    SHOWN_FAILURES_MAX, Selection, WAVE_BUDGET_MS, Wave,
};
pub use bulk_move_item::{BulkMoveItem, ItemMove, ItemState};
pub use bulk_moves::{BULK_MOVES_MAX, DRAINS_MAX, ITEMS_MAX};
pub use bulk_plan::{BulkMovePreview, PreviewedMove};
pub use call_record::{CALL_RECORDS_MAX, CallRecord, RecordedOutcome};
pub use change::DirectoryChange;
pub use command::{AuditContext, Command, NewNode, NewTenant, REFRESH_MEMBERS_MAX, REPORTS_MAX, TenantUpdate};
pub use failback::{PROMOTIONS_KEPT, way_back};
pub use fences::FENCE_CHANGES_MAX;
pub use fork_discard::ForkDiscard;
pub use fork_replay::ForkReplay;
pub use leader_move::LeaderMove;
pub use lease_loss::LeaseLoss;
pub use limits::LimitsUpdate;
pub use member::{MemberState, ReplicaSetMember};
pub use operation::{
    OPERATION_STEPS_MAX, Operation, OperationEnd, OperationKind, OperationResult, OperationStep, OperationTenant,
    StepName,
};
pub use operations::{OPERATION_KEPT_MS, Operations};
pub use promotion::{
    ADVANCED_MAX, GRACEFUL_MS_MAX, Promotion, PromotionAdvance, PromotionCounts, PromotionRequest, PromotionSelection,
};
pub use promotion_choice::{Choice, Chosen, Consultation, choose, is_fenced_by_logs};
pub use promotion_forecast::{CopyReport, PromotionFacts, PromotionForecast};
pub use promotion_item::{FrozenReport, LossWindow, PromotionDecision, PromotionItem, PromotionState, PromotionTimes};
pub use promotion_items::PromotionItems;
pub use promotion_needs::PromotionNeeds;
pub use promotion_plan::{PreviewedPromotion, PromotionPreview};
pub use promotion_rejection::PromotionRejection;
pub use promotions::PROMOTIONS_MAX;
pub use receipt::{ReceiptState, receipt_state};
pub use recovery::{NUMBERS_SKIPPED, RecoveredDirectory, RecoveryRejection, RecoveryRequest, TENANTS_SKIPPED};
pub use region_loss::{LOSS_MS_MAX, PromotionPolicy, RegionLoss, RegionLossUpdate, SILENT_MS};
pub use region_loss_decision::{
    RegionLossDecision, RegionObservation, decide as decide_region_loss, shortest_policy_ms, silence_min_ms,
};
pub use region_loss_rejection::RegionLossRejection;
pub use rehearsal::{LegTimes, RehearsalForecast, RehearsalItem, RehearsalProgress, RehearsalRequest, RehearsedTenant};
pub use remote_floor::RemoteFloor;
pub use report::GroupReport;
pub use residency_evidence::{
    ErasedRecord, ResidencyEvidence, SENT_ROWS_MAX, SentData, SentRecord, SentReport, TenantEvidence,
};
pub use result::{DirectoryOutcome, DirectoryResult, Rejection};
pub use result_codec::{decode as decode_result, encode as encode_result};
pub use role_bindings::{RoleBinding, RoleBindings, RoleGrant, SUBJECT_ROLES_MAX, SUBJECTS_MAX};
pub use settings::{ClusterSettings, FEATURE_LEVEL_MAX, FEATURE_LEVEL_MIN};
pub use tenant::{Followers, OwnSettings, Tenant, TenantState};
pub use tenant_move::{MoveRequest, MoveState, MoveTarget, SourceAfterMove, TenantMove};
pub use tenant_promotion::{PromotionPhase, TenantPromotion};
pub use topology::{Addresses, Group, Node, Region, Rehearsed, VoterChange};
pub use topology_change::{ConfirmVoters, TopologyAction, TopologyChange, TopologyCommand, TopologyRequest};
pub use topology_rejection::TopologyRejection;
pub use view::{DirectoryView, GroupLoad};

use self::fences::{FenceChange, FenceHistory};

/// Most tenants of a cluster: each takes memory on every node.
pub const TENANTS_MAX: usize = 1_000_000;
/// Most operations that are kept.
pub const OPERATIONS_MAX: usize = 100_000;
/// Shortest lease ttl: three quarters of it must outlast an election of the directory.
pub const LEASE_TTL_MS_MIN: u64 = 15_000;
/// Longest lease ttl: a promotion may have to wait for it.
pub const LEASE_TTL_MS_MAX: u64 = 3_600_000;

/// State of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    view: DirectoryView,
    incarnation: Incarnation,
    initial: Option<InitialCluster>,
    next_tenant: u64,
    next_node: u64,
    next_group: u32,
    refresh_members_from: Option<TenantNumber>,
    audit: Audit,
    operations: Operations,
    next_operation: u64,
    fences: FenceHistory,
    evidence: ResidencyEvidence,
}

/// Output of applying a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyOutput {
    /// Result for the proposer.
    pub result: DirectoryResult,
    /// Changes for every directory view, at [`DirectoryView::version`].
    pub changes: Vec<DirectoryChange>,
    /// Audit records, if the command was requested by a caller and changed something.
    pub audit: AuditChange,
    /// Numbers of the operations that were begun, changed or dropped.
    pub operations: Vec<u64>,
    /// Tenants of bulk moves whose records there were changed or dropped.
    pub items: Vec<(u64, TenantNumber)>,
    /// Tenants of promotions whose records there were changed or dropped.
    pub promotion_items: Vec<(u64, TenantNumber)>,
    /// Tenants whose residency evidence changed or was dropped.
    pub evidence: Vec<TenantNumber>,
}

/// Context of the command being applied.
struct ApplyContext {
    version: DirectoryVersion,
    time: u64,
    changes: Vec<DirectoryChange>,
    operations: Vec<u64>,
    items: Vec<(u64, TenantNumber)>,
    promotion_items: Vec<(u64, TenantNumber)>,
    evidence: Vec<TenantNumber>,
    fences: Vec<FenceChange>,
}

impl ApplyContext {
    fn new(version: DirectoryVersion, time: u64) -> Self {
        Self {
            version,
            time,
            changes: Vec::new(),
            operations: Vec::new(),
            items: Vec::new(),
            promotion_items: Vec::new(),
            evidence: Vec::new(),
            fences: Vec::new(),
        }
    }

    /// Applies a change to the directory's own view, and collects it for the views of nodes.
    fn push(&mut self, view: &mut DirectoryView, change: DirectoryChange) {
        let before = change.tenant().and_then(|number| view.tenant(number));
        let after = change.record();
        let fence = before.and_then(|before| FenceChange::between(self.version.index, before, after));
        self.fences.extend(fence);
        view.apply(change.clone());
        self.changes.push(change);
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            view: DirectoryView::default(),
            incarnation: Incarnation::FIRST,
            initial: None,
            next_tenant: 1,
            next_node: 1,
            next_group: 1,
            refresh_members_from: None,
            audit: Audit::default(),
            operations: Operations::default(),
            next_operation: 1,
            fences: FenceHistory::default(),
            evidence: ResidencyEvidence::default(),
        }
    }
}

impl Directory {
    /// Returns the current view, which every node's view converges to.
    pub fn view(&self) -> &DirectoryView {
        &self.view
    }

    /// Returns the audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Returns the operations.
    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Returns the fences that have changed since a version, of tenants of which one of the groups was a member at any
    /// version since; the lease responses of these groups' voters carry them. `None` if the directory no longer has
    /// the changes since then: then a lease counts by the view alone.
    pub fn fence_changes_since(
        &self,
        version: DirectoryVersion,
        groups: &[GroupId],
    ) -> Option<Vec<(TenantNumber, Epoch)>> {
        if version.incarnation != self.incarnation {
            return None;
        }
        self.fences.since(version.index, groups)
    }

    /// Returns the name of the cluster, once it is bootstrapped.
    pub fn cluster(&self) -> Option<&str> {
        self.initial.as_ref().map(|initial| initial.cluster.as_str())
    }

    /// Tells whether the leader should propose [`Command::RefreshMembers`].
    pub fn needs_member_refresh(&self) -> bool {
        self.refresh_members_from.is_some()
    }

    /// Sets the version to the entry with this index, which is being applied. Every entry counts, also one without
    /// commands.
    pub fn reach(&mut self, index: u64) {
        self.view.reach(DirectoryVersion {
            incarnation: self.incarnation,
            index,
        });
    }

    /// Applies a committed command, at the logged time of the entry set by [`Directory::reach`].
    pub fn apply(&mut self, time: u64, command: Command) -> ApplyOutput {
        let mut context = ApplyContext::new(self.view.version(), time);
        let audited = audit::entries(&command);
        // Its effect is the audit record.
        let is_record = matches!(
            command,
            Command::RecordForkDiscard(..)
                | Command::RecordForkReplay(..)
                | Command::RecordLeaderMove(..)
                | Command::RecordCalls(_)
        );
        let result = self.dispatch(&mut context, command);
        debug_assert!(
            result.is_ok() || (context.changes.is_empty() && context.operations.is_empty()),
            "a rejected command changes nothing"
        );
        let has_changed = is_record || !context.changes.is_empty() || !context.operations.is_empty();
        if result.is_ok() {
            let pinned = self.pinned();
            let dropped = self.operations.drop_old(time, ITEMS_MAX, |id| pinned.contains(&id));
            context.operations.extend(dropped.operations);
            context.items.extend(dropped.items);
            context.promotion_items.extend(dropped.promotion_items);
        }
        self.fences.extend(std::mem::take(&mut context.fences));
        let audit = if result.is_ok() && has_changed {
            self.audit.extend(&context, audited)
        } else {
            AuditChange::default()
        };
        ApplyOutput {
            result,
            changes: context.changes,
            audit,
            operations: context.operations,
            items: context.items,
            promotion_items: context.promotion_items,
            evidence: context.evidence,
        }
    }

    /// Evaluates a command about a tenant or a region on a view without committing it, and returns the resulting
    /// view. Numbers of new objects, versions and times are not those that the command itself would get.
    pub fn dry_run(view: DirectoryView, command: Command) -> Result<(DirectoryOutcome, DirectoryView), Rejection> {
        let last = view.tenants_from(TenantNumber::new(0)).last();
        let mut directory = Self {
            next_tenant: last.map_or(1, |tenant| tenant.number.get() + 1),
            view,
            ..Self::default()
        };
        let mut context = ApplyContext::new(directory.view.version(), 0);
        let outcome = directory.carry_out(&mut context, command)?;
        Ok((outcome, directory.view))
    }

    fn dispatch(&mut self, context: &mut ApplyContext, command: Command) -> DirectoryResult {
        if self.initial.is_none() && !matches!(command, Command::Bootstrap(_)) {
            return Err(Rejection::NotBootstrapped);
        }
        self.carry_out(context, command)
    }

    fn carry_out(&mut self, context: &mut ApplyContext, command: Command) -> DirectoryResult {
        match command {
            Command::Bootstrap(initial) => self.bootstrap(context, initial),
            Command::CreateRegion(_, region) => self.create_region(context, region),
            Command::Join(_, node) => self.join(context, node),
            Command::UpdateAddresses(node, addresses) => self.update_addresses(context, node, addresses),
            Command::CreateTenant(_, tenant) => self.create_tenant(context, tenant),
            Command::UpdateTenant(_, update) => self.update_tenant(context, update),
            Command::EraseTenant(_, name, etag) => self.erase_tenant(context, &name, etag),
            Command::Report(group, incarnation, reports) => self.report(context, group, incarnation, &reports),
            Command::RefreshMembers => self.refresh_members(context),
            Command::MoveTenant(by, request) => self.move_tenant(context, by, &request),
            Command::AbortMove(_, operation) => self.abort_move(context, operation),
            Command::SetClusterSettings(_, lease_ttl_ms) => self.set_lease_ttl(context, lease_ttl_ms),
            Command::RaiseFeatureLevel(_, level, supporting) => self.raise_feature_level(context, level, &supporting),
            Command::BeginBulkMove(by, request) => self.begin_bulk_move(context, by, &request),
            Command::AdvanceBulkMove(id, unreachable) => self.advance_bulk_move(context, id, &unreachable),
            Command::PauseBulkMove(by, id) => self.pause_bulk_move(context, &by, id),
            Command::ResumeBulkMove(_, id, pace) => self.resume_bulk_move(context, id, pace),
            Command::BeginPromotion(by, request) => self.begin_promotion(context, by, request),
            Command::AdvancePromotion { operation, action } => self.advance_promotion(context, operation, action),
            Command::RecordForkDiscard(_, discard) => self.record_fork_discard(&discard),
            Command::BeginRehearsal(by, request) => self.begin_rehearsal(context, by, request),
            Command::SetRegionLoss(_, update) => self.set_region_loss(context, &update),
            Command::RecordForkReplay(_, replay) => self.record_fork_replay(&replay),
            Command::GrantRole(_, grant) => self.grant_role(context, grant),
            Command::RevokeRole(_, grant) => self.revoke_role(context, grant),
            Command::RecordCalls(_) => self.record_calls(),
            Command::Topology(command) => self.topology(context, command),
            Command::RecordSent(report) => self.record_sent(context, &report),
            Command::RecordLeaderMove(_, leader_move) => self.record_leader_move(leader_move),
        }
    }
}
