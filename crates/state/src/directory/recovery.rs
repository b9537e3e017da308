//! Recovery of a directory that has lost its majority for good: a new incarnation of it, from the state of one voter.
//!
//! The voter may have missed the newest changes. So the new incarnation takes nothing for certain that it says of homes:
//! it fences every tenant below a new epoch and promotes it, with every member as a possible owner. The groups' freeze
//! reports then say who has owned what.
//!
//! # Invariants
//!
//! 1. Numbers and epochs that the lost incarnation may have handed out are not handed out again: [`NUMBERS_SKIPPED`] and
//!    [`TENANTS_SKIPPED`] of them are left out.
//! 2. Without permission to lose writes no tenant has a home again before all its members have frozen.
//! 3. Tenants that are being erased go on to be.

use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, NodeId, TenantNumber};

use super::{
    ApplyContext, AuditContext, AuditRecord, Directory, DirectoryChange, Group, LEASE_TTL_MS_MAX, PromotionPreview,
    PromotionRequest, PromotionSelection, Tenant, TenantMove, TenantState, fences::FenceHistory,
};

/// Epochs and operations of each tenant, and operations, nodes and groups of the cluster, whose numbers are left out.
pub const NUMBERS_SKIPPED: u32 = 1_000;
/// Numbers of tenants that are left out.
pub const TENANTS_SKIPPED: u64 = 1_000_000;

/// Request to recover the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryRequest {
    /// Voter whose state is taken, and the only voter of the new incarnation.
    pub founder: NodeId,
    /// Longest ttl of a lease that may run, in milliseconds, where it may be longer than the state knows.
    pub lease_ttl_ms: u64,
    /// Who asked for it, and why.
    pub by: AuditContext,
}

/// Result of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredDirectory {
    /// The new incarnation, at index zero of its log.
    pub directory: Directory,
    /// Number of tenants that are fenced and promoted.
    pub tenants: u64,
    /// The promotion; `None` if there is no tenant.
    pub operation: Option<u64>,
}

/// Reason why a directory is not recovered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryRejection {
    /// It was never bootstrapped.
    #[error("this node has no state of the directory: recover on another voter")]
    Empty,
    /// It has no voter of this number.
    #[error("node {0} is not a voter of the directory: recover on one that is")]
    NotVoter(NodeId),
    /// The cluster cannot promote tenants yet.
    #[error(
        "the cluster is below the feature level of promotions, without which homes cannot be taken from the groups"
    )]
    FeatureLevel,
    /// The named ttl is no ttl that can have been set.
    #[error("a lease ttl of {0} ms was never possible: name at most {LEASE_TTL_MS_MAX} ms")]
    LeaseTtl(u64),
    /// It was recovered too often.
    #[error("the directory was recovered as often as is possible")]
    Exhausted,
}

impl PromotionRequest {
    /// Returns the promotion of all tenants after a recovery.
    fn after_recovery() -> Self {
        Self {
            selection: PromotionSelection::Group(GroupId::DIRECTORY),
            to: None,
            allow_loss: false,
            replace: true,
            durability: None,
            graceful_ms: 0,
            is_down: false,
            unreachable: Vec::new(),
        }
    }

    /// Tells whether it is the promotion of all tenants after a recovery. It excuses no group, because nobody has said
    /// that a region is lost.
    pub(super) fn is_after_recovery(&self) -> bool {
        self.selection == PromotionSelection::Group(GroupId::DIRECTORY)
    }
}

impl Directory {
    /// Returns the voters.
    pub fn voters(&self) -> &[NodeId] {
        let own = self.view.group(GroupId::DIRECTORY);
        own.map(|group| &group.voters[..]).unwrap_or_default()
    }

    /// Returns the incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Returns the next incarnation, at a logged time, with the founder as its only voter.
    ///
    /// # Errors
    ///
    /// The directory cannot be recovered from this state.
    pub fn recover(&self, time: u64, request: &RecoveryRequest) -> Result<RecoveredDirectory, RecoveryRejection> {
        self.check_recovery(request)?;
        let next = self.incarnation.0.checked_add(1).ok_or(RecoveryRejection::Exhausted)?;
        let mut directory = self.clone();
        directory.begin_incarnation(Incarnation(next));
        let mut context = ApplyContext::new(directory.view.version(), time);
        let group = Group {
            number: GroupId::DIRECTORY,
            region: None,
            voters: vec![request.founder],
            incarnation: directory.incarnation,
            change: None,
        };
        context.push(&mut directory.view, DirectoryChange::Group(group));
        directory.note_lease_ttl(&mut context, request.lease_ttl_ms);
        directory.skip_epochs(&mut context);
        let promotion = PromotionRequest::after_recovery();
        let preview = PromotionPreview::of_all(&directory.view, &promotion);
        let tenants = preview.tenants.len() as u64;
        let operation =
            (tenants > 0).then(|| directory.put_promotion(&mut context, request.by.clone(), promotion, preview));
        let _dropped = directory.audit.push(AuditRecord {
            number: directory.audit.next_number(),
            version: context.version,
            time,
            who: request.by.who.clone(),
            reason: request.by.reason.clone(),
            action: "recover directory".to_owned(),
            subject: format!(
                "incarnation {next}, from the state of node {} at {}",
                request.founder,
                self.view.version()
            ),
            is_of_calls: false,
        });
        Ok(RecoveredDirectory {
            directory,
            tenants,
            operation,
        })
    }

    fn check_recovery(&self, request: &RecoveryRequest) -> Result<(), RecoveryRejection> {
        if self.initial.is_none() {
            return Err(RecoveryRejection::Empty);
        }
        if !self.voters().contains(&request.founder) {
            return Err(RecoveryRejection::NotVoter(request.founder));
        }
        if !self.view.settings().has_promotions() {
            return Err(RecoveryRejection::FeatureLevel);
        }
        if request.lease_ttl_ms > LEASE_TTL_MS_MAX {
            return Err(RecoveryRejection::LeaseTtl(request.lease_ttl_ms));
        }
        Ok(())
    }

    /// Sets the incarnation, and leaves out the numbers that the one before may have handed out (invariant 1).
    fn begin_incarnation(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
        self.view.reach(DirectoryVersion { incarnation, index: 0 });
        self.next_tenant += TENANTS_SKIPPED;
        self.next_node += u64::from(NUMBERS_SKIPPED);
        self.next_group += NUMBERS_SKIPPED;
        self.next_operation += u64::from(NUMBERS_SKIPPED);
        self.fences = FenceHistory::after(0);
    }

    /// Records that leases may run for as long as was said.
    fn note_lease_ttl(&mut self, context: &mut ApplyContext, lease_ttl_ms: u64) {
        let mut settings = self.view.settings();
        let longest = settings.longest_lease_ttl_ms(context.time);
        if longest < lease_ttl_ms {
            settings.lease_ttl_before_ms = lease_ttl_ms;
            settings.lease_ttl_set = context.time;
            context.push(&mut self.view, DirectoryChange::Settings(settings));
        }
    }

    /// Leaves out epochs and operations of each tenant (invariant 1).
    fn skip_epochs(&mut self, context: &mut ApplyContext) {
        let all = self.view.tenants_from(TenantNumber::new(0));
        let tenants: Vec<Tenant> = all.map(|tenant| Tenant::clone(tenant)).collect();
        for mut tenant in tenants {
            let last = tenant.last_epoch.get().saturating_add(NUMBERS_SKIPPED);
            tenant.last_epoch = Epoch::new(last).unwrap_or(Epoch::MAX);
            if tenant.last_epoch == Epoch::MAX {
                // There is no epoch left in which it could be promoted: nobody may serve it.
                tenant.fence_epoch = Epoch::MAX;
            }
            tenant.op += u64::from(NUMBERS_SKIPPED);
            self.change(context, tenant);
        }
    }
}

/// Returns the members that may own a tenant in an epoch that a recovered directory has forgotten, as moves that its
/// promotion replaces.
pub(super) fn forgotten_owners(tenant: &Tenant, time: u64) -> Vec<TenantMove> {
    if tenant.state == TenantState::Deleting {
        return Vec::new();
    }
    let others = tenant.members.iter().map(|member| member.group);
    let others = others.filter(|group| *group != tenant.home && tenant.consults(*group));
    others
        .map(|group| TenantMove::forgotten(group, tenant.epoch, time))
        .collect()
}
