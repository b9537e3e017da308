//! Forecast of a promotion from a view and reports of groups: the commands of the promotion itself, applied to a
//! directory that nobody has. A dry run cannot differ from the promotion by other means than by what it is told.

use std::collections::{BTreeMap, BTreeSet};

use stead_types::{DirectoryVersion, GroupId, TenantNumber};

use super::{
    ADVANCED_MAX, ApplyContext, AuditContext, Command, Directory, DirectoryOutcome, DirectoryView, GroupReport,
    PromotionAdvance, PromotionItem, PromotionRequest, PromotionState, Rejection,
};
use crate::shard::ownership::FreezeReport;

/// Most steps of a forecast for each thousand tenants: every one brings some of them further.
const STEPS_MAX: usize = 64;

/// Report that a group would give of a tenant if it froze now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyReport {
    /// The report; its promotion and epoch do not matter.
    pub report: FreezeReport,
    /// Wall clock, in milliseconds since 1970, at which its copy was last proved fresh.
    pub fresh_as_of: Option<u64>,
}

/// Forecast of a promotion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromotionForecast {
    /// Its tenants, as they would be once every group that answers has reported.
    pub items: Vec<(TenantNumber, PromotionItem)>,
}

/// Facts from which a promotion is forecast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromotionFacts {
    /// Reports of the groups that answer.
    pub copies: BTreeMap<(GroupId, TenantNumber), CopyReport>,
    /// Groups that do not answer.
    pub silent: BTreeSet<GroupId>,
    /// Wall clock of the fence.
    pub now: u64,
    /// Longest wait after the fence, in milliseconds.
    pub wait_ms: u64,
}

impl PromotionForecast {
    /// Applies a promotion to a view, up to the choice of each new home.
    ///
    /// # Errors
    ///
    /// The promotion would be refused.
    pub fn of(view: &DirectoryView, request: &PromotionRequest, facts: &PromotionFacts) -> Result<Self, Rejection> {
        let mut trial = Trial::new(view.clone());
        let by_force = PromotionRequest {
            graceful_ms: 0,
            ..request.clone()
        };
        let begun = trial.apply(facts.now, Command::BeginPromotion(AuditContext::default(), by_force))?;
        let DirectoryOutcome::Operation(id) = begun else {
            return Ok(Self::default());
        };
        let waited = facts.now + facts.wait_ms;
        trial.wait_over(id, waited);
        trial.report(id, waited, facts);
        let silent: Vec<GroupId> = facts.silent.iter().copied().collect();
        for _ in 0..STEPS_MAX {
            let before = trial.items(id);
            trial.examine(id, waited, &silent);
            trial.report(id, waited, facts);
            if trial.items(id) == before {
                break;
            }
        }
        Ok(Self { items: trial.items(id) })
    }
}

/// Directory in which a promotion is tried.
struct Trial(Directory);

impl Trial {
    fn new(view: DirectoryView) -> Self {
        let last = view.tenants_from(TenantNumber::new(0)).last();
        Self(Directory {
            next_tenant: last.map_or(1, |tenant| tenant.number.get() + 1),
            incarnation: view.version().incarnation,
            view,
            ..Directory::default()
        })
    }

    /// Applies a command as the next entry.
    fn apply(&mut self, time: u64, command: Command) -> Result<DirectoryOutcome, Rejection> {
        let version = self.0.view.version();
        self.0.reach(version.index + 1);
        let mut context = ApplyContext::new(self.0.view.version(), time);
        self.0.carry_out(&mut context, command)
    }

    fn items(&self, id: u64) -> Vec<(TenantNumber, PromotionItem)> {
        let items = self.0.operations.promotions().from(id, TenantNumber::new(0));
        items.map(|(number, item)| (number, item.clone())).collect()
    }

    fn count(&self, id: u64) -> usize {
        self.0.operations.promotions().from(id, TenantNumber::new(0)).count()
    }

    fn fence(&self, id: u64) -> DirectoryVersion {
        let promotion = self.0.operations.promotion(id);
        promotion.map_or(DirectoryVersion::ZERO, |promotion| promotion.fence)
    }

    fn advance(&mut self, operation: u64, time: u64, action: &PromotionAdvance) {
        for _ in 0..=self.count(operation) / ADVANCED_MAX {
            let action = action.clone();
            // One that comes late does nothing.
            let _ = self.apply(time, Command::AdvancePromotion { operation, action });
        }
    }

    fn wait_over(&mut self, id: u64, time: u64) {
        let fence = self.fence(id);
        self.advance(id, time, &PromotionAdvance::WaitOver { fence });
    }

    fn examine(&mut self, id: u64, time: u64, silent: &[GroupId]) {
        self.advance(id, time, &PromotionAdvance::Silent(silent.to_vec()));
    }

    /// Reports what the groups hold of each tenant that waits for it; the target of a pull has what its source had.
    fn report(&mut self, id: u64, time: u64, facts: &PromotionFacts) {
        for (number, item) in self.items(id) {
            let Some(tenant) = self.0.view.tenant(number).cloned() else {
                continue;
            };
            let Some(promoting) = tenant.promoting.clone().filter(|promoting| promoting.of == id) else {
                continue;
            };
            for member in &tenant.members {
                let from = member.group;
                let source = match item.state {
                    PromotionState::Pulling { from: source, to } if to == from => source,
                    PromotionState::Freezing | PromotionState::Blocked { .. } => from,
                    PromotionState::Pulling { .. }
                    | PromotionState::Waiting { .. }
                    | PromotionState::Moving
                    | PromotionState::Fenced
                    | PromotionState::Activating
                    | PromotionState::Promoted
                    | PromotionState::Moved { .. }
                    | PromotionState::Replaced { .. }
                    | PromotionState::Failed { .. } => continue,
                };
                let (Some(own), Some(held)) = (facts.copies.get(&(from, number)), facts.copies.get(&(source, number)))
                else {
                    continue;
                };
                let report = FreezeReport {
                    operation: promoting.operation,
                    epoch: promoting.epoch,
                    previous: own.report.previous,
                    ..held.report.clone()
                };
                let incarnation = self.0.view.group(from).map(|group| group.incarnation);
                let reports = vec![GroupReport::Frozen {
                    tenant: number,
                    report,
                    fresh_as_of: own.fresh_as_of.min(held.fresh_as_of),
                    reported: Some(time),
                }];
                if let Some(incarnation) = incarnation {
                    let _ = self.apply(time, Command::Report(from, incarnation, reports));
                }
            }
        }
    }
}
