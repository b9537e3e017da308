//! Proposals of a group's reconciler: which entries its leader proposes, given record and view, and the commands of
//! `stead_state::shard` that they stand for.

use stead_state::{
    directory::{MemberState, TenantState},
    shard::{
        command::{Activate, CancelHeir, Count, Erase, Follow, Freeze, Heir, Refuse, Rejoin, Relinquish, Uncount},
        record::{OperationId, Role, TenantRecord},
    },
};
use stead_types::TenantTime;

use super::{
    Ownership,
    directory::{Version, version},
    mutant::Mutant,
    state::{Place, State, TENANT},
};

/// Entry that a reconciler proposes: its kind and the directory version that it is derived from. All that its guard
/// needs is in that version; the command is built from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Proposal {
    /// Its kind.
    pub kind: Kind,
    /// Directory version of the proposer's view.
    pub version: u8,
    /// The member to count or not, or the heir's move.
    pub argument: u8,
}

/// Kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `Follow`.
    Follow,
    /// `Freeze`.
    Freeze,
    /// `Relinquish`.
    Relinquish,
    /// `Refuse`.
    Refuse,
    /// `Activate`.
    Activate,
    /// `Heir`.
    Heir,
    /// `CancelHeir`.
    CancelHeir,
    /// `Uncount`.
    Uncount,
    /// `Count`.
    Count,
    /// `Rejoin`.
    Rejoin,
    /// `Erase`.
    Erase,
}

/// Command of a proposal.
#[derive(Clone, Debug)]
pub enum Command {
    /// `Follow`.
    Follow(Follow),
    /// `Freeze`.
    Freeze(Freeze),
    /// `Relinquish`.
    Relinquish(Relinquish),
    /// `Refuse`.
    Refuse(Refuse),
    /// `Activate`.
    Activate(Activate),
    /// `Heir`.
    Heir(Heir),
    /// `CancelHeir`.
    CancelHeir(CancelHeir),
    /// `Uncount`.
    Uncount(Uncount),
    /// `Count`.
    Count(Count),
    /// `Rejoin`.
    Rejoin(Rejoin),
    /// `Erase`.
    Erase(Erase),
}

impl Proposal {
    /// Returns its command; `None` if its version has nothing of the kind.
    #[expect(clippy::too_many_lines, reason = "one arm for each entry of the table")]
    pub fn command(self, state: &State) -> Option<Command> {
        let (tenant, view) = (TENANT, state.directory.at(self.version));
        let version = version(self.version);
        let record = &view.tenant;
        let (home, epoch) = (record.home, record.epoch);
        Some(match self.kind {
            Kind::Follow => Command::Follow(Follow {
                tenant,
                version,
                home,
                epoch,
                lineage: record.lineage.clone(),
            }),
            Kind::Freeze => {
                let (operation, epoch) = view.promoting()?;
                Command::Freeze(Freeze {
                    tenant,
                    version,
                    operation,
                    epoch,
                    lineage: record.lineage.clone(),
                })
            }
            Kind::Relinquish => {
                let plan = view.moving()?;
                Command::Relinquish(Relinquish {
                    tenant,
                    version,
                    operation: plan.operation,
                    to: plan.to,
                    recorded_epoch: epoch,
                    epoch: plan.epoch,
                })
            }
            Kind::Heir => {
                let plan = view.moving()?;
                Command::Heir(Heir {
                    tenant,
                    version,
                    operation: plan.operation,
                    to: plan.to,
                    recorded_epoch: epoch,
                    epoch: plan.epoch,
                })
            }
            Kind::Refuse => Command::Refuse(Refuse {
                tenant,
                version,
                operation: view.moving()?.operation,
            }),
            Kind::CancelHeir => Command::CancelHeir(CancelHeir {
                tenant,
                version,
                operation: OperationId(u64::from(self.argument)),
                last_operation: view.last_operation(),
            }),
            Kind::Activate => Command::Activate(Activate {
                tenant,
                version,
                home,
                epoch,
                kept: view.kept,
                time: TenantTime::default(),
                policy: view.tenant.on_lease_loss.possible(),
                uncounted: Place::all()
                    .filter(|place| view.member(*place) != Some(MemberState::Staying))
                    .map(Place::id)
                    .collect(),
            }),
            Kind::Uncount => Command::Uncount(Uncount {
                tenant,
                version,
                group: Place(self.argument).id(),
            }),
            Kind::Count => Command::Count(Count {
                tenant,
                version,
                group: Place(self.argument).id(),
            }),
            Kind::Rejoin => Command::Rejoin(Rejoin { tenant, version }),
            Kind::Erase => Command::Erase(Erase {
                tenant,
                version,
                deleted: record.state == TenantState::Deleting,
                forks: Vec::new(),
                recorded: (record.state != TenantState::Deleting).then_some(epoch),
            }),
        })
    }
}

impl Ownership {
    /// Adds the entries that a group's leader proposes now.
    pub(super) fn proposals(&self, state: &State, place: Place, out: &mut Vec<Proposal>) {
        let group = state.group(place);
        let view = state.view(place);
        let mut propose = |kind, argument| {
            out.push(Proposal {
                kind,
                version: group.view,
                argument,
            });
        };
        let record = &group.record;
        if let Some(plan) = view.moving() {
            let is_target = plan.to == place.id() && !view.is_aborting();
            let follows_home = matches!(record.role, Role::Follower { home } if home == view.tenant.home);
            if self.bounds.heirs && is_target && follows_home {
                propose(Kind::Heir, 0);
            }
            if view.home() == place && record.role == Role::Owner && record.epoch == view.tenant.epoch {
                let is_refused = plan.operation <= record.refused_up_to && !self.is(Mutant::RefusalForgotten);
                let is_ready = !self.bounds.heirs || group.ready == Some(plan.operation);
                let may = self.serves(state, place) || self.is(Mutant::RefusalForgotten);
                if !view.is_aborting() && is_ready && !is_refused && may {
                    propose(Kind::Relinquish, 0);
                }
                if view.is_aborting() && plan.operation > record.refused_up_to {
                    propose(Kind::Refuse, 0);
                }
            }
        }
        if let Role::Heir { operation, .. } = record.role {
            let is_known = operation <= view.last_operation() || self.is(Mutant::HeirCancelledByOlderView);
            if is_known && view.operation() != Some(operation) && !self.is(Mutant::HeirStays) {
                propose(Kind::CancelHeir, operation.0 as u8);
            }
        }
        let is_consulted = view.is_consulted(place);
        // A group that must erase follows first, so that what was cut of it is in a fork, which has to be named.
        let follows_first = record.role != Role::Erased && !self.is(Mutant::ErasesBeforeFollowing);
        if let Some((_, epoch)) = view.promoting()
            && is_consulted
            && record.promised < epoch
            && (!view.is_only_fenced() || may_own(record.role))
        {
            propose(Kind::Freeze, 0);
        }
        if (is_consulted || follows_first) && view.home() != place && self.follows(record, view) {
            propose(Kind::Follow, 0);
        }
        if view.home() == place && self.activates(record, view) {
            propose(Kind::Activate, 0);
        }
        self.propose_membership(state, place, &mut propose);
    }

    fn follows(&self, record: &TenantRecord, view: &Version) -> bool {
        let is_frozen = matches!(record.role, Role::Frozen { .. });
        if is_frozen && self.is(Mutant::FrozenForever) {
            return false;
        }
        if matches!(record.role, Role::Heir { .. }) && self.is(Mutant::HeirStays) {
            return false;
        }
        let reaches = view.tenant.epoch >= record.promised || self.is(Mutant::FollowUnguarded);
        view.tenant.epoch > record.epoch && reaches
            || self.is(Mutant::FollowsLowerEpoch) && view.tenant.epoch < record.epoch
    }

    fn activates(&self, record: &TenantRecord, view: &Version) -> bool {
        let Role::Frozen { epoch, .. } = record.role else {
            return false;
        };
        let is_this = epoch == view.tenant.epoch || self.is(Mutant::ActivatesOther);
        is_this && view.tenant.epoch > record.epoch
    }

    /// Proposes what follows from the replica set.
    fn propose_membership(&self, state: &State, place: Place, propose: &mut impl FnMut(Kind, u8)) {
        let (group, view) = (state.group(place), state.view(place));
        let record = &group.record;
        if !self.bounds.changes_members() {
            return;
        }
        let owns = record.role == Role::Owner && record.epoch == view.tenant.epoch;
        for member in place.others().filter(|_| owns) {
            let is_uncounted = record.uncounted.contains(&member.id());
            match view.member(member) {
                // Told again as of a newer view: the directory takes no report that is older than its record.
                Some(MemberState::Leaving) if !is_uncounted || record.view_version < view.tenant.version => {
                    propose(Kind::Uncount, member.0);
                }
                Some(MemberState::Staying) if is_uncounted => propose(Kind::Count, member.0),
                Some(_) | None => {}
            }
        }
        let is_deleted = view.tenant.state == TenantState::Deleting;
        let holds = record.role != Role::Erased && (is_deleted || record.role != Role::Owner);
        let is_out = match view.member(place) {
            None | Some(MemberState::Erasing) => true,
            Some(MemberState::Leaving) => self.is(Mutant::ErasesWhileLeaving),
            Some(MemberState::Staying | MemberState::Returning) => false,
        };
        let has_followed = record.epoch == view.tenant.epoch || self.is(Mutant::ErasesBeforeFollowing);
        if is_out && holds && (has_followed || is_deleted) {
            propose(Kind::Erase, 0);
        }
        let is_returning = view.member(place) == Some(MemberState::Returning);
        if is_returning && record.view_version < view.tenant.version {
            propose(Kind::Rejoin, 0);
        }
    }
}

/// Tells whether a group freezes while leases may run: its `Freeze` is its fence.
fn may_own(role: Role) -> bool {
    matches!(role, Role::Owner | Role::Relinquished { .. })
}
