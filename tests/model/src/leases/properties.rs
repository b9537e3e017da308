//! Properties of the lease model.

use stead_state::{
    serving::{self, BootTime, Lease, ServingState},
    shard::record::{Role, TenantRecord},
};

use super::{
    Leases,
    mutant::Mutant,
    state::{Pair, State, Voter, VoterId},
};

impl Leases {
    /// L1.
    pub(super) fn fence_holds(&self, state: &State) -> bool {
        let serving = state
            .groups
            .iter()
            .zip(0..)
            .filter(|(_, place)| self.serves(state, *place));
        serving
            .into_iter()
            .all(|(group, _)| group.owns.is_some_and(|epoch| epoch >= state.over))
    }

    /// M1.
    pub(super) fn one_serves(&self, state: &State) -> bool {
        (0..state.groups.len() as u8)
            .filter(|place| self.serves(state, *place))
            .count()
            <= 1
    }

    /// Tells whether a group may answer as the home: its leader has a lease that counts.
    fn serves(&self, state: &State, place: u8) -> bool {
        let group = &state.groups[usize::from(place)];
        let id = VoterId {
            group: place,
            voter: group.leader,
        };
        let (Some(epoch), voter) = (group.owns, state.voter(id)) else {
            return false;
        };
        let mut record = TenantRecord::unknown();
        record.role = Role::Owner;
        record.epoch = epoch;
        let leases = voter.lease.iter().chain(&voter.pending);
        leases
            .into_iter()
            .any(|pair| serving::check(&record, &self.standing(state, voter, pair)).is_ok())
    }

    fn standing(&self, state: &State, voter: &Voter, pair: &Pair) -> ServingState {
        let mut version = state.at(pair.version).number;
        let view = state.at(voter.view);
        let mut reached = view.number;
        let mut fence = view.tenant.fence();
        if self.bounds.counts_early {
            reached = reached.max(version);
            fence = fence.max(pair.fence);
        }
        if self.is(Mutant::CountsBeforeView) {
            reached = reached.max(version);
        }
        if self.is(Mutant::IgnoresIncarnation) {
            version.incarnation = reached.incarnation;
        }
        ServingState {
            leader_confirmed: true,
            lease: Lease::Until {
                expiry: BootTime(u64::from(pair.left)),
                version,
            },
            view_version: reached,
            now: BootTime(0),
            fence_epoch: fence,
        }
    }
}
